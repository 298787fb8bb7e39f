"""The time of the last check for an update, in /run, so that a check without news writes nothing to flash.

A note is used only with the state file that it was written for. A reboot removes it; then the time in the
state file counts, which is at most `LONGEST` older.
"""

import json
import os
from typing import NamedTuple

from . import disk, errors, idle
from .typed import Reader

LONGEST = 86400.0
"""Seconds for which the time in the state file may stay behind; it is written at least once a day."""

_NAME = "last-check"


class Note(NamedTuple):
    """When the server was last asked for an update; times in seconds since 1970, as in the state file."""

    in_state: float  # `checked_at` in the state file
    at: float  # the time of the last check, the same or up to `LONGEST` later
    sure: bool = False  # the last write to the state file succeeded, and no check is in progress


def read(state_file: str) -> Note | None:
    """Return the note of a state file; None if there is none, it may not be ours, or it is invalid."""
    try:
        content = disk.read_own(_path(state_file), 4096)
        note = Reader().part(Note, "note", json.loads(content or b""))
    except (errors.Error, ValueError, RecursionError):
        return None
    return note if note and _is_sane(note) else None


def write(state_file: str, note: Note) -> bool:
    """Replace the note; return False if it cannot be written, or `at` does not follow `in_state`."""
    if not _is_sane(note):
        return False
    path = _path(state_file)
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        disk.write_whole(path, json.dumps(note._asdict()).encode())
    except (errors.Error, OSError):
        return False
    return True


def _path(state_file: str) -> str:
    return f"{idle.directory(os.path.dirname(state_file))}/{_NAME}"


def _is_sane(note: Note) -> bool:
    return 0 < note.in_state <= note.at < note.in_state + LONGEST
