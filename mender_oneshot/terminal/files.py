"""Protocol 2: fetching and putting files (remote-terminal.md section 4), within the limits configured.

A file is put whole or not at all: beside its place, synced, then renamed, and only then acknowledged.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import messages
from .confined_path import Place, Root
from .fields import DecodeError
from .file_limits import (
    LONGEST_REQUEST,
    PermissionDenied,
    absolute,
    go_mode,
    lead,
    looking_up,
    may_fetch,
    target,
)
from .messages import FILES, Message
from .outbox import BROKEN, Outbox, Rate, fail, unknown
from .transfer import CHUNK, Fetch, Put

MOST_TRANSFERS = 64
MADE_UP_SIZE = 4096
"""What a file of /sys says of its size, whatever it holds; one of /proc says 0."""
MADE_UP_LIMIT = 256 * 1024

log = logging.getLogger(__name__)


class Announced(NamedTuple):
    """What the server was told of a file; `content` where the file would be another at the next look."""

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
        """The sessions that have a transfer under way."""
        return set(self._open)

    def handle(self, message: Message) -> None:
        """Do what a message asks for."""
        requests: dict[str, Callable[[Message], None]] = {
            "stat": self._stat,
            "get_file": self._get,
            "put_file": self._put,
        }
        transfer = self._open.get(message.sid)
        with self.telling(message):
            if message.kind in requests:
                requests[message.kind](message)
            elif message.kind == "error":
                self.end(message.sid)
            elif message.kind not in ("ack", "file_chunk"):
                unknown(self.outbox, message)
            elif transfer:
                transfer.take(message)
            else:
                raise PermissionDenied("no file transfer in progress")

    @contextlib.contextmanager
    def telling(self, message: Message) -> Iterator[None]:
        """Turn what goes wrong into an answer to a message, and the end of its transfer."""
        try:
            yield
        except PermissionDenied as denied:
            words = str(denied)
        except DecodeError as garbled:
            words = f"malformed request parameters: {garbled}"
        except OSError as error:
            words = os.strerror(error.errno) if error.errno else "the file system fails"
        else:
            return
        if message.kind not in ("stat", "get_file", "put_file"):
            self.end(message.sid)
        log.info("A file transfer fails: %s.", words)
        fail(self.outbox, message, words)

    def end(self, sid: str) -> None:
        """End the transfer of a session, if there is one."""
        transfer = self._open.pop(sid, None)
        if transfer:
            transfer.close()

    def close(self, sid: str) -> None:
        """Forget a session."""
        self.end(sid)
        self._announced.pop(sid, None)

    def abandon(self, sid: str) -> None:
        """End the transfer of a session, and say so."""
        if sid in self._open:
            self.end(sid)
            fail(self.outbox, Message(FILES, "file_chunk", sid), BROKEN)

    def stop_all(self, words: str) -> None:
        """End all transfers and say so."""
        for sid in list(self._open):
            fail(self.outbox, Message(FILES, "file_chunk", sid), words)
        self.drop_all()

    def drop_all(self) -> None:
        """End all transfers; there is nobody to tell."""
        for sid in list(self._open):
            self.end(sid)
        self._announced.clear()

    def tick(self) -> None:
        """Do nothing: a session that has died is found by the control protocol."""

    def _stat(self, message: Message) -> None:
        path = absolute(messages.unpack(message.body))
        limits = self.outbox.settings.limits
        with looking_up(path):
            place = lead(limits, self._root, path)
        with place, looking_up(path):
            found = place.stat()
            may_fetch(limits, found, found.st_size)
            content = _made_up(place, found)
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
        path = absolute(messages.unpack(message.body))
        self._admit(message)
        if self.sent.over(self.outbox.loop.now()):
            raise PermissionDenied("transmitted bytes limit exhausted")
        limits = self.outbox.settings.limits
        with looking_up(path):
            place = lead(limits, self._root, path)
        with place, looking_up(path):
            # Looked at before it is opened: opening alone does things to a device.
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
        self.outbox.count(message.sid)
        log.info("User %s fetches %s.", message.fields.text("user_id") or "unknown", path)
        announced = self._announced.pop(message.sid, None)
        if announced is None or announced.path != path:
            announced = Announced(path, found.st_size, None)
        if announced.content is not None:
            os.close(descriptor)
            descriptor = os.memfd_create("made-up", os.MFD_CLOEXEC)
            os.write(descriptor, announced.content)
        fetch = Fetch(self, message.sid, descriptor, announced.size)
        self._open[message.sid] = fetch
        try:
            fetch.go_on()
        except BaseException:
            self.end(message.sid)
            raise

    def _put(self, message: Message) -> None:
        wanted = messages.unpack(message.body)
        path, source = absolute(wanted), wanted.text("src_path", LONGEST_REQUEST)
        self._admit(message)
        if self.received.over(self.outbox.loop.now()):
            raise PermissionDenied("transmitted bytes limit exhausted")
        limits = self.outbox.settings.limits
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(target(limits, self._root, path, source))
            with looking_up(path):
                self._open[message.sid] = Put(self, message.sid, place, wanted)
            stack.pop_all()  # it is the transfer's to close now
        self.outbox.count(message.sid)
        log.info("User %s puts %s.", message.fields.text("user_id") or "unknown", path)

    def _admit(self, message: Message) -> None:
        if message.sid in self._open:
            raise PermissionDenied("another file transfer is in progress")
        if len(self._open) >= MOST_TRANSFERS:
            raise PermissionDenied(f"this device transfers at most {MOST_TRANSFERS} files at a time")
        words = self.outbox.refusal(message.sid)
        if words:
            raise PermissionDenied(words)


def _made_up(place: Place, found: os.stat_result) -> bytes | None:
    """Read a file that the kernel makes up at each look, as in /proc and /sys; None for all others.

    Such a file says nothing of its size that is true, and may be another at the next look: what is announced
    is what is sent.
    """
    if not stat.S_ISREG(found.st_mode) or found.st_size > MADE_UP_SIZE:
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
        while len(content) <= MADE_UP_LIMIT:
            piece = os.read(descriptor, CHUNK)
            if not piece:
                return bytes(content) if len(content) != found.st_size else None
            content += piece
    except OSError:  # one that has nothing to say just now, or that only root may read
        return None
    finally:
        os.close(descriptor)
    return None
