"""Protocol 3: connections to ports that the device can reach (remote-terminal.md section 5).

In each direction one message with data is in flight; the next one follows its `ack`.
"""

import contextlib
import errno
import logging
import os
import socket
from collections import deque

from . import messages
from .messages import FORWARD, Message
from .outbox import BROKEN, Outbox, fail, reject_unknown
from .resolver import Address, Lookup, parse_address

CHUNK = 32768
MOST_CONNECTIONS = 128
QUEUE_LIMIT = 1 << 20
"""Bytes queued for a target; only a peer that does not wait for `ack` can reach the limit."""
PIECE_OVERHEAD = 128
"""Bytes that a piece counts in addition to its content, which may be empty."""
CONNECT_SECONDS = 30.0
IDLE_SECONDS = 600.0
LINGER_SECONDS = 5.0
"""How long a target may take to read the queued data after the peer has closed."""

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

log = logging.getLogger(__name__)


class Forward:
    """One connection to a target."""

    def __init__(self, forwards: "Forwards", sid: str, name: str, protocol: str) -> None:
        self.sid = sid
        self.name = name
        self._forwards = forwards
        self._outbox = forwards.outbox
        self.last_received = self._outbox.loop.now()
        self._kind = _KINDS[protocol]
        self._socket: socket.socket | None = None
        self._connected = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._acknowledged = True  # the peer has received our last message
        self._closing = False
        self._lookup: Lookup | None = None
        self._end = self.last_received + CONNECT_SECONDS
        self._deadline = self._outbox.loop.later(CONNECT_SECONDS, self._timed_out)

    def start(self, host: str, port: int) -> None:
        """Resolve the target and connect to it."""
        address = parse_address(host, port)
        if address:
            self._connect([address])
            return
        try:
            self._lookup = Lookup(self._outbox.loop, host, port, self._kind, self._connect)
        except OSError as error:
            self._fail("new", os.strerror(error.errno or 0))

    def write(self, data: bytes) -> None:
        """Send data to the target, or queue it until the target is connected and reads."""
        self._queue.append(data)
        self._queued += len(data) + PIECE_OVERHEAD
        if self._queued > QUEUE_LIMIT:
            self._fail("forward", "more data than the target takes; wait for ack")
        elif self._connected:
            self._drain()

    def acknowledge(self) -> None:
        """Handle an `ack`: the next message may be sent."""
        self._acknowledged = True
        self._watch()

    def close_when_sent(self) -> None:
        """Close after the queue has been written, or after `LINGER_SECONDS`."""
        self._closing = True
        if self._queue:
            self._outbox.loop.later(LINGER_SECONDS, self.close)
        else:
            self.close()

    def close(self) -> None:
        """Close now; sends nothing."""
        self._deadline.cancel()
        self._forwards.forget(self)
        if self._lookup:
            self._lookup.cancel()
            self._lookup = None
        self._drop_socket()
        self._connected = False
        self._queue.clear()

    def abandon(self) -> None:
        """Close now after a bug, and send an error."""
        self._fail("forward", BROKEN)

    def stop(self) -> None:
        """Close now, and send a `stop`."""
        self.close()
        self._send("stop")

    def _connect(self, addresses: list[Address], problem: str = "cannot resolve the host name") -> None:
        """Try the first address; if none is left, fail with the problem of the last one."""
        self._lookup = None
        self._deadline.cancel()
        if not addresses:
            self._fail("new", problem)
            return
        first, *others = addresses
        try:
            # Fails if the kernel does not support the family, or has no descriptor left.
            self._socket = socket.socket(first.family, self._kind)
            self._socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self._socket.connect(first.address)
        except OSError as error:
            self._drop_socket()
            self._connect(others, os.strerror(error.errno or 0))
            return
        share = (self._end - self._outbox.loop.now()) / len(addresses)
        self._deadline = self._outbox.loop.later(share, lambda: self._tried(others, errno.ETIMEDOUT))
        self._outbox.loop.watch(self._socket.fileno(), write=lambda: self._tried(others))

    def _tried(self, others: list[Address], code: int = 0) -> None:
        if self._socket:
            code = code or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._drop_socket()
                self._connect(others, os.strerror(code))
            else:
                self._open()

    def _drop_socket(self) -> None:
        if self._socket:
            self._outbox.loop.watch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        self._deadline.cancel()
        self._connected = True
        if self._socket and self._kind == socket.SOCK_STREAM:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send("new")
        self._drain()

    def _timed_out(self) -> None:
        self._fail("new", os.strerror(errno.ETIMEDOUT))

    def _fail(self, kind: str, reason: str) -> None:
        """Close, and send an error and a `stop`: the error, like mender-connect's, has no connection id."""
        self.close()
        fail(self._outbox, Message(FORWARD, kind, self.sid), reason)
        self._send("stop")

    def _drain(self) -> None:
        """Write the queue to the target, and acknowledge what was written."""
        while self._queue and self._socket:
            data = self._queue[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                break
            except OSError as error:
                if self._kind == socket.SOCK_STREAM:
                    self._fail("forward", error.strerror or "the target closed the connection")
                    return
                # The error is about the datagram before: this one was not sent yet.
                with contextlib.suppress(OSError):
                    self._socket.send(data)
                sent = len(data)
            self._queued -= sent
            if sent == len(data):
                self._queued -= PIECE_OVERHEAD
                self._queue.popleft()
                self._send("ack")
            else:
                self._queue[0] = data[sent:]
        if self._closing and not self._queue:
            self.close()
        self._watch()

    def _read(self) -> None:
        """Read from the target and send it; the next read follows the `ack`."""
        if not self._socket:
            return
        try:
            data = self._socket.recv(CHUNK if self._kind == socket.SOCK_STREAM else 65535)
        except BlockingIOError:
            return
        except OSError:
            if self._kind == socket.SOCK_DGRAM:
                return
            data = b""
        self.last_received = self._outbox.loop.now()
        if not data and self._kind == socket.SOCK_STREAM:
            self.stop()
            return
        self._acknowledged = False
        self._send("forward", data)
        self._watch()

    def _watch(self) -> None:
        if self._socket and self._connected:
            self._outbox.loop.watch(
                self._socket.fileno(),
                self._read if self._acknowledged and not self._closing else None,
                self._drain if self._queue else None,
            )

    def _send(self, kind: str, data: bytes = b"") -> None:
        self._outbox.send(Message(FORWARD, kind, self.sid, {"connection_id": self.name}, data))


class Forwards:
    """All connections to targets, by session and by the id that the peer chose."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.sids: set[str] = set()
        """The sessions that forward; one continues after its last connection, because it may open others."""
        self._open: dict[tuple[str, str], Forward] = {}

    def __len__(self) -> int:
        return len(self.sids)

    def handle(self, message: Message) -> None:
        """Handle a message of this protocol."""
        name = message.fields.text("connection_id")
        forward = self._open.get((message.sid, name))
        if message.kind == "new":
            self._new(message)
        elif message.kind not in ("forward", "ack", "stop"):
            if message.kind != "error":
                reject_unknown(self.outbox, message)
        elif forward is None:
            fail(self.outbox, message, "unknown connection")
        elif message.kind == "forward":
            forward.write(message.body)
        elif message.kind == "ack":
            forward.acknowledge()
        else:
            forward.close_when_sent()
            self.outbox.send(Message(FORWARD, "stop", message.sid, {"connection_id": name}))

    def forget(self, forward: Forward) -> None:
        """Remove a connection that was closed."""
        if self._open.get((forward.sid, forward.name)) is forward:
            del self._open[(forward.sid, forward.name)]

    def close(self, sid: str) -> None:
        """End a session and its connections; sends nothing, as the peer closed it."""
        self.sids.discard(sid)
        for forward in [forward for forward in self._open.values() if forward.sid == sid]:
            forward.close()

    def abandon(self, sid: str) -> None:
        """End the connections of a session after a bug, and send errors."""
        self.sids.discard(sid)
        for forward in [forward for forward in self._open.values() if forward.sid == sid]:
            forward.abandon()

    def stop_all(self, reason: str) -> None:
        """End all connections, and send a `stop` for each."""
        for forward in list(self._open.values()):
            forward.stop()
        self.sids.clear()

    def drop_all(self) -> None:
        """End all connections; sends nothing, as the connection to the server is gone."""
        self.sids.clear()
        for forward in list(self._open.values()):
            forward.close()

    def tick(self) -> None:
        """End the connections whose target has sent nothing for `IDLE_SECONDS`."""
        now = self.outbox.loop.now()
        for forward in list(self._open.values()):
            with self.outbox.guarding(FORWARD, forward.sid):
                if now - forward.last_received >= IDLE_SECONDS:
                    forward.stop()

    def _new(self, message: Message) -> None:
        wanted = messages.unpack(message.body)
        name, user = message.fields.text("connection_id"), message.fields.text("user_id")
        host, protocol = wanted.text("remote_host"), wanted.text("protocol")
        port = wanted.number("remote_port", 1, 65535)
        if not name or not host or port is None or protocol not in _KINDS:
            reason = "invalid port-forward message: missing connection_id, remote_port or protocol"
            fail(self.outbox, message, reason)
            return
        if (message.sid, name) in self._open:
            reason = "a connection with this id already exists"
        elif len(self._open) >= MOST_CONNECTIONS or len(self.sids | {message.sid}) > MOST_CONNECTIONS:
            reason = f"this device forwards at most {MOST_CONNECTIONS} connections at a time"
        else:
            reason = self.outbox.rejection(message.sid)
        if reason:
            fail(self.outbox, message, reason)
            return
        self.sids.add(message.sid)
        self.outbox.count_session(message.sid)
        log.info("%s: port forward to %s port %d.", user or "unknown", host, port)
        forward = Forward(self, message.sid, name, protocol)
        self._open[(message.sid, name)] = forward
        forward.start(host, port)
