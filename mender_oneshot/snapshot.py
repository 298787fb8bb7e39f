"""What the clock and the disk say now: the part of a decision that is not remembered but looked up."""

import os
import stat
import time
from typing import NamedTuple

from . import disk, errors
from .paths import ARTIFACT, SUB_UPDATER_LOG, UPDATE_LOCK, Places
from .pidfile import boot_id


class Snapshot(NamedTuple):
    """What the clock and the disk say when a decision is made."""

    time: float  # seconds since 1970 by a clock that may be wrong
    uptime: float  # seconds since the kernel started, time asleep not counted
    boot: str  # the kernel's boot id
    lock: str | None = None  # the deployment id in `update.lock`; None: there is no such file
    artifact: bool = False  # a downloaded artifact lies there, whole
    begun: bool = True  # `sub-updater.log` is there: the last thing made before the sub-updater is started


def look(places: Places) -> Snapshot:
    """Look at the clock and the data directory."""
    return Snapshot(
        time=time.time(),
        uptime=time.clock_gettime(time.CLOCK_MONOTONIC),
        boot=boot_id(),
        lock=_update_lock(places.data(UPDATE_LOCK)),
        artifact=_is_regular(places.data(ARTIFACT)),
        begun=_is_begun(places.data(SUB_UPDATER_LOG)),
    )


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_begun(path: str) -> bool:
    return _is_regular(path) and not disk.is_anothers(path)


def _update_lock(path: str) -> str | None:
    """Read the deployment id in `update.lock`; anything else under that name counts as a lock without an id.

    So does a file that another user could have written to. One that he has made is none: he could hold up all
    updates. mender-python-client writes the id bare, people add a newline.
    """
    try:
        content = disk.read_own(path, 4096)
    except errors.DiskError:
        return None if disk.is_anothers(path) else ""
    if content is None:
        return None
    text = content.decode("ascii", "replace").strip("\0 \r\n\t")
    return text if is_deployment_id(text) else ""


def is_deployment_id(text: str) -> bool:
    """Say whether a text can be a deployment id: a UUID as a rule, in any case safe in a path."""
    return 0 < len(text) <= 128 and text.isascii() and text.replace("-", "a").replace("_", "a").isalnum()
