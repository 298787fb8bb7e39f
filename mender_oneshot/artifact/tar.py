"""Read a tar archive once, front to back, in constant memory.

Rejects everything that artifacts do not contain. `tarfile` accepts links, devices, sparse files, global
headers, names of any length, and a bad header as the end of the archive, and it takes long to import. This
reader accepts what Go's archive/tar, GNU tar and Python's tarfile write for regular files (ustar, pax, GNU)
if `tar_header` finds it unambiguous.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ..text import is_clean, shown
from . import tar_header
from .refusal import corrupt
from .tar_header import BLOCK, EXTENDED_MAX, NAME_MAX

# Large enough that zlib and SHA-256 take most of the time, small enough not to matter in memory.
PIECE = 256 * 1024

# Zeros after the end. GNU tar pads its last record to 10 KiB, or to any size that it was given.
END_MAX = 16 * 1024 * 1024

_ZEROS = bytes(BLOCK)


def is_safe_name(name: str) -> bool:
    """Return whether a name is that of a file inside the directory where it is extracted."""
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
    """Reads the members of one archive in order.

    `pieces` are the archive's bytes, none of them empty; `label` is the archive's name in messages. The names
    of all members are kept in memory, so the caller must stop at a member that it does not expect. The
    methods raise `ArtifactRejected` if the archive is malformed.
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
        """Return the next member, None at the end; skips what was not read of the member before."""
        for _ in self.body():
            pass
        block = self._exactly(BLOCK)
        if block == _ZEROS:
            self._end()
            return None
        try:
            path, size, legacy_name = self._described(block)
        except tar_header.BadHeader as error:
            raise corrupt(f"{self._label} has {error}") from None
        if not is_safe_name(path):
            raise corrupt(f"{self._label} has a member with the unsafe name {shown(path)}")
        names = {path.encode(), legacy_name}
        if names & self._names:
            raise corrupt(
                f"{self._label} has {shown(path)} twice, or two names with the same first 100 bytes"
            )
        self._names |= names
        return self._begin(path, size)

    def _described(self, block: bytes) -> tuple[str, int, bytes]:
        """Return path and size of a member, and its name for programs that ignore pax headers."""
        header = tar_header.parse(block)
        if header.kind not in (b"x", b"L"):
            return *tar_header.plain(header), header.name
        self._begin("an extended header", header.size)
        data = self.content(EXTENDED_MAX)
        extension = tar_header.gnu_name(header, data) if header.gnu else tar_header.pax(data)
        member = tar_header.parse(self._exactly(BLOCK))
        if member.kind in (b"x", b"L"):
            raise tar_header.BadHeader("an extended header of another, which is not a regular file")
        path, size = tar_header.combined(member, extension, header.gnu)
        if size != member.size:
            start = self._exactly(2 * BLOCK)
            self._piece, self._at = start + self._piece[self._at :], 0
            if tar_header.may_hide_members(start):
                raise tar_header.BadHeader("members within another")
        # Every program reads GNU's long names; busybox does not read pax headers.
        return path, size, path.encode() if member.gnu else member.name

    def body(self) -> Iterator[bytes]:
        """Yield the member's content in pieces."""
        while self._left:
            piece = self._some(self._left)
            if not piece:
                raise corrupt(f"{self._label} is truncated in {shown(self._member.name)}")
            self._left -= len(piece)
            if not self._left:
                # Checked before the last piece is yielded, because the caller may stop there.
                self._check_padding()
            yield piece

    def content(self, limit: int) -> bytes:
        """Return the member's content; reject one longer than the limit, in bytes."""
        if self._member.size > limit:
            raise corrupt(f"{shown(self._member.name)} in {self._label} is larger than {limit} bytes")
        return b"".join(self.body())

    def _begin(self, name: str, size: int) -> Member:
        self._member, self._left = Member(name, size), size
        return self._member

    def _check_padding(self) -> None:
        if self._exactly(-self._member.size % BLOCK).strip(b"\0"):
            raise corrupt(f"{self._label} has data between its members")

    def _end(self) -> None:
        if self._exactly(BLOCK) != _ZEROS:
            raise corrupt(f"{self._label} has data after the first block of its end")
        left = END_MAX
        while piece := self._some(PIECE):
            left -= len(piece)
            if piece.strip(b"\0") or left < 0:
                raise corrupt(f"{self._label} has trailing data")

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
                raise corrupt(f"{self._label} is truncated")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
