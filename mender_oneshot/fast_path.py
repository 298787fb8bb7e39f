"""Frequent command lines without click, and a `run` with nothing due without anything else.

Importing click takes longer than all the rest of a `run` that finds nothing due.
"""

import time
from typing import Any

from . import errors, idle, paths, plan, settings, snapshot, state, state_store
from .options import LEVELS, Options

_FILES = {
    "-c": "config",
    "--config": "config",
    "-b": "fallback_config",
    "--fallback-config": "fallback_config",
    "-d": "data",
    "--data": "data",
}
_RUNS: dict[tuple[str, ...], Options] = {
    (): Options("run"),
    ("--all",): Options("run", every_step=True),
    ("--all", "--only", "update"): Options("run", every_step=True, only="update"),
    ("--all", "--only", "inventory"): Options("run", every_step=True, only="inventory"),
}
_COMMANDS = ("check-update", "send-inventory", "download", "install", "auth")
_ARGUMENTS = {"verify": ("file",), "extract": ("file", "directory"), "announce": ("status",)}
"""Commands with arguments, which sub-updaters and the installer call."""
_INSTALLATIONS = ("resume", "commit", "rollback")
"""They may take hours, and click would stay in memory as long."""
_NUMBERS = {"--wait": "wait", "--max-sessions": "max_sessions", "--max-runtime": "max_runtime"}


def parse(arguments: list[str]) -> Options | None:
    """Parse the command lines that cron, the units and scripts use; return None for any other.

    These are `[-c FILE] [-b FILE] [-d DIR] [-l LEVEL] [--syslog] COMMAND`, with the options of `run` that
    cron and the units use, those of `terminal` and `report`, and arguments. click would give the same result
    for all of them.
    """
    chosen: dict[str, Any] = {}
    rest = list(arguments)
    while len(rest) >= 2 and rest[0].startswith("-"):
        if rest[0] == "--syslog":
            chosen["syslog"] = True
            rest = rest[1:]
        elif rest[0] in ("-l", "--log-level") and rest[1] in LEVELS:
            chosen["log_level"] = rest[1]
            rest = rest[2:]
        elif rest[0] in _FILES:
            chosen[_FILES[rest[0]]] = rest[1]
            rest = rest[2:]
        else:
            return None
    found = _command(rest[0], tuple(rest[1:])) if rest else None
    return found and found._replace(**chosen)


def _command(name: str, arguments: tuple[str, ...]) -> Options | None:
    if name == "run":
        return _RUNS.get(arguments)
    if name == "terminal":
        return _terminal(arguments)
    if name == "report" and arguments in (("--success",), ("--failure",)):
        return Options(name, status=arguments[0].removeprefix("--"))
    if name in _ARGUMENTS:
        return _with_arguments(name, arguments)
    if name in _INSTALLATIONS and not arguments:
        return Options(name, max_runtime=0)
    return Options(name) if name in _COMMANDS and not arguments else None


def _with_arguments(name: str, arguments: tuple[str, ...]) -> Options | None:
    names = _ARGUMENTS[name]
    if len(arguments) != len(names) or any(one.startswith("-") for one in arguments):
        return None
    chosen: dict[str, Any] = dict(zip(names, arguments, strict=True))
    return Options(name, **chosen)


def _terminal(arguments: tuple[str, ...]) -> Options | None:
    """Parse `terminal` and its numbers, because click would stay in memory as long as the terminal runs."""
    chosen: dict[str, Any] = {"max_runtime": 0}
    for name, value in zip(arguments[::2], arguments[1::2], strict=False):
        if name not in _NUMBERS or not (value.isascii() and value.isdecimal()) or len(value) > 8:
            return None
        chosen[_NUMBERS[name]] = int(value)
    return None if len(arguments) % 2 else Options("terminal", **chosen)


def nothing_due(options: Options, kind: str) -> bool:
    """Return whether `run` can exit at once.

    Reads the configuration and the state without the lock. False if either of them has a problem, which the
    whole invocation reports. With the `kind` of a command line, leaves the time for the next runs (`idle`).
    """
    if options.command != "run":
        return False
    began = time.time()
    try:
        chosen = settings.load(paths.find_places(options.config, options.fallback_config, options.data))
        known = state_store.load(chosen.places.data(paths.STATE))
    except (errors.Error, state.Unreadable):
        return False
    if chosen.warnings or known.damaged or not chosen.servers or known.spread < 0:
        return False
    now = snapshot.look(chosen.places)
    step, wait = plan.due(known, chosen, now, options.only)
    if step:
        return False
    if kind and _goes_by_the_clock(known, chosen, now):
        idle.note(kind, began, wait)
    return True


def _goes_by_the_clock(known: state.State, chosen: settings.Settings, now: snapshot.Snapshot) -> bool:
    """Return whether only the clock, the configuration and the state decide when the next step is due."""
    installs = known.handoff is not None or now.lock is not None or now.interrupted is not None
    return not installs and now.uptime >= chosen.start_spread * plan.spread_share(known, now)
