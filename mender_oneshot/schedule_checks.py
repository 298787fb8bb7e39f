"""The checks of `doctor` for what runs this client: timers or cron, the next run, and the last contact."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from . import errors, plan, processes, unit_files
from .findings import Skipped, Warned
from .schedule import COMMAND, CRON_FILE, CRONTABS, EVERY_MINUTE, TIMERS
from .settings import Settings
from .snapshot import Snapshot
from .state import State
from .units import duration, when

CRON_DAEMONS = {"cron", "crond", "fcron", "bcron-sched"}
PATIENCE = 3
"""Intervals after which a check for an update is overdue; retries are at most one interval apart."""

_TABLES = ("/etc/crontab", "/etc/cron.d", *CRONTABS, "/var/spool/cron")
_NOT_UNDER_SYSTEMD = "[ -d /run/systemd/system ] ||"
"""In the line of our package, which does nothing if systemd runs."""
_ENABLE = f"systemctl enable --now {' '.join(TIMERS)}"
_NOTHING = "Nothing runs mender-oneshot regularly"
_SECONDS = 20.0
_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "day": 86400.0,
    "month": 2629800.0,
    "y": 31557600.0,
}


class Timer(NamedTuple):
    """What systemd reports of a timer; `left` is the time in seconds to its next run, None if unknown."""

    installed: bool = False
    enabled: bool = False
    active: bool = False
    left: float | None = None


class Line(NamedTuple):
    """An active line of a crontab that runs this client."""

    file: str
    text: str


def schedule(settings: Settings) -> str:
    """Return what runs this client and when; raise `errors.SettingsError` if nothing does.

    Raises `Skipped` if that cannot be determined, and `Warned` if only updates are scheduled.
    """
    if not settings.places.are_default:
        raise Skipped(
            "The timers and crontabs of this system run the device in /var/lib/mender, not this one; "
            "whatever runs this one was not checked."
        )
    systemd = os.path.isdir(unit_files.SYSTEMD)
    timers = [_timer(name) for name in TIMERS] if systemd else []
    if any(timer.active for timer in timers):
        return _by_timers(timers)
    lines = list(cron_lines(systemd=systemd))
    if lines:
        return _by_cron(lines[0])
    if systemd:
        own = [name for name in unit_files.services(("mender-oneshot", " run")) if "@" not in name]
        own = [name for name in own if name.removesuffix(".service") + ".timer" not in TIMERS]
        if own:
            return f"The unit {own[0]} runs mender-oneshot; its timer was not checked."
        raise errors.SettingsError(_no_timers(timers))
    raise _no_cron()


def contact(settings: Settings, known: State, now: Snapshot, *, installing: bool) -> str:
    """Return when the server was last contacted; raise `Warned` if a check is overdue."""
    at = max(known.checked_at, known.inventory_sent_at)
    if not at:
        return "The server has not been asked for an update yet."
    checked = f"The last check for an update was {when(known.checked_at)}"
    interval = settings.update_poll_interval
    late = now.time - known.checked_at > PATIENCE * interval + 3600
    if plan.spread_remaining(known, settings, now, known.checked_at, interval):
        late = False  # after a boot, the check waits for the random delay
    if known.checked_at and late and not installing:
        raise Warned(
            f"{checked}, although one is due every {duration(interval)}; for the "
            "reason: mender-oneshot status"
        )
    return f"{checked}." if known.checked_at else f"The last inventory was sent {when(at)}."


def _by_timers(timers: list[Timer]) -> str:
    update, inventory = timers
    if not (update.active and update.enabled):
        why = "is active, but not enabled, so no boot starts it" if update.active else "is not active"
        raise errors.SettingsError(f"The timer {TIMERS[0]} {why}; enable it: {_ENABLE}")
    if not (inventory.active and inventory.enabled):
        raise Warned(f"The timer {TIMERS[1]} is not enabled, so no inventory is sent; enable it: {_ENABLE}")
    return f"The systemd timers are enabled{_next(update.left)}."


def _next(left: float | None) -> str:
    return "" if left is None else f"; the next run is in {duration(round(max(left, 0)))}"


def _no_timers(timers: list[Timer]) -> str:
    if timers[0].installed:
        return f"{_NOTHING}: its systemd timers are not enabled; enable them: {_ENABLE}"
    return (
        f"{_NOTHING}: its systemd timers are not installed; install the package again, and then enable them: "
        f"{_ENABLE}"
    )


def _timer(name: str) -> Timer:
    """Return the state of a timer; if systemctl fails, what its files show."""
    wanted = "LoadState,UnitFileState,ActiveState,NextElapseUSecMonotonic"
    found = properties(systemctl("show", f"--property={wanted}", name))
    is_enabled = name in set(unit_files.enabled())
    if not found:
        return Timer(bool(unit_files.path(name)), is_enabled, is_enabled)
    left = None
    if at := seconds(found.get("NextElapseUSecMonotonic", "")):
        left = at - time.clock_gettime(time.CLOCK_MONOTONIC)
    return Timer(
        found.get("LoadState") == "loaded",
        # systemd does not report a unit as enabled if the links are in /usr, as in a read-only image.
        is_enabled or found.get("UnitFileState", "").startswith("enabled"),
        found.get("ActiveState") == "active",
        left,
    )


def systemctl(*words: str) -> str:
    """Return the output of systemctl, "" if it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["systemctl", *words]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace") if not done.returncode else ""
    return ""


def properties(text: str) -> Mapping[str, str]:
    """Return the properties that `systemctl show` prints."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value for name, _, value in pairs}


def seconds(text: str) -> float | None:
    """Return a time span of systemd, such as "1min 30.5s", in seconds; None if it is not one."""
    total = 0.0
    for word in text.split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = _UNITS.get(word[len(number) :])
        try:
            if unit is None:
                return None
            total += float(number) * unit
        except ValueError:
            return None
    return total or None


def cron_lines(*, systemd: bool, root: str = "") -> Iterator[Line]:
    """Yield the active lines of all crontabs that run this client; `root` is for tests."""
    for path in _tables(root):
        try:
            with open(path, "rb") as file:
                text = file.read(1 << 20).decode("utf-8", "replace")
        except OSError:
            continue
        for line in text.splitlines():
            runs = "mender-oneshot" in line and " run" in line and not line.lstrip().startswith("#")
            if runs and not (systemd and _NOT_UNDER_SYSTEMD in line):
                yield Line(path, line.strip())


def _tables(root: str) -> Iterator[str]:
    for path in _TABLES:
        path = f"{root}{path}"
        if not os.path.isdir(path):
            yield path
            continue
        with contextlib.suppress(OSError):
            names = (f"{path}/{name}" for name in sorted(os.listdir(path)))
            yield from (name for name in names if os.path.isfile(name))


def _by_cron(line: Line) -> str:
    found = list(processes.running())
    # Without process 1, other processes are hidden from this user or in another root directory.
    sees_all = any(process.number == 1 for process in found)
    if sees_all and not any(process.names & CRON_DAEMONS for process in found):
        raise errors.SettingsError(
            f"{line.file} has a line for mender-oneshot, but no cron daemon is running; start one: "
            f"{_start(line)}"
        )
    left = until_next(line.text, time.time())
    return f"cron runs it: {line.file} has a line for mender-oneshot{_next(left)}."


def _start(line: Line) -> str:
    directory = os.path.dirname(line.file)
    if directory in CRONTABS and not os.path.exists("/usr/sbin/cron"):
        return f"crond -b -l 8 -c {directory}"
    return "systemctl enable --now cron" if os.path.isdir(unit_files.SYSTEMD) else "service cron start"


def until_next(line: str, now: float) -> float | None:
    """Return the seconds until cron runs a line of every minute or every few minutes, None for others."""
    minute, *others = (line.split() + [""] * 5)[:5]
    every = minute.removeprefix("*/") if minute.startswith("*/") else "1" if minute == "*" else ""
    if others != ["*"] * 4 or not every.isdigit() or not 0 < int(every) <= 60:
        return None
    past = now // 60 % 60
    after = int(every) - past % int(every)
    return min(after, 60 - past) * 60 - now % 60


def _no_cron() -> Exception:
    """Return the exception for a device without systemd and without a line for cron."""
    try:
        with open(CRON_FILE, "rb") as file:
            content = file.read(65536)
    except OSError:
        content = None
    if content is not None and b"mender-oneshot" in content:
        return errors.SettingsError(
            f"{_NOTHING}: its line in {CRON_FILE} is disabled; enable it: sed -i 's/^#[*]/*/' {CRON_FILE}"
        )
    if os.path.isdir(os.path.dirname(CRON_FILE)):
        return errors.SettingsError(
            f"{_NOTHING}: no crontab has a line for it; add one: "
            f"echo '{EVERY_MINUTE} root {COMMAND}' > {CRON_FILE}"
        )
    for directory in CRONTABS:
        if os.path.isdir(directory):
            return errors.SettingsError(
                f"{_NOTHING}: no crontab has a line for it; add one: "
                f"echo '{EVERY_MINUTE} {COMMAND}' >> {directory}/root && echo root > {directory}/cron.update"
            )
    return Skipped(
        "This system has neither systemd nor cron, so whatever runs mender-oneshot was not checked."
    )
