"""What the device provides, as the built-in installer keeps it: `provides.json` in the data directory.

Not in the root file system, unlike `artifact_info`: after a change of slot the other slot's file counts.
"""

import json
import logging
import os
from collections.abc import Mapping

from . import disk
from .paths import STORED_PROVIDES
from .settings import Settings

log = logging.getLogger(__name__)

SCHEMA = 1
SIZE_MAX = 256 * 1024
"""More than the lines of `artifact_info` may take."""


def load(settings: Settings) -> dict[str, str] | None:
    """Return the stored provides; None if `artifact_info` counts, because nothing was installed by us yet.

    It also counts on a device with a sub-updater of its own, which writes it, and if the file is corrupt: a
    name that may be old is better than a device that requests no update. Raises `errors.DiskError`.
    """
    if os.path.lexists(settings.places.install_script):
        return None
    path = settings.places.data(STORED_PROVIDES)
    if os.geteuid() and not os.access(path, os.R_OK):
        return None  # artifact_info has the same, for every user
    content = disk.read_own(path, SIZE_MAX)
    if content is None:
        return None
    try:
        provides = json.loads(content)["provides"]
        if isinstance(provides, dict) and all(isinstance(value, str) for value in provides.values()):
            return provides
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # another type is as wrong as no JSON
    log.warning(
        "%s is corrupt; using %s instead until the next update replaces it.",
        path,
        settings.places.artifact_info,
    )
    return None


def save(settings: Settings, provides: Mapping[str, str]) -> None:
    """Replace the stored provides; raises `errors.NoSpace` or `errors.DiskError`."""
    content = json.dumps({"schema": SCHEMA, "provides": dict(provides)}, indent=1)
    disk.write_whole(settings.places.data(STORED_PROVIDES), content.encode() + b"\n", 0o644)


def write_artifact_info(settings: Settings, content: bytes) -> None:
    """Replace `artifact_info`, for other programs to read; a read-only root file system is no error."""
    disk.write_whole(settings.places.artifact_info, content, 0o644)
