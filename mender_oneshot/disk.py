"""Files that survive a power cut: written whole or not at all, read with a bound, and the one lock.

Knows nothing of what the files mean. Paths are plain strings: `pathlib` alone would double the start-up
cost of the most frequent invocation, the one that finds nothing due.
"""

import contextlib
import errno
import fcntl
import os
import stat

from . import errors

STATE_RESERVE = 1 << 20
"""Bytes that a download leaves free, so that the state can always be written."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def failure(doing: str, error: OSError) -> errors.Error:
    """Put an `OSError` into words: `doing` names the act and the file ("write /var/lib/mender/x")."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return errors.NoSpace(f"Cannot {doing}: {why}; make room or make it writable, the next run goes on.")
    return errors.DiskError(f"Cannot {doing}: {why}; look at the file system, the next run tries again.")


def ensure_directory(path: str) -> None:
    """Make the data directory where it is missing; raises `errors.NoSpace` or `errors.DiskError`.

    Not where a link leads to: its partition may not be mounted, and with a new key in that place the device
    would be another one for the server.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.islink(path):
            target = os.readlink(path)
            raise errors.DiskError(
                f"The data directory {path} is a link to {target}, and there is no such directory; mount its "
                "partition, or make the directory."
            ) from error
        raise failure(f"create the data directory {path}", error) from error


def read(path: str, limit: int = 1 << 20) -> bytes | None:
    """Return what a regular file holds, at most `limit` bytes, or None where there is no file.

    Raises `errors.DiskError` for anything that is not a regular file, is too large or cannot be read.
    """
    try:
        # Without O_NONBLOCK a FIFO put in our way would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(f"read {path}", error) from error
    content = bytearray()
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.DiskError(f"Cannot read {path}: it is not a regular file; remove it.")
        while len(content) <= limit and (piece := os.read(descriptor, limit + 1 - len(content))):
            content += piece
    except OSError as error:
        raise failure(f"read {path}", error) from error
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise errors.DiskError(f"Cannot read {path}: it is larger than {limit} bytes; remove it.")
    return bytes(content)


def write_whole(path: str, content: bytes, mode: int = 0o600) -> None:
    """Replace a file so that a power cut leaves the old content or the new, never a mixture.

    Write beside it, fsync, rename, fsync the directory. Raises `errors.NoSpace` or `errors.DiskError`, and
    then the old file stands.
    """
    beside = path + ".new"
    try:
        descriptor = create(beside, mode)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
                os.fsync(descriptor)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise failure(f"write {path}", error) from error


def free(path: str | int) -> int:
    """Return the bytes that we can still write beside a file (a path or a descriptor); raises `OSError`.

    0 where no file can be made for want of inodes; some file systems do not count these.
    """
    room = os.statvfs(path)
    blocks = room.f_bavail if os.geteuid() else room.f_bfree
    return blocks * room.f_frsize if room.f_ffree or not room.f_files else 0


def create(path: str, mode: int = 0o600, flags: int = os.O_WRONLY) -> int:
    """Open a new file of ours and return its descriptor; whatever stood in its place is removed first.

    O_EXCL means that a link or a file somebody prepared there is never followed, nor its mode inherited.
    """
    flags |= os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def open_own(path: str, flags: int = os.O_WRONLY) -> int:
    """Open a file of ours to write behind its end, and make it where it is missing; raises `OSError`.

    A FIFO, or a second name of somebody's file, is not ours, whoever put it there: it is removed, and a new
    file made. O_NOFOLLOW does not see a hard link, and without O_NONBLOCK a FIFO would hold us for ever.
    """
    flags |= os.O_APPEND | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a FIFO that nobody reads
            raise
    else:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            return descriptor
        os.close(descriptor)
    return create(path, flags=flags)


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(*paths: str) -> None:
    """Remove files, durably; a missing one is fine. Raises `errors.DiskError` or `errors.NoSpace`."""
    gone = False
    for path in paths:
        try:
            os.unlink(path)
            gone = True
        except FileNotFoundError:
            continue
        except OSError as error:
            raise failure(f"remove {path}", error) from error
    if gone:
        try:
            sync_directory(os.path.dirname(paths[0]))
        except OSError as error:
            raise failure(f"remove {paths[0]}", error) from error


def take_lock(path: str, *, wait: bool) -> int:
    """Take the lock of the data directory and return its descriptor; closing it, or dying, gives it back.

    Raises `errors.Busy` where another invocation holds it and `wait` is false. With `wait` only the
    deadline of the invocation ends the waiting.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise failure(f"open the lock {path}", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            message = "Another invocation is at work in this data directory; the next run goes on."
            raise errors.Busy(message) from error
        if isinstance(error, OSError):
            raise failure(f"lock {path}", error) from error
        raise
    return descriptor
