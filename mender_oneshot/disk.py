"""Files that survive a power cut: written whole or not at all, read with a bound, and the one lock.

A file of ours that somebody else could have put there, or could still write to, is never used. Knows
nothing of what the files mean. Paths are plain strings: `pathlib` alone would double the start-up cost of
the most frequent invocation, the one that finds nothing due.
"""

import contextlib
import errno
import os
import stat
import sys

from . import errors
from .oserrors import failure as failure
from .oserrors import require_file_size as require_file_size

STATE_RESERVE = 1 << 20
"""Bytes that a download leaves free, so that the state can always be written."""

_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY, errno.EISDIR, 524}
"""What fsync of a directory answers on file systems that cannot do it; 524 is the kernel's own ENOTSUPP."""


def dangling_link(path: str) -> str:
    """Return a clause about the symbolic link that keeps a missing path from existing, or ""."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path} is a link to {os.readlink(path)}, which does not exist; mount its partition"
    return ""


def require_target(path: str) -> None:
    """Raise `errors.SettingsError` if a path does not exist because a symbolic link leads nowhere.

    Its partition may not be mounted, so it must not be treated as a file that was never there.
    """
    if clause := dangling_link(path):
        raise errors.SettingsError(f"{clause[0].upper()}{clause[1:]}, or correct the link.")


def require_data_directory(path: str) -> None:
    """Raise `errors.DiskError` for a data directory that does not exist because a link leads nowhere.

    Its partition may not be mounted, and with a new key in that place the device would be another one for the
    server.
    """
    if clause := dangling_link(path):
        raise errors.DiskError(f"There is no data directory {path}: {clause}, or make the directory.")


def ensure_directory(path: str) -> None:
    """Make the data directory if it is missing; raises `errors.NoSpace` or `errors.DiskError`."""
    require_data_directory(path)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        raise failure(f"create the data directory {path}", error) from error


def read(path: str, limit: int = 1 << 20, *, private: bool = False) -> bytes | None:
    """Return the content of a regular file, at most `limit` bytes, or None if there is no file.

    Raises `errors.SettingsError` for a link that leads nowhere, and `errors.DiskError` for anything that is
    not a regular file, is too large or cannot be read; if it is `private`, `errors.UntrustedFile` for a file
    that another user can write.
    """
    try:
        # Without O_NONBLOCK a FIFO would block us.
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
        if private and (reason := writable_by_others(found)):
            raise errors.UntrustedFile(path, reason)
        return _content(descriptor, path, limit)
    except OSError as error:
        raise failure(f"read {path}", error) from error
    finally:
        os.close(descriptor)


def read_own(path: str, limit: int = 1 << 20) -> bytes | None:
    """Read a file that only this program writes; links are not followed.

    Raises `errors.UntrustedFile` if it could be somebody else's, and `errors.DiskError` like `read`, also for
    a directory: no new file can take its place.
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
        if not is_ours(found, path):
            raise errors.UntrustedFile(path, not_ours(found), content)
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
    """Replace a file so that a power cut leaves the old content or the new, never a mixture.

    Write beside it, fsync, rename, fsync the directory. Raises `errors.NoSpace` or `errors.DiskError`, and
    then the old file stands.
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
    """Create a new file to be renamed to `path` later; return its name and its descriptor.

    Always the same name, so that power cuts leave at most one behind. If what has that name cannot be
    removed (a directory, say), any other name will do.
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
    """Return the bytes that we can still write beside a file (a path or a descriptor); raises `OSError`.

    0 if no file can be made for lack of inodes. Some file systems count neither inodes nor blocks; without a
    count of blocks the answer is a very large number.
    """
    room = os.statvfs(path)
    if not room.f_blocks:
        return sys.maxsize
    blocks = room.f_bavail if os.geteuid() else room.f_bfree
    return blocks * room.f_frsize if room.f_ffree or not room.f_files else 0


def create(path: str, mode: int = 0o600, flags: int = os.O_WRONLY) -> int:
    """Open a new file of ours and return its descriptor; whatever had its name is removed first.

    O_EXCL means that a link or a file that somebody prepared there is never followed, nor its mode inherited.
    """
    flags |= os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def open_own(path: str, flags: int = os.O_WRONLY) -> int:
    """Open a file of ours for appending, and make it if it is missing; raises `OSError`.

    Anything that is not ours alone (see `is_ours`) is replaced by a new, empty file: whoever made it may have
    it open, and could change what we write.
    """
    flags |= os.O_APPEND
    with contextlib.suppress(FileNotFoundError, PermissionError, errors.UntrustedFile):
        # Without O_CREAT, which the kernel refuses for a file of somebody else's in a sticky directory.
        descriptor = _open_regular(path, flags)
        if is_ours(os.fstat(descriptor), path):
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
    """Open a regular file without following a link or blocking; raises `errors.UntrustedFile`."""
    # Looked at first, for opening a device can have effects of its own.
    if stat.S_ISREG(os.lstat(path).st_mode):
        try:
            return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
    raise errors.UntrustedFile(path, "is not a regular file")


def open_to_read(path: str) -> int:
    """Open a file of ours for reading.

    Raises `errors.UntrustedFile` if it could be somebody else's, `OSError` if it cannot be opened.
    """
    descriptor = _open_regular(path, os.O_RDONLY)
    try:
        found = os.fstat(descriptor)
        if not is_ours(found, path):
            raise errors.UntrustedFile(path, not_ours(found))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_own(path: str) -> bool:
    """Say whether there is a file of ours, and nobody else's, at a path; raises `errors.DiskError`."""
    try:
        os.close(open_to_read(path))
    except (FileNotFoundError, errors.UntrustedFile):
        return False
    except OSError as error:
        raise failure(f"read {path}", error) from error
    return True


def is_anothers(path: str) -> bool:
    """Say whether another user, and not root, has made what is at a path; False if nothing is there."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid not in (os.geteuid(), 0) and not is_ours(found, path)


def not_ours(found: os.stat_result) -> str:
    """Say why a file may not be ours alone, as the end of a sentence; "" if it is."""
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if reason := writable_by_others(found):
        return reason
    return "has a second name (a hard link)" if found.st_nlink != 1 else ""


def writable_by_others(found: os.stat_result) -> str:
    """Say why another user can change a file, as the end of a sentence; "" if none but root can."""
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {found.st_uid}"
    return "can be written by other users" if _others_write(found) else ""


def is_ours(found: os.stat_result, path: str) -> bool:
    """Say whether a file found at `path` is ours alone: regular, our own, one name, written by nobody else.

    A file system without owners or modes (vfat, a network share) gives the same to every file. So before a
    file is rejected, one made just now is compared with it.
    """
    if not not_ours(found):
        return True
    if not stat.S_ISREG(found.st_mode):
        return False
    try:
        probe, descriptor = _create_unique(path)
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


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory durable, as far as its file system can do that."""
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # one that can be written but not listed
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(directory: int) -> None:
    """Do the same for a directory that is open (for reading, not with O_PATH)."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


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
