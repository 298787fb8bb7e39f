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
"""Exists if systemd is the init process (sd_booted(3))."""

ANSWER_SECONDS = 60.0

_CGROUPS = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice")
_NO_BUS = ("Failed to connect to bus", "Failed to create bus connection")

log = logging.getLogger(__name__)


class Launch(NamedTuple):
    """What to start: the unit's name, the command line, and the paths of its output and its lock.

    Any user may be able to read `environment`; `private_environment` may contain a proxy's password.
    """

    unit: str
    command: list[str]
    environment: Mapping[str, str]
    private_environment: Mapping[str, str]
    output: str
    lock: str


def check_process() -> None:
    """Raise `errors.SettingsError` if every process started here would end with this one."""
    if os.getpid() == 1:
        raise errors.SettingsError(
            "mender-oneshot is process 1 of a container, so the sub-updater would be killed when it exits; "
            "start the container with an init process (docker run --init)."
        )


def start(launch: Launch) -> None:
    """Start the sub-updater: under systemd as a separate unit, elsewhere in a new session.

    As a child of our unit it would be killed with the unit and run in its sandbox. Raises `OSError` or
    `errors.ServerRejected` if it cannot be started, `errors.TemporaryError` if a later attempt may succeed,
    and `errors.DiskError` or `errors.NoSpace` if one of its files cannot be written.

    Returning does **not** guarantee that it runs: systemd may not have answered in time.
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
        # A record lock belongs to the process: it survives the exec, is not inherited by the daemons that the
        # sub-updater starts, and is released when the sub-updater exits or is killed. It is released early if
        # the process closes all inherited descriptors, so the file also names the process.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.write(lock, pidfile.note())
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    try:
        process = subprocess.Popen(
            launch.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            umask=0o022,  # the same as under systemd
            env={**launch.environment, **launch.private_environment},
            start_new_session=True,
            pass_fds=(lock,),
            preexec_fn=hold_lock,  # safe: there are no threads here
        )
        # No code waits for it; without this, Python would warn about that at exit.
        process.returncode = 0
    finally:
        os.close(output)
        os.close(lock)


def _open_lock(path: str) -> int:
    """Open the lock file with a descriptor number that shell scripts do not use (`exec 9>file`)."""
    opened = disk.open_own(path, os.O_RDWR)
    try:
        moved = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 20)
    except OSError:  # the limit on open files does not allow that number (ulimit -n)
        return opened
    os.close(opened)
    return moved


def _start_unit(launch: Launch) -> None:
    """Start the sub-updater by systemd-run, and wait until its program has been executed (Type=exec).

    Its output goes to the file, which survives a reboot, and to the journal after it exits. Its background
    processes keep running (KillMode=process), as under mender-python-client. Any user can read the properties
    of a unit, so its private environment is passed in a file.
    """
    private = f"{launch.output}.env"
    environment = {**launch.environment, "MENDER_SUB_UPDATER_LOG": launch.output}
    command = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--service-type=exec",
        "--property=KillMode=process",
        f"--unit={launch.unit}",
        "--description=Mender sub-updater",
        f"--property=StandardOutput=append:{launch.output}",
        # "-": the file is removed after the start, and may then be missing.
        f"--property=EnvironmentFile=-{private}",
        "--property=ExecStopPost=-systemd-cat --identifier=mender-sub-updater cat ${MENDER_SUB_UPDATER_LOG}",
        *(f"--setenv={name}={value}" for name, value in environment.items()),
        "--",
        *launch.command,
    ]
    _write_environment(private, launch.private_environment)
    try:
        done = subprocess.run(
            command,
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
        # It may have been started nevertheless, so wait for its report.
        log.warning(
            "systemd-run timed out, so %s may have been started; waiting for its report.", launch.unit
        )
        return
    finally:
        disk.remove(private)
    if done.returncode:
        why = " ".join(done.stderr.decode("utf-8", "replace").split()) or f"exit code {done.returncode}"
        # While systemd re-executes itself, the connection may be lost after the unit was started.
        if why.startswith(_NO_BUS) or not _is_running(launch.unit):
            raise errors.TemporaryError(f"systemd-run: {why}")


def _is_running(unit: str) -> bool:
    """Return whether any process of a unit is running; reads the cgroup and does not need systemd."""
    for cgroup in _CGROUPS:
        try:
            with open(f"{cgroup}/{unit}.service/cgroup.procs", "rb") as processes:
                if processes.read(1):
                    return True
        except OSError:
            continue
    return False


def _write_environment(path: str, environment: Mapping[str, str]) -> None:
    """Write variables to a file with mode 0600 in the format of EnvironmentFile= (systemd.exec(5))."""
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
