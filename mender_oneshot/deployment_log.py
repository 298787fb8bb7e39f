"""`deployment.log`: what happened to this deployment, for the server to show when it failed.

Writes JSON lines, and makes what it reads fit the server's rules (device-api.md section 4): every entry has a
time, a level and a message, none is empty, and the whole stays below 1 MiB by keeping the tail.
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
"""Bytes of the upload; the reference client's figure, under the server's 1 MiB."""

_LINE_LIMIT = 16_384
_FILE_LIMIT = 2 << 20
_FRAME = 512
"""Bytes for the frame of the body, and for the entry that tells what is missing."""

Message = dict[str, str]

log = logging.getLogger(__name__)


class Handler(logging.Handler):
    """Appends what the program says while it works on a deployment to its log.

    A full disk silences the log, not the update: the failure to write is left to those who write more
    important things.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(logging.INFO)
        self.path = f"{directory}/{DEPLOYMENT_LOG}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; never raises."""
        line = json.dumps(_message(record.created, record.levelname.lower(), record.getMessage())) + "\n"
        try:
            descriptor = disk.open_own(self.path, os.O_RDWR)
        except OSError:
            return
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line  # a power cut has torn the last one
            if size >= _FILE_LIMIT:
                descriptor = self._trim(descriptor)
            os.write(descriptor, line.encode())
        except (OSError, errors.NoSpace, errors.DiskError):
            return
        finally:
            os.close(descriptor)

    def _trim(self, descriptor: int) -> int:
        """Keep the newer half of the log, since the newest lines tell why an update failed; return it, open.

        The whole is rewritten once in a megabyte, and replaced: a power cut leaves the old log or the new.
        """
        kept = _end_of(descriptor, _FILE_LIMIT // 2)
        disk.write_whole(self.path, kept)
        fresh = disk.open_own(self.path, os.O_RDWR)
        os.close(descriptor)
        return fresh


def reset(log_directory: str, datastore: str) -> None:
    """Begin the log of a new deployment: what the last one left goes.

    What cannot be removed is said and must not hold up the update.
    """
    for path in (f"{log_directory}/{DEPLOYMENT_LOG}", f"{datastore}/{SUB_UPDATER_LOG}"):
        try:
            disk.require_target(os.path.dirname(path))
            disk.remove(path)
        except errors.Error as error:
            log.warning("%s", error)


def collect(log_directory: str, datastore: str, at: float, limit: int = BODY_LIMIT) -> list[Message]:
    """Gather the entries to upload, ours and then the sub-updater's, the newest that fit into `limit` bytes.

    Of our own at least a quarter of that, however much the sub-updater wrote: they may tell the reason.
    Lines without a time get the time `at`.
    """
    ours = _read(f"{log_directory}/{DEPLOYMENT_LOG}", _own, at)
    theirs = _read(f"{datastore}/{SUB_UPDATER_LOG}", _lines, at)
    if not (ours or theirs):
        ours = [_message(at, "error", "The update failed and left no log.")]
    theirs = fit(theirs, limit - min(_size(ours), limit // 4) - _FRAME)
    return fit(ours, limit - _size(theirs)) + theirs


def _read(path: str, entries: Callable[[str, float], list[Message]], at: float) -> list[Message]:
    try:
        return entries(_tail(path), at)
    except errors.UntrustedFile as error:
        return [_message(at, "warning", f"{path} is left out: it {error.reason}.")]


def _size(messages: list[Message]) -> int:
    return sum(len(json.dumps(message)) + 2 for message in messages)


def fit(messages: list[Message], limit: int = BODY_LIMIT) -> list[Message]:
    """Keep the newest entries whose JSON body stays within `limit` bytes, and say so where some had to go."""
    room = limit - _FRAME
    kept: list[Message] = []
    for message in reversed(messages):
        room -= len(json.dumps(message)) + 2
        if room < 0:
            dropped = len(messages) - len(kept)
            note = f"{dropped} older entries were left out to fit the server's limit."
            kept.append({**message, "level": "warning", "message": note})
            break
        kept.append(message)
    return kept[::-1]


def _own(text: str, at: float) -> list[Message]:
    """Read our JSON lines; one that a power cut spoiled is replaced by an entry that says so."""
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
    """Read one line, or say None where the server would refuse it."""
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
    """Make one entry of each line that the sub-updater wrote."""
    lines = (line for line in text.splitlines() if line.strip("\0 \t"))
    return [
        _message(at, "info", line if len(line) <= _LINE_LIMIT else line.strip("\0 \t")[-_LINE_LIMIT:])
        for line in lines
    ]


def _tail(path: str) -> str:
    """Read the end of a log, from the start of a line on; nothing if there is none to be read.

    Raises `errors.UntrustedFile` for what somebody else could have put there: it would be uploaded.
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
    """Return the last bytes of a file, from the start of a line if there is one; raises `OSError`."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, limit, max(0, size - limit))
    return content if size <= limit else content.partition(b"\n")[2] or content


def _message(at: float, level: str, message: str) -> Message:
    return {"timestamp": _stamp(at), "level": level, "message": message}


def _stamp(at: float) -> str:
    """Format a time as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
