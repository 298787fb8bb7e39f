"""The server's end of a WebSocket, for several threads; independent of what the messages contain.

A thread holds no lock while it waits for the peer. Only one thread at a time enters TLS: both directions use
one lock.
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
from email.message import Message as Headers

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from .faults import Fault, Faults
from .faulty_socket import FaultySocket
from .gateway import PAGE_PROTOCOL
from .validation import HTTPError

PIECE = 65536
MESSAGE_LIMIT = 8 * 1024 * 1024  # remote-terminal.md 1, `MessageSizeLimit`
SUBPROTOCOL = "protomsg/msgpack"
ABNORMAL = 1006
"""The code for an end without a close frame (RFC 6455, 7.4.1)."""
NO_CODE = 1005
CLOSE_SECONDS = 5.0
WRITE_SECONDS = 10.0  # remote-terminal.md 1, for control frames


class ConnectionClosed(Exception):
    """The connection has ended; `code` is the close code of the peer or of this end, or 1006."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code


def accept(headers: Headers) -> dict[str, str]:
    """Return the headers of the response 101 to an upgrade request; raise HTTPError 400 for any other."""
    prefix = "websocket: the client is not using the websocket protocol: "
    for name, value in (("Connection", "upgrade"), ("Upgrade", "websocket")):
        if value not in [token.strip().lower() for token in headers.get(name, "").split(",")]:
            raise HTTPError(400, f"{prefix}'{value}' token not found in '{name}' header")
    if headers.get("Sec-Websocket-Version") != "13":
        raise HTTPError(400, "websocket: unsupported version: 13 not found in 'Sec-Websocket-Version' header")
    key = headers.get("Sec-Websocket-Key", "").strip()
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if not is_key:
        raise HTTPError(400, "websocket: not a websocket handshake: 'Sec-WebSocket-Key' header is not a key")
    accepted = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": generate_accept_token(key.encode()).decode(),
    }
    offered = [token.strip() for token in headers.get("Sec-Websocket-Protocol", "").split(",")]
    chosen = next((protocol for protocol in (SUBPROTOCOL, PAGE_PROTOCOL) if protocol in offered), None)
    return accepted | ({"Sec-WebSocket-Protocol": chosen} if chosen else {})


class WebSocket:
    """One connection after its handshake; `receive` is for one thread, everything else for any thread."""

    def __init__(
        self,
        connection: socket.socket,
        buffered: bytes,
        fault: Fault | None,
        faults: Faults,
    ) -> None:
        connection.setblocking(False)
        self.last_received = time.monotonic()
        """When the last frame was received (monotonic)."""
        self.last_sent = self.last_received
        """When the last frame was sent, or the last ping or pong received: what restarts the ping timer."""
        self._stream = FaultySocket(
            connection, fault, faults, buffered=buffered, on_cut=self._cut, ignore_input=True
        )
        self._protocol = Connection(ConnectionType.SERVER)
        self._stream_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._pending_pong: bytes | None = None
        self._messages: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._size = 0
        self._pending_close: int | None = None
        self._ended: ConnectionClosed | None = None
        self._close_code: int | None = None

    def receive(self, silence: float | None = None) -> bytes:
        """Return the next message, text or binary; raise `ConnectionClosed` when the connection has ended.

        Raise TimeoutError if no frame was received for `silence` seconds. Time between two calls counts too,
        as with a deadline in Go.
        """
        while not self._messages:
            self._send_pending_close()
            deadline = None if silence is None else self.last_received + silence
            if self._close_code is not None:
                deadline = self.last_sent + CLOSE_SECONDS
            if deadline is not None and time.monotonic() >= deadline:
                if self._close_code is not None:
                    raise ConnectionClosed(self._close_code)
                raise TimeoutError
            events, ready = self._read()
            for event in ready:
                self._handle(event)
            if events:
                self._wait(events, deadline)
        return self._messages.popleft()

    def send(self, message: bytes) -> None:
        """Send a message; block while the peer does not read; raise `ConnectionClosed`."""
        self._send_event(BytesMessage(data=message))

    def ping(self, payload: bytes) -> None:
        """Send a ping; raise `ConnectionClosed`."""
        self._send_event(Ping(payload=payload))

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame; discard what is received from now on, until the peer closes too."""
        if self._close_code is not None or self._ended:
            return
        deadline = time.monotonic() + WRITE_SECONDS
        if self._send_lock.acquire(timeout=WRITE_SECONDS):
            try:
                with contextlib.suppress(ConnectionClosed):
                    self._write(CloseConnection(code=code, reason=reason), deadline)
            finally:
                self._send_lock.release()
        self._close_code = code
        self._stream.shut_down_output()

    def close_and_wait(self, code: int, reason: str = "") -> None:
        """Close, and wait a few seconds for the peer to close too, so that the close frame is not lost."""
        self.close(code, reason)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            while True:
                self.receive()

    def abort(self, *, reset: bool = False) -> None:
        """End the connection abruptly, from any thread; with `reset` by RST."""
        self._ended = self._ended or ConnectionClosed(ABNORMAL, "the server cut the connection")
        self._stream.abort(reset=reset)

    def release(self) -> None:
        """Keep all threads from the socket, which its owner is about to close."""
        self.abort()
        # A thread that waits to send holds this lock; `abort` has just woken it.
        with self._send_lock:
            pass

    def _read(self) -> tuple[int, list[Event]]:
        """Return the events to wait for (0: none), and the WebSocket events that were received."""
        with self._stream_lock:
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
                raise self._end(self._close_code or ABNORMAL, "the peer has disconnected")
            try:
                self._protocol.receive_data(piece)
                events = list(self._protocol.events())
            except RemoteProtocolError as error:
                hint = error.event_hint
                code = hint.code if isinstance(hint, CloseConnection) else 1002
                events = [CloseConnection(code=code, reason=str(error))]
            except LocalProtocolError:
                raise self._end(self._close_code or ABNORMAL, "data after the close frame") from None
        return 0, events

    def _handle(self, event: Event) -> None:
        self.last_received = time.monotonic()
        if isinstance(event, CloseConnection):
            if self._close_code is None:
                with contextlib.suppress(ConnectionClosed):
                    self._send_event(CloseConnection(code=1000 if event.code == NO_CODE else event.code))
            raise self._end(self._close_code or int(event.code), event.reason or "")
        if isinstance(event, BytesMessage | TextMessage):
            self._collect(event)
        elif isinstance(event, Ping):
            self.last_sent = self.last_received
            self._send_pong(bytes(event.payload))
        elif isinstance(event, Pong):
            self.last_sent = self.last_received

    def _collect(self, event: BytesMessage | TextMessage) -> None:
        if self._close_code is not None:
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

    def _send_pong(self, payload: bytes) -> None:
        """Answer a ping, now or, if another thread is sending a message, right after that message."""
        self._pending_pong = payload
        while self._pending_pong is not None and self._send_lock.acquire(blocking=False):
            try:
                with contextlib.suppress(ConnectionClosed):
                    self._send_pending_pong()
            finally:
                self._send_lock.release()

    def _send_pending_pong(self) -> None:
        while (payload := self._pending_pong) is not None:
            self._pending_pong = None
            self._write(Pong(payload=payload))

    def _send_event(self, event: Event) -> None:
        with self._send_lock:
            self._write(event)
            self._send_pending_pong()
        if (payload := self._pending_pong) is not None:
            self._send_pong(payload)
        self._send_pending_close()

    def _write(self, event: Event, deadline: float | None = None) -> None:
        with self._stream_lock:
            self._check()
            try:
                data = memoryview(self._protocol.send(event))
            except LocalProtocolError:
                raise ConnectionClosed(self._close_code or ABNORMAL, "the connection is closing") from None
        while data:
            data = data[self._send_some(data, deadline) :]
        self.last_sent = time.monotonic()

    def _send_some(self, data: memoryview, deadline: float | None) -> int:
        """Send some bytes, or wait until a retry makes sense; return how many were sent."""
        with self._stream_lock:
            self._check()
            try:
                return self._stream.send(data[:PIECE])
            except (BlockingIOError, ssl.SSLWantWriteError):
                events = select.POLLOUT
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except OSError as error:
                # Only this direction has ended: data from the peer may still be unread.
                raise ConnectionClosed(ABNORMAL, str(error)) from None
        # With a WebSocket, a peer that ends its half of the connection has disconnected.
        if self._wait(events | select.POLLRDHUP, deadline) & select.POLLRDHUP:
            raise ConnectionClosed(ABNORMAL, "the peer has disconnected")
        if deadline is not None and time.monotonic() >= deadline:
            raise ConnectionClosed(ABNORMAL, "the peer is not reading")
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
            self._pending_close = fault.close_code  # not sent from here: another frame may be on its way

    def _end(self, code: int, reason: str) -> ConnectionClosed:
        self._ended = self._ended or ConnectionClosed(code, reason)
        return self._ended

    def _send_pending_close(self) -> None:
        due, self._pending_close = self._pending_close, None
        if due is not None:
            self.close(due)
