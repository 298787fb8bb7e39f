"""One WebSocket connection to deviceconnect: whole messages as bytes; the only user of wsproto."""

import contextlib
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, ProtocolError

from .. import __version__, errors, network
from ..settings import Settings
from .dial import open_stream, read_head, remaining
from .signals import Signals

CONNECT_SECONDS = 30.0
PIECE = 65536
MESSAGE_LIMIT = 2 << 20
TURN_BYTES = 4 * PIECE
TURN_EVENTS = 2000
"""Bytes and frames that one call of `receive` reads, so that other callbacks of the loop are not starved."""


class ConnectionRejected(Exception):
    """The server answered the handshake with an HTTP status; `retry_after` is that header as it was sent."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


class ConnectionLost(Exception):
    """The connection ended; the text is the reason."""


class Connection:
    """An open connection, with a queue of what could not be sent yet."""

    def __init__(self, stream: socket.socket, websocket: WSConnection, url: str) -> None:
        self.url = url
        self.pending = 0  # bytes in the queue
        self.sent = 0
        self.received_any = False  # a frame arrived after the handshake
        self._stream = stream
        self._websocket = websocket
        self._queue: deque[memoryview] = deque()
        self._message = bytearray()
        # Frames may have arrived together with the response to the handshake.
        self._events: Iterator[Event] = websocket.events()
        self._ping: Ping | None = None
        self._unread = False
        stream.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._stream.fileno()

    def abort(self) -> None:
        """Close the socket without a close frame."""
        self._stream.close()

    def send(self, message: bytes) -> None:
        """Send a message, or queue what does not fit; raises `ConnectionLost`."""
        self._put(BytesMessage(data=message))

    def ping(self) -> None:
        """Send a ping; raises `ConnectionLost`."""
        self._put(Ping(payload=b"60"))

    def close_gracefully(self) -> None:
        """Send a close frame; after the server's own close frame `receive` raises `ConnectionLost`."""
        self._put(CloseConnection(code=1000))

    def flush(self) -> None:
        """Send as much of the queue as the socket takes; raises `ConnectionLost`."""
        while self._queue:
            try:
                sent = self._stream.send(self._queue[0][:PIECE])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise ConnectionLost(network.why(error)) from error
            self.pending -= sent
            self.sent += sent
            if sent == len(self._queue[0]):
                self._queue.popleft()
            else:
                self._queue[0] = self._queue[0][sent:]

    def receive(self) -> list[bytes]:
        """Return the messages that have arrived; raises `ConnectionLost` if the connection ended.

        Reads a limited number of bytes and frames; `unread` is true if there may be more.
        """
        messages: list[bytes] = []
        size = 0
        self._unread = True
        for _ in range(TURN_EVENTS):
            event = self._next_event()
            if event:
                self.received_any = True
                messages += self._messages_in(event)
            elif size >= TURN_BYTES:
                break
            else:
                piece = self._read()
                if not piece:
                    self._unread = False
                    break
                size += len(piece)
                self._feed(piece)
        if self._ping:
            # One pong answers all pings before it (RFC 6455 section 5.5.3).
            self._put(self._ping.response())
            self._ping = None
        return messages

    @property
    def unread(self) -> bool:
        """Return whether `receive` has to be called again without waiting for the descriptor.

        The rest may be in the buffers of TLS or wsproto, where no selector sees it.
        """
        return self._unread

    def _next_event(self) -> Event | None:
        try:
            return next(self._events, None)
        except ProtocolError as error:
            raise ConnectionLost("WebSocket protocol error") from error

    def _feed(self, piece: bytes) -> None:
        try:
            self._websocket.receive_data(piece)
        except ProtocolError as error:
            raise ConnectionLost("WebSocket protocol error") from error
        self._events = self._websocket.events()

    def _read(self) -> bytes:
        """Return what has arrived on the socket, b"" if nothing has; raises `ConnectionLost`."""
        try:
            piece = self._stream.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as error:
            raise ConnectionLost(network.why(error)) from error
        if not piece:
            raise ConnectionLost("the server closed the connection")
        return piece

    def _messages_in(self, event: Event) -> list[bytes]:
        """Handle an event; return the message that it completes, if any."""
        if isinstance(event, Ping):
            self._ping = event
        elif isinstance(event, CloseConnection):
            with contextlib.suppress(ConnectionLost, LocalProtocolError):
                self._put(event.response())
            raise ConnectionLost(f"the server closed the connection ({event.code})")
        elif isinstance(event, (BytesMessage, TextMessage)):
            data = event.data
            self._message += data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
            if len(self._message) > MESSAGE_LIMIT:
                with contextlib.suppress(ConnectionLost):
                    self._put(CloseConnection(code=1009))
                raise ConnectionLost(f"the server sent a message of more than {MESSAGE_LIMIT} bytes")
            if event.message_finished:
                message, self._message = bytes(self._message), bytearray()
                return [message]
        return []

    def _put(self, event: Event) -> None:
        try:
            data = self._websocket.send(event)
        except LocalProtocolError as error:
            raise ConnectionLost("the connection is closed") from error
        self._queue.append(memoryview(data))
        self.pending += len(data)
        if len(self._queue) == 1:
            self.flush()


def connect(
    settings: Settings, server: str, path: str, token: str, seconds: float, signals: Signals
) -> Connection:
    """Open a connection within so many seconds. Blocks: nothing else is open while there is none.

    Raises `ConnectionRejected`, an `errors.Error` if the server cannot be reached or its certificate is not
    trusted, and `Stopped` if a signal interrupts it.
    """
    url = server + path
    where = network.host(url)
    end = time.monotonic() + min(seconds, CONNECT_SECONDS)
    stream: socket.socket | None = None
    try:
        stream = open_stream(settings, url, end, signals)
        websocket = WSConnection(ConnectionType.CLIENT)
        # Not interrupted: it imports a codec, and a signal would leave the module's file open.
        request = websocket.send(_upgrade(url, token))
        with signals.interrupting():
            _handshake(stream, websocket, request, url, end)
        return Connection(stream, websocket, url)
    except ssl.SSLCertVerificationError as error:
        _close(stream)
        raise network.certificate_error(where, error) from error
    except OSError as error:
        _close(stream)
        raise network.no_answer(where, network.why(error)) from error
    except BaseException:
        _close(stream)
        raise


def _close(stream: socket.socket | None) -> None:
    if stream:
        stream.close()


def _upgrade(url: str, token: str) -> Request:
    """Return the request for a WebSocket."""
    parts = urlsplit(url)
    return Request(
        host=parts.netloc.rpartition("@")[2],
        target=parts.path,
        extra_headers=[
            (b"Authorization", b"Bearer " + token.encode()),
            (b"User-Agent", f"mender-oneshot/{__version__}".encode()),
        ],
    )


def _handshake(stream: socket.socket, websocket: WSConnection, request: bytes, url: str, end: float) -> None:
    """Turn the stream into a WebSocket; raises `ConnectionRejected` or `errors.InvalidResponse`."""
    stream.settimeout(remaining(end))
    stream.sendall(request)
    while True:
        piece = read_head(stream, end)
        try:
            websocket.receive_data(piece or None)
            for event in websocket.events():
                if isinstance(event, AcceptConnection):
                    return
                if isinstance(event, RejectConnection):
                    headers = {name.lower(): value for name, value in event.headers}
                    retry_after = headers.get(b"retry-after", b"").decode("latin-1")
                    raise ConnectionRejected(event.status_code, retry_after)
        except ProtocolError as error:
            raise errors.InvalidResponse(
                f"{network.host(url)} does not speak WebSocket; check that ServerURL is a Mender server and "
                "that no captive portal or proxy intercepts the connection."
            ) from error
        if not piece:
            raise ConnectionResetError(104, "")
