"""Shared by the protocol handlers: send queue, event loop, settings, session limit."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

from .connection import Connection, ConnectionLost
from .fields import DecodeError
from .loop import Action, Loop
from .messages import CLIENT, CONTROL, ERROR, SHELL, Message, encode, pack
from .settings import TerminalSettings

HIGH_WATER = 256 * 1024
"""With more bytes queued, nothing is read from shells, files and targets."""
LOW_WATER = 64 * 1024
"""With fewer bytes queued, they are read again."""
READ_LIMIT = 1 << 20
"""With more bytes queued, nothing is read from the server either: it does not read the responses."""
REMEMBERED_SESSIONS = 256
"""Sessions that are recognized when they open something else; a process may run for years."""

BROKEN = "an internal error ended the session on the device"

log = logging.getLogger(__name__)


class Outbox:
    """Sends messages on the current connection; exists as long as the process, across connections."""

    def __init__(self, loop: Loop, settings: TerminalSettings, max_sessions: int = 0) -> None:
        self.loop = loop
        self.settings = settings
        self.lost = ""  # why the connection ended
        self.served = 0  # sessions
        self.last_active = loop.now()  # when the server last sent anything but a ping or pong
        self.abandon: Callable[[int, str], None] = lambda proto, sid: None  # set by the service
        self._max_sessions = max_sessions
        self._connection: Connection | None = None
        self._receive: Action | None = None
        self._waiting: list[Action] = []
        self._pausing: set[object] = set()
        self._watched: tuple[Connection, bool, bool] | None = None  # what is registered with the loop
        self._known: list[str] = []  # sessions, the newest last

    def attach(self, connection: Connection, receive: Action) -> None:
        """Use a connection; `receive` is called when data has arrived."""
        self._connection, self._receive, self.lost = connection, receive, ""
        self._watch()
        self.loop.later(0, receive)

    def detach(self) -> None:
        """Close the connection; callbacks of `when_room` are dropped."""
        if self._connection:
            self.loop.watch(self._connection.fileno())
            self._connection.abort()
        self._connection = self._receive = self._watched = None
        self._waiting.clear()
        self._pausing.clear()

    def send(self, message: Message) -> None:
        """Send a message, or queue it; without a connection it is dropped."""
        if self._connection and not self.lost:
            try:
                self._connection.send(encode(message))
            except ConnectionLost as lost:
                self.lost = str(lost)
            self._watch()

    def flush(self) -> None:
        """Send what is queued; if that made room, make the calls of `when_room`."""
        if not self._connection or self.lost:
            return
        paused = self.reading_paused
        try:
            self._connection.flush()
        except ConnectionLost as lost:
            self.lost = str(lost)
        if self._connection.pending < LOW_WATER:
            waiting, self._waiting = self._waiting, []
            for action in waiting:
                action()
        if paused:
            self._read_again()
        self._watch()

    @property
    def full(self) -> bool:
        """Return whether to wait (`when_room`) before sending more."""
        return self._connection is not None and self._connection.pending > HIGH_WATER

    def when_room(self, action: Action) -> None:
        """Call `action` once when there is room again."""
        self._waiting.append(self.loop.bound(action))

    def pause_reading(self, owner: object) -> None:
        """Read nothing from the server until `resume_reading`, because the owner cannot take more."""
        self._pausing.add(owner)
        self._watch()

    def resume_reading(self, owner: object) -> None:
        """Undo `pause_reading`; no-op if this owner did not pause."""
        if owner in self._pausing:
            self._pausing.discard(owner)
            self._watch()
            self._read_again()

    @property
    def reading_paused(self) -> bool:
        """Return whether nothing is read from the server: an owner paused it, or it does not read itself."""
        if self._pausing:
            return True
        return self._connection is not None and self._connection.pending > READ_LIMIT

    @contextlib.contextmanager
    def answering(self, message: Message) -> Iterator[None]:
        """Answer a message with an error if one of its fields is invalid, or if its handler has a bug."""
        with self.guarding(message.proto, message.sid):
            try:
                yield
            except DecodeError as error:
                fail(self, message, f"malformed request parameters: {error}")
            except Exception as error:  # noqa: BLE001  # a bug ends one session only
                self._end(message.proto, message.sid, error, message)

    @contextlib.contextmanager
    def guarding(self, proto: int, sid: str) -> Iterator[None]:
        """End one session if there is a bug in the block, or in a callback registered in it."""
        with self.loop.catching(lambda error: self._end(proto, sid, error)):
            yield

    def _end(self, proto: int, sid: str, error: Exception, message: Message | None = None) -> None:
        log.error("A bug ended a session (protocol %d): %s; please report it.", proto, _describe(error))
        try:
            if message:
                fail(self, message, BROKEN)
            self.abandon(proto, sid)
        except Exception as second:  # noqa: BLE001  # most likely the same bug again
            log.error("The session could not be closed cleanly: %s.", _describe(second))

    def rejection(self, sid: str) -> str:
        """Return why a session must not begin, "" if it may; once it has, call `count_session`."""
        if self.exhausted and sid not in self._known:
            return "This device accepts no more sessions (--max-sessions)."
        return ""

    def count_session(self, sid: str) -> None:
        """Count a session; one that opens something else is not counted again."""
        if sid not in self._known:
            self.served += 1
            self._known = [*self._known[-REMEMBERED_SESSIONS:], sid]

    @property
    def exhausted(self) -> bool:
        """Return whether the number of sessions reached `--max-sessions`."""
        return 0 < self._max_sessions <= self.served

    def _read_again(self) -> None:
        if self._receive and not self.reading_paused:
            # The selector does not see what TLS has already read.
            with self.loop.catching(None):
                self.loop.later(0, self._receive)

    def _watch(self) -> None:
        if self._connection and not self.lost:
            read = None if self.reading_paused else self._receive
            write = self.flush if self._connection.pending else None
            wanted = (self._connection, bool(read), bool(write))
            if wanted != self._watched:
                # All sessions share the connection, so its callbacks belong to none of them.
                with self.loop.catching(None):
                    self.loop.watch(self._connection.fileno(), read, write)
                self._watched = wanted


def fail(outbox: Outbox, message: Message, reason: str) -> None:
    """Answer a message with an error of its protocol; no-op if the message is an error itself."""
    if message.proto in (SHELL, CLIENT):
        props = {"status": ERROR}
        outbox.send(
            Message(message.proto, message.kind, message.sid, props, reason.encode("utf-8", "replace"))
        )
    elif message.kind != "error":
        body: dict[str, object] = {"err": reason, "msgtype": message.kind}
        if message.proto == CONTROL:
            body |= {"close": False, "msgproto": CONTROL}
        outbox.send(Message(message.proto, "error", message.sid, {}, pack(body)))


def reject_unknown(outbox: Outbox, message: Message) -> None:
    """Answer a message of an unknown protocol or type."""
    reason = f"unknown message protocol and type: {message.proto}/{message.kind}"
    if message.proto == SHELL:
        fail(outbox, message, reason)
        return
    body = {"err": reason, "close": False, "msgproto": message.proto, "msgtype": message.kind}
    outbox.send(Message(CONTROL, "error", message.sid, {}, pack(body)))


def _describe(error: Exception) -> str:
    """Return what was raised and where, as one line of bounded length."""
    step = error.__traceback__
    while step and step.tb_next:
        step = step.tb_next
    place = f" ({os.path.basename(step.tb_frame.f_code.co_filename)}:{step.tb_lineno})" if step else ""
    return f"{type(error).__name__}: {str(error)[:200]}{place}"
