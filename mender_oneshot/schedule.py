"""Let systemd or cron run the client: find out which of them this device has, and enable it."""

import os
import subprocess
from typing import NamedTuple

from . import disk, errors, unit_files

TIMERS = ("mender-oneshot-update.timer", "mender-oneshot-inventory.timer")
CRON_FILE = "/etc/cron.d/mender-oneshot"
CRONTABS = ("/etc/crontabs", "/var/spool/cron/crontabs")
"""The directories of busybox crond: of Alpine, and busybox's own."""

EVERY_MINUTE = "* * * * *"
COMMAND = "/usr/local/bin/mender-oneshot --syslog run --all"
_DISABLED = f"#{EVERY_MINUTE}"
_IDLE = "/usr/local/share/mender-oneshot/idle.sh"
_LINE = f"{EVERY_MINUTE} {{ [ -r {_IDLE} ] && . {_IDLE} && idle all; }} || {COMMAND}"
"""The line of `cron/busybox-crontab`."""
_SECONDS = 60


class Schedule(NamedTuple):
    """A way to run the client regularly: its kind, the file to change, "" for timers, and how to undo it."""

    kind: str  # "timers", "cron" or "crontab"
    file: str
    name: str
    undo: str
    enabled: bool = False


def find(root: str = "") -> Schedule | None:
    """Return the schedule of this device, or None if neither systemd nor cron is there; `root` is for tests.

    Raises `errors.Error` if a file cannot be read.
    """
    if os.path.isdir(f"{root}{unit_files.SYSTEMD}"):
        if not unit_files.path(TIMERS[0], root):
            return None
        return Schedule("timers", "", "the systemd timers", f"systemctl disable --now {' '.join(TIMERS)}")
    path = f"{root}{CRON_FILE}"
    content = disk.read(path)
    if content is not None:
        undo = f"sed -i 's/^[*] [*] [*] [*] [*] /#&/' {path}"
        return Schedule("cron", path, path, undo, enabled=not disabled(content.decode(errors="replace")))
    if os.path.isdir(f"{root}/etc/cron.d"):
        return None  # another cron, which does not have the file of our package
    for place in CRONTABS:
        if os.path.isdir(f"{root}{place}"):
            path = f"{root}{place}/root"
            text = (disk.read(path) or b"").decode(errors="replace")
            active = [line for line in text.splitlines() if not line.startswith("#")]
            enabled = any("mender-oneshot" in line for line in active)
            return Schedule("crontab", path, path, f"sed -i '/mender-oneshot/d' {path}", enabled)
    return None


def disabled(text: str) -> bool:
    """Return whether the line in the cron file of our package is still a comment."""
    return any(line.startswith(_DISABLED) for line in text.splitlines())


def enable(schedule: Schedule) -> None:
    """Enable the schedule; raise `errors.Error` if that fails."""
    if schedule.kind == "timers":
        for words in (("daemon-reload",), ("enable", "--now", *TIMERS)):
            _systemctl(*words)
        return
    content = (disk.read(schedule.file) or b"").decode(errors="surrogateescape")
    if schedule.kind == "cron":
        lines = [
            line.removeprefix("#") if line.startswith(_DISABLED) else line for line in content.split("\n")
        ]
        _replace(schedule.file, "\n".join(lines), 0o644)
        return
    separator = "\n" if content and not content.endswith("\n") else ""
    _replace(schedule.file, f"{content}{separator}{_LINE}\n", 0o600)
    # busybox crond reads only the crontabs that are named here.
    _replace(f"{os.path.dirname(schedule.file)}/cron.update", "root\n", 0o600)


def _replace(path: str, text: str, mode: int) -> None:
    before = os.umask(0o022)
    try:
        disk.write_whole(path, text.encode(errors="surrogateescape"), mode)
    finally:
        os.umask(before)


def _systemctl(*words: str) -> None:
    command = ["systemctl", *words]
    try:
        done = subprocess.run(  # noqa: S607  # the same program that a person would start
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        if not done.returncode:
            return
    except OSError as error:
        why = [os.strerror(error.errno or 0)]
    except subprocess.TimeoutExpired:
        why = ["systemctl timed out"]
    raise errors.SettingsError(f"The timers are not enabled ({why[0].rstrip('.')}); run: {' '.join(command)}")
