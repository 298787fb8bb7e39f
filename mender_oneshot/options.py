"""What is asked of one invocation: the words of the command line, once they are understood."""

from typing import Any, NamedTuple


class Options(NamedTuple):
    """One command and its options; the names are those of the command line."""

    command: str
    config: str = ""
    fallback_config: str = ""
    data: str = ""
    log_level: str = ""
    log_file: str = ""
    syslog: bool = False
    json: bool = False
    max_runtime: int = 900
    every_step: bool = False  # run --all
    only: str = ""  # run --only: "update" or "inventory"
    force: bool = False
    fresh: bool = False
    exit_code: bool = False
    status: str = ""  # report: "success" or "failure"
    wait: int = 300  # terminal
    max_sessions: int = 0  # terminal
    file: str = ""  # verify, extract
    directory: str = ""  # extract


LEVELS = ("debug", "info", "warning", "error", "critical")

_PLACES = {
    "-c": "config",
    "--config": "config",
    "-b": "fallback_config",
    "--fallback-config": "fallback_config",
}
_PLACES |= {"-d": "data", "--data": "data"}
_WAYS_TO_RUN: dict[tuple[str, ...], dict[str, Any]] = {
    ("--all",): {"every_step": True},
    ("--all", "--only", "update"): {"every_step": True, "only": "update"},
    ("--all", "--only", "inventory"): {"every_step": True, "only": "inventory"},
}
_NUMBERS = {"--wait": "wait", "--max-sessions": "max_sessions", "--max-runtime": "max_runtime"}
_COMMANDS = ("run", "check-update", "send-inventory", "download", "install", "auth")


def quick(words: list[str]) -> Options | None:
    """Understand the plain command lines of timers and cron without the help (and the price) of click.

    Only `[-c FILE] [-b FILE] [-d DIR] [-l LEVEL] [--syslog] COMMAND`, the ways to run of cron and the units,
    and `terminal`; None for all others, which click reads.
    """
    options: dict[str, Any] = {}
    words = list(words)
    while len(words) >= 2 and words[0].startswith("-"):
        if words[0] == "--syslog":
            options["syslog"] = True
            words = words[1:]
        elif words[0] in ("-l", "--log-level") and words[1] in LEVELS:
            options["log_level"] = words[1]
            words = words[2:]
        elif words[0] in _PLACES:
            options[_PLACES[words[0]]] = words[1]
            words = words[2:]
        else:
            return None
    if words[:1] == ["run"] and tuple(words[1:]) in _WAYS_TO_RUN:
        return Options("run", **options, **_WAYS_TO_RUN[tuple(words[1:])])
    if words[:1] == ["terminal"]:
        return _terminal(words[1:], options)
    if len(words) == 1 and words[0] in _COMMANDS:
        return Options(words[0], **options)
    return None


def _terminal(words: list[str], options: dict[str, Any]) -> Options | None:
    """Understand `terminal` and its numbers: it stays in memory for long, and click with it."""
    chosen: dict[str, Any] = {"max_runtime": 0}
    while len(words) >= 2 and words[0] in _NUMBERS and words[1].isascii() and words[1].isdecimal():
        if len(words[1]) > 8:
            return None
        chosen[_NUMBERS[words[0]]] = int(words[1])
        words = words[2:]
    return None if words else Options("terminal", **options, **chosen)
