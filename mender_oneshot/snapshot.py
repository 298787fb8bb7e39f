"""The clock and the files in the data directory at the time of a decision."""

import os
import stat
import time
from typing import NamedTuple

from . import disk, errors, ownership
from .paths import ARTIFACT, INSTALLER, INSTALLER_LOCK, SUB_UPDATER_LOG, UPDATE_LOCK, Places
from .pidfile import boot_id


class Snapshot(NamedTuple):
    """The part of a decision that is not in the state."""

    time: float  # seconds since 1970, by a clock that may be wrong
    uptime: float  # seconds since the kernel started, without suspended time
    boot: str  # the kernel's boot id
    lock: str | None = None  # the deployment id in `update.lock`; None: there is no such file
    artifact: bool = False  # a completely downloaded artifact exists
    begun: bool = True  # `sub-updater.log` exists: it is made just before the sub-updater is started
    interrupted: float | None = None
    """Set if the built-in installer was interrupted: the uptime when a state script paused it, else 0."""


def look(places: Places) -> Snapshot:
    """Read the clock and the data directory."""
    return Snapshot(
        time=time.time(),
        uptime=time.clock_gettime(time.CLOCK_MONOTONIC),
        boot=boot_id(),
        lock=_update_lock(places.data(UPDATE_LOCK)),
        artifact=_is_regular(places.data(ARTIFACT)),
        begun=_is_begun(places.data(SUB_UPDATER_LOG)),
        interrupted=_interrupted(places),
    )


def _interrupted(places: Places) -> float | None:
    if not os.path.lexists(places.data(INSTALLER)):
        return None
    from .installer import record  # only devices that are installing have one

    if record.is_worked_on(places.data(INSTALLER_LOCK)):
        return None
    try:
        found = record.load(places.data(INSTALLER))
    except errors.Error:
        return 0  # the installer itself explains it
    if found is None or found.by_hand:
        return None
    paused = found.stopped and found.pause and found.pause.boot == boot_id()
    return found.pause.uptime if paused and found.pause else 0


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_begun(path: str) -> bool:
    return _is_regular(path) and not ownership.is_anothers(path)


def _update_lock(path: str) -> str | None:
    """Return the deployment id in `update.lock`, "" if there is none in it, None if there is no lock.

    A file that another user may have written to counts as a lock without an id. A file that another user has
    made is no lock, or that user could block all updates. mender-python-client writes the id without a
    newline.
    """
    try:
        content = disk.read_own(path, 4096)
    except errors.DiskError:
        return None if ownership.is_anothers(path) else ""
    if content is None:
        return None
    text = content.decode("ascii", "replace").strip("\0 \r\n\t")
    return text if is_deployment_id(text) else ""


def is_deployment_id(text: str) -> bool:
    """Return whether a text can be a deployment id: usually a UUID, and always safe in a path."""
    return 0 < len(text) <= 128 and text.isascii() and text.replace("-", "a").replace("_", "a").isalnum()
