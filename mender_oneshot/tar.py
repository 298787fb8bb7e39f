"""A tar archive read once, front to back, in constant memory; refuses all that an artifact never holds.

Not `tarfile`: that takes links, devices, sparse files and global headers, names of any length and a bad
header for the end of the archive, and is heavy to import. Knows nothing of artifacts; writes nothing.
Reads what Go's archive/tar, GNU tar and Python's tarfile write for regular files: ustar, pax and GNU.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .errors import ArtifactRefused

BLOCK = 512

# Large enough that zlib and SHA-256 set the pace and Python does not, small enough to be no memory at all.
PIECE = 256 * 1024

# Linux' PATH_MAX: nothing longer can be installed. mender-artifact itself writes names above 100 (as pax).
NAME_MAX = 4096

# One longest name and room for the few other records (times, owner) that come with it.
EXTENDED_MAX = 2 * NAME_MAX

_SIZE_MAX = 2**63 - 1
_ZEROS = bytes(BLOCK)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# Line breaks and escapes in a name could forge a log line, or a line of a file that lists it.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What says nothing of the content. Others do: GNU.sparse.* (the stored bytes are not the file), linkpath.
_PAX_IGNORED = {b"atime", b"comment", b"ctime", b"gid", b"gname", b"mtime", b"uid", b"uname"}


def damaged(what: str) -> ArtifactRefused:
    """The refusal of an artifact that nobody can have meant to build."""
    return ArtifactRefused(f"The artifact is damaged: {what}; build or upload it again.")


def shown(text: str) -> str:
    """A stranger's text, fit for one line of a message."""
    printable = "".join(char if char.isprintable() else "?" for char in text[:80])
    return printable if len(text) <= 80 else printable + "..."


def is_clean(text: str) -> bool:
    """Whether a text is free of control characters and can be written as UTF-8."""
    return not _CONTROLS.search(text)


def is_safe_name(name: str) -> bool:
    """Whether a name is relative, stays below where it is unpacked, and is not a directory's."""
    return (
        is_clean(name)
        and len(name.encode()) <= NAME_MAX
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


class Member(NamedTuple):
    """A regular file of an archive."""

    name: str
    size: int


class Reader:
    """The members of one archive, each to be read before the next is asked for.

    `pieces` are the archive's bytes, none of them empty; `label` is what messages call the archive.
    """

    def __init__(self, pieces: Iterator[bytes], label: str) -> None:
        self._pieces = pieces
        self._label = label
        self._piece = b""
        self._at = 0
        self._member = Member("", 0)
        self._left = 0

    def next(self) -> Member | None:
        """The next member; None once the archive has ended as it should, down to its last byte."""
        for _ in self.body():
            pass
        block = self._exactly(BLOCK)
        if block == _ZEROS:
            self._end()
            return None
        name, size, kind = self._parse(block)
        path: str | None = None
        if kind in (b"x", b"L"):
            self._begin("an extended header", size)
            data = self.content(EXTENDED_MAX)
            path, bigger = self._pax(data) if kind == b"x" else (self._gnu_name(data), None)
            name, size, kind = self._parse(self._exactly(BLOCK))
            size = size if bigger is None else bigger
        if path is None:
            path = self._decoded(name)
        if kind not in (b"0", b"\0"):
            raise damaged(f"{shown(path)} in {self._label} is not a regular file")
        if not is_safe_name(path):
            raise damaged(f"{self._label} has a member with the unsafe name {shown(path)}")
        return self._begin(path, size)

    def body(self) -> Iterator[bytes]:
        """The member's content, piece by piece."""
        while self._left:
            piece = self._some(self._left)
            if not piece:
                raise damaged(f"{self._label} ends in the middle of {shown(self._member.name)}")
            self._left -= len(piece)
            if not self._left:
                # Checked before the last piece is handed out: whoever has all of it may stop asking.
                self._check_padding()
            yield piece

    def content(self, limit: int) -> bytes:
        """The member's content, whole; refused when it is longer than the limit."""
        if self._member.size > limit:
            raise damaged(f"{shown(self._member.name)} in {self._label} is larger than {limit} bytes")
        return b"".join(self.body())

    def _begin(self, name: str, size: int) -> Member:
        self._member, self._left = Member(name, size), size
        return self._member

    def _check_padding(self) -> None:
        if self._exactly(-self._member.size % BLOCK).strip(b"\0"):
            raise damaged(f"{self._label} has data between its members")

    def _end(self) -> None:
        if self._exactly(BLOCK) != _ZEROS:
            raise damaged(f"{self._label} has only half an end")
        # GNU tar fills its last record of 10 KiB, or of any size it was told, with zeros.
        while piece := self._some(PIECE):
            if piece.strip(b"\0"):
                raise damaged(f"{self._label} goes on after its end")

    def _some(self, size: int) -> bytes:
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        part = self._piece[self._at : self._at + size]
        self._at += len(part)
        return part

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._some(size)
            if not part:
                raise damaged(f"{self._label} ends too early")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _parse(self, block: bytes) -> tuple[bytes, int, bytes]:
        """Name, size and kind of a header; the field positions are pax(1)'s "ustar Interchange Format"."""
        checksum = _OCTAL.fullmatch(block[148:156])
        # The sum is taken with blanks in its own place.
        if not checksum or int(checksum[1], 8) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            raise damaged(f"{self._label} has a header that does not match its checksum")
        name = block[:100].partition(b"\0")[0]
        if block[257:265] == b"ustar\x0000":
            prefix = block[345:500].partition(b"\0")[0]
            name = prefix + b"/" + name if prefix else name
        elif block[257:265] != b"ustar  \0":  # GNU, which keeps other things than a prefix in its place
            raise damaged(f"{self._label} is not a tar archive of a known kind")
        return name, self._size(block[124:136]), block[156:157]

    def _size(self, field: bytes) -> int:
        if octal := _OCTAL.fullmatch(field):
            return int(octal[1], 8)
        # GNU's base 256, for 8 GiB and above; 0xff in front would be a negative number.
        size = int.from_bytes(field[1:], "big")
        if field[0] != 0x80 or size > _SIZE_MAX:
            raise damaged(f"{self._label} has a member of no sensible size")
        return size

    def _decoded(self, name: bytes) -> str:
        try:
            return name.decode()
        except UnicodeDecodeError:
            raise damaged(f"{self._label} has a member whose name is not UTF-8") from None

    def _gnu_name(self, data: bytes) -> str:
        return self._decoded(data.removesuffix(b"\0"))

    def _pax(self, data: bytes) -> tuple[str | None, int | None]:
        """Path and size from pax records: `LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record."""
        wrong = damaged(f"{self._label} has an extended header that makes no sense")
        path: str | None = None
        size: int | None = None
        while data:
            length = data[:5].partition(b" ")[0]
            if not length.isdigit() or not len(length) + 3 <= int(length) <= len(data):
                raise wrong
            record, data = data[: int(length)], data[int(length) :]
            key, equals, value = record[len(length) + 1 :].partition(b"=")
            if record[len(length) : len(length) + 1] != b" " or not equals or not value.endswith(b"\n"):
                raise wrong
            text = self._decoded(value[:-1])
            if key == b"path" and path is None:
                path = text
            elif key == b"size" and size is None and re.fullmatch("[0-9]{1,19}", text):
                size = int(text)
            elif key not in _PAX_IGNORED:
                raise wrong
        if size is not None and size > _SIZE_MAX:
            raise wrong
        return path, size
