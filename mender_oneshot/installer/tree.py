"""The tree that an update module works in (update-modules.md section 2)."""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from .. import disk
from ..artifact.verify import Header

log = logging.getLogger(__name__)


def make(path: str, values: Mapping[str, str], header: Header) -> None:
    """Make an empty tree, fill in its header and sync it; raises `errors.NoSpace` or `errors.DiskError`.

    `values` are the plain entries, by their path in the tree.
    """
    try:
        remove(path)
        if _mounts_below(path):
            raise OSError(errno.EBUSY, "", path)
        for directory in (path, f"{path}/header", f"{path}/tmp"):  # noqa: S108  # in the tree, not /tmp
            os.makedirs(directory, 0o755)
        for name, value in values.items():
            _write(f"{path}/{name}", value.encode())
        for name, content in (
            ("header-info", header.info),
            ("type-info", header.type_info),
            ("meta-data", header.meta_data),
        ):
            _write(f"{path}/header/{name}", json.dumps(content, indent=2, sort_keys=True).encode())
        for directory in (f"{path}/header", f"{path}/tmp", path, os.path.dirname(path)):  # noqa: S108
            disk.sync_directory(directory)
    except OSError as error:
        raise disk.failure(f"write {path}", error) from error


def remove(path: str) -> None:
    """Remove the tree; one that is not there is fine, and what cannot be removed stays.

    A file system that a module has left mounted there is unmounted, never emptied.
    """
    for point in _mounts_below(path):
        with contextlib.suppress(OSError):
            subprocess.run(["umount", point], stdin=subprocess.DEVNULL, stdout=2, check=False)  # noqa: S607
    if left := _mounts_below(path):
        log.warning("Cannot remove %s, because %s is mounted in it; unmount it.", path, left[0])
        return
    with contextlib.suppress(OSError):
        os.unlink(path)  # a module may have put a file or a link in its place
    shutil.rmtree(path, ignore_errors=True)


def _mounts_below(path: str) -> list[str]:
    """Return the mount points in a directory, the innermost first."""
    root, found = os.path.realpath(path) + "/", []
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), line.split(b" ")[4])
            if os.fsdecode(point).startswith(root):
                found.append(os.fsdecode(point))
    return found[::-1]


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
