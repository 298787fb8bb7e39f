"""Read the state file, and write it whole."""

import errno
import os

from . import disk, errors, paths
from .state import LIMIT, State, Unreadable, from_json, to_json

SPARE = 16384
"""Bytes that a step may add to the state; so much disk space must be free before it begins."""


class Store:
    """The state of this invocation.

    To change it in memory, assign `state`; `save` writes it to disk, at the latest when the invocation ends.
    """

    def __init__(self, path: str, state: State) -> None:
        self.path = path
        self.state = state
        self._saved: State | None = None if state == State() or state.damaged else state

    def save(self, state: State | None = None) -> None:
        """Write the state to disk if it has changed; with an argument, this is the state from now on.

        Atomic and durable: after a power cut the file holds the old or the new state. Raises `errors.NoSpace`
        or `errors.DiskError`; the state in memory has changed even so.
        """
        if state is not None:
            self.state = state
        if self.state != self._saved:
            disk.write_whole(self.path, to_json(self.state))
            self._saved = self.state

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
        disk.write_whole(self.path, to_json(self.state))
        self._saved = self.state


def load(path: str) -> State:
    """Read the state file, an empty state if there is none; raises `Unreadable` or `errors.DiskError`."""
    try:
        content = disk.read_own(path, LIMIT)
    except (errors.UntrustedFile, errors.FileTooLarge) as error:
        unreadable = Unreadable(f"it {error.reason}")
        unreadable.content = error.content
        raise unreadable from error
    try:
        return State() if content is None else from_json(content)
    except Unreadable as error:
        error.content = content or b""
        raise


def quarantine(path: str, corrupt: bytes) -> str:
    """Copy the content of a corrupt state file, and return the path of the copy.

    The file itself stays until the new state replaces it, so that a power cut in between does not make the
    device look new. An older copy is overwritten.
    """
    copy = path + paths.UNREADABLE
    disk.write_whole(copy, corrupt)
    return copy
