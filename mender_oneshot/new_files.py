"""Write several new files: all of them, or none if one cannot be written."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from . import disk, errors

_SPACE = 1 << 16
"""Bytes that must be free beside the files."""


class NewFile(NamedTuple):
    """A file to be written, and the path of the copy of the file that it replaces, "" for a new file."""

    path: str
    content: bytes
    mode: int = 0o644
    copy: str = ""


def replacing(file: NewFile) -> NewFile:
    """Return the file with an unused name for a copy of the file that it replaces; follow links."""
    path = os.path.realpath(file.path)
    names = (f"{path}.old{number or ''}" for number in count())
    return file._replace(path=path, copy=next(name for name in names if not os.path.lexists(name)))


def check(files: Sequence[NewFile]) -> None:
    """Raise `errors.Error` for the first file that could not be written; change nothing."""
    needed = _SPACE + sum(len(file.content) for file in files)
    for file in files:
        disk.require_target(file.path)
        if os.path.isdir(file.path):
            raise disk.failure(f"write {file.path}", IsADirectoryError(errno.EISDIR, "", file.path))
        directory = _existing(os.path.dirname(os.path.abspath(file.path)))
        try:
            if not os.path.isdir(directory):
                raise NotADirectoryError(errno.ENOTDIR, "", directory)
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, "", file.path)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES if os.geteuid() else errno.EPERM, "", file.path)
            if disk.free(directory) < needed:
                raise OSError(errno.ENOSPC, "", f"{directory}/")
        except OSError as error:
            raise disk.failure(f"write {file.path}", error) from error


def _existing(path: str) -> str:
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def write(files: Sequence[NewFile], private: Iterable[str] = ()) -> None:
    """Write the files in their order, each atomically and durably, and keep copies of those they replace.

    Creates missing directories: those in `private` with mode 0700, the others with 0755. If a file cannot be
    written, the files before it are removed or restored, then `errors.NoSpace` or `errors.DiskError` is
    raised.
    """
    written: list[NewFile] = []
    try:
        with _umask(0o022):
            for file in files:
                _make_directory(os.path.dirname(file.path), private)
                if file.copy:
                    _copy(file.path, file.copy)
                written.append(file)
                disk.write_whole(file.path, file.content, file.mode)
    except BaseException:
        for file in reversed(written):
            with contextlib.suppress(OSError):
                if file.copy:
                    os.replace(file.copy, file.path)
                else:
                    os.unlink(file.path)
        raise


def _copy(path: str, copy: str) -> None:
    """Copy a file with its mode; a copy with a tenant token is readable by its owner only."""
    content = disk.read(path) or b""
    mode = 0o600 if b"tenanttoken" in content.lower() else os.stat(path).st_mode & 0o777
    disk.write_whole(copy, content, mode)


def _make_directory(path: str, private: Iterable[str]) -> None:
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700 if directory in private else 0o755)
            disk.sync_directory(os.path.dirname(directory))
        except FileExistsError:
            continue
        except OSError as error:
            raise disk.failure(f"create the directory {directory}", error) from error


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def undo(files: Sequence[NewFile]) -> list[str]:
    """Return the shell commands that bring back the state before `write`."""
    new = [_quoted(file.path) for file in files if not file.copy]
    moves = [f"mv {_quoted(file.copy)} {_quoted(file.path)}" for file in files if file.copy]
    return moves + ([f"rm {' '.join(new)}"] if new else [])


def _quoted(path: str) -> str:
    """Return a path as a word of the shell."""
    if path and all(char.isalnum() or char in "/._-+" for char in path):
        return path
    return "'" + path.replace("'", "'\\''") + "'"


def refuse(files: Sequence[NewFile]) -> errors.Error:
    """Return the error for files that exist and that nothing allows to replace."""
    names = " and ".join(file.path for file in files)
    return errors.NoSpace(f"{names} would be replaced; use --force, which keeps a copy.")
