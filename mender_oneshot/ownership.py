"""Whether a file is ours: made by this program or by root, and not writable by other users."""

import os
import stat


def is_anothers(path: str) -> bool:
    """Return whether a path belongs to another user who is not root; False if it does not exist."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid not in (os.geteuid(), 0) and not is_ours(found, path)


def not_ours(found: os.stat_result) -> str:
    """Return why a file may not be ours, as the end of a message, or ""."""
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if reason := writable_by_others(found):
        return reason
    return "has a second name (a hard link)" if found.st_nlink != 1 else ""


def writable_by_others(found: os.stat_result) -> str:
    """Return why another user (root excepted) can change a file, as the end of a message, or ""."""
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {found.st_uid}"
    return "can be written by other users" if _others_write(found) else ""


def is_ours(found: os.stat_result, path: str) -> bool:
    """Return whether the file found at `path` is ours: regular, one name, owned and writable by us only.

    A file system without owners or modes (vfat, a network share) reports the same ones for every file, so
    before the file is rejected, it is compared with a new one in the same directory.
    """
    if not not_ours(found):
        return True
    if not stat.S_ISREG(found.st_mode):
        return False
    probe = f"{path}.new{os.urandom(4).hex()}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        return _likeness(found) == _likeness(os.fstat(descriptor))
    finally:
        os.close(descriptor)
        os.unlink(probe)


def _likeness(found: os.stat_result) -> tuple[int, bool, int]:
    return found.st_uid, _others_write(found), found.st_nlink


def _others_write(found: os.stat_result) -> bool:
    own_group = found.st_gid in (os.getegid(), 0)
    return bool(found.st_mode & (stat.S_IWOTH if own_group else stat.S_IWOTH | stat.S_IWGRP))
