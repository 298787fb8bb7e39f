"""The server's end of a websocket, for several threads. Knows no message, and spoils what a fault asks.

A thread that waits for the peer holds no lock, and TLS is never entered by two threads: both directions go
through one lock, and wait outside of it.
"""

import base64
import binascii
import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from email.message import Message

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from .faults import Fault, Faults
from .faulty_socket import FaultySocket
from .validation import Refusal

PIECE = 65536
MESSAGE_LIMIT = 8 * 1024 * 1024  # remote-terminal.md 1, `MessageSizeLimit`
SUBPROTOCOL = "protomsg/msgpack"
ABNORMAL = 1006
"""The code of an end without a goodbye (RFC 6455, 7.4.1)."""
NO_CODE = 1005
GOODBYE_SECONDS = 5.0
WRITE_SECONDS = 10.0  # remote-terminal.md 1, for control frames


class ConnectionClosed(Exception):
    """The connection is over; `code` is the peer's close code, or ours, or 1006."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code


def accept(headers: Message) -> dict[str, str]:
    """The headers of the answer 101 to a request for an upgrade; 400 for what is no such request."""
    refusal = "websocket: the client is not using the websocket protocol: "
    for name, value in (("Connection", "upgrade"), ("Upgrade", "websocket")):
        if value not in [token.strip().lower() for token in headers.get(name, "").split(",")]:
            raise Refusal(400, f"{refusal}'{value}' token not found in '{name}' header")
    if headers.get("Sec-Websocket-Version") != "13":
        raise Refusal(400, "websocket: unsupported version: 13 not found in 'Sec-Websocket-Version' header")
    key = headers.get("Sec-Websocket-Key", "").strip()
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        good = False
    if not good:
        raise Refusal(400, "websocket: not a websocket handshake: 'Sec-WebSocket-Key' header is not a key")
    answer = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": generate_accept_token(key.encode()).decode(),
    }
    offered = [token.strip() for token in headers.get("Sec-Websocket-Protocol", "").split(",")]
    return answer | ({"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in offered else {})


class WebSocket:
    """One connection after its handshake; `receive` is for one thread, all else for any."""

    def __init__(
        self,
        connection: socket.socket,
        buffered: bytes,
        fault: Fault | None,
        faults: Faults,
    ) -> None:
        connection.setblocking(False)
        self.heard = time.monotonic()
        """When the last frame came in."""
        self.wrote = self.heard
        """When the last frame went out, or the last ping or pong came in: what restarts the ping timer."""
        self._stream = FaultySocket(
            connection, fault, faults, buffered=buffered, on_cut=self._cut, ignore_input=True
        )
        self._protocol = Connection(ConnectionType.SERVER)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._pong: bytes | None = None
        self._messages: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._size = 0
        self._due: int | None = None
        self._ended: ConnectionClosed | None = None
        self._closing: int | None = None

    def receive(self, silence: float | None = None) -> bytes:
        """The next message, text or binary alike; `ConnectionClosed` when there is none to come.

        `TimeoutError` when no frame has come for `silence` seconds; time in which nobody asked counts, as
        with a deadline in Go.
        """
        while not self._messages:
            self._close_if_due()
            deadline = None if silence is None else self.heard + silence
            if self._closing is not None:
                deadline = self.wrote + GOODBYE_SECONDS
            if deadline is not None and time.monotonic() >= deadline:
                if self._closing is not None:
                    raise ConnectionClosed(self._closing)
                raise TimeoutError
            events, ready = self._read()
            for event in ready:
                self._take(event)
            if events:
                self._wait(events, deadline)
        return self._messages.popleft()

    def send(self, message: bytes) -> None:
        """Send a message; block while the peer does not read; raises `ConnectionClosed`."""
        self._put(BytesMessage(data=message))

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life."""
        self._put(Ping(payload=payload))

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye; what comes in from now on is dropped until the peer has gone too."""
        if self._closing is not None or self._ended:
            return
        deadline = time.monotonic() + WRITE_SECONDS
        if self._sending.acquire(timeout=WRITE_SECONDS):
            try:
                with contextlib.suppress(ConnectionClosed):
                    self._write(CloseConnection(code=code, reason=reason), deadline)
            finally:
                self._sending.release()
        self._closing = code
        self._stream.shut_down_output()

    def farewell(self, code: int, reason: str = "") -> None:
        """Say goodbye and wait, not for long, until the peer has gone: its close frame shall not be lost."""
        self.close(code, reason)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            while True:
                self.receive()

    def abort(self, *, reset: bool = False) -> None:
        """End the connection without a word, from any thread; with `reset` by RST."""
        self._ended = self._ended or ConnectionClosed(ABNORMAL, "the server cut the connection")
        self._stream.abort(reset=reset)

    def finish(self) -> None:
        """Let nobody touch the socket any more, which its owner is about to close."""
        self.abort()
        # Whoever waits to send does so within this lock, and has just been woken.
        with self._sending:
            pass

    def _read(self) -> tuple[int, list[Event]]:
        """What to wait for, and the events of what could be read at once."""
        with self._lock:
            self._check()
            try:
                piece = self._stream.recv(PIECE)
            except (BlockingIOError, ssl.SSLWantReadError):
                return select.POLLIN, []
            except ssl.SSLWantWriteError:
                return select.POLLOUT, []
            except OSError as error:
                raise self._end(ABNORMAL, str(error)) from None
            if not piece:
                raise self._end(self._closing or ABNORMAL, "the peer has gone")
            try:
                self._protocol.receive_data(piece)
                events = list(self._protocol.events())
            except RemoteProtocolError as error:
                hint = error.event_hint
                code = hint.code if isinstance(hint, CloseConnection) else 1002
                events = [CloseConnection(code=code, reason=str(error))]
            except LocalProtocolError:
                raise self._end(self._closing or ABNORMAL, "data after the close frame") from None
        return 0, events

    def _take(self, event: Event) -> None:
        self.heard = time.monotonic()
        if isinstance(event, CloseConnection):
            if self._closing is None:
                with contextlib.suppress(ConnectionClosed):
                    self._put(CloseConnection(code=1000 if event.code == NO_CODE else event.code))
            raise self._end(self._closing or int(event.code), event.reason or "")
        if isinstance(event, BytesMessage | TextMessage):
            self._collect(event)
        elif isinstance(event, Ping):
            self.wrote = self.heard
            self._answer(bytes(event.payload))
        elif isinstance(event, Pong):
            self.wrote = self.heard

    def _collect(self, event: BytesMessage | TextMessage) -> None:
        if self._closing is not None:
            return
        piece = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
        self._size += len(piece)
        if self._size > MESSAGE_LIMIT:
            self._parts = []
            self.close(1009, "read limit exceeded")
            return
        self._parts.append(piece)
        if event.message_finished:
            self._messages.append(b"".join(self._parts))
            self._parts, self._size = [], 0

    def _answer(self, payload: bytes) -> None:
        """Answer a ping, without waiting for a message that is just going out: its sender does it then."""
        self._pong = payload
        while self._pong is not None and self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(ConnectionClosed):
                    self._pongs()
            finally:
                self._sending.release()

    def _pongs(self) -> None:
        while (payload := self._pong) is not None:
            self._pong = None
            self._write(Pong(payload=payload))

    def _put(self, event: Event) -> None:
        with self._sending:
            self._write(event)
            self._pongs()
        if (payload := self._pong) is not None:
            self._answer(payload)
        self._close_if_due()

    def _write(self, event: Event, deadline: float | None = None) -> None:
        with self._lock:
            self._check()
            try:
                data = memoryview(self._protocol.send(event))
            except LocalProtocolError:
                raise ConnectionClosed(self._closing or ABNORMAL, "the connection is closing") from None
        while data:
            data = data[self._push(data, deadline) :]
        self.wrote = time.monotonic()

    def _push(self, data: memoryview, deadline: float | None) -> int:
        """Send, or wait until it may be tried again; how much has gone."""
        with self._lock:
            self._check()
            try:
                return self._stream.send(data[:PIECE])
            except (BlockingIOError, ssl.SSLWantWriteError):
                events = select.POLLOUT
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except OSError as error:
                # Not the end of everything: what the peer has said before may still be unread.
                raise ConnectionClosed(ABNORMAL, str(error)) from None
        # A peer that ends its half of the connection has gone: nobody does that with a websocket.
        if self._wait(events | select.POLLRDHUP, deadline) & select.POLLRDHUP:
            raise ConnectionClosed(ABNORMAL, "the peer has gone")
        if deadline is not None and time.monotonic() >= deadline:
            raise ConnectionClosed(ABNORMAL, "the peer does not read")
        return 0

    def _wait(self, events: int, deadline: float | None) -> int:
        poll = select.poll()
        poll.register(self._stream.fileno(), events)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = poll.poll(None if left is None else left * 1000 + 1)
        return ready[0][1] if ready else 0

    def _check(self) -> None:
        self._stream.act()
        if self._stream.aborted:
            self.abort()
        if self._ended:
            raise self._ended

    def _cut(self) -> None:
        fault = self._stream.fault
        if fault.close_code is None:
            self.abort(reset=fault.reset)
        else:
            self._due = fault.close_code  # not sent from here: another frame may be on its way

    def _end(self, code: int, reason: str) -> ConnectionClosed:
        self._ended = self._ended or ConnectionClosed(code, reason)
        return self._ended

    def _close_if_due(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            self.close(due)
