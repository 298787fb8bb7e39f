"""`artifact.part`: the bytes of an artifact whose download is not complete."""

import errno
import logging
import os

from . import disk, errors

SYNC_BYTES = 1 << 20
"""Bytes between two fsyncs, and thus the most that a power cut can corrupt at the end of the file."""

CHECK_BYTES = 1 << 18
"""Bytes between two checks of the free space; `disk.STATE_RESERVE` is four times as much."""

log = logging.getLogger(__name__)


def trusted(size: int) -> int:
    """Return how many bytes of a file of this size can be trusted after a power cut.

    All but the last megabyte were synced; the bytes after them may be lost, or zeros.
    """
    return max(0, size - SYNC_BYTES)


def in_words(size: int) -> str:
    """Return a number of bytes as text for people."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 100_000 else f"{size / 1e6:.1f} MB"


class PartialDownload:
    """The open file; bytes are appended, and synced every megabyte."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.started_over = False
        try:
            # What is handed off must be what was verified, so no other user may have it open for writing.
            self.descriptor = disk.open_own(path, os.O_RDWR)
            self.size = os.fstat(self.descriptor).st_size
            if self.size:
                # The invocation that wrote these bytes may have been killed before it synced them.
                os.fsync(self.descriptor)
        except OSError as error:
            raise disk.failure(f"open {path}", error) from error
        self._synced = self.size
        self._checked = -CHECK_BYTES

    def close(self) -> None:
        """Sync and close; an error is only logged, because the caller has nothing left to do."""
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            log.warning("%s", disk.failure(f"sync {self.path}", error))
        finally:
            os.close(self.descriptor)

    def make_room(self, size: int) -> None:
        """Raise `errors.NoSpace` if the rest of the object, and the state after it, will not fit."""
        disk.require_file_size(self.path, size)
        missing = max(size - self.size, 0) + disk.STATE_RESERVE
        try:
            free = disk.free(self.descriptor)
        except OSError as error:
            raise disk.failure(f"determine the free space for {self.path}", error) from error
        if not free:  # not a byte, or not an inode
            raise disk.failure(f"write {self.path}", OSError(errno.ENOSPC, "", self.path))
        if free < missing:
            raise errors.NoSpace(
                f"Not enough space for the artifact: {in_words(missing)} are needed in "
                f"{os.path.dirname(self.path)}, {in_words(free)} are free; free some space, and the next "
                "attempt will resume."
            )

    def append(self, piece: bytes) -> None:
        """Write after the end; raises `errors.NoSpace` or `errors.DiskError`, and what did fit stays."""
        try:
            if self.size + len(piece) - self._synced > SYNC_BYTES:
                os.fsync(self.descriptor)
                self._synced = self.size
            written = os.write(self.descriptor, piece)
            self.size += written
            while written < len(piece):
                piece = piece[written:]
                written = os.write(self.descriptor, piece)
                self.size += written
        except OSError as error:
            raise disk.failure(f"write {self.path}", error) from error
        if self.size >= self._checked + CHECK_BYTES:
            self.make_room(0)
            self._checked = self.size

    def truncate(self, size: int) -> None:
        """Cut the file to so many bytes, durably; raises `errors.DiskError`."""
        try:
            os.ftruncate(self.descriptor, size)
            os.fsync(self.descriptor)
        except OSError as error:
            raise disk.failure(f"cut {self.path}", error) from error
        self.size = self._synced = size
        self._checked = -CHECK_BYTES

    def start_over(self) -> None:
        """Remove all bytes; an attempt that does so counts as one without a new byte.

        Raises `errors.InvalidResponse` the second time, because such an attempt might never end.
        """
        if self.size and self.started_over:
            raise errors.InvalidResponse(
                "The storage sends parts that do not belong to the same object; check the artifact storage."
            )
        self.started_over = self.started_over or self.size > 0
        self.truncate(0)

    def finish(self, target: str) -> None:
        """Give the complete file its final name, durably; raises `errors.NoSpace` or `errors.DiskError`."""
        try:
            os.fsync(self.descriptor)
            os.replace(self.path, target)
            disk.sync_directory(os.path.dirname(target))
        except OSError as error:
            raise disk.failure(f"write {target}", error) from error
