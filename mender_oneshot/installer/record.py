"""What an installation leaves for its next process: `installer.json` in the data directory."""

import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import disk, errors
from ..state import Gate
from ..typed import Reader
from .phases import PHASES, Progress

SCHEMA = 1
LIMIT = 1 << 20
RESERVE = 64 << 10
"""Bytes of disk space for the notes of an installation, besides what its artifact provides."""


class Corrupt(errors.DiskError):
    """The record cannot be read, so the installation cannot be resumed."""


class Record(NamedTuple):
    """An installation under way. An older release must be able to read it until the commit."""

    deployment: str = ""  # "": by hand, without a server
    artifact: str = ""  # the path of the artifact file
    artifact_name: str = ""
    artifact_group: str = ""
    payload_type: str = ""  # "": no payload
    provides: Mapping[str, str] = {}
    clears: tuple[str, ...] = ()
    progress: Progress = Progress()
    boot: str = ""  # the kernel's boot id when the phase was noted
    at: float = 0  # and the clock, seconds since 1970
    why: str = ""  # the first error, a sentence
    old_root: str = ""  # the root file system when the update was installed (`root.mounted`)
    new_root: str = ""  # and when it was to be committed
    returning: bool = False  # the device was rebooted so that the boot loader returns to the old system
    pause: Gate | None = None
    stopped: bool = False  # the process that noted the phase ended before its work, on purpose

    @property
    def by_hand(self) -> bool:
        """Whether no server waits for a result."""
        return not self.deployment


def save(path: str, record: Record) -> None:
    """Put a record on disk, whole; raises `errors.NoSpace` or `errors.DiskError`."""
    members = record._asdict()
    members["progress"] = record.progress._asdict()
    members["pause"] = record.pause and record.pause._asdict()
    disk.write_whole(path, json.dumps({"schema": SCHEMA, **members}, indent=1).encode() + b"\n")


def reserve(path: str, record: Record) -> None:
    """Write a file with the room that an installation needs for its notes, whatever its module fills.

    Raises `errors.NoSpace` or `errors.DiskError`.
    """
    # Random, so that no file system compresses it; the provides are in the record, and are stored as well.
    disk.write_whole(path, os.urandom(RESERVE + 2 * len(json.dumps(record))))


def release(path: str) -> bool:
    """Give up that room; return False if that was done before, or if it failed."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def load(path: str) -> Record | None:
    """Read a record; None if there is none. Raises `Corrupt`, or `errors.DiskError`."""
    content = disk.read_own(path, LIMIT)
    if content is None:
        return None
    try:
        return _read(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path) from error


def _read(members: Any) -> Record:
    """Read the members of a record; raises `ValueError`, or what a value of another type leads to."""
    reader = Reader()
    members = dict(members)
    progress = reader.part(Progress, "progress", members.pop("progress"))
    pause = members.pop("pause")
    known: dict[str, Any] = {"pause": reader.part(Gate, "pause", pause) if pause else None}
    for name in Record._fields:
        if name in members:
            known[name] = tuple(members[name]) if name == "clears" else members[name]
    found = Record(**known, progress=progress or Progress())
    texts = (*(getattr(found, name) for name in _TEXTS), *found.clears, *found.provides.values())
    if reader.damaged or found.progress.phase not in PHASES or not all(isinstance(one, str) for one in texts):
        raise ValueError
    reader.typed(float, "at", found.at)
    if reader.damaged:
        raise ValueError
    return found


_TEXTS = (
    "deployment",
    "artifact",
    "artifact_name",
    "artifact_group",
    "payload_type",
    "boot",
    "why",
    "old_root",
    "new_root",
)


def is_worked_on(lock: str) -> bool:
    """Return whether a process holds the lock of installations."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def _unreadable(path: str) -> Corrupt:
    return Corrupt(f"The record of the installation, {path}, is corrupt; the update has failed.")
