"""Who is connected, and which message is for whom: the relay between devices and users.

Facts: remote-terminal.md 1 and 8. Per session things keep their order, and nobody's memory grows: a session
holds a handful of messages, and a user who does not read holds up the device's other sessions too, as on the
real server.
"""

import contextlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from . import messages
from .messages import DecodeError, Message
from .websocket import ABNORMAL, ConnectionClosed, WebSocket

ROOM = 4  # remote-terminal.md 8: the receive queue of a NATS stream
DROPPED = 100
DROPPED_SIZE = 65536


class DeviceDisconnected(Exception):
    """The device is not connected any more."""


@dataclass
class Life:
    """What is known of a device's connections, past and present."""

    line: "Line | None" = None
    connects: int = 0
    codes: list[int] = field(default_factory=list)
    """How the connections ended, oldest first: the close code, 1006 for none."""
    changed: float = 0.0


class Relay:
    """All connections of all devices."""

    def __init__(self, clock: Callable[[], float], ping_seconds: float) -> None:
        self.ping_seconds = ping_seconds
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._lives: dict[str, Life] = {}
        self._dropped: deque[tuple[str, Message]] = deque(maxlen=DROPPED)
        self._stopped = False

    def serve(self, device_id: str, websocket: WebSocket) -> int:
        """Relay what a device says, until its connection ends; return the close code."""
        line = Line(self, device_id, websocket)
        with self._changed:
            life = self._lives.setdefault(device_id, Life())
            older, life.line = life.line, line
            life.connects += 1
            life.changed = self._clock()
            self._changed.notify_all()
        if older:
            older.cut()  # without a close frame: remote-terminal.md 1
        code = ABNORMAL
        try:
            code = line.serve()
        finally:
            with self._changed:
                life.codes.append(code)
                if life.line is line:
                    life.line = None
                    life.changed = self._clock()
                self._changed.notify_all()
        return code

    def session(self, device_id: str, user: str) -> "Session":
        """A new session with a device; `DeviceDisconnected` when the device is not connected."""
        with self._changed:
            life = self._lives.get(device_id)
            if life is None or life.line is None or self._stopped:
                raise DeviceDisconnected
            return life.line.session(user)

    def life(self, device_id: str) -> Life:
        """A copy of what is known of a device's connections."""
        with self._changed:
            known = self._lives.get(device_id, Life())
            return replace(known, codes=list(known.codes))

    def wait(self, device_id: str, true: Callable[[Life], bool], timeout: float) -> Life:
        """Block until something about a device's connections is true; TimeoutError when it is not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: true(self._lives.get(device_id, Life())), timeout):
                life = self._lives.get(device_id, Life())
                state = "connected" if life.line else "not connected"
                raise TimeoutError(f"after {timeout} s: {state}, connects {life.connects}, ends {life.codes}")
            return self.life(device_id)

    def wait_for_dropped(self, true: Callable[[Message], bool], timeout: float) -> Message:
        """The first message of no session that fits, past or to come; TimeoutError when none does in time."""
        with self._changed:
            found = self._changed.wait_for(lambda: [m for _, m in self._dropped if true(m)], timeout)
            if not found:
                raise TimeoutError(f"no such message; the last ones were {list(self._dropped)[-5:]}")
            return found[0]

    def connected(self) -> list[str]:
        """The devices that are connected."""
        with self._changed:
            return [device_id for device_id, life in self._lives.items() if life.line]

    def drop(self, device_id: str, message: Message) -> None:
        """Keep the last ones, for the eyes of a test, of what the real server throws away."""
        with self._changed:
            self._dropped.append((device_id, message))
            self._changed.notify_all()

    def end(self, device_id: str, code: int | None, *, reset: bool) -> None:
        """End a device's connection: with a close code, or abruptly; `LookupError` when there is none."""
        with self._changed:
            life = self._lives.get(device_id)
            line = life.line if life else None
        if line is None:
            raise LookupError("the device is not connected")
        if code is None:
            line.cut(reset=reset)
        else:
            line.websocket.close(code)

    def stop(self) -> None:
        """Cut every connection, and let every session know."""
        with self._changed:
            self._stopped = True
            lines = [life.line for life in self._lives.values() if life.line]
        for line in lines:
            line.cut()


class Line:
    """One connection of one device, and the sessions on it."""

    def __init__(self, relay: Relay, device_id: str, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.ended = threading.Event()
        self._relay = relay
        self._device_id = device_id
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def serve(self) -> int:
        """Hand out what the device says; return the code its connection ends with."""
        pinger = threading.Thread(target=self._ping, name=f"devserver-ping-{self._device_id}", daemon=True)
        pinger.start()
        try:
            while True:
                self._deliver(self.websocket.receive(2 * self._relay.ping_seconds))
        except ConnectionClosed as ended:
            return ended.code
        except DeviceDisconnected:
            return ABNORMAL
        except (DecodeError, TimeoutError):
            self.websocket.farewell(1011, "internal error")
            return 1011
        finally:
            self.cut()
            self.websocket.finish()
            pinger.join()

    def session(self, user: str) -> "Session":
        """A new session; `DeviceDisconnected` when the connection has just ended."""
        made = Session(self, user)
        with self._lock:
            if self.ended.is_set():
                raise DeviceDisconnected
            self._sessions[made.sid] = made
        return made

    def forget(self, session: "Session") -> None:
        """Take a session off the list."""
        with self._lock:
            self._sessions.pop(session.sid, None)

    def cut(self, *, reset: bool = False) -> None:
        """End the connection abruptly, and let its sessions know."""
        with self._lock:
            self.ended.set()
            sessions = list(self._sessions.values())
        self.websocket.abort(reset=reset)
        for session in sessions:
            session.wake()

    def _deliver(self, data: bytes) -> None:
        message = messages.decode(data)
        with self._lock:
            session = self._sessions.get(message.sid)
        taken = session is not None and session.take(message)
        if not taken and len(data) <= DROPPED_SIZE:
            self._relay.drop(self._device_id, message)

    def _ping(self) -> None:
        seconds = self._relay.ping_seconds
        payload = str(int(2 * seconds)).encode()
        while not self.ended.wait(max(0.0, self.websocket.wrote + seconds - time.monotonic())):
            if time.monotonic() >= self.websocket.wrote + seconds:
                try:
                    self.websocket.ping(payload)
                except ConnectionClosed:
                    return


class Session:
    """One user's session with one device: the server gives it its `sid`, and its user to every message."""

    def __init__(self, line: Line, user: str) -> None:
        self.sid = str(uuid.uuid4())
        self.user = user
        self._line = line
        self._changed = threading.Condition()
        self._inbox: deque[Message] = deque()
        self._closed = False

    def send(self, message: Message, *, sid: bool = True) -> None:
        """Send to the device for this session; block while it does not read; raises `DeviceDisconnected`."""
        raw = {**message.raw, "user_id": messages.pack(self.user)}
        made = replace(message, sid=self.sid if sid else "", raw=raw)
        try:
            self._line.websocket.send(made.encode())
        except ConnectionClosed:
            raise DeviceDisconnected from None

    def control(self, typ: str, body: Any = None) -> None:
        """Send a control message of the server's own, which bears no user; `DeviceDisconnected`."""
        made = Message(messages.CONTROL, typ, self.sid, {}, b"" if body is None else messages.pack(body))
        try:
            self._line.websocket.send(made.encode())
        except ConnectionClosed:
            raise DeviceDisconnected from None

    def stop(self, why: str) -> None:
        """Tell the device to end the session's shell, if it is still there to be told."""
        # A status of the server's own is as short as can be, not nine bytes: remote-terminal.md 0.
        status = messages.pack(messages.ERROR)
        with contextlib.suppress(DeviceDisconnected):
            self.send(messages.message(messages.SHELL, "stop", why.encode(), status=status))

    def receive(self, timeout: float | None = None, *, outlive: bool = False) -> Message | None:
        """The device's next message; None when the session is closed.

        `TimeoutError` after `timeout` seconds. When the device goes: `DeviceDisconnected`, or with
        `outlive` nothing at all, as it is for those on the real server.
        """
        with self._changed:
            true = self._changed.wait_for(lambda: self._ready(outlive=outlive), timeout)
            if not true:
                raise TimeoutError("no message from the device")
            if self._closed:
                return None
            if not self._inbox:
                raise DeviceDisconnected
            message = self._inbox.popleft()
            self._changed.notify_all()
            return message

    def _ready(self, *, outlive: bool) -> bool:
        return bool(self._inbox) or self._closed or (self._line.ended.is_set() and not outlive)

    def take(self, message: Message) -> bool:
        """Take a message from the device, when there is room; False when the session has been closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._inbox) < ROOM or self._closed or self._line.ended.is_set()
            )
            if self._closed:
                return False
            if len(self._inbox) < ROOM:
                self._inbox.append(message)
                self._changed.notify_all()
            return True

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Want no more messages; those that come belong to no session."""
        self._line.forget(self)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
