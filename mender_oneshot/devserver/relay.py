"""Relay between devices and users: who is connected, and which session a message belongs to.

Facts: remote-terminal.md 1 and 8. Messages of a session keep their order, and memory is bounded: a session
holds a few messages, and a user who does not read blocks the device's other sessions too, as on the real
server.
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

INBOX_LIMIT = 4  # remote-terminal.md 8: the receive queue of a NATS stream
DROPPED_LIMIT = 100
DROPPED_SIZE_LIMIT = 65536


class DeviceDisconnected(Exception):
    """The device is not connected, or no longer."""


@dataclass
class Connections:
    """The connections of one device, past and present."""

    current: "DeviceConnection | None" = None
    count: int = 0
    close_codes: list[int] = field(default_factory=list)
    """How the former connections ended, oldest first; 1006 without a close frame."""
    changed_at: float = 0.0


class Relay:
    """All connections of all devices."""

    def __init__(self, clock: Callable[[], float], ping_seconds: float) -> None:
        self.ping_seconds = ping_seconds
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._connections: dict[str, Connections] = {}
        self._dropped: deque[tuple[str, Message]] = deque(maxlen=DROPPED_LIMIT)
        self._stopped = False

    def serve(self, device_id: str, websocket: WebSocket) -> int:
        """Relay the messages of a device until its connection ends; return the close code."""
        connection = DeviceConnection(self, device_id, websocket)
        with self._changed:
            connections = self._connections.setdefault(device_id, Connections())
            older, connections.current = connections.current, connection
            connections.count += 1
            connections.changed_at = self._clock()
            self._changed.notify_all()
        if older:
            older.cut()  # without a close frame: remote-terminal.md 1
        code = ABNORMAL
        try:
            code = connection.serve()
        finally:
            with self._changed:
                connections.close_codes.append(code)
                if connections.current is connection:
                    connections.current = None
                    connections.changed_at = self._clock()
                self._changed.notify_all()
        return code

    def session(self, device_id: str, user: str) -> "Session":
        """Open a session with a device; raise `DeviceDisconnected` if it is not connected."""
        with self._changed:
            connections = self._connections.get(device_id)
            if connections is None or connections.current is None or self._stopped:
                raise DeviceDisconnected
            return connections.current.session(user)

    def connections(self, device_id: str) -> Connections:
        """Return a copy of the record of a device's connections."""
        with self._changed:
            connections = self._connections.get(device_id, Connections())
            return replace(connections, close_codes=list(connections.close_codes))

    def wait(self, device_id: str, condition: Callable[[Connections], bool], timeout: float) -> Connections:
        """Block until a condition holds for a device's connections, and return a copy of them.

        Raise TimeoutError after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: condition(self._connections.get(device_id, Connections())), timeout
            ):
                connections = self._connections.get(device_id, Connections())
                state = "connected" if connections.current else "not connected"
                counts = f"{connections.count} connections, close codes {connections.close_codes}"
                raise TimeoutError(f"after {timeout} s: {state}, {counts}")
            return self.connections(device_id)

    def wait_for_dropped(self, condition: Callable[[Message], bool], timeout: float) -> Message:
        """Return the first matching message of no session, past or to come.

        Raise TimeoutError after `timeout` seconds.
        """
        with self._changed:
            found = self._changed.wait_for(lambda: [m for _, m in self._dropped if condition(m)], timeout)
            if not found:
                raise TimeoutError(
                    f"no matching message was dropped; the last ones were {list(self._dropped)[-5:]}"
                )
            return found[0]

    def connected(self) -> list[str]:
        """Return the ids of the devices that are connected."""
        with self._changed:
            return [device_id for device_id, connections in self._connections.items() if connections.current]

    def drop(self, device_id: str, message: Message) -> None:
        """Keep a message that the real server drops, so that tests can see it; only the last are kept."""
        with self._changed:
            self._dropped.append((device_id, message))
            self._changed.notify_all()

    def end(self, device_id: str, code: int | None, *, reset: bool) -> None:
        """End a device's connection: with a close code, or abruptly, with `reset` by RST.

        Raise LookupError if the device is not connected.
        """
        with self._changed:
            connections = self._connections.get(device_id)
            connection = connections.current if connections else None
        if connection is None:
            raise LookupError("the device is not connected")
        if code is None:
            connection.cut(reset=reset)
        else:
            connection.websocket.close(code)

    def stop(self) -> None:
        """Cut every connection and wake every session."""
        with self._changed:
            self._stopped = True
            connected = [
                connections.current for connections in self._connections.values() if connections.current
            ]
        for connection in connected:
            connection.cut()


class DeviceConnection:
    """One connection of one device, and the sessions on it."""

    def __init__(self, relay: Relay, device_id: str, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.ended = threading.Event()
        self._relay = relay
        self._device_id = device_id
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def serve(self) -> int:
        """Deliver the messages of the device to its sessions; return the close code."""
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
            self.websocket.close_and_wait(1011, "internal error")
            return 1011
        finally:
            self.cut()
            self.websocket.release()
            pinger.join()

    def session(self, user: str) -> "Session":
        """Open a session; raise `DeviceDisconnected` if the connection has just ended."""
        session = Session(self, user)
        with self._lock:
            if self.ended.is_set():
                raise DeviceDisconnected
            self._sessions[session.sid] = session
        return session

    def forget(self, session: "Session") -> None:
        """Remove a session; its messages are dropped from now on."""
        with self._lock:
            self._sessions.pop(session.sid, None)

    def cut(self, *, reset: bool = False) -> None:
        """End the connection abruptly and wake its sessions."""
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
        delivered = session is not None and session.deliver(message)
        if not delivered and len(data) <= DROPPED_SIZE_LIMIT:
            self._relay.drop(self._device_id, message)

    def _ping(self) -> None:
        seconds = self._relay.ping_seconds
        payload = str(int(2 * seconds)).encode()
        while not self.ended.wait(max(0.0, self.websocket.last_sent + seconds - time.monotonic())):
            if time.monotonic() >= self.websocket.last_sent + seconds:
                try:
                    self.websocket.ping(payload)
                except ConnectionClosed:
                    return


class Session:
    """One user's session with one device; it adds its `sid` and its user to every message."""

    def __init__(self, connection: DeviceConnection, user: str) -> None:
        self.sid = str(uuid.uuid4())
        self.user = user
        self._connection = connection
        self._changed = threading.Condition()
        self._inbox: deque[Message] = deque()
        self._closed = False

    def send(self, message: Message, *, sid: bool = True) -> None:
        """Send a message to the device; block while the device does not read.

        With `sid=False`, the message belongs to no session. Raise `DeviceDisconnected`.
        """
        raw = {**message.raw, "user_id": messages.pack(self.user)}
        addressed = replace(message, sid=self.sid if sid else "", raw=raw)
        try:
            self._connection.websocket.send(addressed.encode())
        except ConnectionClosed:
            raise DeviceDisconnected from None

    def control(self, typ: str, body: Any = None) -> None:
        """Send a control message of the server itself, without a user; raise `DeviceDisconnected`."""
        packed = b"" if body is None else messages.pack(body)
        message = Message(messages.CONTROL, typ, self.sid, {}, packed)
        try:
            self._connection.websocket.send(message.encode())
        except ConnectionClosed:
            raise DeviceDisconnected from None

    def stop(self, reason: str) -> None:
        """Have the device end the session's shell, if it is still connected."""
        # The server packs its own status in the shortest form, not in nine bytes: remote-terminal.md 0.
        status = messages.pack(messages.ERROR)
        with contextlib.suppress(DeviceDisconnected):
            self.send(messages.message(messages.SHELL, "stop", reason.encode(), status=status))

    def receive(self, timeout: float | None = None, *, ignore_disconnect: bool = False) -> Message | None:
        """Return the device's next message; None if the session is closed.

        Raise TimeoutError after `timeout` seconds, and `DeviceDisconnected` when the device disconnects. With
        `ignore_disconnect`, keep waiting then, as the sessions of the real server do.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready(ignore_disconnect=ignore_disconnect), timeout):
                raise TimeoutError("no message from the device")
            if self._closed:
                return None
            if not self._inbox:
                raise DeviceDisconnected
            message = self._inbox.popleft()
            self._changed.notify_all()
            return message

    def _ready(self, *, ignore_disconnect: bool) -> bool:
        return (
            bool(self._inbox) or self._closed or (self._connection.ended.is_set() and not ignore_disconnect)
        )

    def deliver(self, message: Message) -> bool:
        """Add a message from the device; block while there is no room. Return False if closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._inbox) < INBOX_LIMIT or self._closed or self._connection.ended.is_set()
            )
            if self._closed:
                return False
            if len(self._inbox) < INBOX_LIMIT:
                self._inbox.append(message)
                self._changed.notify_all()
            return True

    def wake(self) -> None:
        """Wake the threads that wait in this session, so that they notice a disconnected device."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Accept no more messages; those that still arrive belong to no session."""
        self._connection.forget(self)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
