"""Start the sub-updater so that it outlives this process, its unit and its sandbox."""

import contextlib
import fcntl
import logging
import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from . import disk, errors, pidfile

SYSTEMD = "/run/systemd/system"
"""Exists if systemd is the first process (sd_booted(3))."""

ANSWER_SECONDS = 60.0

_CGROUPS = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice")
_NO_BUS = ("Failed to connect to bus", "Failed to create bus connection")

log = logging.getLogger(__name__)


class Launch(NamedTuple):
    """What to start: the name of its unit, its command line, and the files for its output and its lock.

    Everybody may read `environment`; `private_environment` may hold a proxy's password.
    """

    unit: str
    words: list[str]
    environment: Mapping[str, str]
    private_environment: Mapping[str, str]
    output: str
    lock: str


def check_process() -> None:
    """Raise `errors.SettingsError` if whatever is started here would end with this process."""
    if os.getpid() == 1:
        raise errors.SettingsError(
            "mender-oneshot is process 1 of a container, so the sub-updater would be killed when it ends; "
            "start the container with an init (docker run --init)."
        )


def start(launch: Launch) -> None:
    """Start it: under systemd as a unit of its own, elsewhere in a session of its own.

    A child of our unit would end with it and live in its sandbox. If it was not started, raises `OSError`,
    `errors.ServerRejected`, or `errors.TemporaryError` if it may be possible later.
    """
    if os.path.isdir(SYSTEMD) and os.geteuid() == 0:
        _start_unit(launch)
    else:
        _start_session(launch)


def _start_session(launch: Launch) -> None:
    output = lock = -1
    try:
        output = os.open(launch.output, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        lock = _open_lock(launch.lock)
    except OSError as error:
        if output >= 0:
            os.close(output)
        raise disk.failure(f"open {launch.output if output < 0 else launch.lock}", error) from error

    def hold_lock() -> None:
        # A record lock belongs to the process: it survives the exec, is not shared with the daemons that the
        # sub-updater starts, and goes when the sub-updater ends, however it ends. It goes early if the
        # process closes all that it inherits, so the file also names the process.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.write(lock, pidfile.note())
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    try:
        process = subprocess.Popen(
            launch.words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            umask=0o022,  # as systemd starts it
            env={**launch.environment, **launch.private_environment},
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
        moved = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 20)
    except OSError:  # so high a number is not allowed here (ulimit -n)
        return opened
    os.close(opened)
    return moved


def _start_unit(launch: Launch) -> None:
    """Have systemd start it, and wait until its program runs (Type=exec).

    Its output goes to the file, which survives a reboot, and when it has ended to the journal as well.
    What it has put into the background stays (KillMode=process), as under mender-python-client.
    Everybody can read the properties of a unit, so its private environment goes through a file.
    """
    private = f"{launch.output}.env"
    environment = {**launch.environment, "MENDER_SUB_UPDATER_LOG": launch.output}
    words = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--service-type=exec",
        "--property=KillMode=process",
        f"--unit={launch.unit}",
        "--description=Mender sub-updater",
        f"--property=StandardOutput=append:{launch.output}",
        # "-": it is needed for the start only, and removed after it.
        f"--property=EnvironmentFile=-{private}",
        "--property=ExecStopPost=-systemd-cat --identifier=mender-sub-updater cat ${MENDER_SUB_UPDATER_LOG}",
        *(f"--setenv={name}={value}" for name, value in environment.items()),
        "--",
        *launch.words,
    ]
    _write_environment(private, launch.private_environment)
    try:
        done = subprocess.run(
            words,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise errors.ServerRejected("systemd-run is missing") from error
    except (subprocess.TimeoutExpired, errors.DeadlineExceeded):
        # It may have been started all the same: wait for its report, as for any other.
        log.warning("systemd does not say whether it has started %s; waiting for a report.", launch.unit)
        return
    finally:
        disk.remove(private)
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split()) or f"exit code {done.returncode}"
        # A systemd that executes itself anew may lose the connection after it has started the unit.
        if said.startswith(_NO_BUS) or not _is_running(launch.unit):
            raise errors.TemporaryError(f"systemd-run: {said}")


def _is_running(unit: str) -> bool:
    """Return whether anything of a unit runs, be it only in the background, without asking systemd."""
    for cgroup in _CGROUPS:
        try:
            with open(f"{cgroup}/{unit}.service/cgroup.procs", "rb") as processes:
                if processes.read(1):
                    return True
        except OSError:
            continue
    return False


def _write_environment(path: str, environment: Mapping[str, str]) -> None:
    """Write variables for systemd alone to read (systemd.exec(5), EnvironmentFile=)."""
    lines = []
    for name, value in environment.items():
        for special in '\\"$`':
            value = value.replace(special, f"\\{special}")
        lines.append(f'{name}="{value}"\n')
    try:
        with open(disk.create(path), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(lines)
    except OSError as error:
        raise disk.failure(f"write {path}", error) from error
