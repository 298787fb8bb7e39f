"""Transfer one file to the server or from it, in acknowledged chunks (remote-terminal.md section 4).

An upload is atomic: the file is written to the same directory, synced, renamed, and only then acknowledged.
"""

import contextlib
import os
import stat
from typing import Protocol

from .. import disk
from .confined_path import Place
from .fields import Fields
from .file_limits import PermissionDenied, may_put
from .messages import FILES, Message
from .outbox import Outbox
from .rate import Rate

CHUNK = 32768
WINDOW = 20 * CHUNK
"""Bytes sent after the last ack; the server acknowledges every tenth chunk."""
ACK_EVERY = 10 * 4096
"""Bytes received between two acks; the server stops at 80 KiB."""
SYNC_EVERY = 4 << 20
"""Bytes written between two syncs: one sync of everything could take so long that the server times out."""
GENERATED_SIZE = 4096
"""The size that stat(2) returns for a file of /sys, whatever its content; for one of /proc it is 0."""
GENERATED_LIMIT = 256 * 1024


class Owner(Protocol):
    """The holder of all transfers: their common limits, and how one ends."""

    outbox: Outbox
    sent: Rate
    received: Rate

    def end(self, sid: str) -> None:
        """End the transfer of a session."""

    def reporting(self, message: Message) -> contextlib.AbstractContextManager[None]:
        """Report errors of the block as an answer to a message, and end its transfer."""


class Fetch:
    """A download: a file on its way to the server."""

    def __init__(self, transfers: Owner, sid: str, descriptor: int, size: int) -> None:
        self._transfers = transfers
        self._outbox = transfers.outbox
        self._sid = sid
        self._descriptor = descriptor
        self._size = size
        self._offset = 0
        self._acknowledged = 0
        self._waiting = False
        self._all_sent = False

    def handle(self, message: Message) -> None:
        """Handle an ack, and send more; raises `PermissionDenied` for any other message."""
        offset = message.fields.number("offset")
        if message.kind != "ack" or offset is None:
            raise PermissionDenied(f"received unexpected message type '{message.kind}'; expected 'ack'")
        self._acknowledged = max(self._acknowledged, offset)
        self.send()

    def send(self) -> None:
        """Send what the window allows; end the transfer when everything is acknowledged.

        Raises `PermissionDenied` or `OSError`.
        """
        while self._descriptor >= 0 and self._offset - self._acknowledged < WINDOW and not self._all_sent:
            if self._outbox.full:
                if not self._waiting:
                    self._waiting = True
                    self._outbox.when_room(self._resume)
                return
            data = self._read()
            if self._transfers.sent.exceeded(self._outbox.loop.now(), len(data)):
                raise PermissionDenied("transmitted bytes limit exhausted")
            self._outbox.send(Message(FILES, "file_chunk", self._sid, {"offset": self._offset}, data))
            self._offset += len(data)
            self._all_sent = not data
        if self._all_sent and self._acknowledged >= self._offset:
            self._transfers.end(self._sid)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _resume(self) -> None:
        self._waiting = False
        if self._descriptor < 0:
            return
        with self._transfers.reporting(Message(FILES, "get_file", self._sid)):
            self.send()

    def _read(self) -> bytes:
        """Return the next chunk; if the file grows meanwhile, no more than the announced size is sent."""
        data = os.pread(self._descriptor, min(CHUNK, self._size - self._offset), self._offset)
        if not data and self._offset < self._size:
            raise PermissionDenied("the file has become shorter while it was read")
        return data


class Put:
    """An upload: a file on its way from the server."""

    def __init__(self, transfers: Owner, sid: str, place: Place, wanted: Fields) -> None:
        """Create the temporary file, and acknowledge the request; raises `PermissionDenied` or `OSError`."""
        self._transfers = transfers
        self._outbox = transfers.outbox
        self._sid = sid
        self._place = place
        self._wanted = wanted
        may_put(self._outbox.settings.limits, place, wanted)
        self._offset = 0
        self._acknowledged = 0
        self._synced = 0
        self._temporary = Place(place.directory, b".mender-oneshot-%s" % os.urandom(8).hex().encode())
        self._descriptor = self._temporary.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._acknowledge(0)

    def handle(self, message: Message) -> None:
        """Write a chunk; an empty one ends the file.

        Raises `PermissionDenied` or `OSError`; the transfer must be closed then.
        """
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
        """Close the file; remove it if it is not complete."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(OSError):
                os.unlink(self._temporary.name, dir_fd=self._place.directory)
        self._place.close()

    def _write(self, data: bytes) -> None:
        limits = self._outbox.settings.limits
        total = self._offset + len(data)
        too_large = limits.enabled and 0 < limits.max_file_size < total
        if self._transfers.received.exceeded(self._outbox.loop.now(), len(data)) or too_large:
            raise PermissionDenied("failed to write file chunk: transmitted bytes limit exhausted")
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        before, self._offset = self._offset, total
        if self._offset - self._synced >= SYNC_EVERY:
            self._synced = self._offset
            os.fdatasync(self._descriptor)
        if before - self._acknowledged >= ACK_EVERY:
            # Not the new offset: for the server a complete ack is the end, and the file is not in place yet.
            self._acknowledge(before)

    def _finish(self) -> None:
        """Set owner and mode, sync, rename, and only then acknowledge the whole file."""
        # Checked again: meanwhile another file may have got the name.
        mode, owner = may_put(self._outbox.settings.limits, self._place, self._wanted)
        if owner != (-1, -1):
            os.fchown(self._descriptor, *owner)
        os.fchmod(self._descriptor, mode)
        os.fsync(self._descriptor)
        directory = self._place.directory
        os.rename(self._temporary.name, self._place.name, src_dir_fd=directory, dst_dir_fd=directory)
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


def generated_content(place: Place, found: os.stat_result) -> bytes | None:
    """Return the content of a file that the kernel generates, as in /proc and /sys; None for all others.

    The size in its `stat` is wrong, and the content may differ at the next read: so the content that was
    announced has to be kept and sent.
    """
    if not stat.S_ISREG(found.st_mode) or found.st_size > GENERATED_SIZE:
        return None
    try:
        descriptor = place.open(os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        opened = os.fstat(descriptor)
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino):
            return None
        content = bytearray()
        while len(content) <= GENERATED_LIMIT:
            piece = os.read(descriptor, CHUNK)
            if not piece:
                return bytes(content) if len(content) != found.st_size else None
            content += piece
    except OSError:  # some cannot be read at all, or only by root
        return None
    finally:
        os.close(descriptor)
    return None
