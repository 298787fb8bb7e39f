"""Compressed archives of an artifact."""

import lzma
import random
import sys
import zlib

import pytest
from helpers import corpus
from helpers.corpus import END, PAYLOAD, Artifact, member
from helpers.verifying import MIB, rejection, verify
from helpers.zstd import Zstd, zst

from mender_oneshot.artifact import decompress


def gzipped(data: bytes) -> bytes:
    return corpus.compressed(data, ".gz")


@pytest.mark.parametrize(
    ("suffix", "stored", "why"),
    [
        (".gz", gzipped(PAYLOAD) + b"\0", "has trailing data"),
        (".gz", gzipped(PAYLOAD) + gzipped(b""), "has trailing data"),
        (".gz", gzipped(PAYLOAD) + bytes(2 * MIB), "has trailing data"),
        (".gz", gzipped(PAYLOAD)[:-1], "is truncated"),
        (".gz", gzipped(PAYLOAD)[:-8], "is truncated"),
        (".gz", gzipped(PAYLOAD)[:-8] + bytes(8), "cannot be decompressed"),
        (".gz", gzipped(PAYLOAD[:-1]), "is truncated"),
        (".gz", zlib.compress(PAYLOAD), "cannot be decompressed"),
        (".gz", PAYLOAD, "cannot be decompressed"),
        (".xz", lzma.compress(PAYLOAD) + b"\0", "has trailing data"),
        (".xz", lzma.compress(PAYLOAD) + bytes(4), "has trailing data"),
        (".xz", lzma.compress(PAYLOAD) * 2, "has trailing data"),
        (".xz", lzma.compress(PAYLOAD)[:-1], "is truncated"),
        (".xz", lzma.compress(PAYLOAD, format=lzma.FORMAT_ALONE), "cannot be decompressed"),
        (".xz", gzipped(PAYLOAD), "cannot be decompressed"),
        (
            ".xz",
            corpus.xz_with_dictionary(PAYLOAD, 30),
            "cannot be decompressed (Memory usage limit exceeded)",
        ),
        (
            ".xz",
            corpus.xz_with_dictionary(PAYLOAD, 40),
            "cannot be decompressed (Memory usage limit exceeded)",
        ),
    ],
)
def test_a_corrupt_truncated_or_extended_stream_is_rejected(suffix: str, stored: bytes, why: str) -> None:
    assert f"data/0000.tar{suffix} {why}" in rejection(Artifact(suffix=suffix, stored_payload=stored).bytes())
    rejection(Artifact(suffix=suffix, stored_header=stored).bytes())


def test_the_dictionary_of_mender_artifacts_xz_files_is_not_too_large() -> None:
    verify(Artifact(suffix=".xz", stored_payload=corpus.xz_with_dictionary(PAYLOAD, 28)).bytes())


def test_header_and_payload_may_be_compressed_differently() -> None:
    parts = Artifact().parts()
    parts["data/0000.tar.gz"] = gzipped(parts.pop("data/0000.tar"))
    verify(b"".join(member(*part) for part in parts.items()) + END)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, MIB - 1, MIB, 3 * MIB + 1])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_contents_of_all_sizes_are_accepted(suffix: str, size: int) -> None:
    chance = random.Random(size)
    for content in (bytes(size), chance.randbytes(size)):
        verify(Artifact(suffix=suffix, files={"app": content, "b": b"b"}).bytes())


def test_a_zstd_payload_is_accepted_and_a_corrupt_one_is_rejected(zstd: Zstd) -> None:
    verify(zst(zstd))
    assert "has trailing data" in rejection(zst(zstd, lambda stored: stored + b"\0"))
    assert "has trailing data" in rejection(zst(zstd, lambda stored: stored * 2))
    assert "has trailing data" in rejection(zst(zstd, lambda stored: stored + bytes(MIB)))
    assert "is truncated" in rejection(zst(zstd, lambda stored: stored[:-1]))
    assert "cannot be decompressed" in rejection(zst(zstd, lambda stored: bytes(len(stored))))
    # A frame header that asks for a window of 64 MiB: no single segment, no checksum.
    asks = b"\x28\xb5\x2f\xfd\x00" + bytes([16 << 3]) + b"\x01\0\0"
    assert "cannot be decompressed" in rejection(zst(zstd, lambda _: asks))


def test_without_its_library_a_compression_is_rejected_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "zstandard", "lzma"):
        monkeypatch.setitem(sys.modules, name, None)
    parts = Artifact().parts()
    parts["data/0000.tar.zst"] = parts.pop("data/0000.tar")
    made = b"".join(member(*part) for part in parts.items()) + END
    assert "data/0000.tar.zst needs Python 3.14 or the zstandard package" in rejection(made)
    assert "header.tar.xz needs Python's lzma module" in rejection(Artifact(suffix=".xz").bytes())


def test_an_artifact_that_needs_more_memory_than_the_device_has_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Greedy:
        def decompress(self, _data: bytes, _length: int, /) -> bytes:
            raise MemoryError

    monkeypatch.setattr(decompress, "_decompressor", lambda _suffix, _name: (Greedy(), zlib.error))
    assert "header.tar.xz needs more memory" in rejection(Artifact(suffix=".xz").bytes())
