"""Whether a sub-updater that was started here is still running."""

import fcntl
import logging
import os
import subprocess

from . import disk, paths, pidfile, sub_updater
from .settings import Settings

UNITS = "mender-sub-updater-*.service"
ANSWER_SECONDS = 30.0

log = logging.getLogger(__name__)


def sub_updater_runs(settings: Settings) -> bool:
    """Say whether a sub-updater is running, of whichever deployment."""
    if _is_held(settings.places.data(paths.SUB_UPDATER_LOCK)):
        return True
    return os.path.isdir(sub_updater.SYSTEMD) and os.geteuid() == 0 and _unit_runs()


def _is_held(path: str) -> bool:
    """Say whether a sub-updater holds the lock that `launch` gave it, or the process named in it runs."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if disk.writable_by_others(found) and not disk.is_ours(found, path):
            return False  # another user made it, and may hold it as long as he likes
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
    """Ask systemd; if it does not answer, assume that one runs, since the question is asked again later."""
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
        log.warning("systemctl cannot tell whether a sub-updater runs: %s", error)
        return True
    if done.returncode:
        log.warning("systemctl cannot tell whether a sub-updater runs: exit code %d", done.returncode)
        return True
    return any_active(done.stdout.decode("utf-8", "replace"))


def any_active(listing: str) -> bool:
    """Read the table of `systemctl list-units`: unit, load, active and sub state, description."""
    states = [line.split()[2:4] for line in listing.splitlines()]
    ended = (["inactive"], ["failed"])
    return any(found[:1] not in ended and found[1:] != ["exited"] for found in states if found)
