"""What is asked of one invocation: the words of the command line, once they are understood."""

from typing import NamedTuple


class Request(NamedTuple):
    """One command and its options; the names are those of the command line."""

    command: str
    config: str = ""
    fallback_config: str = ""
    data: str = ""
    log_level: str = ""
    log_file: str = ""
    json: bool = False
    max_runtime: int = 900
    every_step: bool = False  # run --all
    force: bool = False
    fresh: bool = False
    exit_code: bool = False
    status: str = ""  # report: "success" or "failure"


_PLACES = {
    "-c": "config",
    "--config": "config",
    "-b": "fallback_config",
    "--fallback-config": "fallback_config",
}
_PLACES |= {"-d": "data", "--data": "data"}
_COMMANDS = ("run", "check-update", "send-inventory", "download", "install", "auth")


def quick(words: list[str]) -> Request | None:
    """Understand the plain command lines of timers and cron without the help (and the price) of click.

    Only `[-c FILE] [-b FILE] [-d DIR] COMMAND`, and `run --all`; None for all others, which click reads.
    """
    options: dict[str, str] = {}
    words = list(words)
    while len(words) >= 2 and words[0] in _PLACES:
        options[_PLACES[words[0]]] = words[1]
        words = words[2:]
    if words == ["run", "--all"]:
        return Request("run", **options, every_step=True)  # type: ignore[arg-type]
    if len(words) == 1 and words[0] in _COMMANDS:
        return Request(words[0], **options)  # type: ignore[arg-type]
    return None
