"""The reader of a record of writes."""

import struct
from pathlib import Path

import pytest

from board import write_log
from board.write_log import DISCARD, FLUSH, Corrupt, Entry

SECTOR = 512


def record(path: Path, *entries: tuple[int, bytes, int], count: int | None = None) -> Path:
    """Write a record of entries, each with its first sector, its bytes and its flags."""
    content = bytearray(
        struct.pack("<QQQI", 0x6A736677736872, 1, len(entries) if count is None else count, SECTOR)
    )
    content += bytes(SECTOR - len(content))
    for start, data, flags in entries:
        head = struct.pack("<QQQQ", start, len(data) // SECTOR, flags, 0)
        content += head + bytes(SECTOR - len(head)) + (b"" if flags & DISCARD else data)
    path.write_bytes(content)
    return path


def test_writes_and_flushes_are_read_in_their_order(tmp_path: Path) -> None:
    a, b = b"a" * SECTOR, b"b" * 2 * SECTOR
    log = write_log.read(record(tmp_path / "log", (7, a, 0), (0, b"", FLUSH), (9, b, 0)))
    assert [(entry.start, entry.length, entry.is_flush) for entry in log.entries] == [
        (7 * SECTOR, SECTOR, False),
        (0, 0, True),
        (9 * SECTOR, 2 * SECTOR, False),
    ]
    assert [log.data(entry) for entry in log.entries] == [a, b"", b]


def test_a_discard_has_no_bytes_and_is_no_write(tmp_path: Path) -> None:
    log = write_log.read(record(tmp_path / "log", (3, bytes(SECTOR), DISCARD), (4, b"x" * SECTOR, 0)))
    assert [entry.is_write for entry in log.entries] == [False, True]
    assert log.data(log.entries[1]) == b"x" * SECTOR


def test_entries_that_are_not_counted_yet_are_left_out(tmp_path: Path) -> None:
    path = record(tmp_path / "log", (1, b"a" * SECTOR, 0), (2, b"b" * SECTOR, 0), count=1)
    assert write_log.count(path) == 1
    assert write_log.read(path).entries == (Entry(SECTOR, SECTOR, 0, 2 * SECTOR),)


@pytest.mark.parametrize(("cut", "count"), [(1, 1), (SECTOR + 1, 1), (0, 2)])
def test_a_record_that_ends_before_its_count_is_corrupt(tmp_path: Path, cut: int, count: int) -> None:
    path = record(tmp_path / "log", (1, b"a" * SECTOR, 0), count=count)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    with pytest.raises(Corrupt):
        write_log.read(path)


@pytest.mark.parametrize("content", [b"", bytes(SECTOR), struct.pack("<QQQI", 1, 1, 0, SECTOR)])
def test_another_file_is_no_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(Corrupt):
        write_log.read(path)
    assert write_log.count(path) == 0
