"""Decompress gzip, xz and zstd streams piece by piece in bounded memory."""

import importlib
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from ..errors import ArtifactRejected
from ..text import shown
from .refusal import corrupt
from .tar import PIECE

SUFFIXES = ("", ".gz", ".xz", ".zst")

# mender-artifact compresses with xz -9, whose dictionary of 64 MiB needs 65 MiB to decompress. Only the pages
# that are used are allocated: an archive below 64 MiB takes no more than its own size.
XZ_MEMORY_MAX = 66 * 1024 * 1024
# 32 MiB, the window of mender-artifact's highest level (zstd_best).
ZSTD_WINDOW_LOG_MAX = 25


class _Decompressor(Protocol):
    """The interface of `lzma` and `compression.zstd`: bounded output per call, the rest on the next calls."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    # Deflate, without optional fields or with the name of the file only. Programs differ in how they skip the
    # other fields, and mender-artifact writes none of them.
    STARTS = (b"\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x08")

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._start = b""
        self.needs_input = True

    eof = property(lambda self: self._stream.eof)
    unused_data = property(lambda self: self._stream.unused_data)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        self._start += data[: 4 - len(self._start)]
        if not any(start.startswith(self._start) for start in self.STARTS):
            raise zlib.error("an unusual gzip header")
        part = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        # zlib may have more output without more input, but only after it has returned all that was allowed.
        self.needs_input = len(part) < max_length
        return part


class _Zstandard:
    """The `zstandard` package, whose output has no bound: 4 bytes may become 128 KiB, so it gets few."""

    INPUT_MAX = 256

    def __init__(self, package: Any) -> None:
        self._stream = package.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG_MAX).decompressobj()
        self._data = b""
        self._at = 0

    eof = property(lambda self: self._stream.eof)
    needs_input = property(lambda self: self._at >= len(self._data))
    unused_data = property(lambda self: self._stream.unused_data + self._data[self._at :])

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if data:
            self._data, self._at = data, 0
        parts = []
        while max_length > 0 and not self.needs_input and not self.eof:
            parts.append(self._stream.decompress(self._data[self._at : self._at + self.INPUT_MAX]))
            self._at += self.INPUT_MAX
            max_length -= len(parts[-1])
        return b"".join(parts)


def _decompressor(suffix: str, name: str) -> tuple[_Decompressor, type[Exception]]:
    """Return the decompressor for a suffix, and the exception that it raises.

    Imports its library only when needed, because most artifacts use gzip.
    """
    if suffix == ".gz":
        return _Gzip(), zlib.error
    if suffix == ".xz":
        lzma = _imported("lzma")
        if lzma:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_MAX), lzma.LZMAError
        raise _unsupported(name, "Python's lzma module")
    if zstd := _imported("compression.zstd"):  # Python 3.14
        options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX}
        return zstd.ZstdDecompressor(options=options), zstd.ZstdError
    if zstandard := _imported("zstandard"):
        return _Zstandard(zstandard), zstandard.ZstdError
    raise _unsupported(name, "Python 3.14 or the zstandard package")


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _unsupported(name: str, needed: str) -> ArtifactRejected:
    return ArtifactRejected(
        f"The artifact's {name} needs {needed} to be decompressed; "
        "install that, or build the artifact with --compression gzip."
    )


def uncompressed(stored: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the content of an archive, compressed or not according to its name.

    Raises `ArtifactRejected` unless it is one complete stream with nothing after it, or if its library is
    missing or memory runs out.
    """
    suffix = name.rpartition(".tar")[2]
    if not suffix:
        yield from stored
        return
    stream, error = _decompressor(suffix, name)
    for piece in stored:
        waiting = piece
        while True:
            try:
                part = stream.decompress(waiting, PIECE)
            except MemoryError:
                raise ArtifactRejected(
                    f"The artifact's {name} needs more memory to be decompressed than this device has; "
                    "build the artifact with --compression gzip."
                ) from None
            except error as reason:
                raise corrupt(f"{name} cannot be decompressed ({shown(str(reason))})") from None
            waiting = b""
            if part:
                yield part
            if stream.eof:
                if stream.unused_data or next(stored, b""):
                    raise corrupt(f"{name} has trailing data")
                return
            if stream.needs_input:
                break
    raise corrupt(f"{name} is truncated")
