"""The lock of the data directory: one invocation at a time, whatever somebody has put under its name."""

import contextlib
import fcntl
import os
import stat

from . import disk, errors


def take(path: str, *, wait: bool) -> int:
    """Take the lock and return its descriptor; closing it, or the end of the process, releases it.

    Raises `errors.Busy` if another invocation holds it and `wait` is false; with `wait`, only the deadline of
    the invocation ends the waiting. Raises `errors.DiskError` or `errors.NoSpace` if there can be no lock.
    """
    try:
        while (descriptor := _try(path, wait)) < 0:
            pass
    except BlockingIOError as error:
        message = "Another invocation is at work in this data directory; the next run will continue."
        raise errors.Busy(message) from error
    except OSError as error:
        raise disk.failure(f"open the lock {path}", error) from error
    return descriptor


def _try(path: str, wait: bool) -> int:
    """Take the lock; -1 if the file was replaced meanwhile, so that the next attempt finds another one."""
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
            if disk.is_ours(held, path):
                return descriptor
            # A second name, or a mode that lets others write. Nobody else holds it now.
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
    return -1  # the next attempt locks it, as any other


def _may_be_held(found: os.stat_result, path: str) -> bool:
    """Say whether another invocation may hold a file as its lock: never one of somebody else's."""
    regular = stat.S_ISREG(found.st_mode)
    return regular and (found.st_uid in (os.geteuid(), 0) or disk.is_ours(found, path))


def _replace_foreign(path: str, how: int) -> int:
    """Replace what no invocation can hold; the lock of the directory keeps two from doing so at once."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, how)
        if os.path.lexists(path) and not _may_be_held(os.lstat(path), path):
            return _replace(path)
    finally:
        os.close(directory)
    return -1


def _replace(path: str) -> int:
    """Put a new file, locked already, in the place of the lock."""
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
