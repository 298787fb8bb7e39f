"""Read and write files safely: atomically, durably, and with a limit on their size.

A file of this program is never used if another user could have created it or can write to it. This module
does not interpret the content of files. Paths are plain strings, because importing `pathlib` would double the
start-up cost of the most frequent invocation, the one that finds nothing due.
"""

import contextlib
import errno
import os
import stat
import sys

from . import errors, ownership
from .oserrors import failure as failure
from .oserrors import require_file_size as require_file_size

STATE_RESERVE = 1 << 20
"""Bytes that a download leaves free, so that the state can still be written."""

_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY, errno.EISDIR, 524}
"""Errors of fsync for directories on file systems that do not support it; 524 is the kernel's ENOTSUPP."""


def dangling_link(path: str) -> str:
    """Return a clause about the dangling link because of which a path does not exist, or ""."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path} is a link to {os.readlink(path)}, which does not exist; mount its partition"
    return ""


def require_target(path: str) -> None:
    """Raise `errors.SettingsError` if a path does not exist because of a dangling link.

    The partition of its target may not be mounted, so the file must not be taken for one that never existed.
    """
    if clause := dangling_link(path):
        raise errors.SettingsError(f"{clause[0].upper()}{clause[1:]}, or correct the link.")


def require_data_directory(path: str) -> None:
    """Raise `errors.DiskError` if the data directory does not exist because of a dangling link.

    Its partition may not be mounted, and with a new key the server would see another device.
    """
    if clause := dangling_link(path):
        raise errors.DiskError(f"There is no data directory {path}: {clause}, or create the directory.")


def ensure_directory(path: str) -> None:
    """Create the data directory, mode 0700, and its parents if they are missing.

    Raises `errors.DiskError`, also for a dangling link, or `errors.NoSpace`.
    """
    require_data_directory(path)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        raise failure(f"create the data directory {path}", error) from error


def read(path: str, limit: int = 1 << 20, *, private: bool = False) -> bytes | None:
    """Return the content of a regular file, or None if the file does not exist; follow links.

    Raises `errors.SettingsError` for a dangling link, `errors.FileTooLarge` for more than `limit` bytes, and
    `errors.DiskError` for anything that is not a regular file or cannot be read. With `private`, raises
    `errors.UntrustedFile` for a file that another user owns or can write to.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        require_target(path)
        return None
    except OSError as error:
        raise failure(f"read {path}", error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise errors.DiskError(f"Cannot read {path}: it is not a regular file; remove it.")
        if private and (reason := ownership.writable_by_others(found)):
            raise errors.UntrustedFile(path, reason)
        return _content(descriptor, path, limit)
    except OSError as error:
        raise failure(f"read {path}", error) from error
    finally:
        os.close(descriptor)


def read_own(path: str, limit: int = 1 << 20) -> bytes | None:
    """Return the content of a file that only this program writes, or None if it does not exist.

    Does not follow links. Raises `errors.UntrustedFile` if it may not be ours (`ownership.is_ours`), and
    `errors.DiskError` like `read`, also for a directory, because no new file can replace it.
    """
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, "", path)
        descriptor = _open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(f"read {path}", error) from error
    try:
        content, found = _content(descriptor, path, limit), os.fstat(descriptor)
        if not ownership.is_ours(found, path):
            raise errors.UntrustedFile(path, ownership.not_ours(found), content)
        return content
    except OSError as error:
        raise failure(f"read {path}", error) from error
    finally:
        os.close(descriptor)


def _content(descriptor: int, path: str, limit: int) -> bytes:
    content = bytearray()
    while len(content) <= limit and (piece := os.read(descriptor, limit + 1 - len(content))):
        content += piece
    if len(content) > limit:
        raise errors.FileTooLarge(path, limit, bytes(content[:limit]))
    return bytes(content)


def write_whole(path: str, content: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically and durably; `mode` is the mode of the new file.

    Writes a new file in the same directory, calls fsync, renames it and calls fsync for the directory. A
    power cut at any time leaves the old content or the new content, never a mixture; when this returns, the
    new content survives one.

    Raises `errors.NoSpace` or `errors.DiskError`. Then the old file is unchanged, except if only the last
    step failed: the new content is in place, but a power cut may bring the old content back. Two processes
    that write the same path at once are **not** synchronized; hold the lock.
    """
    try:
        beside, descriptor = _create_beside(path, mode)
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


def _create_beside(path: str, mode: int = 0o600, flags: int = os.O_WRONLY) -> tuple[str, int]:
    """Create a file that will be renamed to `path`; return its name and its descriptor.

    The name is always the same, so that power cuts leave at most one such file behind. If that name is taken
    and cannot be removed (by a directory, for example), the name is random.
    """
    beside = path + ".new"
    try:
        return beside, create(beside, mode, flags)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM, errno.EACCES, errno.EBUSY):
            raise
    return _create_unique(path, mode, flags)


def _create_unique(path: str, mode: int = 0o600, flags: int = os.O_WRONLY) -> tuple[str, int]:
    beside = f"{path}.new{os.urandom(4).hex()}"
    return beside, create(beside, mode, flags)


def free(path: str | int) -> int:
    """Return the bytes that this user can still write to the file system of a path or descriptor.

    0 if there is no free inode; a very large number if the file system does not count its blocks. Raises
    `OSError`.
    """
    room = os.statvfs(path)
    if not room.f_blocks:
        return sys.maxsize
    blocks = room.f_bavail if os.geteuid() else room.f_bfree
    return blocks * room.f_frsize if room.f_ffree or not room.f_files else 0


def create(path: str, mode: int = 0o600, flags: int = os.O_WRONLY) -> int:
    """Create a new file and return its descriptor; remove anything that has its name first.

    O_EXCL guarantees that a link or file that another user put there is neither followed nor reused. Raises
    `OSError`, also if the name belongs to a directory. Nothing is synced.
    """
    flags |= os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def open_own(path: str, flags: int = os.O_WRONLY) -> int:
    """Open a file of this program for appending, create it if it is missing, and return its descriptor.

    A file that may not be ours (`ownership.is_ours`) is replaced by a new, empty one: another process may
    have it open, and could change what is written. Raises `OSError`. Nothing is synced.
    """
    flags |= os.O_APPEND
    with contextlib.suppress(FileNotFoundError, PermissionError, errors.UntrustedFile):
        # Without O_CREAT, which the kernel rejects for another user's file in a sticky directory.
        descriptor = _open_regular(path, flags)
        if ownership.is_ours(os.fstat(descriptor), path):
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(descriptor, 0o600)
            return descriptor
        os.close(descriptor)
    beside, descriptor = _create_beside(path, flags=flags)
    try:
        os.replace(beside, path)
    except BaseException:
        os.close(descriptor)
        os.unlink(beside)
        raise
    return descriptor


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file without following a link or blocking; raise `errors.UntrustedFile` otherwise."""
    # Check first, because opening a device file can have side effects.
    if stat.S_ISREG(os.lstat(path).st_mode):
        try:
            return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
    raise errors.UntrustedFile(path, "is not a regular file")


def open_to_read(path: str) -> int:
    """Open a file of this program for reading and return its descriptor; do not follow links.

    Raises `errors.UntrustedFile` if it may not be ours (`ownership.is_ours`), and `OSError` if it cannot be
    opened.
    """
    descriptor = _open_regular(path, os.O_RDONLY)
    try:
        found = os.fstat(descriptor)
        if not ownership.is_ours(found, path):
            raise errors.UntrustedFile(path, ownership.not_ours(found))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_own(path: str) -> bool:
    """Return whether a path is our file (`ownership.is_ours`); raise `errors.DiskError` if unreadable."""
    try:
        os.close(open_to_read(path))
    except (FileNotFoundError, errors.UntrustedFile):
        return False
    except OSError as error:
        raise failure(f"read {path}", error) from error
    return True


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory durable; raise `OSError` if that fails.

    Does nothing, and so guarantees nothing, if the file system does not support it (some network file
    systems) or the directory may not be listed.
    """
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a directory that can be written to but not listed
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(directory: int) -> None:
    """Do what `sync_directory` does, for an open directory (open for reading, not with O_PATH)."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def remove(*paths: str) -> None:
    """Remove files of one directory durably; ignore missing ones.

    Raises `errors.DiskError` or `errors.NoSpace` for the first one that cannot be removed; the rest stays.
    """
    removed = False
    for path in paths:
        try:
            os.unlink(path)
            removed = True
        except FileNotFoundError:
            continue
        except OSError as error:
            raise failure(f"remove {path}", error) from error
    if removed:
        try:
            sync_directory(os.path.dirname(paths[0]))
        except OSError as error:
            raise failure(f"remove {paths[0]}", error) from error
