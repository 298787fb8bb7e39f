"""One file on its way to the server or from it, in acknowledged pieces (remote-terminal.md section 4).

A file is put whole or not at all: beside its place, synced, then renamed, and only then acknowledged.
"""

import contextlib
import os
from typing import Protocol

from .. import disk
from .confined_path import Place
from .fields import Fields
from .file_limits import PermissionDenied, may_put
from .messages import FILES, Message
from .outbox import Outbox, Rate

CHUNK = 32768
WINDOW = 20 * CHUNK
"""Bytes sent beyond the last ack; the server acknowledges every tenth chunk."""
ACK_EVERY = 10 * 4096
"""Bytes received between two acks; the server stops at 80 KiB."""
SYNC_EVERY = 4 << 20
"""Bytes written between two syncs, so that none takes so long that the server misses us."""


class Owner(Protocol):
    """The holder of all transfers: what they may send together, and how one ends."""

    outbox: Outbox
    sent: Rate
    received: Rate

    def end(self, sid: str) -> None:
        """End the transfer of a session."""

    def telling(self, message: Message) -> contextlib.AbstractContextManager[None]:
        """Turn what goes wrong into an answer to a message, and the end of its transfer."""


class Fetch:
    """A file on its way to the server."""

    def __init__(self, transfers: Owner, sid: str, descriptor: int, size: int) -> None:
        self._transfers = transfers
        self._outbox = transfers.outbox
        self._sid = sid
        self._descriptor = descriptor
        self._size = size
        self._offset = 0
        self._acknowledged = 0
        self._waiting = False
        self._said_all = False

    def take(self, message: Message) -> None:
        """Take an ack, and go on."""
        offset = message.fields.number("offset")
        if message.kind != "ack" or offset is None:
            raise PermissionDenied(f"received unexpected message type '{message.kind}'; expected 'ack'")
        self._acknowledged = max(self._acknowledged, offset)
        self.go_on()

    def go_on(self) -> None:
        """Send what the window allows; at the end, be done when all has arrived."""
        while self._descriptor >= 0 and self._offset - self._acknowledged < WINDOW and not self._said_all:
            if self._outbox.full:
                if not self._waiting:
                    self._waiting = True
                    self._outbox.when_room(self._try)
                return
            data = self._read()
            if self._transfers.sent.over(self._outbox.loop.now(), len(data)):
                raise PermissionDenied("transmitted bytes limit exhausted")
            self._outbox.send(Message(FILES, "file_chunk", self._sid, {"offset": self._offset}, data))
            self._offset += len(data)
            self._said_all = not data
        if self._said_all and self._acknowledged >= self._offset:
            self._transfers.end(self._sid)

    def close(self) -> None:
        """Stop."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self) -> None:
        self._waiting = False
        if self._descriptor < 0:
            return
        with self._transfers.telling(Message(FILES, "get_file", self._sid)):
            self.go_on()

    def _read(self) -> bytes:
        """Read the next piece: of a file that grows meanwhile no more than was announced."""
        data = os.pread(self._descriptor, min(CHUNK, self._size - self._offset), self._offset)
        if not data and self._offset < self._size:
            raise PermissionDenied("the file has become shorter while it was read")
        return data


class Put:
    """A file on its way from the server."""

    def __init__(self, transfers: Owner, sid: str, place: Place, wanted: Fields) -> None:
        """Make the file beside its place, for a request; raises `PermissionDenied` or `OSError`."""
        self._transfers = transfers
        self._outbox = transfers.outbox
        self._sid = sid
        self._place = place
        self._wanted = wanted
        may_put(self._outbox.settings.limits, place, wanted)
        self._offset = 0
        self._acknowledged = 0
        self._synced = 0
        self._beside = Place(place.directory, b".mender-oneshot-%s" % os.urandom(8).hex().encode())
        self._descriptor = self._beside.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._acknowledge(0)

    def take(self, message: Message) -> None:
        """Write a chunk; the empty one is the end of the file."""
        if message.kind != "file_chunk":
            raise PermissionDenied(f"received unexpected message type '{message.kind}' during file upload")
        offset = message.fields.number("offset")
        if offset is None:
            raise PermissionDenied("invalid file chunk message: missing offset property")
        if offset != self._offset:
            raise PermissionDenied("received unexpected chunk offset")
        if message.body:
            self._write(message.body)
        else:
            self._finish()

    def close(self) -> None:
        """Stop; what is not finished has never been."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(OSError):
                os.unlink(self._beside.name, dir_fd=self._place.directory)
        self._place.close()

    def _write(self, data: bytes) -> None:
        limits = self._outbox.settings.limits
        total = self._offset + len(data)
        too_much = limits.enabled and 0 < limits.max_file_size < total
        if self._transfers.received.over(self._outbox.loop.now(), len(data)) or too_much:
            raise PermissionDenied("failed to write file chunk: transmitted bytes limit exhausted")
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        begun, self._offset = self._offset, total
        if self._offset - self._synced >= SYNC_EVERY:
            self._synced = self._offset
            os.fdatasync(self._descriptor)
        if begun - self._acknowledged >= ACK_EVERY:
            # Never the whole: for the server that is the end, and the file is not in its place yet.
            self._acknowledge(begun)

    def _finish(self) -> None:
        """Give the file its owner, its mode and its name, for good, and only then acknowledge it."""
        # Asked once more, for another file may have got the name meanwhile.
        mode, owner = may_put(self._outbox.settings.limits, self._place, self._wanted)
        if owner != (-1, -1):
            os.fchown(self._descriptor, *owner)
        os.fchmod(self._descriptor, mode)
        os.fsync(self._descriptor)
        directory = self._place.directory
        os.rename(self._beside.name, self._place.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.close(self._descriptor)
        self._descriptor = -1
        synced = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            disk.sync_descriptor(synced)
        finally:
            os.close(synced)
        self._acknowledge(self._offset)
        self._transfers.end(self._sid)

    def _acknowledge(self, offset: int) -> None:
        self._acknowledged = offset
        self._outbox.send(Message(FILES, "ack", self._sid, {"offset": offset}))
