"""What all JSON objects on stdout have in common, without the libraries that a command needs."""

import json
import sys
from typing import Any

from . import streams
from .syslog import visible

SCHEMA = 1
"""The version of the objects. `json_schema` describes them; keys are added, never changed or removed."""


def text(facts: dict[str, Any], warnings: list[str]) -> str:
    """Return the object with these facts; its `exit_code` is 0 unless they have another one."""
    error = visible(str(facts.get("error", "")))
    others = [warning for warning in warnings if warning != error]  # an error is logged, too
    return json.dumps({"schema": SCHEMA, "exit_code": 0, **facts, "warnings": others})


def failure(step: str | None, reason: str, error: str, code: int) -> dict[str, Any]:
    """Return the facts of a failure."""
    return {"exit_code": code, "step": step, "reason": reason, "error": error}


def print_early_failure(arguments: list[str], reason: str, error: str, code: int) -> None:
    """Print the object of a command that could not begin, if its command line has the option `--json`."""
    if "--json" not in arguments:
        return
    try:
        sys.stdout.write(f"{text(failure(None, reason, visible(error), code), [])}\n")
        sys.stdout.flush()
    except OSError:
        streams.discard(1)
