"""Set up logging to stderr, the journal, the syslog and a file."""

import contextlib
import errno
import logging
import os
import sys
from typing import TextIO

from . import __package__ as package
from . import console, errors, syslog
from .options import Options
from .settings import Settings
from .syslog import visible

log = logging.getLogger(__name__)

_PRIORITIES = {
    "DEBUG": syslog.DEBUG,
    "INFO": syslog.INFO,
    "WARNING": syslog.WARNING,
    "ERROR": syslog.ERROR,
    "CRITICAL": syslog.CRITICAL,
}


MOST_WARNINGS = 100
"""Most warnings in the JSON object of a command."""


class _FileFormatter(logging.Formatter):
    """Formats time, level and text as one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """Return the line, without control characters."""
        return visible(super().formatMessage(record))


class _StderrFormatter(logging.Formatter):
    """Formats plain text, with `<N>` priorities for the journal, which adds the time itself."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self.journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = visible(record.getMessage())
        if self.journal:
            return f"<{_PRIORITIES.get(record.levelname, syslog.INFO)}>{text}"
        return text if record.levelno >= logging.ERROR else f"{record.levelname.lower()}: {text}"


class _PatientHandler(logging.Handler):
    """Ignores I/O errors, so that a full log does not stop the work."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        """Raise the error of the time limit, which may come while a line is written; report only a bug."""
        problem = sys.exception()
        if isinstance(problem, errors.Error):
            raise problem
        if not isinstance(problem, OSError):
            super().handleError(record)


class _StderrHandler(_PatientHandler, logging.StreamHandler[TextIO]):
    """Logs to stderr."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_StderrFormatter(is_journal(2)))

    def emit(self, record: logging.LogRecord) -> None:
        console.clear()
        super().emit(record)


class _FileHandler(_PatientHandler, logging.StreamHandler[TextIO]):
    """Logs to a file; raises `OSError` if it cannot be opened.

    O_NONBLOCK, because neither opening nor writing may wait for the reader of a FIFO or for a device.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        super().__init__(os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace"))

    def close(self) -> None:
        """Close the file; lines that could not be written are lost."""
        with contextlib.suppress(OSError):
            self.stream.close()
        super().close()


class _SyslogHandler(_StderrHandler):
    """Logs to the syslog; if that fails, warnings and errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        sent = syslog.send(_PRIORITIES.get(record.levelname, syslog.INFO), record.getMessage())
        if not sent and record.levelno >= logging.WARNING:
            super().emit(record)


class _SyslogCopy(logging.Handler):
    """Logs to the syslog, and nowhere else if that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        syslog.send(_PRIORITIES.get(record.levelname, syslog.INFO), record.getMessage())


class _Collector(logging.Handler):
    """Keeps the warnings and errors, for the output of `--json`."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._kept) < MOST_WARNINGS:
            self._kept.append(visible(record.getMessage()))


def begin(options: Options, warnings: list[str]) -> None:
    """Log to stderr or the syslog, according to the command line; `configure` applies the settings.

    For `--json`, warnings and errors are also appended to `warnings`.
    """
    root = logging.getLogger(package)
    root.handlers.clear()
    handler = _SyslogHandler() if options.syslog else _StderrHandler()
    handler.setLevel((_chosen_level(options) or "warning").upper())
    # An outcome that is also printed would appear twice.
    handler.addFilter(_is_untold)
    root.addHandler(handler)
    if options.json:
        collector = _Collector(warnings)
        collector.addFilter(_is_untold)
        root.addHandler(collector)
    # Each handler has its own level, because the log of a deployment gets more than stderr.
    root.setLevel(logging.DEBUG)
    root.propagate = False


def _chosen_level(options: Options) -> str:
    """Return the level of the command line; a person who starts the terminal service sees what it does."""
    by_hand = options.command == "terminal" and console.is_enabled() and not options.syslog
    return options.log_level or ("info" if by_hand else "")


def _is_untold(record: logging.LogRecord) -> bool:
    return not getattr(record, "told", False)


def configure(options: Options, chosen: Settings) -> None:
    """Apply the log level of the settings, open the log file, and log the warnings of the settings.

    Raises `errors.SettingsError` if the log file cannot be opened.
    """
    root = logging.getLogger(package)
    configured = chosen.log_level.upper()
    if not _chosen_level(options) and configured in _PRIORITIES:
        root.handlers[0].setLevel(configured)
    if options.log_file:
        try:
            handler = _FileHandler(options.log_file)
        except OSError as error:
            why = error.strerror
            if error.errno == errno.ENXIO:
                why = "it is a socket, or a FIFO that no program reads"
            raise errors.SettingsError(
                f"The log file {options.log_file} cannot be opened ({why}); check --log-file."
            ) from error
        handler.setFormatter(_FileFormatter())
        root.addHandler(handler)
    for warning in chosen.warnings:
        log.warning("%s", warning)


def copy_to_syslog() -> None:
    """Log to the syslog as well as to stderr, at the same level."""
    root = logging.getLogger(package)
    handler = _SyslogCopy(root.handlers[0].level)
    handler.addFilter(_is_untold)
    root.addHandler(handler)


def show_errors_only() -> None:
    """Log no warnings to stderr or the syslog, because the command prints them itself."""
    logging.getLogger(package).handlers[0].setLevel(logging.ERROR)


def is_journal(descriptor: int) -> bool:
    """Return whether a descriptor leads to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        target = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{target.st_dev}:{target.st_ino}"
