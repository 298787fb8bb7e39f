"""The record of a disk's writes that QEMU's `blklogwrites` makes, in the format of dm-log-writes."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAGIC = 0x6A736677736872
VERSION = 1

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8

_SUPER = struct.Struct("<QQQI")
_HEAD = struct.Struct("<QQQQ")
_COUNT_AT = 16


class Corrupt(Exception):
    """The file is no record of writes, or is shorter than its own count of entries."""


class Entry(NamedTuple):
    """One write, flush or discard: where it begins on the disk, its bytes, and where they are in the log."""

    start: int
    length: int
    flags: int
    data_at: int

    @property
    def is_write(self) -> bool:
        """Whether it changes the disk."""
        return self.length > 0 and not self.flags & (DISCARD | MARK)

    @property
    def is_flush(self) -> bool:
        """Whether all earlier writes are on the disk when this has ended."""
        return bool(self.flags & FLUSH)


class WriteLog(NamedTuple):
    """All entries of a log, in the order in which they were made."""

    path: Path
    sector: int
    entries: tuple[Entry, ...]

    def data(self, entry: Entry) -> bytes:
        """Return the bytes of a write."""
        with self.path.open("rb") as file:
            file.seek(entry.data_at)
            return file.read(entry.length)


def read(path: Path) -> WriteLog:
    """Read the entries of a log, without the bytes of the writes; raise `Corrupt`."""
    with path.open("rb") as file:
        first = file.read(_SUPER.size)
        if len(first) < _SUPER.size:
            raise Corrupt(f"{path} is too short to be a record of writes")
        magic, version, count, sector = _SUPER.unpack(first)
        if (magic, version) != (MAGIC, VERSION) or sector < _SUPER.size:
            raise Corrupt(f"{path} is no record of writes of version {VERSION}")
        return WriteLog(path, sector, tuple(_entries(file, count, sector)))


def _entries(file: BinaryIO, count: int, sector: int) -> Iterator[Entry]:
    size = os.fstat(file.fileno()).st_size
    at = sector
    for number in range(count):
        file.seek(at)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise Corrupt(f"the record ends before entry {number} of {count}")
        start, sectors, flags, _ = _HEAD.unpack(head)
        data_at = at + sector
        at = data_at if flags & DISCARD else data_at + sectors * sector
        if at > size:
            raise Corrupt(f"the record ends within entry {number} of {count}")
        yield Entry(start * sector, sectors * sector, flags, data_at)


def count(path: Path) -> int:
    """Return the number of entries so far of a log that is being written, 0 before the first."""
    with path.open("rb") as file:
        file.seek(_COUNT_AT)
        found = file.read(8)
    return int.from_bytes(found, "little")
