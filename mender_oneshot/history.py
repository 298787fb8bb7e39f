"""The last deployments of this device and their logs: `history.json` and `logs/` in the data directory.

For people only: nothing is decided by it, and what cannot be written is left out.
"""

import contextlib
import errno
import json
import logging
import os
import stat
from typing import Any, NamedTuple

from . import deployment_log, disk, errors, ownership
from .partial_download import in_words
from .paths import HISTORY, HISTORY_LOGS, SUB_UPDATER_LOG
from .settings import Settings
from .snapshot import is_deployment_id
from .state import Result, State
from .typed import Reader
from .units import duration, when

SCHEMA = 1
KEPT = 10
LOG_BYTES = 128 * 1024
"""Bytes of one log; the newest lines are kept."""
WHY_LENGTH = 500
_LIMIT = 1 << 20

log = logging.getLogger(__name__)

Message = deployment_log.Message


class Entry(NamedTuple):
    """A deployment that has ended; times in seconds since 1970, 0 if unknown."""

    deployment: str
    artifact_name: str
    status: str  # "success", "failure" or "aborted" (by the server)
    began: float = 0
    ended: float = 0
    size: int = -1  # bytes of the artifact; -1: unknown
    why: str = ""  # the last line of its log


def add(settings: Settings, before: State, result: Result) -> None:
    """Add a deployment that has just ended; `before` is the state in which it was under way."""
    if not result.deployment:
        return
    try:
        _add(settings, before, result)
    except errors.Error as error:
        log.info("The history of deployments is incomplete: %s", error)


def _add(settings: Settings, before: State, result: Result) -> None:
    messages = deployment_log.collect(settings.log_directory, settings.places.datastore, result.at, LOG_BYTES)
    why = _why(settings, messages) if result.status == "failure" else ""
    entry = _entry(before, result)._replace(why=why)
    kept = [one for one in load(settings) if one.deployment != entry.deployment][-KEPT + 1 :]
    logs = settings.places.data(HISTORY_LOGS)
    _make_directory(logs)
    text = "".join(json.dumps(message) + "\n" for message in messages)
    disk.write_whole(f"{logs}/{entry.deployment}.log", text.encode())
    members = {"schema": SCHEMA, "deployments": [one._asdict() for one in (*kept, entry)]}
    disk.write_whole(settings.places.data(HISTORY), json.dumps(members, indent=1).encode() + b"\n")
    wanted = {one.deployment for one in (*kept, entry)}
    with contextlib.suppress(OSError):
        for name in os.listdir(logs):
            deployment, _, suffix = name.partition(".")
            is_ours = is_deployment_id(deployment) and suffix in ("log", "log.new")
            if is_ours and (suffix == "log.new" or deployment not in wanted):
                disk.remove(f"{logs}/{name}")


def _why(settings: Settings, messages: list[Message]) -> str:
    """Return the last line of a log if it may be the reason of a failure: an error, or the sub-updater's."""
    last = messages[-1] if messages else None
    if last is None:
        return ""
    with contextlib.suppress(OSError):
        if os.stat(settings.places.data(SUB_UPDATER_LOG)).st_size:
            return last["message"][:WHY_LENGTH]
    return last["message"][:WHY_LENGTH] if last["level"] in ("warning", "error", "critical") else ""


def reason(settings: Settings, deployment: str) -> str:
    """Return why a deployment failed, as the end of a sentence: ": ..." or "" if it is not known."""
    try:
        entry = find(settings, deployment)
    except errors.DiskError:
        return ""
    return f": {entry.why}" if entry and entry.why else ""


def _entry(before: State, result: Result) -> Entry:
    entry = Entry(result.deployment, "", result.status, ended=result.at)
    deployment, handoff = before.deployment, before.handoff
    if deployment and deployment.id == result.deployment:
        return entry._replace(
            artifact_name=deployment.artifact_name, began=deployment.began, size=deployment.size
        )
    if handoff and handoff.deployment == result.deployment:
        return entry._replace(artifact_name=handoff.artifact_name, began=handoff.began, size=handoff.size)
    return entry


def _make_directory(path: str) -> None:
    """Create the directory of the logs; raise `errors.DiskError` if something else has its name."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        if not stat.S_ISDIR(os.lstat(path).st_mode) or ownership.is_anothers(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    except OSError as error:
        raise disk.failure(f"create {path}", error) from error


def load(settings: Settings) -> list[Entry]:
    """Return the deployments that have ended, oldest first; a corrupt file counts as an empty one.

    Raises `errors.DiskError` if it cannot be read.
    """
    content = disk.read_own(settings.places.data(HISTORY), _LIMIT)
    if content is None:
        return []
    reader = Reader()
    try:
        members: Any = json.loads(content)["deployments"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    found = (
        reader.part(Entry, "deployment", one) for one in reader.typed(list, "deployments", members) or ()
    )
    return [one for one in found if one]


def find(settings: Settings, wanted: str) -> Entry | None:
    """Return the newest deployment with this name, or whose id starts with this text; "" finds any."""
    for one in reversed(load(settings)):
        if one.artifact_name == wanted or one.deployment.startswith(wanted):
            return one
    return None


def messages(settings: Settings, deployment: str) -> list[Message]:
    """Return the log of a deployment that has ended; raises `errors.DiskError`."""
    path = f"{settings.places.data(HISTORY_LOGS)}/{deployment}.log"
    content = disk.read_own(path, _LIMIT) or b""
    return deployment_log.entries(content.decode("utf-8", "replace"))


def lines(entries: list[Entry]) -> list[str]:
    """Return the deployments as lines for people, the newest first."""
    rows = [
        (
            when(one.ended) if one.ended else "unknown",
            one.status,
            one.artifact_name or one.deployment,
            _facts(one),
        )
        for one in entries
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    output = []
    for row, one in zip(reversed(rows), reversed(entries), strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        output.append("  ".join([*cells, row[3]]).rstrip())
        if one.why:
            output.append(f"    {one.why}")
    return output


def _facts(entry: Entry) -> str:
    facts = [in_words(entry.size)] if entry.size >= 0 else []
    if 0 < entry.began <= entry.ended:
        facts.append(duration(round(entry.ended - entry.began)))
    return ", ".join(facts)


def log_lines(messages: list[Message]) -> list[str]:
    """Return a log as lines for people."""
    return [f"{one['timestamp']} {one['level']:<7} {one['message']}" for one in messages]
