"""Serves HTTP/1.1 with keep-alive and TLS, logs the requests and lets their faults act."""

import contextlib
import io
import socket
import ssl
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import cast
from urllib.parse import parse_qsl, unquote, urlsplit

import mender_oneshot

from . import gateway
from .faults import Faults
from .faulty_socket import FaultySocket
from .request_log import RequestLog
from .response_writer import ConnectionBroken, ResponseWriter, substitute
from .routing import Request, Response, Route, Site, error_response
from .validation import BODY_LIMIT, HTTPError

DRAIN_LIMIT = 16 * 1024 * 1024


class Listener:
    """One origin: a port, and a thread for each connection to it.

    Not `http.server.ThreadingHTTPServer`: that one polls twice a second for its shutdown, resolves its own
    name by DNS, and cannot end connections that wait.
    """

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        site: Site,
        context: ssl.SSLContext | None,
        faults: Faults,
        log: RequestLog,
    ) -> None:
        self.name = name
        self.site = site
        self.faults = faults
        self.log = log
        self.stopping = threading.Event()
        self._context = context
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(
            address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=128
        )
        self.port: int = self._socket.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"devserver-{name}", daemon=True)

    def start(self) -> None:
        """Accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait for their threads."""
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which removes the TLS state that another thread is using.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve,
                args=(connection, peer[0]),
                name=f"devserver-{self.name}-{peer[1]}",
                daemon=True,
            )
            thread.start()
            # Removed only here, and in `stop` when this thread has ended: `stop` could not wait for a thread
            # that removed itself from the list.
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]

    def _serve(self, connection: socket.socket, peer: str) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            with self._lock:
                self._open.add(connection)
            if self.stopping.is_set():
                return
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            HttpConnection(connection, (peer, 0), self)  # type: ignore[arg-type]  # only stored
        except OSError:
            return  # The client has disconnected, or rejected the certificate.
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


class HttpConnection(BaseHTTPRequestHandler):
    """One connection: receives requests, has them handled, sends the responses."""

    protocol_version = "HTTP/1.1"
    connection: socket.socket

    @property
    def listener(self) -> Listener:
        """The origin of this connection."""
        return cast(Listener, self.server)

    def version_string(self) -> str:
        """Return the value of the Server header."""
        return f"mender-oneshot-devserver/{mender_oneshot.__version__}"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing; requests are in the request log."""

    def handle(self) -> None:
        """Serve requests until either side closes the connection."""
        with contextlib.suppress(ConnectionBroken, OSError):
            super().handle()
            self._close_tls()

    def _close_tls(self) -> None:
        # Without close_notify, clients that read to the end take the close for a cut.
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.settimeout(0)
            with contextlib.suppress(OSError, ValueError):
                self.connection.unwrap()

    def serve(self) -> None:
        """Serve one request; raise `ConnectionBroken` if the connection cannot be used any longer."""
        at = time.time()
        try:
            body = RequestBody(self)
        except HTTPError as error:
            self.close_connection = True
            self.send_error(error.status, error.text)
            return
        request = self._request(body)
        control = request.path.startswith(gateway.CONTROL) and request.origin == "api"
        route = self.listener.site.route(self.command, request.path)
        request.fault = None if control else self.listener.faults.take(self.command, request.path)
        response = self._respond(request, route, body)
        stream = FaultySocket(self.connection, request.fault, self.listener.faults)
        writer = ResponseWriter(request, response, stream, None if control else self.listener.log, at)
        try:
            writer.send(self._head(writer))
        finally:
            response.close()
        if response.take_over:
            self.close_connection = True
            if not response.take_over(self.connection, self._buffered()):
                raise ConnectionBroken

    def _buffered(self) -> bytes:
        """Return the bytes after the request that were already read from the connection."""
        self.connection.setblocking(False)
        try:
            return cast(io.BufferedReader, self.rfile).peek()
        except ssl.SSLWantReadError:
            return b""

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve

    def _request(self, body: "RequestBody") -> Request:
        split = urlsplit(self.path)
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        pairs = parse_qsl(split.query, keep_blank_values=True, errors="surrogateescape")
        return Request(
            origin=self.listener.name,
            method=self.command,
            target=self.path,
            path=unquote(split.path),
            query=dict(reversed(pairs)),  # of several, the first counts, as in Go
            headers=self.headers,
            client=self.client_address[0],
            own_address=self.connection.getsockname()[0],
            host=host or "127.0.0.1",
            length=body.length,
            chunks=body.pieces(),
        )

    def _respond(self, request: Request, route: Route | HTTPError, body: "RequestBody") -> Response:
        """Read the body as far as needed and handle the request; the rest of the body is discarded."""
        substituted = substitute(request.fault, request.target)
        try:
            if substituted or isinstance(route, HTTPError) or not route.streams:
                request.body, whole = body.read(BODY_LIMIT)
                if substituted:
                    return substituted
                if not whole:
                    # device-api.md 2: 413 by Content-Length; a chunked body only fails while it is decoded.
                    raise HTTPError(413 if body.length else 400, "http: request body too large")
            return self.listener.site.respond(request, route)
        except HTTPError as error:
            return error_response(error)
        except (OSError, ConnectionBroken):
            raise
        except Exception:  # noqa: BLE001  # a bug must be visible, and not look like a network failure
            traceback.print_exc(file=sys.stderr)
            return error_response(HTTPError(500, "a bug in the development server; see its output"))
        finally:
            body.drain(DRAIN_LIMIT)
            self.close_connection = self.close_connection or not body.finished

    def _head(self, writer: ResponseWriter) -> bytes:
        """Return the status line and the headers."""
        response, fault = writer.response, writer.fault
        headers = dict(response.headers)
        if response.status and response.by_service and self.listener.name == "api":
            headers.setdefault("X-MEN-RequestID", str(uuid.uuid4()))
        bodiless = response.status < 200 or response.status in (204, 304)
        if writer.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif fault.no_length:
            self.close_connection = True
        elif not bodiless:
            headers["Content-Length"] = str(response.length)
        if fault.no_etag:
            headers.pop("ETag", None)
        headers.update(fault.extra_headers)
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [
            f"HTTP/1.1 {response.status} {self.responses.get(response.status, ('Unknown',))[0]}",
            f"Server: {self.version_string()}",
            f"Date: {self.date_time_string()}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


class RequestBody:
    """The body of a request, by length or chunked; raises HTTPError 400 for a bad Content-Length.

    Reading raises `ConnectionBroken` if the client disconnects early.
    """

    def __init__(self, connection: HttpConnection) -> None:
        self._read: Callable[[int], bytes] = connection.rfile.read
        self._readline: Callable[[int], bytes] = connection.rfile.readline
        self.length: int | None = 0
        self.finished = True
        if "chunked" in connection.headers.get("Transfer-Encoding", "").lower():
            self.length = None
        elif "Content-Length" in connection.headers:
            text = connection.headers["Content-Length"].strip()
            if not text.isdecimal():
                raise HTTPError(400, "bad Content-Length")
            self.length = int(text)
        self.finished = self.length == 0
        self._pieces = self._chunked() if self.length is None else self._plain(self.length)

    def pieces(self) -> Iterator[bytes]:
        """Return the pieces that have not been read yet."""
        return self._pieces

    def read(self, limit: int) -> tuple[bytes, bool]:
        """Return about `limit` bytes at most, and whether that was all."""
        parts, size = [], 0
        if self.length is not None and self.length > limit:
            return b"", False
        for piece in self._pieces:
            parts.append(piece)
            size += len(piece)
            if size > limit:
                return b"".join(parts), False
        return b"".join(parts), True

    def drain(self, limit: int) -> None:
        """Discard about `limit` bytes at most, so that the client can read the response."""
        for piece in self._pieces:
            limit -= len(piece)
            if limit < 0:
                return

    def _plain(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._read(min(65536, left))
            if not piece:
                raise ConnectionBroken
            left -= len(piece)
            self.finished = not left
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while size := self._chunk_size():
            yield from self._chunk(size)
            self._readline(100)
        while self._readline(65536).strip():
            pass  # trailers
        self.finished = True

    def _chunk_size(self) -> int:
        try:
            return int(self._readline(100).split(b";")[0], 16)
        except ValueError:
            raise ConnectionBroken from None

    def _chunk(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._read(min(65536, left))
            if not piece:
                raise ConnectionBroken
            left -= len(piece)
            yield piece
