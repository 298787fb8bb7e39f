"""Read the state file, and write it whole."""

import errno
import os

from . import disk, errors, last_check, paths
from .state import LIMIT, State, Unreadable, from_json, to_json

SPARE = 16384
"""Bytes that a step may add to the state; so much disk space must be free before it begins."""


class Store:
    """The state of this invocation.

    To change it in memory, assign `state`; `save` writes it to disk, at the latest when the invocation ends,
    by `finish`.
    """

    def __init__(self, path: str, state: State) -> None:
        self.path = path
        self.state = state
        self._saved: State | None = None if state == State() or state.damaged else state
        self.written = False  # by this invocation
        self._note: last_check.Note | None = None  # set while the file need not be written

    def save(self, state: State | None = None) -> None:
        """Write the state to disk if it has changed; with an argument, this is the state from now on.

        Atomic and durable: after a power cut the file holds the old or the new state. Raises `errors.NoSpace`
        or `errors.DiskError`; the state in memory has changed even so.
        """
        if state is not None:
            self.state = state
        if self.state != self._saved:
            self._write()

    def finish(self) -> None:
        """Save the state at the end of the invocation.

        After a check that `ensure_writable_for_check` allowed without a write, and that has changed nothing
        but `checked_at`, only the note in /run is written (`last_check`). The first check after a boot is
        always saved, or a device that is rebooted often would check after each boot. Raises like `save`.
        """
        at, note = self.state.checked_at, self._note
        same = self._saved is not None and self.state == self._saved._replace(checked_at=at)
        if note and same and last_check.write(self.path, note._replace(at=at)):
            return
        self.save()
        if self.written:
            last_check.write(self.path, last_check.Note(at, at, sure=True))

    def ensure_writable(self) -> None:
        """Write the state, changed or not, to be sure that what follows can be saved.

        A back-off that cannot be saved has no effect: every run would ask the server again. Raises
        `errors.NoSpace` or `errors.DiskError`.
        """
        try:
            if disk.free(os.path.dirname(self.path)) < SPARE:
                raise OSError(errno.ENOSPC, "", self.path)
        except OSError as error:
            raise disk.failure(f"write {self.path}", error) from error
        self._write()

    def ensure_writable_for_check(self) -> None:
        """Do what `ensure_writable` does, but without a write to the disk if the last one succeeded.

        Until `finish`, the note in /run records that a check is in progress. If what it finds cannot be
        saved, or the process is killed, the next check writes the state first. So one request at most is made
        after a disk begins to fail in a way that only a write shows.
        """
        note = last_check.read(self.path)
        if note and self._is_usable(note) and last_check.write(self.path, note._replace(sure=False)):
            self._note = note
        else:
            self.ensure_writable()

    def _is_usable(self, note: last_check.Note) -> bool:
        of_this_state = self._saved is not None and self._saved.checked_at == note.at
        return note.sure and of_this_state and self._seems_writable()

    def _seems_writable(self) -> bool:
        directory = os.path.dirname(self.path)
        try:
            roomy = disk.free(directory) >= SPARE
        except OSError:
            return False
        return roomy and os.access(directory, os.W_OK | os.X_OK) and os.access(self.path, os.W_OK)

    def _write(self) -> None:
        disk.write_whole(self.path, to_json(self.state))
        self._saved, self.written, self._note = self.state, True, None


def load(path: str) -> State:
    """Read the state file, an empty state if there is none; raises `Unreadable` or `errors.DiskError`.

    The time of the last check may be a later one that was left in /run.
    """
    try:
        content = disk.read_own(path, LIMIT)
    except (errors.UntrustedFile, errors.FileTooLarge) as error:
        unreadable = Unreadable(f"it {error.reason}")
        unreadable.content = error.content
        raise unreadable from error
    try:
        known = State() if content is None else from_json(content)
    except Unreadable as error:
        error.content = content or b""
        raise
    note = last_check.read(path)
    if note and known.checked_at in (note.in_state, note.at):
        return known._replace(checked_at=note.at)
    return known


def quarantine(path: str, corrupt: bytes) -> str:
    """Copy the content of a corrupt state file, and return the path of the copy.

    The file itself stays until the new state replaces it, so that a power cut in between does not make the
    device look new. An older copy is overwritten.
    """
    copy = path + paths.UNREADABLE
    disk.write_whole(copy, corrupt)
    return copy
