"""Write results to stdout, as text or as one JSON object, and draw the progress bar."""

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from . import console, findings, logs, streams, syslog
from .context import Done, Progress
from .errors import Error
from .findings import Finding
from .options import Options
from .syslog import visible

_COLORS = {findings.OK: 32, findings.WARNING: 33, findings.FAILED: 31, findings.SKIPPED: 2}

log = logging.getLogger(__name__)


class Output:
    """Writes results to stdout.

    A write error is logged once, sets `failed` and does not stop the work. If stdout is a closed pipe, the
    rest is dropped without an error.
    """

    def __init__(self, options: Options) -> None:
        self.failed = False
        self.warnings: list[str] = []  # logged during the invocation; part of the JSON object
        self._options = options

    def write(self, *lines: str) -> None:
        """Print lines and flush."""
        console.clear()
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except BrokenPipeError:
            streams.discard(1)
        except OSError as error:
            self.failed = True
            streams.discard(1)
            log.error("Cannot write to stdout: %s; continuing without it.", error.strerror or error)

    def write_text(self, lines: Iterable[str]) -> None:
        """Print lines that may hold control characters, unless the output is JSON."""
        if not self._options.json:
            self.write(*(visible(line) for line in lines))

    def write_facts(self, facts: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print facts as one JSON object, or else the lines that describe them."""
        if self._options.json:
            from . import json_object  # timers do not need it

            self.write(json_object.text(dict(facts), self.warnings))
        else:
            self.write_text(lines)

    def write_outcome(self, step: Done) -> None:
        """Print the sentence of a step that succeeded, or send it to the syslog if everything goes there."""
        sentence = step.outcome.sentence
        if self._options.json:
            return
        if self._options.syslog:
            syslog.send(syslog.NOTICE, sentence)
        else:
            self.write(f"<{syslog.NOTICE}>{visible(sentence)}" if logs.is_journal(1) else visible(sentence))

    def write_finding(self, finding: Finding) -> None:
        """Print one finding of `doctor`, unless the output is JSON; in color if stdout is a terminal."""
        if self._options.json:
            return
        first, *more = [visible(line) for line in finding.lines()]
        if _has_colors():
            level = finding.level
            first = f"\033[{_COLORS[level]}m{level}\033[0m{first.removeprefix(level)}"
        self.write(first, *more)

    def write_end(self, done: list[Done], error: Error | None, code: int) -> None:
        """Print the JSON object of an invocation, or tell a person that there was nothing to do."""
        if self._options.json:
            self.write_facts(_as_json(self._options.command, done, error, code), ())
        elif not done and error is None and sys.stdout.isatty() and not self._options.syslog:
            self.write('Nothing to do. Run "mender-oneshot status" for details.')


def _has_colors() -> bool:
    """Return whether stdout is a terminal with colors, and the user has not disabled them (no-color.org)."""
    environment = os.environ
    disabled = environment.get("NO_COLOR") or environment.get("TERM", "dumb") == "dumb"
    return not disabled and sys.stdout.isatty()


def _as_json(command: str, done: list[Done], error: Error | None, code: int) -> dict[str, Any]:
    steps = [
        {"step": step, "outcome": outcome.word, "message": outcome.sentence, **outcome.facts}
        for step, outcome in done
    ]
    members: dict[str, Any] = {"exit_code": code}
    if command == "run":
        members["steps"] = steps
    elif steps:
        members |= steps[0]
    if error:
        from . import json_object

        step = error.step or (None if command == "run" else command)
        members |= json_object.failure(step, error.word, str(error), code)
    return members


def progress_bar() -> Progress:
    """Return a function that draws (bytes done, bytes in total) if stderr is a terminal, and else nothing."""
    if not console.is_enabled():
        return lambda done, size: None
    from .progress import ProgressBar  # only for a person at a terminal

    return ProgressBar()
