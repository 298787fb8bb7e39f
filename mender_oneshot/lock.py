"""The lock of the data directory: one invocation at a time, even if another user created the lock file."""

import contextlib
import fcntl
import os
import stat

from . import console, disk, errors, ownership


def take(path: str, *, wait: bool) -> int:
    """Take the lock and return its descriptor; closing that, or the end of the process, releases the lock.

    With `wait`, blocks until the lock is free; only the deadline of the invocation interrupts that. Otherwise
    raises `errors.Busy` if another invocation holds it. Raises `errors.DiskError` or `errors.NoSpace` if the
    file cannot be created or locked.
    """
    try:
        with console.waiting("Waiting for another mender-oneshot to end ..."):
            while (descriptor := _try(path, wait)) < 0:
                pass
    except BlockingIOError as error:
        message = "Another mender-oneshot is already running; try again later."
        raise errors.Busy(message) from error
    except OSError as error:
        raise disk.failure(f"open the lock {path}", error) from error
    return descriptor


def _try(path: str, wait: bool) -> int:
    """Take the lock and return its descriptor, or -1 if the file was created or replaced meanwhile: retry."""
    how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return _make(path)
    if not _may_be_held(found, path):
        return _replace_foreign(path, how)
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(descriptor, how)
        held = os.fstat(descriptor)
        if os.path.lexists(path) and os.path.samestat(held, os.lstat(path)):
            if ownership.is_ours(held, path):
                return descriptor
            # It has a second name or is writable by others. No other invocation holds it now.
            fresh = _replace(path)
            os.close(descriptor)
            return fresh
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return -1


def _make(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))
    return -1  # the next attempt locks it


def _may_be_held(found: os.stat_result, path: str) -> bool:
    """Return whether another invocation may hold a file as its lock; never if another user owns it."""
    regular = stat.S_ISREG(found.st_mode)
    return regular and (found.st_uid in (os.geteuid(), 0) or ownership.is_ours(found, path))


def _replace_foreign(path: str, how: int) -> int:
    """Replace a file that no invocation can hold; a lock on the directory serializes the replacements."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, how)
        if os.path.lexists(path) and not _may_be_held(os.lstat(path), path):
            return _replace(path)
    finally:
        os.close(directory)
    return -1


def _replace(path: str) -> int:
    """Replace the lock file by a new file that is already locked; return its descriptor."""
    beside = f"{path}.new{os.urandom(4).hex()}"
    descriptor = disk.create(beside, flags=os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(beside, path)
    except BaseException:
        os.close(descriptor)
        os.unlink(beside)
        raise
    return descriptor
