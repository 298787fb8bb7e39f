"""What those who serve share: the way out, the loop, the settings, and who may still come in.

Knows of back-pressure, in both directions; knows nothing of what is served.
"""

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator

from .connection import Connection, ConnectionLost
from .fields import DecodeError
from .loop import Action, Loop
from .messages import CLIENT, CONTROL, ERROR, SHELL, Message, encode, pack
from .settings import TerminalSettings

HIGH = 256 * 1024
"""Bytes waiting to be sent above which nobody here who has more to say is listened to."""
LOW = 64 * 1024
FLOOD = 1 << 20
"""Bytes waiting to be sent above which the server is not listened to either: it asks and does not hear."""
REMEMBERED = 256
"""Sessions that are known again when they open something more; a process may live for years."""

BROKEN = "an internal error ended the session on the device"

log = logging.getLogger(__name__)


class Outbox:
    """One for the life of the process, whatever connections come and go."""

    def __init__(self, loop: Loop, settings: TerminalSettings, max_sessions: int = 0) -> None:
        self.loop = loop
        self.settings = settings
        self.lost = ""  # why the connection is over
        self.served = 0  # sessions
        self.active = loop.now()  # when last something was asked of us
        self.abandon: Callable[[int, str], None] = lambda proto, sid: None  # the service puts its own here
        self._max_sessions = max_sessions
        self._link: Connection | None = None
        self._receive: Action | None = None
        self._waiting: list[Action] = []
        self._holding: set[object] = set()
        self._watched: tuple[Connection, bool, bool] | None = None  # what the loop was told of the connection
        self._known: list[str] = []  # sessions, the newest last

    def attach(self, link: Connection, receive: Action) -> None:
        """Take a connection into use; `receive` is called when something has come in."""
        self._link, self._receive, self.lost = link, receive, ""
        self._watch()
        self.loop.later(0, receive)

    def detach(self) -> None:
        """Drop the connection; whoever waits for room in it waits in vain."""
        if self._link:
            self.loop.watch(self._link.fileno())
            self._link.shut()
        self._link = self._receive = self._watched = None
        self._waiting.clear()
        self._holding.clear()

    def send(self, message: Message) -> None:
        """Send a message, or queue it; without a connection it goes nowhere."""
        if self._link and not self.lost:
            try:
                self._link.send(encode(message))
            except ConnectionLost as lost:
                self.lost = str(lost)
            self._watch()

    def flush(self) -> None:
        """Send what is queued, and tell those who wait when there is room again."""
        if not self._link or self.lost:
            return
        held = self.held
        try:
            self._link.flush()
        except ConnectionLost as lost:
            self.lost = str(lost)
        if self._link.pending < LOW:
            waiting, self._waiting = self._waiting, []
            for action in waiting:
                action()
        if held:
            self._listen_again()
        self._watch()

    @property
    def full(self) -> bool:
        """Say whether who has more to say should wait (`when_room`)."""
        return self._link is not None and self._link.pending > HIGH

    def when_room(self, action: Action) -> None:
        """Call `action` once when there is room again."""
        self._waiting.append(self.loop.bound(action))

    def hold(self, owner: object) -> None:
        """Read nothing from the server until `release`: the owner cannot take more."""
        self._holding.add(owner)
        self._watch()

    def release(self, owner: object) -> None:
        """Take back `hold`."""
        if owner in self._holding:
            self._holding.discard(owner)
            self._watch()
            self._listen_again()

    @property
    def held(self) -> bool:
        """Say whether nothing is read from the server: somebody holds it up, or it hears no answers."""
        return bool(self._holding) or (self._link is not None and self._link.pending > FLOOD)

    @contextlib.contextmanager
    def answering(self, message: Message) -> Iterator[None]:
        """Answer a message with an error if one of its fields is bad, or if there is a bug in its handler."""
        with self.guarding(message.proto, message.sid):
            try:
                yield
            except DecodeError as garbled:
                fail(self, message, f"malformed request parameters: {garbled}")
            except Exception as error:  # noqa: BLE001  # a bug, which ends one session only
                self._end(message.proto, message.sid, error, message)

    @contextlib.contextmanager
    def guarding(self, proto: int, sid: str) -> Iterator[None]:
        """End one session if there is a bug, here or in what is registered with the loop meanwhile."""
        with self.loop.catching(lambda error: self._end(proto, sid, error)):
            yield

    def _end(self, proto: int, sid: str, error: Exception, message: Message | None = None) -> None:
        log.error("A bug ended a session (protocol %d): %s; please report it.", proto, _describe(error))
        try:
            if message:
                fail(self, message, BROKEN)
            self.abandon(proto, sid)
        except Exception as second:  # noqa: BLE001  # the same bug again, most likely
            log.error("The session could not be ended in order: %s.", _describe(second))

    def refusal(self, sid: str) -> str:
        """Say why a session may not begin any more, "" where it may; when it has, `count` it."""
        if self.exhausted and sid not in self._known:
            return "This device has served as many sessions as it was told to (--max-sessions)."
        return ""

    def count(self, sid: str) -> None:
        """Take note that a session was served; one that opens something more is still the same."""
        if sid not in self._known:
            self.served += 1
            self._known = [*self._known[-REMEMBERED:], sid]

    @property
    def exhausted(self) -> bool:
        """Say whether no new session will be let in."""
        return 0 < self._max_sessions <= self.served

    def _listen_again(self) -> None:
        if self._receive and not self.held:
            # What TLS has read already, no selector will tell of.
            with self.loop.catching(None):
                self.loop.later(0, self._receive)

    def _watch(self) -> None:
        if self._link and not self.lost:
            read = None if self.held else self._receive
            write = self.flush if self._link.pending else None
            wanted = (self._link, bool(read), bool(write))
            if wanted != self._watched:
                with self.loop.catching(None):  # whosever message goes out, the connection is everybody's
                    self.loop.watch(self._link.fileno(), read, write)
                self._watched = wanted


def fail(outbox: Outbox, message: Message, words: str) -> None:
    """Answer a message with an error of its protocol; an error itself gets no answer."""
    if message.proto in (SHELL, CLIENT):
        props = {"status": ERROR}
        outbox.send(
            Message(message.proto, message.kind, message.sid, props, words.encode("utf-8", "replace"))
        )
    elif message.kind != "error":
        body: dict[str, object] = {"err": words, "msgtype": message.kind}
        if message.proto == CONTROL:
            body |= {"close": False, "msgproto": CONTROL}
        outbox.send(Message(message.proto, "error", message.sid, {}, pack(body)))


def unknown(outbox: Outbox, message: Message) -> None:
    """Answer a message that nobody here understands."""
    words = f"unknown message protocol and type: {message.proto}/{message.kind}"
    if message.proto == SHELL:
        fail(outbox, message, words)
        return
    body = {"err": words, "close": False, "msgproto": message.proto, "msgtype": message.kind}
    outbox.send(Message(CONTROL, "error", message.sid, {}, pack(body)))


def _describe(error: Exception) -> str:
    """Say what was raised, and where, in one line of bounded length."""
    step = error.__traceback__
    while step and step.tb_next:
        step = step.tb_next
    place = f" ({os.path.basename(step.tb_frame.f_code.co_filename)}:{step.tb_lineno})" if step else ""
    return f"{type(error).__name__}: {str(error)[:200]}{place}"


class Rate:
    """Bytes per minute, as an average that fades: what was a minute ago counts for 1/e."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sum = 0.0
        self._at = 0.0

    def over(self, now: float, more: int = 0) -> bool:
        """Count some bytes, and say whether it is more than allowed; 0 allowed is no limit."""
        self._sum = self._sum * math.exp(min(0.0, self._at - now) / 60) + more
        self._at = now
        return 0 < self._most < self._sum
