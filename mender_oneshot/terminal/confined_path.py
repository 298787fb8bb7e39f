"""Open a path without leaving a directory: one component at a time, by descriptors, never by comparing paths.

So swapping links and directories meanwhile does not lead outside: a descriptor keeps its directory.
"""

import contextlib
import errno
import os
import pwd
import stat
from types import TracebackType
from typing import NamedTuple

MOST_LINKS = 40
"""Links in one path before it counts as a loop, as in the kernel."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutsideRoot(Exception):
    """The path leads out of the directory."""


class Symlink(Exception):
    """The path contains a symbolic link, and none may be followed."""


class Replaceable(Exception):
    """A user other than root can replace the directory; the text names the user and the component."""


class Root(NamedTuple):
    """An open directory that no path leads out of, and the components of its own path."""

    descriptor: int
    names: list[bytes]


def hold(path: str) -> Root:
    """Open a directory, one component at a time from "/" and through no link.

    Raises `Replaceable` if a user other than root and our own could replace a component, and `OSError`.
    """
    names = _names(_as_on_disk(path))
    descriptor = os.open("/", _DIRECTORY)
    try:
        above = "/"
        for name in names:
            inner = _step(descriptor, name, above)
            os.close(descriptor)
            descriptor = inner
            above = os.path.join(above, os.fsdecode(name))
    except BaseException:
        os.close(descriptor)
        raise
    return Root(descriptor, names)


def _step(directory: int, name: bytes, above: str) -> int:
    """Open a directory in another one, if only root and our own user can replace it there."""
    path = os.path.join(above, os.fsdecode(name))
    if name == b"..":
        raise Replaceable(f'there is ".." in it, after {above}')
    if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise Replaceable(f"{path} is a symbolic link; name the directory that it leads to")
    inner = os.open(name, _DIRECTORY, dir_fd=directory)
    outer_stat, inner_stat = os.fstat(directory), os.fstat(inner)
    if not _is_trusted(outer_stat.st_uid):
        problem = f"the owner of {above}, {_user(outer_stat.st_uid)}, can replace {path}"
    elif outer_stat.st_mode & 0o022 and not outer_stat.st_mode & stat.S_ISVTX:
        problem = f"users other than root can write to {above} and so replace {path}"
    elif outer_stat.st_mode & 0o022 and not _is_trusted(inner_stat.st_uid):
        problem = f"its owner, {_user(inner_stat.st_uid)}, can replace {path}"
    else:
        return inner
    os.close(inner)
    raise Replaceable(problem)


def _is_trusted(user: int) -> bool:
    return user in (0, os.geteuid())


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


class Place:
    """A name in an open directory: the end of a path. A context manager that closes the directory.

    The file need not exist; the name is "." if the path ends at the root or in "..". Names are bytes, so that
    they do not depend on the locale.
    """

    def __init__(self, directory: int, name: bytes) -> None:
        self.directory = directory
        self.name = name

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory; no-op if it is closed."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1

    def stat(self) -> os.stat_result:
        """Return the status of the file, of a link itself; raises `OSError`."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def open(self, flags: int, mode: int = 0) -> int:
        """Open the file, never through a link; raises `OSError`."""
        return os.open(self.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.directory)


def find(root: Root, path: str, *, follow: bool, last: bool = True) -> Place:
    """Walk from `root` along an absolute path, which must be inside it, and return where it ends.

    `follow` allows symbolic links that stay inside `root`; with `last`, the last component may be such a link
    too. Raises `OutsideRoot`, `Symlink`, or `OSError` if a component is missing or must not be entered.
    """
    walk = _Walk(root)
    try:
        return walk.to(_as_on_disk(path), follow, last)
    finally:
        walk.close()


class _Walk:
    """The open directories from the root to the current one; ".." returns to the one before it."""

    def __init__(self, root: Root) -> None:
        self._root = root.names
        self._opened = [os.dup(root.descriptor)]

    def close(self) -> None:
        while self._opened:
            os.close(self._opened.pop())

    def to(self, path: bytes, follow: bool, last: bool) -> Place:
        names = self._inside(path)
        links = 0
        while names:
            name = names.pop()
            if name == b"..":
                self._up()
            elif self._is_link(name) and (names or last):
                links += 1
                if not follow:
                    raise Symlink(name)
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=self._opened[-1])
                if target.startswith(b"/"):
                    while len(self._opened) > 1:
                        os.close(self._opened.pop())
                    names += self._inside(target)
                else:
                    names += _names(target)[::-1]
            elif names:
                # O_NOFOLLOW makes it an error if a link has replaced the directory meanwhile.
                self._opened.append(os.open(name, _DIRECTORY, dir_fd=self._opened[-1]))
            else:
                return Place(self._opened.pop(), name)
        return Place(self._opened.pop(), b".")

    def _inside(self, path: bytes) -> list[bytes]:
        """Return the components of an absolute path after those of the root, the next one last."""
        names, root = _names(path), self._root
        if names[: len(root)] != root:
            raise OutsideRoot
        return names[len(root) :][::-1]

    def _up(self) -> None:
        if len(self._opened) > 1:
            os.close(self._opened.pop())
        elif self._root:
            raise OutsideRoot

    def _is_link(self, name: bytes) -> bool:
        with contextlib.suppress(OSError):
            return stat.S_ISLNK(os.stat(name, dir_fd=self._opened[-1], follow_symlinks=False).st_mode)
        return False


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _as_on_disk(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
