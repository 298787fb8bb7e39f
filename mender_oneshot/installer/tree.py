"""The tree that an update module works in (update-modules.md section 2)."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping

from .. import disk
from ..artifact.verify import Header


def make(path: str, values: Mapping[str, str], header: Header) -> None:
    """Make an empty tree, fill in its header and sync it; raises `errors.NoSpace` or `errors.DiskError`.

    `values` are the plain entries, by their path in the tree.
    """
    try:
        remove(path)
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
    """Remove the tree; one that is not there is fine, and what cannot be removed stays."""
    with contextlib.suppress(OSError):
        os.unlink(path)  # a module may have put a file or a link in its place
    shutil.rmtree(path, ignore_errors=True)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
