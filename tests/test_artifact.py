"""The verifier on real artifacts, on bent ones, and on bytes that were never an artifact."""

import hashlib
import io
import itertools
import json
import lzma
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from helpers import corpus
from helpers.corpus import END, GNU, HEADER_INFO, Artifact, header, long_name, member, pax
from helpers.device import REPO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mender_oneshot.artifact import decompress
from mender_oneshot.artifact import verify as artifact
from mender_oneshot.artifact.verify import PayloadFile, Verified
from mender_oneshot.errors import ArtifactRejected

MIB = 1024 * 1024


def verify(data: bytes, **options: Any) -> Verified:
    return artifact.verify(io.BytesIO(data), **{"device_type": "board", **options})


def refusal(data: bytes, **options: Any) -> str:
    """The sentence an artifact is refused with; one line that a person can read."""
    with pytest.raises(ArtifactRejected) as caught:
        verify(data, **options)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith("The artifact")
    assert text.endswith(".")
    assert len(text) < 1000
    assert caught.value.exit_code == 65
    return text


def refused_or_same(data: bytes, whole: Verified) -> bool:
    """Whether it was refused; what was not must say of itself just what the whole artifact says."""
    try:
        assert verify(data) == whole
    except ArtifactRejected:
        return True
    return False


def with_files(payload_tar: bytes, **files: bytes) -> bytes:
    return Artifact(files=files, payload_tar=payload_tar).bytes()


# Real artifacts


class Workshop:
    """A directory where mender-artifact works."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers = itertools.count()
        (path / "app").write_bytes(random.Random(1).randbytes(100_000) + bytes(100_000))
        (path / "app.conf").write_bytes(b"colour=blue\n")
        (path / "empty").write_bytes(b"")
        (path / ("n" * 150)).write_bytes(b"a name of 150 characters")
        (path / "meta.json").write_text('{"a":[1,2,{"b":null}]}')
        (path / "ArtifactInstall_Enter_00").write_text("#!/bin/sh\n")
        (path / "ArtifactCommit_Leave_10").write_text("#!/bin/sh\n:\n")
        private: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
            "rsa": rsa.generate_private_key(65537, 3072),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.keys = {name: key.public_key() for name, key in private.items()}
        for name, key in private.items():
            # 3.9.0 reads no PKCS#8.
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
            (path / f"{name}.pem").write_bytes(pem)

    def write(self, words: str) -> bytes:
        made = self.path / f"{next(self.numbers)}.mender"
        program = shutil.which("mender-artifact")
        assert program
        run = subprocess.run(
            [program, "write", *words.split(), "-o", str(made)], cwd=self.path, capture_output=True, text=True
        )
        assert made.exists(), run.stderr + run.stdout
        return made.read_bytes()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if not shutil.which("mender-artifact"):
        pytest.skip("mender-artifact is not installed")
    return Workshop(tmp_path_factory.mktemp("workshop"))


MODULE = "module-image -n release-1 -t board -T app"
ROOTFS = "rootfs-image -n release-1 -t board -f app"
BOOTSTRAP = "bootstrap-artifact -n release-1 -t board"


@pytest.mark.real
@pytest.mark.parametrize("compression", ["none", "gzip", "lzma"])
@pytest.mark.parametrize(
    "words",
    [
        MODULE,
        f"{MODULE} -f app",
        f"{MODULE} -f empty",
        f"{MODULE} -m meta.json",
        f"{MODULE} -f app -f app.conf -s ArtifactInstall_Enter_00 -s ArtifactCommit_Leave_10 -m meta.json",
        f"{MODULE} -f {'n' * 150}",
        f"{MODULE} -f app -k rsa.pem",
        f"{MODULE} -f app -k ec.pem",
        ROOTFS,
        f"{ROOTFS} -s ArtifactInstall_Enter_00 -k rsa.pem",
        BOOTSTRAP,
        f"{BOOTSTRAP} -t another-board -k ec.pem",
    ],
)
def test_what_mender_artifact_writes_is_accepted(workshop: Workshop, words: str, compression: str) -> None:
    verified = verify(workshop.write(f"{words} --compression {compression}"))
    assert verified.name == "release-1"
    assert "board" in verified.device_types
    kinds = {"module": "app", "rootfs": "rootfs-image", "bootstrap": None}
    assert verified.payload_type == kinds[words.partition("-")[0]]
    assert not verified.signed


@pytest.mark.real
def test_all_it_says_of_itself_is_read(workshop: Workshop) -> None:
    written = workshop.write(
        f"{MODULE} -f app -t second -g stable -N old-1 -N old-2 -G g1 -G g2 -p colour:blue -d shape:round "
        "--clears-provides colour.*"
    )
    provides = {"artifact_name": "old-2", "artifact_group": "g1", "shape": "round"}
    content = (workshop.path / "app").read_bytes()
    assert verify(written, provides=provides) == Verified(
        name="release-1",
        group="stable",
        device_types=("board", "second"),
        payload_type="app",
        provides={"colour": "blue", "rootfs-image.app.version": "release-1"},
        clears_provides=("colour.*", "rootfs-image.app.*"),
        depends={"artifact_name": ("old-1", "old-2"), "artifact_group": ("g1", "g2"), "shape": ("round",)},
        signed=False,
        files=(PayloadFile("app", len(content), corpus.sha256(content)),),
    )
    assert "needs shape to be round, but this device has none" in refusal(
        written, provides=provides | {"shape": "none"}
    )


@pytest.mark.real
def test_the_rootfs_image_has_its_checksum_among_the_provides(workshop: Workshop) -> None:
    sum_ = hashlib.sha256((workshop.path / "app").read_bytes()).hexdigest()
    assert verify(workshop.write(ROOTFS)).provides["rootfs-image.checksum"] == sum_


@pytest.mark.real
@pytest.mark.parametrize(("key", "length"), [("rsa", 384), ("ec", 64)])
def test_the_check_gets_the_manifest_as_it_is_and_the_signature_decoded(
    workshop: Workshop, key: str, length: int
) -> None:
    public = workshop.keys[key]
    seen: list[bytes] = []

    def check(manifest: bytes, signature: bytes) -> bool:
        seen.append(signature)
        try:
            if isinstance(public, rsa.RSAPublicKey):
                public.verify(signature, manifest, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return len(signature) == length

    assert verify(workshop.write(f"{MODULE} -f app -k {key}.pem"), check_signature=check).signed
    assert len(seen) == 1
    assert "not signed" in refusal(workshop.write(f"{MODULE} -f app"), check_signature=check)


@pytest.mark.real
def test_augmented_artifacts_are_refused_as_unsupported(workshop: Workshop) -> None:
    written = workshop.write(f"{MODULE} -f app.conf --augment-file app --augment-type app")
    assert "manifest-augment), which is not supported" in refusal(written)


@pytest.mark.real
@pytest.mark.parametrize("compression", ["none", "gzip", "lzma"])
def test_a_real_artifact_cut_anywhere_is_refused(workshop: Workshop, compression: str) -> None:
    written = workshop.write(f"{MODULE} -f app.conf -s ArtifactInstall_Enter_00 --compression {compression}")
    cuts = {*range(0, len(written), 512), *random.Random(2).sample(range(len(written)), 300)}
    for cut in sorted(cuts | {len(written) - 1}):
        refusal(written[:cut])


@pytest.mark.real
@pytest.mark.parametrize("compression", ["none", "gzip", "lzma"])
def test_a_real_artifact_with_a_byte_changed_is_refused_or_says_the_same(
    workshop: Workshop, compression: str
) -> None:
    written = workshop.write(f"{MODULE} -f app.conf --compression {compression}")
    whole = verify(written)
    chance = random.Random(3)
    for at in range(len(written)):
        bent = bytearray(written)
        bent[at] ^= chance.randrange(1, 256)
        refused_or_same(bytes(bent), whole)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["gnu", "ustar", "pax", "posix"])
def test_payload_archives_of_gnu_tar_are_read(tmp_path: Path, kind: str) -> None:
    program = shutil.which("tar")
    if not program:
        pytest.skip("tar is not installed")
    files = {"app": b"content", "e" * (90 if kind == "ustar" else 150): b"long", "bjørn": b"not ASCII"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    made = subprocess.run(
        [program, "-c", f"--format={kind}", *files], cwd=tmp_path, capture_output=True, check=True
    )
    verify(Artifact(files=files, payload_tar=made.stdout).bytes())


# Archives as others write them


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_payload_archives_of_pythons_tarfile_are_read(kind: int) -> None:
    long = "directory/" * 9 + "e" * 90 if kind == tarfile.USTAR_FORMAT else "e" * 250
    files = {"app": b"content", long: b"long", "bjørn": b"not ASCII", "empty": b""}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1700000000.5
            tar.addfile(info, io.BytesIO(content))
    verify(Artifact(files=files, payload_tar=archive.getvalue()).bytes())


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_whole_artifact(suffix: str) -> None:
    made = Artifact(suffix=suffix, scripts={"ArtifactInstall_Enter_00": b"#!/bin/sh\n"}, meta_data={"a": 1})
    sum_ = corpus.sha256(b"content of app\n")
    assert verify(made.bytes()) == Verified(
        "release-1", "", ("board",), "app", {}, ("*",), {}, False, (PayloadFile("app", 15, sum_),)
    )


def test_meta_data_may_be_empty() -> None:
    verify(Artifact(meta_data=b"").bytes())


@pytest.mark.parametrize(
    "bent",
    [
        header(b"app", 7, kind=b"\0"),
        header(b"app", 7, magic=GNU),
        header(b"app", 7, size_field=b"7" + bytes(11)),
        header(b"app", 7, size_field=b"00000000007 "),
        header(b"app", 7, owner=b"builder"),
        pax({"size": "7"}) + header(b"app", 7),
        pax({"path": "app"}) + header(b"app", 7),
        pax({"mtime": "1.5", "comment": "as Go and Python write"}) + header(b"app", 7),
    ],
)
def test_headers_that_are_unusual_and_right(bent: bytes) -> None:
    verify(with_files(bent + corpus.padded(b"content") + END, app=b"content"))


def test_a_ustar_name_in_two_parts() -> None:
    payload = member("app", b"content", prefix=b"some/where") + END
    verify(Artifact(files={"some/where/app": b"content"}, payload_tar=payload).bytes())


def test_zeros_may_follow_the_end() -> None:
    payload = member("app", b"content") + bytes(10240)
    verify(Artifact(files={"app": b"content"}, payload_tar=payload, end=bytes(10240)).bytes())
    verify(Artifact(end=bytes(1024 + 7)).bytes())


def test_names_may_be_as_long_as_a_path() -> None:
    name = "/".join(["e" * 255] * 15) + "/" + "e" * 246
    assert len(f"data/0000/{name}") == 4096
    for before, magic in ((pax({"path": name}), corpus.POSIX), (long_name(name.encode()), GNU)):
        payload = before + member(name[:100], b"content", magic=magic) + END
        verify(Artifact(files={name: b"content"}, payload_tar=payload).bytes())
    assert "line 1 of its manifest" in refusal(Artifact(files={name + "e": b""}, payload_tar=END).bytes())


class OneByteAtATime(io.BytesIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        return super().read(1)


def test_the_file_may_answer_in_pieces_of_any_size_and_is_never_asked_to_go_back() -> None:
    class Stream(OneByteAtATime):
        def seek(self, *_: object) -> int:
            raise AssertionError

    for suffix in ("", ".gz", ".xz"):
        made = Artifact(suffix=suffix).bytes()
        assert artifact.verify(Stream(made), device_type="board") == verify(made)


def test_what_goes_wrong_with_the_file_itself_is_passed_on() -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        artifact.verify(Broken(), device_type="board")


# Bent archives


@pytest.mark.parametrize(
    ("bent", "why"),
    [
        (member("app", kind=b"5"), "not a regular file"),
        (member("app", kind=b"2", linkname=b"/etc/passwd"), "not a regular file"),
        (member("app", kind=b"1", linkname=b"version"), "not a regular file"),
        (member("app", kind=b"3"), "not a regular file"),
        (member("app", kind=b"4"), "not a regular file"),
        (member("app", kind=b"6"), "not a regular file"),
        (member("app", kind=b"7"), "not a regular file"),
        (member("app", kind=b"S", magic=GNU), "not a regular file"),
        (member("app", kind=b"K", magic=GNU), "not a regular file"),
        (member("app", kind=b"g"), "not a regular file"),
        (pax({"path": "app"}) + pax({"path": "app"}) + member("app"), "not a regular file"),
        (long_name(b"e" * 101) + long_name(b"e" * 101) + member("e" * 100), "not a regular file"),
        (member("../app"), "unsafe name ../app"),
        (member("a/../../app"), "unsafe name"),
        (member("/app"), "unsafe name /app"),
        (member("./app"), "unsafe name"),
        (member("a//app"), "unsafe name"),
        (member("directory/"), "unsafe name"),
        (member(".."), "unsafe name"),
        (member(""), "unsafe name"),
        (member("app\nforged line"), "unsafe name app?forged line"),
        (member("app\x1b[2J"), "unsafe name"),
        (member("app\u2028"), "unsafe name"),
        (member(b"app\xff"), "name that is not UTF-8"),
        (member(b"app\xed\xa0\x80"), "name that is not UTF-8"),
        (long_name(b"e" * 100 + b"\0hidden") + member("e" * 100, magic=GNU), "unsafe name eee"),
        (pax({"path": "../app"}) + member("../app"), "unsafe name"),
        (pax({"path": ""}) + member(""), "unsafe name"),
        (pax({"path": "e" * 4097}) + member("e" * 100), "unsafe name eee"),
        (pax({"path": "e" * 65536}) + member("app"), "larger than 8192 bytes"),
        (long_name(b"e" * 65536) + member("app"), "larger than 8192 bytes"),
        (pax({"GNU.sparse.major": "1"}) + member("app"), "invalid extended header"),
        (pax({"linkpath": "x"}) + member("app"), "invalid extended header"),
        (pax({"hdrcharset": "BINARY"}) + member("app"), "invalid extended header"),
        (pax(b"11 path=app\n11 path=two\n") + member("app"), "invalid extended header"),
        (pax(b"10 path=app\n") + member("app"), "invalid extended header"),
        (pax(b"99 path=app\n") + member("app"), "invalid extended header"),
        (pax(b"0 path=app\n") + member("app"), "invalid extended header"),
        (pax(b"-1 path=app\n") + member("app"), "invalid extended header"),
        (pax(b"999999999999999999999999 path=app\n") + member("app"), "invalid extended header"),
        (pax("１２ path=app\n".encode()) + member("app"), "invalid extended header"),
        (pax(b"9 pathapp\n") + member("app"), "invalid extended header"),
        (pax(b"path=app\n") + member("app"), "invalid extended header"),
        (pax(b"12 path=\xff\xfe\xfd\n") + member("app"), "not UTF-8"),
        (pax({"size": "-1"}) + member("app"), "invalid extended header"),
        (pax({"size": "1e3"}) + member("app"), "invalid extended header"),
        (pax({"size": "9" * 19}) + member("app"), "invalid extended header"),
        (pax({"size": "9" * 5000}) + member("app"), "invalid extended header"),
        (pax({"size": str(2**63 - 1)}) + header(b"app") + b"\1" * 1024, "is truncated in app"),
        (
            header(b"app", size_field=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, magic=GNU),
            "is truncated in app",
        ),
        (header(b"app", size_field=b"\x80" + b"\xff" * 11), "an invalid size"),
        (header(b"app", size_field=b"\xff" * 12), "an invalid size"),
        (header(b"app", size_field=b"-0000000007\0"), "an invalid size"),
        (header(b"app", size_field=b"0000000000x\0"), "an invalid size"),
        (header(b"app", size_field=b" " * 12), "an invalid size"),
        (header(b"app", size_field=b"7777777 777\0"), "an invalid size"),
        (header(b"app", 100), "data/0000/app does not match its checksum"),
        (member("app", magic=b"\0" * 8), "a header of an unknown format"),
        (member("app", magic=b"ustar\x0001"), "a header of an unknown format"),
        (member("app")[:300] + b"\1" + member("app")[301:], "does not match its checksum"),
        (header(b"app", 7) + b"content" + b"\1" * 505, "data between its members"),
        (pax({"path": "app"}), "does not match its checksum"),
        (member("other"), "data/0000/other is a duplicate or not in the manifest"),
        (member("app") + member("app"), "data/0000.tar has app twice"),
        (member("app", b"changed"), "data/0000/app does not match its checksum in the manifest"),
        (b"", "the manifest lists data/0000/app, which is missing"),
    ],
)
def test_a_payload_archive_that_is_not_as_it_should_be(bent: bytes, why: str) -> None:
    assert why in refusal(with_files(bent + END, app=b""))


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (b"", "is truncated"),
        (bytes(511), "is truncated"),
        (bytes(512), "is truncated"),
        (bytes(1023), "is truncated"),
        (bytes(512) + member("app"), "has data after the first block of its end"),
        (bytes(1024) + b"\1", "has trailing data"),
        (bytes(1024) + member("app"), "has trailing data"),
        (bytes(MIB) + b"\1", "has trailing data"),
    ],
)
def test_an_archive_must_end_once_and_with_zeros(end: bytes, why: str) -> None:
    made = Artifact()
    assert f"data/0000.tar {why}" in refusal(with_files(member("app") + end, app=b""))
    assert f"the file {why}" in refusal(replace(made, end=end).bytes())
    header_tar = b"".join(made.header_members()) + end
    assert "header.tar" in refusal(replace(made, header_tar=header_tar).bytes())


def test_an_artifact_cut_anywhere_is_refused() -> None:
    made = Artifact().bytes()
    for cut in range(0, len(made), 7):
        refusal(made[:cut])


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_each_byte_changed_is_refused_or_harmless(suffix: str) -> None:
    made = Artifact(suffix=suffix).bytes()
    whole = verify(made)
    for at in range(len(made)):
        for change in (0x01, 0x80, 0x20):
            bent = bytearray(made)
            bent[at] ^= change
            refused = refused_or_same(bytes(bent), whole)
            # All is covered by a checksum, but for how those of tar are written, and a gzip header's time.
            assert refused or 148 <= at % 512 < 156 or suffix == ".gz"


def test_each_byte_of_a_header_changed_and_its_checksum_mended_is_refused_or_harmless() -> None:
    parts = Artifact().parts()
    whole = verify(Artifact().bytes())
    harmless = set()
    for name in parts:
        for at in range(512):
            if 148 <= at < 156:
                continue
            for change in (0x01, 0x80, 0x20):
                made = b""
                for other, content in parts.items():
                    block = bytearray(header(other.encode(), len(content)))
                    if other == name:
                        block[at] ^= change
                    made += corpus.checksummed(bytes(block)) + corpus.padded(content)
                if not refused_or_same(made + END, whole):
                    harmless.add(at)
    # The size (its last byte only ends the number), the kind, the format and the prefix are never that.
    assert not harmless & {*range(124, 135), 156, *range(257, 265), 345}


def test_the_order_of_the_parts_is_fixed() -> None:
    members = Artifact(signature=b"c2lnbmF0dXJl").members()
    for order in itertools.permutations(members):
        if list(order) != members:
            refusal(b"".join(order) + END)


def test_each_part_is_needed_and_only_once() -> None:
    parts = Artifact(signature=b"c2lnbmF0dXJl").parts()
    members = [member(name, content) for name, content in parts.items()]
    verify(b"".join(members) + END)
    for number, name in enumerate(parts):
        if name != "manifest.sig":
            refusal(b"".join(members[:number] + members[number + 1 :]) + END)
        refusal(b"".join(members[: number + 1] + members[number:]) + END)
        for other in ("unknown", "manifest-augment", "header-augment.tar", "data/0001.tar", "data/0000"):
            refusal(b"".join([*members[:number], member(other), *members[number:]]) + END)
            renamed = [*members[:number], member(other, parts[name]), *members[number + 1 :]]
            refusal(b"".join(renamed) + END)
    assert "found data/0001.tar after the payload" in refusal(
        b"".join([*members, member("data/0001.tar")]) + END
    )


def test_a_header_augment_is_refused_as_unsupported() -> None:
    members = Artifact().members()
    made = b"".join([*members[:3], member("header-augment.tar.gz"), *members[3:]]) + END
    assert "header-augment.tar.gz), which is not supported" in refusal(made)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(512), bytes(1024), bytes(MIB), b"<html>not found</html>"])
def test_what_is_no_artifact_at_all(data: bytes) -> None:
    refusal(data)


# Version, manifest, signature


@pytest.mark.parametrize(
    "version",
    [
        {"format": "mender", "version": 2},
        {"format": "mender", "version": "3"},
        {"format": "other", "version": 3},
        {"format": "mender"},
        {"format": "mender", "version": 3, "more": 1},
        {"format": ["\n" * 90], "version": {"a": [1]}},
        {},
        [],
        b"",
        b"3",
        b"{",
        b'{"format":"mender","version":3}' + b" " * 1000,
        b'{"format":"mender","version":2,"version":3}',
        b"[" * 1000,
        b'{"version":' + b"[" * 450 + b"]" * 450 + b"}",
        b"\xff\xfe",
    ],
)
def test_a_version_that_is_not_mender_3(version: Any) -> None:
    refusal(Artifact(version=corpus.as_json(version)).bytes())


SUM = "0" * 64


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (f"{SUM}  data/0000/absent\n", "lists data/0000/absent, which is missing"),
        (f"{SUM}  header-augment.tar\n", "lists header-augment.tar, which is missing"),
        (f"{SUM}  version\n", "lists version twice"),
        (f"{SUM}  data/0000/app\n", "lists data/0000/app twice"),
        (f"{'A' * 64}  data/0000/x\n", "line 4 of its manifest"),
        (f"{'0' * 63}  data/0000/x\n", "line 4"),
        (f"{'0' * 65}  data/0000/x\n", "line 4"),
        (f"{SUM} data/0000/x\n", "line 4"),
        (f"{SUM}\tdata/0000/x\n", "line 4"),
        (f"{SUM} *data/0000/x\n", "line 4"),
        (f"{SUM}  data/0000/x\r\n", "line 4"),
        (f"{SUM}  \n", "line 4"),
        (f"{SUM}\n", "line 4"),
        ("\n", "line 4"),
        (f"{SUM}  /etc/passwd\n", "line 4"),
        (f"{SUM}  data/0000/../x\n", "line 4"),
        (f"{SUM}  data/0000/\n", "line 4"),
        (f"{SUM}  data/0000/a\0b\n", "line 4"),
        (f"{SUM}  data/0000/a\x1bb\n", "line 4"),
        (f"{SUM}  data/0000/{'e' * 5000}\n", "line 4"),
        (f"{SUM}  data/0000/x\n" * 20000, "manifest in the file is larger than 1048576 bytes"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_a_manifest_with_a_line_too_many(more: str | bytes, why: str) -> None:
    manifest = Artifact().parts()["manifest"] + (more.encode() if isinstance(more, str) else more)
    assert why in refusal(Artifact(manifest=manifest).bytes())


def test_a_manifest_with_a_line_too_few_or_wrong() -> None:
    manifest = Artifact().parts()["manifest"]
    lines = manifest.splitlines(keepends=True)
    assert len(lines) == 3
    for number, name in enumerate(("data/0000/app", "header.tar", "version")):
        fewer = b"".join(lines[:number] + lines[number + 1 :])
        assert f"{name} is a duplicate or not in the manifest" in refusal(Artifact(manifest=fewer).bytes())
        wrong = manifest.replace(lines[number][:64], SUM.encode())
        assert f"{name} does not match its checksum" in refusal(Artifact(manifest=wrong).bytes())
    refusal(Artifact(manifest=b"").bytes())


def test_a_manifest_may_do_without_its_last_line_break() -> None:
    verify(Artifact(manifest=Artifact().parts()["manifest"].removesuffix(b"\n")).bytes())


def test_a_signature_is_needed_and_must_fit_when_keys_are_configured() -> None:
    signed = Artifact(signature=b"c2lnbmF0dXJl")
    asked: list[tuple[bytes, bytes]] = []

    def check(manifest: bytes, signature: bytes) -> bool:
        asked.append((manifest, signature))
        return signature == b"signature"

    assert verify(signed.bytes(), check_signature=check).signed
    assert asked == [(signed.parts()["manifest"], b"signature")]
    assert not verify(signed.bytes()).signed
    assert "not signed" in refusal(Artifact().bytes(), check_signature=check)
    assert "none of the keys" in refusal(Artifact(signature=b"b3RoZXI=").bytes(), check_signature=check)


@pytest.mark.parametrize(
    "signature",
    [b"c2lnbmF0dXJl\n", b"c2ln bmF0dXJl", b"c2lnbmF0dXJ", b"====", b"\xff\xff", b"c2ln=mF0", b"A"],
)
def test_a_signature_must_be_strict_base64(signature: bytes) -> None:
    def never(_manifest: bytes, _signature: bytes) -> bool:
        raise AssertionError

    made = Artifact(signature=signature).bytes()
    assert "not base64" in refusal(made, check_signature=never)
    assert not verify(made).signed


def test_a_signature_has_a_limit() -> None:
    assert "manifest.sig in the file is larger than 8192 bytes" in refusal(
        Artifact(signature=b"A" * 8196).bytes()
    )


def test_nothing_of_an_artifact_is_believed_before_its_signature() -> None:
    made = Artifact(signature=b"b3RoZXI=", manifest=b"nonsense", header_tar=b"nonsense").bytes()
    assert "none of the keys" in refusal(made, check_signature=lambda _manifest, _signature: False)


# Header


def info(**bent: Any) -> dict[str, Any]:
    return {**HEADER_INFO, **bent}


DEVICES = {"device_type": ["board"]}
NAMED = {"artifact_name": "release-1"}


@pytest.mark.parametrize(
    "header_info",
    [
        {},
        [],
        b"",
        b"null",
        b"{",
        b'{"a":1}{"b":2}',
        b"\xff",
        b"\xef\xbb\xbf" + corpus.as_json(HEADER_INFO),
        corpus.as_json(HEADER_INFO)[:-1] + b',"payloads":[{"type":"app"}]}',
        info(payloads=[]),
        info(payloads=[{"type": "app"}, {"type": "app"}]),
        info(payloads=[None]),
        info(payloads={"type": "app"}),
        info(payloads=None),
        info(payloads=[{"type": "other"}]),
        info(payloads=[{"type": ""}]),
        info(payloads=[{"type": 1}]),
        info(payloads=[{"type": ["app"]}]),
        info(payloads=[{}]),
        info(artifact_provides=None),
        info(artifact_provides={}),
        info(artifact_provides=[]),
        info(artifact_provides={"artifact_name": ""}),
        info(artifact_provides={"artifact_name": 1}),
        info(artifact_provides={"artifact_name": None}),
        info(artifact_provides={"artifact_name": "two\nlines"}),
        info(artifact_provides={"artifact_name": "nul\0"}),
        info(artifact_provides={"artifact_name": "lone \ud800 surrogate"}),
        info(artifact_provides={**NAMED, "artifact_group": 1}),
        info(artifact_provides={**NAMED, "artifact_group": []}),
        info(artifact_provides={**NAMED, "artifact_group": "two\nlines"}),
        info(artifact_depends=None),
        info(artifact_depends={}),
        info(artifact_depends=[]),
        info(artifact_depends={"device_type": []}),
        info(artifact_depends={"device_type": [1]}),
        info(artifact_depends={"device_type": [["board"]]}),
        info(artifact_depends={"device_type": ["board", ""]}),
        info(artifact_depends={"device_type": ["board", "a\nb"]}),
        info(artifact_depends={"device_type": {"board": 1}}),
        info(artifact_depends={**DEVICES, "artifact_name": 7}),
        info(artifact_depends={**DEVICES, "artifact_name": []}),
        info(artifact_depends={**DEVICES, "artifact_name": [None]}),
        info(artifact_depends={**DEVICES, "": ["x"]}),
    ],
)
def test_a_header_info_that_makes_no_sense(header_info: Any) -> None:
    refusal(Artifact(header_info=header_info).bytes())


@pytest.mark.parametrize(
    "type_info",
    [
        [],
        b"",
        b"null",
        {},
        {"type": "other"},
        {"type": None},
        {"type": ""},
        {"type": ["app"]},
        {"type": "app", "artifact_provides": []},
        {"type": "app", "artifact_provides": {"a": 1}},
        {"type": "app", "artifact_provides": {"a": ["b"]}},
        {"type": "app", "artifact_provides": {"a": "two\nlines"}},
        {"type": "app", "artifact_provides": {"a\n": "b"}},
        {"type": "app", "artifact_provides": {"": "b"}},
        {"type": "app", "artifact_provides": {"\ud800": "b"}},
        {"type": "app", "artifact_depends": {"a": 1}},
        {"type": "app", "artifact_depends": {"a": {"b": "c"}}},
        {"type": "app", "artifact_depends": [1]},
        {"type": "app", "clears_artifact_provides": {"a": "b"}},
        {"type": "app", "clears_artifact_provides": [1]},
        {"type": "app", "clears_artifact_provides": "a"},
        b'{"type":"app","type":"app"}',
        b'{"type":"app","a":NaN}',
        b'{"type":"app","a":-Infinity}',
        b'{"type":"app","a":' + b"9" * 100_000 + b"}",
        b'{"type":"app","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 40_000,
        b'{"type":"app","a":"' + b"x" * 300_000 + b'"}',
    ],
)
def test_a_type_info_that_makes_no_sense(type_info: Any) -> None:
    refusal(Artifact(type_info=type_info).bytes())


@pytest.mark.parametrize(
    "meta_data", [b"[]", b"null", b" ", b"{", b'{"a":1,"a":2}', b"[" * 100_000, b"x" * 300_000]
)
def test_a_meta_data_that_makes_no_sense(meta_data: bytes) -> None:
    refusal(Artifact(meta_data=meta_data).bytes())


def test_unknown_keys_are_let_be() -> None:
    verify(
        Artifact(header_info=info(later={"a": [1.5, True]}), type_info={"type": "app", "later": 1}).bytes()
    )


def test_only_a_rootfs_image_may_leave_out_its_type_the_second_time() -> None:
    rootfs = info(payloads=[{"type": "rootfs-image"}])
    for type_info in ({"type": ""}, {"type": "rootfs-image"}):
        assert (
            verify(Artifact(header_info=rootfs, type_info=type_info).bytes()).payload_type == "rootfs-image"
        )
    refusal(Artifact(header_info=rootfs, type_info={"type": "app"}).bytes())


def test_the_members_of_the_header_have_one_order() -> None:
    made = Artifact(scripts={"ArtifactInstall_Enter_00": b"#!/bin/sh\n"}, meta_data={})
    members = made.header_members()
    for order in itertools.permutations(members):
        if list(order) != members:
            refusal(replace(made, header_tar=b"".join(order) + END).bytes())
    for number in range(len(members)):
        twice = members[: number + 1] + members[number:]
        refusal(replace(made, header_tar=b"".join(twice) + END).bytes())
        for other in ("headers/0001/type-info", "headers/0000/files", "scripts/a/b", "scripts", "other"):
            more = [*members[:number], member(other, b"{}"), *members[number:]]
            refusal(replace(made, header_tar=b"".join(more) + END).bytes())
    # Scripts and meta-data only may be absent.
    verify(replace(made, header_tar=members[0] + members[2] + END).bytes())
    refusal(replace(made, header_tar=b"".join(members[1:]) + END).bytes())
    refusal(replace(made, header_tar=members[0] + members[1] + members[3] + END).bytes())
    refusal(replace(made, header_tar=END).bytes())


def test_there_is_a_limit_to_scripts() -> None:
    verify(Artifact(scripts={f"ArtifactInstall_Enter_{number}": b"" for number in range(1000)}).bytes())
    more = {f"ArtifactInstall_Enter_{number}": b"" for number in range(1001)}
    assert "more than 1000 scripts" in refusal(Artifact(scripts=more).bytes())


def test_there_is_a_limit_to_what_is_cleared() -> None:
    verify(Artifact(type_info={"type": "app", "clears_artifact_provides": ["a"] * 1000}).bytes())
    more = Artifact(type_info={"type": "app", "clears_artifact_provides": ["a"] * 1001}).bytes()
    assert "has more than 1000 patterns" in refusal(more)


def test_there_is_a_limit_to_the_whole_header() -> None:
    made = Artifact(scripts={"ArtifactInstall_Enter_00": bytes(16 * MIB)})
    for suffix in ("", ".gz", ".xz"):
        assert "is larger than 16777216 bytes" in refusal(replace(made, suffix=suffix).bytes())


# No payload


def empty(**bent: Any) -> Artifact:
    return Artifact(header_info=info(payloads=[{"type": None}]), type_info={"type": None}, files={}, **bent)


def test_an_artifact_of_no_payload_may_have_an_empty_archive_or_none() -> None:
    assert verify(empty().bytes()).payload_type is None
    assert verify(b"".join(empty().members()[:-1]) + END).payload_type is None
    refusal(b"".join(replace(Artifact(), files={}).members()[:-1]) + END)


def test_an_artifact_of_no_payload_with_a_file_is_refused() -> None:
    assert "no payload type, but app" in refusal(replace(empty(), files={"app": b""}).bytes())


# For this device?


def test_the_device_type_must_be_one_of_the_artifacts() -> None:
    many = info(artifact_depends={"device_type": [f"board-{number}" for number in range(1000)]})
    assert verify(Artifact(header_info=many).bytes(), device_type="board-999")
    assert refusal(Artifact(header_info=many).bytes(), device_type="board") == (
        "The artifact release-1 is for device type board-0 or board-1 or board-2 or board-3 or board-4 "
        "or 995 others, but this device is board; deploy one that was built for it."
    )
    for other in ("", "Board", "board ", "boar"):
        assert "is for device type board, but this device is" in refusal(
            Artifact().bytes(), device_type=other
        )


@pytest.mark.parametrize(
    ("in_header", "in_type_info", "provides", "missing"),
    [
        ({}, {}, {}, None),
        ({"artifact_name": ["a", "b"]}, {}, {"artifact_name": "b"}, None),
        (
            {"artifact_name": ["a", "b"]},
            {},
            {"artifact_name": "c"},
            "artifact_name to be a or b, but this device has c",
        ),
        ({"artifact_name": ["a"]}, {}, {}, "artifact_name to be a, but this device has none"),
        ({"artifact_group": ["g"]}, {}, {"artifact_group": "h"}, "artifact_group"),
        ({}, {"shape": "round"}, {"shape": "round"}, None),
        ({}, {"shape": ["round", "flat"]}, {"shape": "flat"}, None),
        ({}, {"shape": ["round", "flat"]}, {"shape": "high"}, "shape"),
        ({}, {"shape": "round"}, {"Shape": "round"}, "shape"),
        ({}, {"a": "1", "b": "2"}, {"a": "1"}, "b to be 2"),
        ({"artifact_name": ["a", "b"]}, {"artifact_name": ["b", "c"]}, {"artifact_name": "b"}, None),
        (
            {"artifact_name": ["a", "b"]},
            {"artifact_name": ["b", "c"]},
            {"artifact_name": "a"},
            "to be b, but",
        ),
        ({}, {"device_type": "board"}, {}, None),
        ({}, {"device_type": "other"}, {}, "is for device type none"),
    ],
)
def test_what_it_depends_on_must_be_installed(
    in_header: dict[str, Any], in_type_info: dict[str, Any], provides: dict[str, str], missing: str | None
) -> None:
    made = Artifact(
        header_info=info(artifact_depends={**DEVICES, **in_header}),
        type_info={"type": "app", "artifact_depends": in_type_info},
    ).bytes()
    if missing is None:
        verify(made, provides=provides)
    else:
        assert missing in refusal(made, provides=provides)


def test_long_lists_of_what_it_depends_on_take_no_time() -> None:
    wanted = [f"{number:x}" for number in range(30_000)]
    made = Artifact(
        header_info=info(artifact_depends={**DEVICES, "artifact_name": wanted}),
        type_info={"type": "app", "artifact_depends": {"artifact_name": wanted[::-1]}},
    ).bytes()
    begun = time.process_time()
    verify(made, provides={"artifact_name": "7"})
    assert time.process_time() - begun < 2


# Compression


def gzipped(data: bytes) -> bytes:
    return corpus.compressed(data, ".gz")


PAYLOAD = member("app", b"content of app\n") + END


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
def test_a_stream_that_is_not_as_it_should_be(suffix: str, stored: bytes, why: str) -> None:
    assert f"data/0000.tar{suffix} {why}" in refusal(Artifact(suffix=suffix, stored_payload=stored).bytes())
    refusal(Artifact(suffix=suffix, stored_header=stored).bytes())


def test_the_dictionary_of_mender_artifacts_xz_files_is_not_too_large() -> None:
    verify(Artifact(suffix=".xz", stored_payload=corpus.xz_with_dictionary(PAYLOAD, 28)).bytes())


def test_nested_archives_may_be_compressed_differently() -> None:
    parts = Artifact().parts()
    parts["data/0000.tar.gz"] = gzipped(parts.pop("data/0000.tar"))
    verify(b"".join(member(*part) for part in parts.items()) + END)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, MIB - 1, MIB, 3 * MIB + 1])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_contents_of_all_sizes(suffix: str, size: int) -> None:
    chance = random.Random(size)
    for content in (bytes(size), chance.randbytes(size)):
        verify(Artifact(suffix=suffix, files={"app": content, "b": b"b"}).bytes())


class Zstd:
    """One of the two libraries, compressing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        module: Any = pytest.importorskip(name)
        if name == "zstandard":
            monkeypatch.setitem(sys.modules, "compression.zstd", None)
        self.compress: Callable[[bytes], bytes] = module.compress


@pytest.fixture(params=["compression.zstd", "zstandard"])
def zstd(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Zstd:
    return Zstd(monkeypatch, request.param)


def zst(zstd: Zstd, payload: Callable[[bytes], bytes] = lambda stored: stored) -> bytes:
    parts = Artifact(files={"app": bytes(3 * MIB)}).parts()
    stored = zstd.compress(parts.pop("data/0000.tar"))
    parts["data/0000.tar.zst"] = payload(stored)
    return b"".join(member(*part) for part in parts.items()) + END


def test_zstd(zstd: Zstd) -> None:
    verify(zst(zstd))
    assert "has trailing data" in refusal(zst(zstd, lambda stored: stored + b"\0"))
    assert "has trailing data" in refusal(zst(zstd, lambda stored: stored * 2))
    assert "has trailing data" in refusal(zst(zstd, lambda stored: stored + bytes(MIB)))
    assert "is truncated" in refusal(zst(zstd, lambda stored: stored[:-1]))
    assert "cannot be decompressed" in refusal(zst(zstd, lambda stored: bytes(len(stored))))
    # A frame header that asks for a window of 64 MiB: no single segment, no checksum.
    asks = b"\x28\xb5\x2f\xfd\x00" + bytes([16 << 3]) + b"\x01\0\0"
    assert "cannot be decompressed" in refusal(zst(zstd, lambda _: asks))


def test_without_a_library_zstd_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "zstandard", "lzma"):
        monkeypatch.setitem(sys.modules, name, None)
    parts = Artifact().parts()
    parts["data/0000.tar.zst"] = parts.pop("data/0000.tar")
    made = b"".join(member(*part) for part in parts.items()) + END
    assert "data/0000.tar.zst needs Python 3.14 or the zstandard package" in refusal(made)
    assert "header.tar.xz needs Python's lzma module" in refusal(Artifact(suffix=".xz").bytes())


def test_memory_that_is_not_there_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy:
        def decompress(self, _data: bytes, _length: int, /) -> bytes:
            raise MemoryError

    monkeypatch.setattr(decompress, "_decompressor", lambda _suffix, _name: (Greedy(), zlib.error))
    assert "header.tar.xz needs more memory" in refusal(Artifact(suffix=".xz").bytes())


# Memory

MEASURE = """
import sys
from mender_oneshot import errors
from mender_oneshot.artifact import verify as artifact
with open(sys.argv[1], "rb") as file:
    try:
        artifact.verify(file, device_type="board")
        print("accepted")
    except errors.ArtifactRejected as refusal:
        print(refusal)
# Not ru_maxrss: on Linux that survives exec, and would be the test's own.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(path: Path) -> tuple[str, float]:
    """What a fresh process says of the artifact, and the most memory it ever had in MiB."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], cwd=REPO, capture_output=True, text=True, check=True
    )
    said, kibibytes = run.stdout.splitlines()
    return said, int(kibibytes) / 1024


def bomb(kind: str) -> bytes:
    big = bytes(128 * MIB)
    match kind:
        case "payload.gz":
            return Artifact(suffix=".gz", files={"app": big}).bytes()
        case "header.gz":
            return Artifact(suffix=".gz", scripts={"a": big}).bytes()
        case "header.xz":
            return Artifact(suffix=".xz", scripts={"a": big}).bytes()
        case "zeros after the end":
            return Artifact(suffix=".gz", payload_tar=PAYLOAD + big).bytes()
        case "long names":
            return Artifact(
                scripts={}, header_tar=(pax({"path": "e" * 4000}) + member("e" * 100)) * 3000
            ).bytes()
        case "one long name":
            return Artifact(suffix=".gz", payload_tar=long_name(big)).bytes()
        case "many files":
            return Artifact(files={f"{number:05}": b"" for number in range(9000)}).bytes()
        case "many members":
            return Artifact(payload_tar=member("app", b"content of app\n") * 100_000).bytes()
        case "many lines":
            return Artifact(manifest=b"".join(b"%064x  %d\n" % (n, n) for n in range(1_000_000))).bytes()
        case "many short lines":
            return Artifact(manifest=b"\n" * MIB).bytes()
        case "lists":
            return Artifact(meta_data=b'{"a":[' + b"[]," * 87_000 + b"0]}").bytes()
        case "objects":
            return Artifact(meta_data=b'{"a":[' + b'{"":0},' * 37_000 + b"0]}").bytes()
        case "keys":
            text = b",".join(b'"%x":0' % number for number in range(24_000))
            return Artifact(type_info=b'{"type":"app","artifact_provides":{' + text + b"}}").bytes()
        case "deep":
            return Artifact(type_info=b"[" * 262_000).bytes()
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("payload.gz", "accepted"),
        ("header.gz", "larger than"),
        ("header.xz", "larger than"),
        ("zeros after the end", "has trailing data"),
        ("long names", ", expected"),
        ("one long name", "larger than"),
        ("many files", "accepted"),
        ("many members", "twice"),
        ("many lines", "larger than"),
        ("many short lines", "line 1 "),
        ("lists", "accepted"),
        ("objects", "accepted"),
        ("keys", "not a plain string"),
        ("deep", "not JSON"),
    ],
)
def test_no_artifact_takes_much_memory(tmp_path: Path, kind: str, says: str) -> None:
    file = tmp_path / "bomb.mender"
    file.write_bytes(bomb(kind))
    said, mebibytes = peak(file)
    assert says in said
    print(f"{kind}: {mebibytes:.0f} MiB")
    assert mebibytes < 64


def test_a_zstd_bomb_takes_little_memory(zstd: Zstd, tmp_path: Path) -> None:
    file = tmp_path / "bomb.mender"
    file.write_bytes(zst(zstd, lambda _: zstd.compress(member("app", bytes(128 * MIB)) + END)))
    said, mebibytes = peak(file)
    assert "does not match its checksum" in said
    print(f"zstd: {mebibytes:.0f} MiB")
    assert mebibytes < 64


def test_an_xz_payload_takes_its_dictionary_and_little_more(tmp_path: Path) -> None:
    # 28 stands for the 64 MiB of mender-artifact; what is decompressed fills it, whatever it is.
    content = bytes(80 * MIB)
    stored = corpus.xz_with_dictionary(member("app", content) + END, 28)
    file = tmp_path / "big.mender"
    file.write_bytes(Artifact(suffix=".xz", files={"app": content}, stored_payload=stored).bytes())
    said, mebibytes = peak(file)
    assert said == "accepted"
    print(f"xz: {mebibytes:.0f} MiB")
    assert mebibytes < 64 + 32


# Anything at all

WHOLE = Artifact(
    scripts={"ArtifactInstall_Enter_00": b"#!/bin/sh\n"},
    type_info={"type": "app", "artifact_provides": {"a": "b"}, "clears_artifact_provides": ["a.*"]},
    meta_data={"a": [1]},
    signature=b"c2lnbmF0dXJl",
)

quick = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["app", "board"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["type"]), inner),
    max_leaves=8,
)


def accepted_or_refused(data: bytes, **options: Any) -> Verified | None:
    try:
        return verify(data, **options)
    except ArtifactRejected as refused:
        text = str(refused)
    assert text.isprintable()
    return None


@quick
@given(st.binary(max_size=4096))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert accepted_or_refused(data) is None


@quick
@given(
    st.sampled_from(["", ".gz", ".xz"]),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 600), st.binary(max_size=600)), max_size=4),
)
def test_an_artifact_with_pieces_replaced_is_refused_or_says_the_same(
    suffix: str, changes: list[tuple[int, int, bytes]]
) -> None:
    data = replace(WHOLE, suffix=suffix).bytes()
    whole = verify(data)
    for at, length, other in changes:
        data = data[:at] + other + data[at + length :]
    assert accepted_or_refused(data) in (None, whole)


@quick
@given(st.binary(max_size=3000), st.sampled_from(["", ".gz", ".xz"]), st.booleans())
def test_any_bytes_with_the_right_checksum(inner: bytes, suffix: str, stored: bool) -> None:
    if stored:
        bent = [Artifact(stored_header=inner or b"\0"), Artifact(stored_payload=inner or b"\0")]
    else:
        bent = [Artifact(header_tar=inner), Artifact(payload_tar=inner)]
    for made in bent:
        accepted_or_refused(replace(made, suffix=suffix).bytes())


@quick
@given(st.binary(max_size=512), st.integers(0, 512), st.binary(max_size=3000))
def test_any_header_block_with_the_right_checksum(block: bytes, at: int, rest: bytes) -> None:
    base = bytearray(header(b"app", 15))
    base[at : at + len(block)] = block[: 512 - at]
    accepted_or_refused(with_files(corpus.checksummed(bytes(base)) + rest, app=b"content of app\n"))


@quick
@given(st.binary(max_size=600), st.sampled_from([b"x", b"L"]))
def test_any_extended_header(records: bytes, kind: bytes) -> None:
    payload = member("extended", records, kind=kind) + member("app", b"content of app\n") + END
    accepted_or_refused(with_files(payload, app=b"content of app\n"))


@quick
@given(jsons, jsons, jsons, jsons)
def test_any_json(one: Any, two: Any, three: Any, four: Any) -> None:
    for header_info in (one, info(payloads=one, artifact_provides=two), info(artifact_depends=three)):
        accepted_or_refused(Artifact(header_info=header_info).bytes())
    for type_info in (one, {"type": "app", "artifact_provides": two, "artifact_depends": three}):
        accepted_or_refused(Artifact(type_info=type_info, meta_data=json.dumps(four).encode()).bytes())
    accepted_or_refused(Artifact(version=json.dumps(one).encode()).bytes())


@quick
@given(st.text(), st.text())
def test_any_names(name: str, device: str) -> None:
    header_info = info(artifact_provides={"artifact_name": name}, artifact_depends={"device_type": [device]})
    verified = accepted_or_refused(Artifact(header_info=header_info).bytes(), device_type=device)
    if verified:
        assert verified.name == name
        assert len(f"MENDER_ARTIFACT_NAME={name}".splitlines()) == 1
        name.encode()


@quick
@given(st.binary(max_size=2000))
def test_any_manifest_and_signature(data: bytes) -> None:
    accepted_or_refused(Artifact(manifest=data).bytes())
    accepted_or_refused(Artifact(signature=data).bytes(), check_signature=lambda _manifest, _signature: True)
