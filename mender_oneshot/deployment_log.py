"""`deployment.log`: the log of the current deployment, which is uploaded if it fails.

Entries are JSON lines. An upload follows the server's rules (device-api.md section 4): every entry has a
time, a level and a message, none is empty, and the whole is below 1 MiB; older entries are dropped first.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from . import disk, errors
from .paths import DEPLOYMENT_LOG, SUB_UPDATER_LOG

BODY_LIMIT = 999_744
"""Maximum bytes of the upload; the reference client's value, below the server's limit of 1 MiB."""

_LINE_LIMIT = 16_384
_FILE_LIMIT = 2 << 20
_FRAME = 512
"""Bytes reserved for the braces of the body, and for the entry about dropped entries."""

Message = dict[str, str]

log = logging.getLogger(__name__)


class Handler(logging.Handler):
    """Appends log records to the log of the deployment.

    Failures to write are ignored: a full disk must not stop an update, and other code that writes to the same
    disk reports it.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(logging.INFO)
        self.path = f"{directory}/{DEPLOYMENT_LOG}"

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line; never raise an `OSError` or a disk error, and sync nothing."""
        line = json.dumps(_message(record.created, record.levelname.lower(), record.getMessage())) + "\n"
        try:
            descriptor = disk.open_own(self.path, os.O_RDWR)
        except OSError:
            return
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line  # a power cut truncated the last line
            if size >= _FILE_LIMIT:
                descriptor = self._trim(descriptor)
            os.write(descriptor, line.encode())
        except (OSError, errors.NoSpace, errors.DiskError):
            return
        finally:
            os.close(descriptor)

    def _trim(self, descriptor: int) -> int:
        """Drop the older half of the log and return an open descriptor; the newest lines explain a failure.

        The file is replaced atomically, once per megabyte.
        """
        kept = _end_of(descriptor, _FILE_LIMIT // 2)
        disk.write_whole(self.path, kept)
        fresh = disk.open_own(self.path, os.O_RDWR)
        os.close(descriptor)
        return fresh


def reset(log_directory: str, datastore: str) -> None:
    """Start the log of a new deployment: remove the logs of the last one.

    A file that cannot be removed is logged, and must not stop the update.
    """
    for path in (f"{log_directory}/{DEPLOYMENT_LOG}", f"{datastore}/{SUB_UPDATER_LOG}"):
        try:
            disk.require_target(os.path.dirname(path))
            disk.remove(path)
        except errors.Error as error:
            log.warning("%s", error)


def collect(log_directory: str, datastore: str, at: float, limit: int = BODY_LIMIT) -> list[Message]:
    """Return the entries to upload, ours and then the sub-updater's: the newest that fit into `limit` bytes.

    At least a quarter of the limit is for ours, which may give the reason for the failure. Lines without a
    time get the time `at`, in seconds since 1970. A log that another user could have written is left out.
    """
    ours = _read(f"{log_directory}/{DEPLOYMENT_LOG}", entries, at)
    theirs = _read(f"{datastore}/{SUB_UPDATER_LOG}", _lines, at)
    if not (ours or theirs):
        ours = [_message(at, "error", "The update failed and left no log.")]
    theirs = fit(theirs, limit - min(_size(ours), limit // 4) - _FRAME)
    return fit(ours, limit - _size(theirs)) + theirs


def _read(path: str, parse: Callable[[str, float], list[Message]], at: float) -> list[Message]:
    try:
        return parse(_tail(path), at)
    except errors.UntrustedFile as error:
        return [_message(at, "warning", f"{path} was left out because it {error.reason}.")]


def _size(messages: list[Message]) -> int:
    return sum(len(json.dumps(message)) + 2 for message in messages)


def fit(messages: list[Message], limit: int = BODY_LIMIT) -> list[Message]:
    """Return the newest entries whose JSON fits into `limit` bytes, after a note if some were dropped."""
    left = limit - _FRAME
    kept: list[Message] = []
    for message in reversed(messages):
        left -= len(json.dumps(message)) + 2
        if left < 0:
            dropped = len(messages) - len(kept)
            note = f"{dropped} older entries were left out to fit the server's limit."
            kept.append({**message, "level": "warning", "message": note})
            break
        kept.append(message)
    return kept[::-1]


def entries(text: str, at: float = 0) -> list[Message]:
    """Return the entries of our JSON lines; an unreadable line, as after a power cut, becomes a warning.

    A first line that is unreadable gets the time `at`, in seconds since 1970.
    """
    messages: list[Message] = []
    stamp = _stamp(at)
    for line in text.splitlines():
        if not line.strip("\0 \t"):
            continue
        entry = _entry(line)
        if entry is None:
            entry = {
                "timestamp": stamp,
                "level": "warning",
                "message": f"unreadable log line: {line[:200]!r}",
            }
        stamp = entry["timestamp"]
        messages.append(entry)
    return messages


def _entry(line: str) -> Message | None:
    """Return the entry of one line, or None if the server would reject it."""
    try:
        entry: Any = json.loads(line)
        stamp, level, message = (entry[key] for key in ("timestamp", "level", "message"))
        if not re.fullmatch(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,9})?Z", stamp):
            return None
        datetime.fromisoformat(stamp[:19])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(level, str) and level and isinstance(message, str) and message.strip()):
        return None
    return {"timestamp": stamp, "level": level, "message": message[:_LINE_LIMIT]}


def _lines(text: str, at: float) -> list[Message]:
    """Return an entry for each line that the sub-updater wrote."""
    lines = (line for line in text.splitlines() if line.strip("\0 \t"))
    return [
        _message(at, "info", line if len(line) <= _LINE_LIMIT else line.strip("\0 \t")[-_LINE_LIMIT:])
        for line in lines
    ]


def _tail(path: str) -> str:
    """Return the last `BODY_LIMIT` bytes of a log, from the start of a line, or "" if it cannot be read.

    Raises `errors.UntrustedFile` for a file that another user could have put there: it would be uploaded.
    """
    try:
        descriptor = disk.open_to_read(path)
    except OSError:
        return ""
    try:
        return _end_of(descriptor, BODY_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _end_of(descriptor: int, limit: int) -> bytes:
    """Return the last `limit` bytes of a file, from the start of a line if there is one; raise `OSError`."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, limit, max(0, size - limit))
    return content if size <= limit else content.partition(b"\n")[2] or content


def _message(at: float, level: str, message: str) -> Message:
    return {"timestamp": _stamp(at), "level": level, "message": message}


def _stamp(at: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
