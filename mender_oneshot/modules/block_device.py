"""An image onto a block device, of which only the blocks that differ are written."""

import errno
import os
from typing import BinaryIO

from .. import errors
from .call import failure

BLOCK = 4 << 10
"""Bytes that are compared at a time: a block of the usual file systems, and a page of the kernel's cache."""

_PIECE = 1 << 20
_UNSYNCED_MAX = 32 << 20
"""Bytes written between two syncs: without a bound the page cache fills, and the last sync takes minutes."""


def size(path: str) -> int:
    """Return the bytes that a device holds; raises `errors.Error`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise failure(f"read {path}", error) from error


def update(path: str, image: BinaryIO, length: int) -> int:
    """Make a device begin with the `length` bytes of an image, and return how many had to be written.

    All are synced. Raises `errors.Error` if a write fails, the device is in use, or the image has another
    length.
    """
    try:
        # O_EXCL: the kernel then rejects a device that is mounted, or part of another one.
        device = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(path, error) from error
    try:
        return _update(device, image, length)
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        os.close(device)


def _failure(path: str, error: OSError) -> errors.Error:
    if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS):
        return failure(f"write to {path}", error)
    return errors.Error(
        f"Cannot write to {path}: {os.strerror(error.errno)}; remove its write protection "
        "(blockdev --setrw) and run this as root."
    )


def _update(device: int, image: BinaryIO, length: int) -> int:
    written = unsynced = at = synced = 0
    while at < length:
        piece = image.read(min(_PIECE, length - at))
        if not piece:
            raise errors.Error(f"The image ends after {at} of {length} bytes; deploy it again.")
        changed = _write_changed(device, at, piece)
        written += changed
        unsynced += changed
        at += len(piece)
        if unsynced >= _UNSYNCED_MAX or at - synced >= _UNSYNCED_MAX:
            os.fdatasync(device)
            os.posix_fadvise(device, synced, at - synced, os.POSIX_FADV_DONTNEED)
            unsynced, synced = 0, at
    if image.read(1):
        raise errors.Error(
            f"The image is longer than the {length} bytes that were announced; deploy it again."
        )
    os.fsync(device)
    return written


def _write_changed(device: int, at: int, piece: bytes) -> int:
    """Write the blocks of a piece that differ from those of the device; return the bytes written.

    Neighbours are written together.
    """
    old = _read(device, at, len(piece))
    if old == piece:
        return 0
    written = start = 0
    view = memoryview(piece)
    while start < len(piece):
        end = start
        while end < len(piece) and old[end : end + BLOCK] != view[end : end + BLOCK]:
            end = min(end + BLOCK, len(piece))
        if end > start:
            _write(device, at + start, view[start:end])
            written += end - start
        start = max(end, start + BLOCK)
    return written


def _read(device: int, at: int, length: int) -> bytes:
    """Return what a device holds; less, if it cannot be read there, so that it is written."""
    content = bytearray()
    try:
        while len(content) < length and (piece := os.pread(device, length - len(content), at + len(content))):
            content += piece
    except OSError:
        return b""
    return bytes(content)


def _write(device: int, at: int, block: memoryview) -> None:
    while block:
        done = os.pwrite(device, block, at)
        block, at = block[done:], at + done
