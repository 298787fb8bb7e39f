"""A tar archive read once, front to back, in constant memory; rejects all that an artifact never holds.

Not `tarfile`: it accepts links, devices, sparse files, global headers, names of any length, and a bad header
as the end of the archive, and it takes long to import. This reader accepts what Go's archive/tar, GNU tar and
Python's tarfile write for regular files (ustar, pax, GNU) if `tarheader` finds it unambiguous. It does not
depend on the artifact format and writes nothing.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from . import tarheader
from .errors import ArtifactRejected
from .tarheader import BLOCK, EXTENDED_MAX, NAME_MAX

# Large enough that zlib and SHA-256 set the pace and Python does not, small enough to be no memory at all.
PIECE = 256 * 1024

# Zeros after the end. GNU tar fills its last record of 10 KiB, or of any size it was told.
END_MAX = 16 * 1024 * 1024

_ZEROS = bytes(BLOCK)
# Line breaks and escapes in a name could forge a log line, or a line of a file that lists it.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def damaged(what: str) -> ArtifactRejected:
    """The refusal of an artifact that nobody can have meant to build."""
    return ArtifactRejected(f"The artifact is damaged: {what}; build or upload it again.")


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

    `pieces` are the archive's bytes, none of them empty; `label` is what messages call the archive. The names
    are kept, so the caller must stop at a member that it does not expect.
    """

    def __init__(self, pieces: Iterator[bytes], label: str) -> None:
        self._pieces = pieces
        self._label = label
        self._piece = b""
        self._at = 0
        self._member = Member("", 0)
        self._left = 0
        self._names: set[bytes] = set()

    def next(self) -> Member | None:
        """The next member; None once the archive has ended as it should, down to its last byte."""
        for _ in self.body():
            pass
        block = self._exactly(BLOCK)
        if block == _ZEROS:
            self._end()
            return None
        try:
            path, size, legacy_name = self._described(block)
        except tarheader.BadHeader as error:
            raise damaged(f"{self._label} has {error}") from None
        if not is_safe_name(path):
            raise damaged(f"{self._label} has a member with the unsafe name {shown(path)}")
        names = {path.encode(), legacy_name}
        if names & self._names:
            raise damaged(
                f"{self._label} has {shown(path)} twice, or two names with the same first 100 bytes"
            )
        self._names |= names
        return self._begin(path, size)

    def _described(self, block: bytes) -> tuple[str, int, bytes]:
        """Return path, size and name of a member; the name is what programs without pax headers take."""
        header = tarheader.parse(block)
        if header.kind not in (b"x", b"L"):
            return *tarheader.plain(header), header.name
        self._begin("an extended header", header.size)
        data = self.content(EXTENDED_MAX)
        extension = tarheader.gnu_name(header, data) if header.gnu else tarheader.pax(data)
        member = tarheader.parse(self._exactly(BLOCK))
        if member.kind in (b"x", b"L"):
            raise tarheader.BadHeader("an extended header of another, which is not a regular file")
        path, size = tarheader.combined(member, extension, header.gnu)
        if size != member.size:
            start = self._exactly(2 * BLOCK)
            self._piece, self._at = start + self._piece[self._at :], 0
            if tarheader.may_hide_members(start):
                raise tarheader.BadHeader("members within another")
        # Every program reads GNU's long names; busybox does not read pax headers.
        return path, size, path.encode() if member.gnu else member.name

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
        left = END_MAX
        while piece := self._some(PIECE):
            left -= len(piece)
            if piece.strip(b"\0") or left < 0:
                raise damaged(f"{self._label} continues after its end")

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
