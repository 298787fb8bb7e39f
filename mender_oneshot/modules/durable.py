"""Changes to files that a power cut leaves undone or complete: each is synced before the next begins.

Every function raises `OSError`.
"""

import contextlib
import os
import shutil
import stat

from .. import disk

BESIDE = ".mender-oneshot.new"
"""The name of an unfinished file, in the directory of the file that it will replace."""

_PIECE = 1 << 20


def write(path: str, content: bytes) -> None:
    """Replace a small file."""
    beside = _beside(path)
    with open(disk.create(beside), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _replace(beside, path)


def copy(source: str, target: str, mode: int | None = None) -> None:
    """Replace `target` by a copy of `source` with its owner, mode, times and extended attributes.

    A symbolic link is copied as such. `mode` overrides the mode of the source.
    """
    beside = _beside(target)
    found = os.lstat(source)
    try:
        if stat.S_ISLNK(found.st_mode):
            discard(beside)
            os.symlink(os.readlink(source), beside)
            os.chown(beside, found.st_uid, found.st_gid, follow_symlinks=False)
        else:
            _copy_file(source, beside, found, mode)
        _replace(beside, target)
    except OSError:
        with contextlib.suppress(OSError):
            discard(beside)
        raise


def _copy_file(source: str, beside: str, found: os.stat_result, mode: int | None) -> None:
    with open(source, "rb", buffering=0) as old, open(disk.create(beside), "wb", buffering=0) as new:
        while piece := old.read(_PIECE):
            view = memoryview(piece)
            while view:
                view = view[new.write(view) :]
        with contextlib.suppress(PermissionError):  # a file system without owners
            os.fchown(new.fileno(), found.st_uid, found.st_gid)
        shutil.copystat(source, beside)
        if mode is not None:
            os.fchmod(new.fileno(), mode)
        os.fsync(new.fileno())


def is_equal(first: str, second: str) -> bool:
    """Return whether two files have the same content."""
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as other:
        while True:
            piece = one.read(_PIECE)
            if piece != other.read(_PIECE):
                return False
            if not piece:
                return True


def _beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), BESIDE)


def _replace(beside: str, path: str) -> None:
    os.replace(beside, path)
    disk.sync_directory(os.path.dirname(path))


def discard(path: str) -> bool:
    """Remove a file or a link, and return whether there was one."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    disk.sync_directory(os.path.dirname(path))
    return True


def rename(old: str, new: str) -> None:
    """Rename within one directory."""
    os.rename(old, new)
    disk.sync_directory(os.path.dirname(new))


def ensure_directory(path: str) -> None:
    """Make a directory and those above it if they are missing."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path.rstrip("/"))
    ensure_directory(parent or "/")
    with contextlib.suppress(FileExistsError):  # "a/.." exists as soon as "a" does
        os.mkdir(path)
        disk.sync_directory(parent)


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, a file or a link; a missing one is fine."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        disk.sync_directory(os.path.dirname(path))
    else:
        discard(path)
