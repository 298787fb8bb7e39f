"""The parsed command line."""

from collections.abc import Mapping
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
    max_runtime: int = 900  # seconds; 0: no limit
    every_step: bool = False  # run --all
    only: str = ""  # run --only: "update" or "inventory"
    force: bool = False
    dry_run: bool = False
    fresh: bool = False
    exit_code: bool = False
    status: str = ""  # report: "success" or "failure"
    wait: int = 300  # terminal
    max_sessions: int = 0  # terminal
    deployment: str = ""  # log: a name or the beginning of an id; "": the current one, or else the last
    file: str = ""  # verify, extract, install by hand
    stop_before: str = ""  # install by hand, commit, rollback, resume
    directory: str = ""  # extract
    bundle: str = ""  # doctor: the file to write
    setup: Mapping[str, Any] = {}  # the options of setup


LEVELS = ("debug", "info", "warning", "error", "critical")
