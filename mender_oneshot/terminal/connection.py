"""One connection to deviceconnect; the only file that knows `wsproto`.

Bytes of whole messages in and out; knows nothing of what they say.
"""

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
from .loop import Signals
from .stream import left, open_stream, read_answer

CONNECT_SECONDS = 30.0
PIECE = 65536
MESSAGE_LIMIT = 2 << 20
TURN = 4 * PIECE
MOST_EVENTS = 2000
"""Bytes, and frames, that are read before others have their turn."""


class ConnectionRejected(Exception):
    """The server answered the handshake with a status of HTTP; `wait` is its `Retry-After`."""

    def __init__(self, status: int, wait: str) -> None:
        super().__init__(status)
        self.status = status
        self.wait = wait


class ConnectionLost(Exception):
    """The connection is over; the text says why."""


class Connection:
    """A connection that stands: queues what goes out, hands on what comes in."""

    def __init__(self, stream: socket.socket, websocket: WSConnection, url: str) -> None:
        self.url = url
        self.pending = 0  # bytes that wait to be sent
        self.sent = 0
        self._stream = stream
        self._websocket = websocket
        self._queue: deque[memoryview] = deque()
        self._message = bytearray()
        # What came after the handshake was read with it.
        self._events: Iterator[Event] = websocket.events()
        self._pinged: Ping | None = None
        self._more = False
        self.heard = False  # anything of the server's, after the handshake
        stream.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._stream.fileno()

    def shut(self) -> None:
        """Drop the connection."""
        self._stream.close()

    def send(self, message: bytes) -> None:
        """Send a message, or queue what does not fit; raises `ConnectionLost`."""
        self._put(BytesMessage(data=message))

    def ping(self) -> None:
        """Ask for a sign of life; raises `ConnectionLost`."""
        self._put(Ping(payload=b"60"))

    def close(self) -> None:
        """Say goodbye; the other side's answer comes as `ConnectionLost` out of `receive`."""
        self._put(CloseConnection(code=1000))

    def flush(self) -> None:
        """Send as much of what is queued as the socket takes; raises `ConnectionLost`."""
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
        """Return the messages that have come in; raises `ConnectionLost` when there can be no more.

        Only so many bytes and frames are taken at once, for others want their turn. `unread` tells whether
        there may be more that no `select` sees: in the buffers of TLS, or read and not looked at yet.
        """
        messages: list[bytes] = []
        size = 0
        self._more = True
        for _ in range(MOST_EVENTS):
            event = self._next_event()
            if event:
                self.heard = True
                messages += self._take(event)
            elif size >= TURN:
                break
            else:
                piece = self._read()
                if not piece:
                    self._more = False
                    break
                size += len(piece)
                self._feed(piece)
        if self._pinged:
            # The newest stands for all (RFC 6455 section 5.5.3).
            self._put(self._pinged.response())
            self._pinged = None
        return messages

    @property
    def unread(self) -> bool:
        """Say whether `receive` stopped before everything was read."""
        return self._more

    def _next_event(self) -> Event | None:
        try:
            return next(self._events, None)
        except ProtocolError as error:
            raise ConnectionLost("the server breaks the protocol") from error

    def _feed(self, piece: bytes) -> None:
        try:
            self._websocket.receive_data(piece)
        except ProtocolError as error:
            raise ConnectionLost("the server breaks the protocol") from error
        self._events = self._websocket.events()

    def _read(self) -> bytes:
        """Read what has come in, b"" if there is nothing just now."""
        try:
            piece = self._stream.recv(PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as error:
            raise ConnectionLost(network.why(error)) from error
        if not piece:
            raise ConnectionLost("the server closed the connection")
        return piece

    def _take(self, event: Event) -> list[bytes]:
        if isinstance(event, Ping):
            self._pinged = event
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
    """Make a connection within so many seconds, waiting for each step; nothing else is open at that time.

    Raises `ConnectionRejected`, or an `errors.Error` if the server cannot be reached or is not to be trusted.
    """
    url = server + path
    where = network.host(url)
    end = time.monotonic() + min(seconds, CONNECT_SECONDS)
    stream: socket.socket | None = None
    try:
        stream = open_stream(settings, url, end, signals)
        with signals.interrupting():
            return _shake_hands(stream, url, token, end)
    except ssl.SSLCertVerificationError as error:
        _drop(stream)
        raise network.certificate_error(where, error) from error
    except OSError as error:
        _drop(stream)
        raise network.no_answer(where, network.why(error)) from error
    except BaseException:
        _drop(stream)
        raise


def _drop(stream: socket.socket | None) -> None:
    if stream:
        stream.close()


def _shake_hands(stream: socket.socket, url: str, token: str, end: float) -> Connection:
    """Turn the stream into a WebSocket; raises `ConnectionRejected` or `errors.InvalidResponse`."""
    parts = urlsplit(url)
    websocket = WSConnection(ConnectionType.CLIENT)
    request = Request(
        host=parts.netloc.rpartition("@")[2],
        target=parts.path,
        extra_headers=[
            (b"Authorization", b"Bearer " + token.encode()),
            (b"User-Agent", f"mender-oneshot/{__version__}".encode()),
        ],
    )
    stream.settimeout(left(end))
    stream.sendall(websocket.send(request))
    while True:
        piece = read_answer(stream, end)
        try:
            websocket.receive_data(piece or None)
            for event in websocket.events():
                if isinstance(event, AcceptConnection):
                    return Connection(stream, websocket, url)
                if isinstance(event, RejectConnection):
                    headers = {name.lower(): value for name, value in event.headers}
                    raise ConnectionRejected(
                        event.status_code, headers.get(b"retry-after", b"").decode("latin-1")
                    )
        except ProtocolError as error:
            raise errors.InvalidResponse(
                f"{network.host(url)} does not speak WebSocket; check that ServerURL is a Mender server and "
                "that no portal or proxy stands in the way."
            ) from error
        if not piece:
            raise ConnectionResetError(104, "")
