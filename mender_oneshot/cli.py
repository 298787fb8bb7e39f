"""From a request to output and an exit code: settings, logging, one sentence on stdout, the one `except`."""

import json
import logging
import os
import sys
from typing import Any, TextIO

from . import __package__ as package
from . import errors, settings
from .context import Done, Outcome, Progress
from .deadline import deadline, hard_end
from .request import Request
from .settings import Settings

SCHEMA = 1
SYSLOG = "/dev/log"
NOTICE = 5

log = logging.getLogger(__name__)

_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def execute(request: Request) -> int:
    """Do what is asked and return the exit code; only a bug raises."""
    # A name that this locale cannot spell is no reason to end half-way.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a text file's
    results = _Results()
    # The terminal, which stays, ends by its own clock.
    hard_end(0 if request.command == "terminal" else request.max_runtime)
    try:
        code = _execute(request, results)
        # Here, not at the interpreter's end, where nobody could catch what goes wrong.
        results.say()
        return code or (os.EX_IOERR if results.lost else 0)
    except BrokenPipeError:
        # Nobody reads what we say; the work itself is done.
        _drop_stdout()
        return 0
    except KeyboardInterrupt:
        return 130


class _Results:
    """Stdout: where it takes nothing, no step is left undone for that, and it is told once."""

    lost = False

    def say(self, *lines: str) -> None:
        """Print lines, now; raises `BrokenPipeError` where nobody reads."""
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = True
            _drop_stdout()
            log.error("Cannot write to stdout: %s; the work goes on without it.", error.strerror or error)


def _drop_stdout() -> None:
    """Keep everybody, the interpreter at its end too, from trying again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _execute(request: Request, results: _Results) -> int:
    done: list[Done] = []
    _log_where_asked(request)

    def tell(step: Done) -> None:
        done.append(step)
        if not request.json:
            _say(step.outcome.sentence, request, results)

    error: errors.Error | None = None
    try:
        chosen = settings.load(settings.find_places(request.config, request.fallback_config, request.data))
        _log_as_chosen(request, chosen)
        if request.command == "doctor":
            return _examine(request, chosen, results)
        if request.command in ("status", "show-artifact"):
            return _show(request, chosen, results)
        if request.command == "terminal":
            tell(Done("terminal", _terminal(request, chosen)))
        else:
            from . import invocation  # with all that steps need; the terminal, which stays, does not

            invocation.carry_out(request, chosen, progress_bar(), tell)
    except errors.Error as problem:
        error = problem
        quiet = problem.logged or (request.command == "run" and isinstance(problem, errors.Busy))
        log.log(logging.DEBUG if quiet else logging.ERROR, "%s", problem)
    code = error.exit_code if error else _exit_code(request, done)
    if request.json:
        results.say(json.dumps(_as_json(request, done, error, code)))
    elif not done and error is None and sys.stdout.isatty() and not request.syslog:
        results.say("Nothing is due; see mender-oneshot status.")
    return code


def _terminal(request: Request, chosen: Settings) -> Outcome:
    try:
        from .terminal import service  # of an extra: most devices have not its libraries
    except ImportError as error:
        raise errors.SettingsError(
            f"The terminal needs {error.name}; install python3-wsproto and python3-msgpack, or run "
            "pip install '.[terminal]' in a checkout of mender-oneshot."
        ) from error
    return service.serve(request, chosen)


def _say(sentence: str, request: Request, results: _Results) -> None:
    """Tell of a step that went well: worth a notice where a log takes it."""
    if not request.syslog:
        results.say(f"<{NOTICE}>{visible(sentence)}" if is_journal(1) else sentence)
    elif os.path.exists(SYSLOG):
        _to_syslog(NOTICE, sentence)


def _exit_code(request: Request, done: list[Done]) -> int:
    if request.exit_code and any(step.outcome.word == "update" for step in done):
        return errors.UPDATE_AVAILABLE
    return 0


def _as_json(request: Request, done: list[Done], error: errors.Error | None, code: int) -> dict[str, Any]:
    """Say it all in one object; the keys are a promise."""
    said = [
        {"step": step, "outcome": outcome.word, "message": outcome.sentence, **outcome.facts}
        for step, outcome in done
    ]
    whole: dict[str, Any] = {"schema": SCHEMA, "exit_code": code}
    if request.command == "run":
        whole["steps"] = said
    elif said:
        whole |= said[0]
    if error:
        whole["error"] = str(error)
    return whole


def _show(request: Request, chosen: Settings, results: _Results) -> int:
    from . import status  # which looks at what steps left

    facts = status.describe(chosen)
    if request.command == "show-artifact":
        facts = {"artifact_name": facts["artifact_name"] or "unknown"}
    if request.json:
        results.say(json.dumps({"schema": SCHEMA, **facts}))
    elif request.command == "show-artifact":
        results.say(facts["artifact_name"])
    else:
        results.say(*status.lines(facts))
    return 0


def _examine(request: Request, chosen: Settings, results: _Results) -> int:
    """Show what `doctor` finds, as it finds it; the exit code is that of the first thing wrong."""
    from . import doctor  # it needs every library there is

    findings = []
    with deadline(request.max_runtime):
        for found in doctor.examine(chosen):
            findings.append(found)
            if not request.json:
                results.say(
                    f"{'WRONG' if found.error else 'ok':<6} {found.name:<15} {visible(found.sentence)}"
                )
    code = next((found.error.exit_code for found in findings if found.error), 0)
    if request.json:
        checks = [
            {"name": found.name, "ok": found.error is None, "message": found.sentence} for found in findings
        ]
        results.say(json.dumps({"schema": SCHEMA, "exit_code": code, "checks": checks}))
    return code


def visible(text: str) -> str:
    """Make words of others (a script's, a server's) harmless for a terminal and a log of lines."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


class _FileFormatter(logging.Formatter):
    """Time, level and words, on one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """Put the line together."""
        return visible(super().formatMessage(record))


class _StderrFormatter(logging.Formatter):
    """`<N>` priorities for the journal, which puts the time itself; plain words for everybody else."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = visible(record.getMessage())
        if self.journal:
            return f"<{_PRIORITIES.get(record.levelname, 6)}>{text}"
        return text if record.levelno >= logging.ERROR else f"{record.levelname.lower()}: {text}"


class _Bearing(logging.Handler):
    """What handlers do with trouble of their own: a log that takes no more holds nobody up."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        """Let the time limit through, which may strike in the middle of a line; only a bug is worth words."""
        problem = sys.exception()
        if isinstance(problem, errors.Error):
            raise problem
        if not isinstance(problem, OSError):
            super().handleError(record)


class _StderrHandler(_Bearing, logging.StreamHandler[TextIO]):
    """Logs to stderr."""


class _FileHandler(_Bearing, logging.FileHandler):
    """Logs to a file."""


class _SyslogHandler(logging.Handler):
    """Hands what is logged to the system's log, with its priority."""

    def emit(self, record: logging.LogRecord) -> None:
        _to_syslog(_PRIORITIES.get(record.levelname, 6), record.getMessage())


def _to_syslog(priority: int, text: str) -> None:
    import syslog  # only cron wants it

    syslog.openlog("mender-oneshot", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(priority, visible(text))


def _log_where_asked(request: Request) -> None:
    root = logging.getLogger(package)
    root.handlers.clear()
    handler: logging.Handler
    if request.syslog and os.path.exists(SYSLOG):
        handler = _SyslogHandler()
    else:
        handler = _StderrHandler(sys.stderr)
        handler.setFormatter(_StderrFormatter(is_journal(2)))
    handler.setLevel((request.log_level or "warning").upper())
    # What an outcome tells as well would be there twice.
    handler.addFilter(lambda record: not getattr(record, "told", False))
    root.addHandler(handler)
    # The log of a deployment wants more than stderr: the handlers choose, not the logger.
    root.setLevel(logging.DEBUG)
    root.propagate = False


def _log_as_chosen(request: Request, chosen: Settings) -> None:
    root = logging.getLogger(package)
    configured = chosen.log_level.upper()
    if not request.log_level and configured in _PRIORITIES:
        root.handlers[0].setLevel(configured)
    if request.log_file:
        try:
            handler = _FileHandler(request.log_file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise errors.SettingsError(
                f"The log file {request.log_file} cannot be opened ({error.strerror}); check --log-file."
            ) from error
        handler.setFormatter(_FileFormatter())
        root.addHandler(handler)
    for warning in chosen.warnings:
        log.warning("%s", warning)


def is_journal(descriptor: int) -> bool:
    """Say whether a descriptor leads to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        target = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{target.st_dev}:{target.st_ino}"


def progress_bar() -> Progress:
    """Return a function that shows (bytes done, bytes in all) on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done, size: None
    from click import progressbar  # only a person at a terminal pays for it

    bar: Any = None

    def show(done: int, size: int) -> None:
        nonlocal bar
        if size <= 0:
            return
        if bar is None:
            bar = progressbar(length=size, file=sys.stderr, label="Downloading")
        bar.update(done - bar.pos)
        if done >= size:
            bar.render_finish()

    return show
