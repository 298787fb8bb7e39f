"""The archives of an artifact: which forms of tar are read, which are rejected."""

import io
import itertools
import tarfile
from dataclasses import replace

import pytest
from helpers import corpus
from helpers.corpus import END, GNU, Artifact, header, long_name, member, pax
from helpers.verifying import MIB, rejected_or_same, rejection, verify, with_files

from mender_oneshot.artifact import tar_header
from mender_oneshot.artifact import verify as artifact
from mender_oneshot.artifact.verify import PayloadFile, Verified


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
def test_a_whole_artifact_is_accepted_with_all_its_members(suffix: str) -> None:
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
def test_unusual_but_valid_headers_are_accepted(bent: bytes) -> None:
    verify(with_files(bent + corpus.padded(b"content") + END, app=b"content"))


def test_a_ustar_name_in_two_parts_is_joined() -> None:
    payload = member("app", b"content", prefix=b"some/where") + END
    verify(Artifact(files={"some/where/app": b"content"}, payload_tar=payload).bytes())


def test_zeros_may_follow_the_end() -> None:
    payload = member("app", b"content") + bytes(10240)
    verify(Artifact(files={"app": b"content"}, payload_tar=payload, end=bytes(10240)).bytes())
    verify(Artifact(end=bytes(1024 + 7)).bytes())


def test_zeros_after_the_end_have_a_limit_of_16_mib() -> None:
    verify(Artifact(end=bytes(1024 + 16 * MIB)).bytes())
    assert "has trailing data" in rejection(Artifact(end=bytes(1024 + 16 * MIB + 1)).bytes())


def test_an_extended_header_may_have_an_equals_sign_in_a_value() -> None:
    payload = pax({"path": "a=b=c", "comment": "d=e"}) + member("a=b=c", b"content") + END
    verify(Artifact(files={"a=b=c": b"content"}, payload_tar=payload).bytes())


def test_a_name_may_have_the_length_of_a_path_and_not_a_byte_more() -> None:
    name = "/".join(["e" * 255] * 15) + "/" + "e" * 246
    assert len(f"data/0000/{name}") == 4096
    for before, magic in ((pax({"path": name}), corpus.POSIX), (long_name(name.encode()), GNU)):
        payload = before + member(name[:100], b"content", magic=magic) + END
        verify(Artifact(files={name: b"content"}, payload_tar=payload).bytes())
    assert "line 1 of its manifest" in rejection(Artifact(files={name + "e": b""}, payload_tar=END).bytes())


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


def test_an_error_of_the_file_is_raised_unchanged() -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        artifact.verify(Broken(), device_type="board")


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
def test_an_invalid_payload_archive_is_rejected(bent: bytes, why: str) -> None:
    assert why in rejection(with_files(bent + END, app=b""))


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
    assert f"data/0000.tar {why}" in rejection(with_files(member("app") + end, app=b""))
    assert f"the file {why}" in rejection(replace(made, end=end).bytes())
    header_tar = b"".join(made.header_members()) + end
    assert "header.tar" in rejection(replace(made, header_tar=header_tar).bytes())


def test_an_artifact_truncated_anywhere_is_rejected() -> None:
    made = Artifact().bytes()
    for cut in range(0, len(made), 7):
        rejection(made[:cut])


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_each_byte_changed_is_rejected_or_harmless(suffix: str) -> None:
    made = Artifact(suffix=suffix).bytes()
    whole = verify(made)
    for at in range(len(made)):
        for change in (0x01, 0x80, 0x20):
            bent = bytearray(made)
            bent[at] ^= change
            refused = rejected_or_same(bytes(bent), whole)
            # All is covered by a checksum, but for how those of tar are written, and a gzip header's time.
            assert refused or 148 <= at % 512 < 156 or suffix == ".gz"


def test_each_byte_of_a_header_changed_with_its_checksum_corrected_is_rejected_or_harmless() -> None:
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
                if not rejected_or_same(made + END, whole):
                    harmless.add(at)
    # The size (its last byte only ends the number), the kind, the format and the prefix are never that.
    assert not harmless & {*range(124, 135), 156, *range(257, 265), 345}


def test_parts_in_another_order_are_rejected() -> None:
    members = Artifact(signature=b"c2lnbmF0dXJl").members()
    for order in itertools.permutations(members):
        if list(order) != members:
            rejection(b"".join(order) + END)


def test_a_part_that_is_missing_or_duplicate_is_rejected() -> None:
    parts = Artifact(signature=b"c2lnbmF0dXJl").parts()
    members = [member(name, content) for name, content in parts.items()]
    verify(b"".join(members) + END)
    for number, name in enumerate(parts):
        if name != "manifest.sig":
            rejection(b"".join(members[:number] + members[number + 1 :]) + END)
        rejection(b"".join(members[: number + 1] + members[number:]) + END)
        for other in ("unknown", "manifest-augment", "header-augment.tar", "data/0001.tar", "data/0000"):
            rejection(b"".join([*members[:number], member(other), *members[number:]]) + END)
            renamed = [*members[:number], member(other, parts[name]), *members[number + 1 :]]
            rejection(b"".join(renamed) + END)
    assert "found data/0001.tar after the payload" in rejection(
        b"".join([*members, member("data/0001.tar")]) + END
    )


def test_a_header_augment_is_rejected_as_unsupported() -> None:
    members = Artifact().members()
    made = b"".join([*members[:3], member("header-augment.tar.gz"), *members[3:]]) + END
    assert "header-augment.tar.gz), which is not supported" in rejection(made)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(512), bytes(1024), bytes(MIB), b"<html>not found</html>"])
def test_a_file_that_is_no_artifact_is_rejected(data: bytes) -> None:
    rejection(data)


@pytest.mark.parametrize(
    ("start", "end", "what"),
    [
        (100, 108, "an invalid mode"),
        (108, 116, "an invalid owner"),
        (116, 124, "an invalid group"),
        (124, 136, "an invalid size"),
        (136, 148, "an invalid time"),
        (265, 297, "an invalid owner"),
        (297, 329, "an invalid group"),
        (329, 337, "an invalid device"),
        (337, 345, "an invalid device"),
        (345, 500, "an invalid prefix"),
    ],
)
def test_the_message_names_the_field_of_a_header_that_is_wrong(start: int, end: int, what: str) -> None:
    block = header(b"app", 7)
    bent = corpus.checksummed(block[:start] + b"\x01" * (end - start) + block[end:])
    payload = bent + corpus.padded(b"content") + END
    assert f"has {what}" in rejection(with_files(payload, app=b"content"))


def test_members_that_a_program_without_large_sizes_would_find_are_hidden() -> None:
    real = header(b"app", 7)
    bytes_above_127 = corpus.checksummed(b"\xff" * 100 + real[100:])
    signed = (sum(bytes_above_127) - sum(bytes_above_127[148:156]) + 8 * 32) - 256 * 100
    signed_sum = bytes_above_127[:148] + b"%06o\x00 " % signed + bytes_above_127[156:]
    for block, hides in (
        (real, True),
        (bytes_above_127, True),
        (signed_sum, True),
        (real[:148] + b"0000001\0" + real[156:], False),
        (b"content".ljust(512, b"."), False),
    ):
        assert tar_header.may_hide_members(block + bytes(512)) is hides
    assert not tar_header.may_hide_members(bytes(1024))
    assert tar_header.may_hide_members(bytes(512) + real)


def test_a_size_of_its_own_in_an_extended_header_is_8_gib_at_least() -> None:
    member_without_size = tar_header.parse(header(b"app", 0))
    large = tar_header.Extension(None, 8 * 1024**3)
    assert tar_header.combined(member_without_size, large, False) == ("app", 8 * 1024**3)
    with pytest.raises(tar_header.BadHeader, match="two different sizes"):
        tar_header.combined(member_without_size, tar_header.Extension(None, 8 * 1024**3 - 1), False)


def test_a_gnu_header_has_nothing_where_the_prefix_of_others_is() -> None:
    block = header(b"app", 7, magic=GNU)
    for at in (345, 499, 500, 511):
        bent = corpus.checksummed(block[:at] + b"1" + block[at + 1 :])
        payload = bent + corpus.padded(b"content") + END
        assert "fields that a regular file does not use" in rejection(with_files(payload, app=b"content"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("atime", "ctime", "mtime") for value in ("1", "-1.5")),
        *((key, "1000") for key in ("uid", "gid")),
        *((key, "some text") for key in ("uname", "gname", "comment")),
    ],
)
def test_records_without_effect_are_accepted(key: str, value: str) -> None:
    payload = pax({key: value}) + member("app", b"content") + END
    verify(Artifact(files={"app": b"content"}, payload_tar=payload).bytes())
