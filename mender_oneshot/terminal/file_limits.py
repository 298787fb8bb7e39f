"""Apply the `Limits` section to a file: which may be downloaded and uploaded, and the errors otherwise.

The facts are in remote-terminal.md section 4.
"""

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator

from .confined_path import OutsideRoot, Place, Root, Symlink, find
from .fields import Fields
from .settings import FileLimits

DEFAULT_MODE = 0o644
LONGEST_PATH = 4096
LONGEST_REQUEST = 65536

# Go's os.FileMode: the permissions as in stat(2), everything else in bits of its own.
_GO_DIRECTORY, _GO_LINK, _GO_DEVICE, _GO_PIPE, _GO_SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_GO_SETUID, _GO_SETGID, _GO_CHARACTER, _GO_STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
_GO_KINDS = {
    stat.S_IFDIR: _GO_DIRECTORY,
    stat.S_IFLNK: _GO_LINK,
    stat.S_IFBLK: _GO_DEVICE,
    stat.S_IFCHR: _GO_DEVICE | _GO_CHARACTER,
    stat.S_IFIFO: _GO_PIPE,
    stat.S_IFSOCK: _GO_SOCKET,
}


class PermissionDenied(Exception):
    """The request is rejected; the text is sent to the user."""


def go_mode(mode: int) -> int:
    """Return a mode of stat(2) as Go's os.FileMode."""
    bits = {stat.S_ISUID: _GO_SETUID, stat.S_ISGID: _GO_SETGID, stat.S_ISVTX: _GO_STICKY}
    special = sum(go for unix, go in bits.items() if mode & unix)
    return mode & 0o777 | special | _GO_KINDS.get(stat.S_IFMT(mode), 0)


def absolute_path(wanted: Fields) -> str:
    """Return the absolute path in a request; raises `PermissionDenied`, or `DecodeError`."""
    path = wanted.text("path", LONGEST_REQUEST)
    if not path.startswith("/"):
        raise PermissionDenied("invalid request parameters: path: must be absolute")
    if len(path) > LONGEST_PATH:
        raise PermissionDenied(f"invalid request parameters: path: {os.strerror(errno.ENAMETOOLONG)}")
    return path


def find_allowed(limits: FileLimits, root: Root, path: str, *, last: bool = True) -> Place:
    """Find a path within the limits; raises the errors of `confined_path.find`, for `explaining`."""
    return find(root, path, follow=limits.follow_links or not limits.enabled, last=last)


@contextlib.contextmanager
def explaining(path: str) -> Iterator[None]:
    """Turn errors of finding and opening a path into `PermissionDenied` with a text for the user."""
    try:
        yield
    except OutsideRoot as error:
        raise PermissionDenied("access denied: the target file path is outside chroot") from error
    except Symlink as error:
        raise PermissionDenied("access denied: forbidden to follow the link") from error
    except OSError as error:
        raise PermissionDenied(f"{path}: {os.strerror(error.errno or 0)}") from error


def may_fetch(limits: FileLimits, found: os.stat_result, size: int) -> None:
    """Raise `PermissionDenied` if the limits forbid downloading a file of this size, or revealing it."""
    if not limits.enabled:
        return
    if limits.chroot and stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise PermissionDenied(
            "access denied: the file has several names (hard links), and others may be outside chroot"
        )
    if limits.regular_only and not stat.S_ISREG(found.st_mode):
        raise PermissionDenied("access denied: only regular files are allowed")
    if limits.owner_get and found.st_uid not in _numbers(limits.owner_get, _user):
        raise PermissionDenied("access denied: the file owner does not match")
    if limits.group_get and found.st_gid not in _numbers(limits.group_get, _group):
        raise PermissionDenied("access denied: the file group does not match")
    if 0 < limits.max_file_size < size:
        raise PermissionDenied("access denied: the file size is over the limit")


def upload_target(limits: FileLimits, root: Root, path: str, source: str) -> Place:
    """Find the place of an uploaded file: `path`, or the name in `source` if `path` is a directory.

    Raises `PermissionDenied`.
    """
    with explaining(path):
        # With a slash at the end the path means the directory, even if its last name is a link.
        place = find_allowed(limits, root, path, last=path.endswith("/"))
        try:
            kind = stat.S_IFMT(place.stat().st_mode)
        except FileNotFoundError:
            kind = 0
        except BaseException:
            place.close()
            raise
    if kind == stat.S_IFREG:
        return place
    if not kind and not path.endswith("/"):
        return place
    place.close()
    name = os.path.basename(source)
    if kind == stat.S_IFDIR and name not in ("", ".", ".."):
        return upload_target(limits, root, f"{path.rstrip('/')}/{name}", "")
    if kind == stat.S_IFDIR:
        raise PermissionDenied("conflicting file path: cannot overwrite directory")
    if kind:
        raise PermissionDenied("conflicting file path: cannot overwrite irregular file")
    raise PermissionDenied(f"{path}: there is no such directory")


def may_put(limits: FileLimits, place: Place, wanted: Fields) -> tuple[int, tuple[int, int]]:
    """Return mode and owner (user, group; -1: unchanged) of a new file; raises `PermissionDenied`."""
    mode = wanted.number("mode", 0, 2**32 - 1)
    mode = DEFAULT_MODE if mode is None else mode
    owners = (wanted.number(name, 0, 2**32 - 2) for name in ("uid", "gid"))
    owner = [-1 if number is None else number for number in owners]
    if not limits.enabled:
        return mode & 0o777, (owner[0], owner[1])
    setuid = bool(mode & (_GO_SETUID | stat.S_ISUID))
    if setuid and not limits.allow_suid:
        raise PermissionDenied("access denied: the set uid mode is forbidden")
    try:
        found = place.stat()
    except OSError:
        found = None
    if found and not limits.allow_overwrite:
        raise PermissionDenied("access denied: forbidden to overwrite the file")
    if limits.owner_put:
        owner[0] = next(iter(_numbers((limits.owner_put,), _user)), -1)
        if owner[0] < 0 or (found and found.st_uid != owner[0]):
            raise PermissionDenied("access denied: the file owner does not match")
    if limits.group_put:
        owner[1] = next(iter(_numbers((limits.group_put,), _group)), -1)
        if owner[1] < 0 or (found and found.st_gid != owner[1]):
            raise PermissionDenied("access denied: the file group does not match")
    return mode & 0o777 & ~limits.umask | (stat.S_ISUID if setuid else 0), (owner[0], owner[1])


def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _numbers(names: tuple[str, ...], number_of: Callable[[str], int]) -> set[int]:
    """Return the ids of users or groups; names that do not exist are left out."""
    found = set()
    for name in names:
        with contextlib.suppress(KeyError):
            found.add(number_of(name))
    return found
