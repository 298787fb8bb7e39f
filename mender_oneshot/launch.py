"""Start the sub-updater so that it outlives us, our unit and its sandbox. Knows nothing of the state."""

import contextlib
import fcntl
import logging
import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from . import disk, errors

SYSTEMD = "/run/systemd/system"
"""There where systemd is the first process (sd_booted(3))."""

ANSWER_SECONDS = 60.0

# What systemd tells our own unit of itself; another unit is told its own.
_OF_OUR_UNIT = (
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_",
    "NOTIFY_SOCKET",
    "TRIGGER_",
    "MEMORY_PRESSURE_",
)

log = logging.getLogger(__name__)


class Launch(NamedTuple):
    """What to start: its unit, its argv, its environment, the file for its output, and its lock file."""

    unit: str
    words: list[str]
    environment: Mapping[str, str]
    output: str
    lock: str


def start(launch: Launch) -> None:
    """Start it: under systemd as a unit of its own, elsewhere in a session of its own.

    A child of our unit would end with it and live in its sandbox. Raises `OSError`, or `errors.Refused` with
    systemd's own words, where nothing was started.
    """
    if os.path.isdir(SYSTEMD) and os.geteuid() == 0:
        _start_unit(launch)
    else:
        _start_session(launch)


def _start_session(launch: Launch) -> None:
    output = os.open(launch.output, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    lock = _open_lock(launch.lock)

    def hold_lock() -> None:
        # A record lock belongs to the process: it survives the exec, is not shared with the daemons that the
        # sub-updater starts, and goes when the sub-updater ends, however it ends.
        with contextlib.suppress(OSError):
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    try:
        process = subprocess.Popen(
            launch.words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=launch.environment,
            start_new_session=True,
            pass_fds=(lock,),
            preexec_fn=hold_lock,  # safe: there are no threads here
        )
        # Nobody waits for it; without this, Python would complain of that when we end.
        process.returncode = 0
    finally:
        os.close(output)
        os.close(lock)


def _open_lock(path: str) -> int:
    """Open the lock file under a number that no shell script uses for files of its own (`exec 9>file`)."""
    opened = disk.open_own(path, os.O_RDWR)
    try:
        return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 20)
    finally:
        os.close(opened)


def _start_unit(launch: Launch) -> None:
    """Have systemd start it, and wait until its program runs (Type=exec).

    What it says goes to the file, which a reboot leaves alone, and when it has ended to the journal as well.
    What it has put into the background stays (KillMode=process), as under mender-python-client.
    Its environment is named, not spelled out, for everybody can read an argument list.
    """
    environment = {name: value for name, value in launch.environment.items() if _can_be_passed(name, value)}
    words = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--service-type=exec",
        "--property=KillMode=process",
        f"--unit={launch.unit}",
        "--description=Mender sub-updater",
        f"--property=StandardOutput=append:{launch.output}",
        "--property=ExecStopPost=-systemd-cat --identifier=mender-sub-updater cat ${MENDER_SUB_UPDATER_LOG}",
        *(f"--setenv={name}" for name in environment),
        "--setenv=MENDER_SUB_UPDATER_LOG",
        "--",
        *launch.words,
    ]
    try:
        done = subprocess.run(
            words,
            env={**environment, "MENDER_SUB_UPDATER_LOG": launch.output},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise errors.Refused("systemd-run is missing") from error
    except (subprocess.TimeoutExpired, errors.TimeOver):
        # It may have been started all the same: wait for its report, as for any other.
        log.warning("systemd does not say whether it has started %s; waiting for a report.", launch.unit)
        return
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise errors.Refused(f"systemd-run: {said or f'exit code {done.returncode}'}")


def _can_be_passed(name: str, value: str) -> bool:
    """Say whether systemd would take a variable; one that it refuses would keep all from being started."""
    is_name = name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    return is_name and value.isprintable() and not name.startswith(_OF_OUR_UNIT)
