"""What is verified is what other programs unpack: GNU tar, busybox, toybox, libarchive, Python's tarfile."""

import io
import random
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import corpus, tar_fuzz, tar_readers
from helpers.corpus import END, GNU, Artifact, header, long_name, member, pax

from mender_oneshot.artifact import verify as artifact
from mender_oneshot.artifact.decompress import uncompressed
from mender_oneshot.artifact.tar import Reader
from mender_oneshot.errors import ArtifactRejected

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", autouse=True)
def _all_programs() -> None:
    if missing := tar_readers.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")


def accepted(data: bytes) -> bool:
    try:
        artifact.verify(io.BytesIO(data), device_type="board")
    except ArtifactRejected:
        return False
    return True


def read(data: bytes, name: str) -> dict[str, bytes]:
    """What our own reader finds in an archive."""
    archive = Reader(uncompressed(iter([data]), name), name)
    found = {}
    while one := archive.next():
        found[one.name] = b"".join(archive.body())
    return found


class Tally(NamedTuple):
    """What became of many bent artifacts."""

    tried: int
    accepted: int
    differences: list[str]


class Comparison:
    """Archives at each level of accepted artifacts, each of them once, compared in batches."""

    BATCH = 200

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: set[bytes] = set()
        self.waiting: dict[str, tuple[bytes, dict[str, bytes]]] = {}
        self.found: list[str] = []
        self.number = 0

    def add(self, data: bytes) -> None:
        outer = read(data, "artifact.tar")
        self._add(data, "", outer)
        for name, stored in outer.items():
            if ".tar" in name:
                self._add(stored, name.rpartition(".tar")[2], read(stored, name))

    def _add(self, data: bytes, suffix: str, expected: dict[str, bytes]) -> None:
        if data in self.seen:
            return
        self.seen.add(data)
        self.number += 1
        self.waiting[f"{self.number:06}.tar{suffix}"] = (data, expected)
        if len(self.waiting) == self.BATCH:
            self.compare()

    def compare(self) -> None:
        self.found += tar_readers.differences(self.waiting, self.directory / "batch")
        self.waiting = {}


def fuzzed(seed: int, number: int, bases: list[tar_fuzz.Base], directory: Path) -> Tally:
    chance = random.Random(seed)
    comparison = Comparison(directory)
    kept = 0
    for _ in range(number):
        made = tar_fuzz.bent(chance, bases)
        if accepted(made):
            kept += 1
            comparison.add(made)
    comparison.compare()
    return Tally(number, kept, comparison.found)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Artifacts of mender-artifact: several files, a long name, a script; with each compression."""
    program = shutil.which("mender-artifact")
    if not program:
        pytest.skip("mender-artifact is not installed")
    place = tmp_path_factory.mktemp("genuine")
    (place / "app").write_bytes(bytes(range(256)) * 5 + EVIL_INSIDE)
    (place / "app.conf").write_bytes(b"colour=blue\n")
    (place / ("n" * 150)).write_bytes(b"a long name")
    (place / "ArtifactInstall_Enter_00").write_text("#!/bin/sh\n")
    made = []
    for compression in ("none", "gzip", "lzma"):
        words = (
            "write module-image -n release-1 -t board -T app -f app -f app.conf -s ArtifactInstall_Enter_00"
        )
        words += f" -f {'n' * 150} --compression {compression} -o made.mender"
        subprocess.run([program, *words.split()], cwd=place, check=True, capture_output=True)
        made.append((place / "made.mender").read_bytes())
    return made


# A program that loses its way finds a whole archive of an attacker in a file.
EVIL_INSIDE = bytes(-1280 % 512) + tar_fuzz.EVIL


def report(tally: Tally) -> None:
    print(f"{tally.tried} tried, {tally.accepted} accepted, {len(tally.differences)} differences")
    assert not tally.differences, "\n".join(tally.differences[:20])
    assert tally.accepted > tally.tried // 50


def test_bent_artifacts_that_are_accepted_mean_the_same_to_every_program(
    genuine: list[bytes], tmp_path: Path
) -> None:
    report(fuzzed(1, 1500, [tar_fuzz.base(one) for one in genuine], tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_bent_artifacts_that_are_accepted_mean_the_same_to_every_program(
    genuine: list[bytes], tmp_path: Path, seed: int
) -> None:
    report(fuzzed(seed, 20_000, [tar_fuzz.base(one) for one in genuine], tmp_path))


def test_genuine_artifacts_mean_the_same_to_every_program(genuine: list[bytes], tmp_path: Path) -> None:
    comparison = Comparison(tmp_path)
    for one in genuine:
        assert accepted(one)
        comparison.add(one)
    comparison.compare()
    assert not comparison.found


def test_what_other_programs_pack_is_accepted_and_means_the_same(tmp_path: Path) -> None:
    # Artifacts packed by hand: payload and artifact by any program, with names of any kind.
    (tmp_path / "in" / "directory").mkdir(parents=True)
    names = ["app", "m" * 100, "n" * 150, "bjørn", f"directory/{'d' * 120}", f"directory/{'e' * 95}"]
    files = {name: name.encode() * 40 for name in names}
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    comparison = Comparison(tmp_path)
    for words in (
        ["tar", "--format=gnu"],
        ["tar", "--format=posix"],
        ["busybox", "tar"],
        ["toybox", "tar"],
        ["bsdtar", "--format=gnutar"],
    ):
        made = subprocess.run(
            [*words, "-cf", "-", *names], cwd=tmp_path / "in", capture_output=True, check=True
        )
        whole = Artifact(files=files, payload_tar=made.stdout)
        parts = tmp_path / f"parts-{words[-1].rpartition('=')[2]}-{words[0]}"
        (parts / "data").mkdir(parents=True)
        for name, content in whole.parts().items():
            (parts / name).write_bytes(content)
        packed = subprocess.run(
            [*words, "-cf", "-", *whole.parts()], cwd=parts, capture_output=True, check=True
        )
        for data in (whole.bytes(), packed.stdout):
            artifact.verify(io.BytesIO(data), device_type="board")
            comparison.add(data)
    comparison.compare()
    assert not comparison.found


APP = member("app", b"content of app\n")
LONG = "n" * 150

AMBIGUOUS = {
    # What a program finds that does not know pax sizes (busybox, toybox), or takes the larger one.
    "pax size smaller": pax({"size": "15"}) + header(b"app", 15 + 512) + corpus.padded(b"content of app\n"),
    "pax size larger": pax({"size": "15"}) + header(b"app", 0) + corpus.padded(b"content of app\n"),
    "pax size in octal": pax({"size": "017"}) + APP,
    "pax size with a sign": pax({"size": "+15"}) + APP,
    # busybox does not know pax names.
    "pax name": pax({"path": "app"}) + member("evil", b"content of app\n"),
    "pax name and a prefix": pax({"path": "app"}) + member("app", b"content of app\n", prefix=b"evil"),
    "pax name and a directory's": pax({"path": "app"}) + member("app/", b"content of app\n"),
    "GNU name of another": long_name(LONG.encode()) + member("evil", b"", magic=GNU),
    "GNU name that is short": long_name(b"app") + member("app", b"content of app\n", magic=GNU),
    "GNU name in a pax archive": long_name(LONG.encode()) + member(LONG[:100], b""),
    "pax name in a GNU archive": pax({"path": LONG}) + member(LONG[:100], b"", magic=GNU),
    "two names of the same beginning": pax({"path": LONG}) + member(LONG[:100]) + member(LONG[:100]),
    # In GNU's header other times, sizes and holes are in the place of the prefix.
    "GNU prefix": member("app", b"content of app\n", magic=GNU, prefix=b"evil"),
    "GNU access time": member("app", b"content of app\n", magic=GNU, prefix=b"00000000001\0"),
    "GNU real size": member("app", b"content of app\n", magic=GNU, fields={483: b"00000000003\0"}),
    "GNU sparse map": member(
        "app", b"content of app\n", magic=GNU, fields={386: b"00000000000\x0000000000003\0"}
    ),
    "GNU extended sparse map": member("app", b"content of app\n", magic=GNU, fields={482: b"\1"}),
    "after the prefix": member("app", b"content of app\n", fields={500: b"x"}),
    "star": member("app", b"content of app\n", fields={508: b"tar\0"}),
    "after the end of the name": member(b"app\0evil", b"content of app\n"),
    "after the end of the prefix": member("app", b"content of app\n", prefix=b"\0evil"),
    "name of a link": member("app", b"content of app\n", linkname=b"evil"),
    "device": member("app", b"content of app\n", fields={329: b"0000001\0"}),
    "no device": member("app", b"content of app\n", fields={337: b"x"}),
    "mode of a directory": member("app", b"content of app\n", fields={100: b"0040755\0"}),
    "old contiguous file": member("app", b"content of app\n", kind=b"7"),
    "V7": member("app", b"content of app\n", magic=bytes(8)),
    "another version": member("app", b"content of app\n", magic=b"ustar\0\0\0"),
    "GNU magic with a version": member("app", b"content of app\n", magic=b"ustar  0"),
    "begins like a bzip2 stream": member("BZh91AY&SY", b""),
    # Numbers.
    **{
        f"{what}: {form!r}": member("app", b"content of app\n", fields={at: form})
        for what, at, forms in (
            ("mode", 100, [b"0x1a4\0\0\0", bytes(8), b"  00644\0", b"-000644\0", b"00000644", b"0000648\0"]),
            (
                "owner",
                108,
                [b"\xff" * 8, b"\x80\0\0\0\0\0\0\0", b" " * 8, b"\t000000\0", b"0_00000\0", b"0\0000000\0"],
            ),
            ("group", 116, [b"\xff" * 8, b"0o00000\0", b"1\0001\0\0\0\0\0"]),
            ("time", 136, [b"+0000000000\0", b"0_" + bytes(10), b" " * 12, b"\xff" * 12]),
            (
                "size",
                124,
                [
                    b"         17\0",
                    b"0000000017\0\1",
                    b"000000000017",
                    b"17 \0\0\0\0\0\0\0\0\1",
                    b"\x80" + bytes(10) + b"\x0f",
                ],
            ),
        )
        for form in forms
    },
    # Records that change what the content is, or how another record is read.
    **{
        f"record {records!r:.60}": pax(records) + APP
        for records in (
            {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"},
            {"GNU.sparse.name": "evil"},
            {"SCHILY.realsize": "1"},
            {"SCHILY.filetype": "symlink"},
            {"linkpath": "evil"},
            {"hdrcharset": "BINARY"},
            {"comment": "a\n12 path=evil\n"},
            {"uname": "a\n12 path=evil\n"},
            {"mtime": "x"},
            {"mtime": "9" * 19},
            {"uid": "-1"},
            b"012 path=app\n",
            b"12  path=app\n",
            b"11 path=app\n11 path=app\n",
            b"",
        )
    },
    "global record": corpus.member("x", corpus.pax_record("path", "evil"), kind=b"g") + APP,
}


@pytest.mark.parametrize("payload", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_a_member_that_programs_read_differently_is_rejected(payload: bytes) -> None:
    with pytest.raises(ArtifactRejected):
        read(payload + END, "data/0000.tar")


def test_a_file_and_a_directory_of_the_same_name_are_rejected() -> None:
    assert accepted(Artifact(files={"app.d/a": b"", "app": b"", "app!": b"", "app.d/b/c": b""}).bytes())
    for names in (["app", "app/a"], ["app/a", "app"], ["app", "app!", "app/a/b"], ["a/b/c/d", "a/b"]):
        assert not accepted(Artifact(files=dict.fromkeys(names, b"")).bytes())


@pytest.mark.parametrize(
    "form", [b"%07o\0", b"%07o ", b"%06o  ", b"%06o\0\0", b" %05o\0 ", b"%06o \0", b"%05o\0  "]
)
def test_a_checksum_in_another_form_is_rejected(form: bytes) -> None:
    made = header(b"app", 15)
    bent = made[:148] + form % int(made[148:154], 8) + made[156:]
    assert not accepted(Artifact(payload_tar=bent + corpus.padded(b"content of app\n") + END).bytes())


def test_a_signed_checksum_is_rejected() -> None:
    made = header(b"app", 15, owner=b"\xe9" * 8)
    signed = b"%06o\0 " % (int(made[148:154], 8) - 8 * 256)
    bent = made[:148] + signed + made[156:]
    assert accepted(Artifact(payload_tar=made + corpus.padded(b"content of app\n") + END).bytes())
    assert not accepted(Artifact(payload_tar=bent + corpus.padded(b"content of app\n") + END).bytes())


@pytest.mark.parametrize(
    ("flags", "taken"), [(0, True), (8, True), (1, False), (2, False), (4, False), (16, False)]
)
def test_a_gzip_header_has_no_room_for_more_than_a_name(flags: int, taken: bool) -> None:
    stored = bytearray(corpus.compressed(APP + END, ".gz"))
    stored[3] = flags
    parts = {2: b"\0\0", 4: b"\5\0evil!", 8: b"data.tar\0", 16: b"comment\0"}
    if flags == 2:
        parts[2] = (zlib.crc32(bytes(stored[:10])) & 0xFFFF).to_bytes(2, "little")
    stored[10:10] = parts.get(flags, b"")
    assert accepted(Artifact(suffix=".gz", stored_payload=bytes(stored)).bytes()) == taken


LARGE = 8 * 1024**3


@pytest.mark.parametrize(
    ("start", "taken"),
    [
        (b"\1" * 1024, True),
        (bytes(1024), True),  # as a file system's image begins; where programs stop
        (tar_fuzz.EVIL[:1024], False),
        (bytes(512) + tar_fuzz.EVIL[:512], False),
        (corpus.checksummed(b"\x1f\x8b\x08\x04" + bytes(508)) + bytes(512), False),
        (corpus.checksummed(b"\x1f\x8b\x08\x04" + bytes(508)).replace(b"\0 ", b"\0\0") + bytes(512), False),
    ],
)
@pytest.mark.parametrize("record", [True, False])
def test_a_member_of_8_gib_hides_no_others(start: bytes, taken: bool, record: bool) -> None:
    # Go and Python write 0 into the header then, and programs without pax sizes read on in the content.
    before = pax({"size": str(LARGE)}) + header(b"app", 0)
    if not record:
        before, taken = header(b"app", magic=GNU, size_field=b"\x80" + LARGE.to_bytes(11, "big")), True
    archive = Reader(iter([before, start[:100], start[100:]]), "data/0000.tar")
    if not taken:
        with pytest.raises(ArtifactRejected, match="members within another"):
            archive.next()
        return
    assert archive.next() == ("app", LARGE)
    assert next(archive.body()) == start if record else start[:100]


def test_each_field_of_8_gib_and_more_is_written_in_one_way() -> None:
    for wrong in (
        pax({"size": str(LARGE - 1)}) + header(b"app", 0),
        pax({"size": str(LARGE)}) + header(b"app", 1),
        header(b"app", size_field=b"\x80" + LARGE.to_bytes(11, "big")),
        header(b"app", magic=GNU, size_field=b"\x80" + (LARGE - 1).to_bytes(11, "big")),
        header(b"app", size_field=b"777777777777"),
    ):
        with pytest.raises(ArtifactRejected):
            Reader(iter([wrong + bytes(2048)]), "data/0000.tar").next()
