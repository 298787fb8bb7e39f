"""Detect whether a sub-updater that was started on this device is still running."""

import fcntl
import logging
import os
import subprocess

from . import ownership, paths, pidfile, sub_updater
from .settings import Settings

UNITS = "mender-sub-updater-*.service"
ANSWER_SECONDS = 30.0

log = logging.getLogger(__name__)


def sub_updater_runs(settings: Settings) -> bool:
    """Return whether a sub-updater of any deployment is running; True if that cannot be determined."""
    if _is_held(settings.places.data(paths.SUB_UPDATER_LOCK)):
        return True
    return os.path.isdir(sub_updater.SYSTEMD) and os.geteuid() == 0 and _unit_runs()


def _is_held(path: str) -> bool:
    """Return whether a sub-updater holds its lock file, or the process that the file names is running."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if ownership.writable_by_others(found) and not ownership.is_ours(found, path):
            return False  # another user created it, and could lock it forever
        if pidfile.is_running(os.pread(descriptor, 128, 0)):
            return True
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _unit_runs() -> bool:
    """Return whether systemd lists a running unit; True if systemctl fails, as a later run checks again."""
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--full", UNITS]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return False
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("Assuming that the sub-updater is still running, because systemctl failed: %s", error)
        return True
    if done.returncode:
        log.warning(
            "Assuming that the sub-updater is still running, because systemctl failed: exit code %d",
            done.returncode,
        )
        return True
    return any_active(done.stdout.decode("utf-8", "replace"))


def any_active(listing: str) -> bool:
    """Return whether a unit is running in the output of `systemctl list-units`.

    The columns are unit, load state, active state, sub-state and description.
    """
    states = [line.split()[2:4] for line in listing.splitlines()]
    ended = (["inactive"], ["failed"])
    return any(found[:1] not in ended and found[1:] != ["exited"] for found in states if found)
