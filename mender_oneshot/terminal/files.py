"""Protocol 2: downloads and uploads (remote-terminal.md section 4), within the configured limits."""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import messages
from .confined_path import Root
from .fields import DecodeError
from .file_limits import (
    LONGEST_REQUEST,
    PermissionDenied,
    absolute_path,
    explaining,
    find_allowed,
    go_mode,
    may_fetch,
    upload_target,
)
from .messages import FILES, Message
from .outbox import BROKEN, Outbox, fail, reject_unknown
from .rate import Rate
from .transfer import Fetch, Put, generated_content

MOST_TRANSFERS = 64

log = logging.getLogger(__name__)


class Announced(NamedTuple):
    """What the response to `stat` contained; `content` of a file that may differ at the next read."""

    path: str
    size: int
    content: bytes | None


class Transfers:
    """All transfers, one at a time for each session."""

    def __init__(self, outbox: Outbox, root: Root) -> None:
        self.outbox = outbox
        self._root = root
        limits = outbox.settings.limits
        self.sent = Rate(limits.max_sent_per_minute if limits.enabled else 0)
        self.received = Rate(limits.max_received_per_minute if limits.enabled else 0)
        self._open: dict[str, Fetch | Put] = {}
        self._announced: dict[str, Announced] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def sids(self) -> set[str]:
        """The sessions with a transfer in progress."""
        return set(self._open)

    def handle(self, message: Message) -> None:
        """Handle a message of this protocol."""
        requests: dict[str, Callable[[Message], None]] = {
            "stat": self._stat,
            "get_file": self._get,
            "put_file": self._put,
        }
        transfer = self._open.get(message.sid)
        with self.reporting(message):
            if message.kind in requests:
                requests[message.kind](message)
            elif message.kind == "error":
                self.end(message.sid)
            elif message.kind not in ("ack", "file_chunk"):
                reject_unknown(self.outbox, message)
            elif transfer:
                transfer.handle(message)
            else:
                raise PermissionDenied("no file transfer in progress")

    @contextlib.contextmanager
    def reporting(self, message: Message) -> Iterator[None]:
        """Report errors of the block as an answer to a message, and end its transfer."""
        try:
            yield
        except PermissionDenied as denied:
            reason = str(denied)
        except DecodeError as error:
            reason = f"malformed request parameters: {error}"
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "file system error"
        else:
            return
        if message.kind not in ("stat", "get_file", "put_file"):
            self.end(message.sid)
        log.info("File transfer failed: %s.", reason)
        fail(self.outbox, message, reason)

    def end(self, sid: str) -> None:
        """End the transfer of a session, if there is one."""
        transfer = self._open.pop(sid, None)
        if transfer:
            transfer.close()

    def close(self, sid: str) -> None:
        """End a session; sends nothing."""
        self.end(sid)
        self._announced.pop(sid, None)

    def abandon(self, sid: str) -> None:
        """End the transfer of a session after a bug, and send an error."""
        if sid in self._open:
            self.end(sid)
            fail(self.outbox, Message(FILES, "file_chunk", sid), BROKEN)

    def stop_all(self, reason: str) -> None:
        """End all transfers, and send an error for each."""
        for sid in list(self._open):
            fail(self.outbox, Message(FILES, "file_chunk", sid), reason)
        self.drop_all()

    def drop_all(self) -> None:
        """End all transfers; sends nothing, as the connection is gone."""
        for sid in list(self._open):
            self.end(sid)
        self._announced.clear()

    def tick(self) -> None:
        """Do nothing: the control protocol finds sessions that time out."""

    def _stat(self, message: Message) -> None:
        path = absolute_path(messages.unpack(message.body))
        limits = self.outbox.settings.limits
        with explaining(path):
            place = find_allowed(limits, self._root, path)
        with place, explaining(path):
            found = place.stat()
            may_fetch(limits, found, found.st_size)
            content = generated_content(place, found)
        size = found.st_size if content is None else len(content)
        may_fetch(limits, found, size)
        if len(self._announced) >= MOST_TRANSFERS:
            self._announced.clear()
        self._announced[message.sid] = Announced(path, size, content)
        info = {
            "path": path,
            "size": size,
            "uid": found.st_uid,
            "gid": found.st_gid,
            "mode": go_mode(found.st_mode),
            "modtime": messages.timestamp(found.st_mtime_ns),
        }
        self.outbox.send(Message(FILES, "file_info", message.sid, {}, messages.pack(info)))

    def _get(self, message: Message) -> None:
        path = absolute_path(messages.unpack(message.body))
        user = message.fields.text("user_id") or "unknown"
        self._admit(message)
        if self.sent.exceeded(self.outbox.loop.now()):
            raise PermissionDenied("transmitted bytes limit exhausted")
        limits = self.outbox.settings.limits
        with explaining(path):
            place = find_allowed(limits, self._root, path)
        with place, explaining(path):
            # Checked before it is opened, because opening a device file may have side effects.
            if not stat.S_ISREG(place.stat().st_mode):
                raise PermissionDenied("access denied: only regular files are allowed")
            descriptor = place.open(os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise PermissionDenied("access denied: only regular files are allowed")
            may_fetch(limits, found, found.st_size)
        except BaseException:
            os.close(descriptor)
            raise
        self.outbox.count_session(message.sid)
        log.info("%s: download of %s.", user, path)
        announced = self._announced.pop(message.sid, None)
        if announced is None or announced.path != path:
            announced = Announced(path, found.st_size, None)
        if announced.content is not None:
            os.close(descriptor)
            descriptor = os.memfd_create("generated", os.MFD_CLOEXEC)
            os.write(descriptor, announced.content)
        fetch = Fetch(self, message.sid, descriptor, announced.size)
        self._open[message.sid] = fetch
        try:
            fetch.send()
        except BaseException:
            self.end(message.sid)
            raise

    def _put(self, message: Message) -> None:
        wanted = messages.unpack(message.body)
        path, source = absolute_path(wanted), wanted.text("src_path", LONGEST_REQUEST)
        user = message.fields.text("user_id") or "unknown"
        self._admit(message)
        if self.received.exceeded(self.outbox.loop.now()):
            raise PermissionDenied("transmitted bytes limit exhausted")
        limits = self.outbox.settings.limits
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(upload_target(limits, self._root, path, source))
            with explaining(path):
                self._open[message.sid] = Put(self, message.sid, place, wanted)
            stack.pop_all()  # the transfer closes it
        self.outbox.count_session(message.sid)
        log.info("%s: upload to %s.", user, path)

    def _admit(self, message: Message) -> None:
        if message.sid in self._open:
            raise PermissionDenied("another file transfer is in progress")
        if len(self._open) >= MOST_TRANSFERS:
            raise PermissionDenied(f"this device transfers at most {MOST_TRANSFERS} files at a time")
        reason = self.outbox.rejection(message.sid)
        if reason:
            raise PermissionDenied(reason)
