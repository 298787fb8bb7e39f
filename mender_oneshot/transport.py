"""HTTP requests and their responses: time limits, and messages for what fails.

Callers get `errors.Error` only, never an exception of a library or a network errno, not even while they read
a body. Contains nothing specific to Mender.
"""

import http.client
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from types import TracebackType

from . import __version__, console, errors, network, proxy, url
from .http_connection import Connection
from .reply import Contradiction, HeadTooLarge
from .settings import Settings
from .url import host as host

WHOLE_SECONDS = 300.0
"""Time limit for reading a whole response of the API, even if data arrives steadily."""
PIECE = 65536

_FAILURES = (http.client.HTTPException, OSError)

log = logging.getLogger(__name__)


class Response:
    """A response whose body has not been read yet; a context manager that discards the unread rest."""

    def __init__(
        self, address: str, name: str, connection: Connection, reply: http.client.HTTPResponse
    ) -> None:
        self.url = address
        self.proxy = connection.forwarding_proxy
        """The proxy that may have sent the response itself, because it is used without a tunnel; or ""."""
        self.status: int = reply.status
        self.headers: dict[str, str] = {}
        for field, value in reply.headers.items():
            before = self.headers.get(field.lower())
            self.headers[field.lower()] = value if before is None else f"{before}, {value}"
        self._name = name
        self._connection = connection
        self._reply = reply
        self._end = time.monotonic() + WHOLE_SECONDS

    def __enter__(self) -> "Response":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.finish()

    def read(self, limit: int) -> bytes:
        """Return the whole body, or its first `limit` bytes.

        Raises `errors.TemporaryError` if the connection is lost, the body is shorter than its Content-Length,
        or reading takes more than `WHOLE_SECONDS`.
        """
        with console.waiting(f"Waiting for the rest of the answer of {self._name} ..."):
            return self._read(limit)

    def _read(self, limit: int) -> bytes:
        # In pieces: `read` would keep one object for each chunk, and a chunk may have one byte.
        content = bytearray()
        for piece in self.pieces():
            content += piece
            if len(content) >= limit:
                return bytes(content[:limit])
            if time.monotonic() > self._end:
                raise network.no_answer(self._name, f"it takes more than {WHOLE_SECONDS:.0f} s")
        if self._reply.length:  # bytes of its Content-Length that did not come; `read1` does not complain
            raise network.no_answer(self._name, network.CONNECTION_LOST)
        return bytes(content)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, in pieces of at most 64 KiB that need not be full.

        Raises `errors.TemporaryError` if the connection is lost or times out.
        """
        while True:
            try:
                piece = self._reply.read1(PIECE)
            except _FAILURES as error:
                raise _failure(self.url, self._name, error) from error
            if not piece:
                return
            yield piece


class Transport:
    """Connections kept open between the requests of one invocation."""

    def __init__(self, settings: Settings) -> None:
        self._trust = network.tls_context(settings)
        self._connections: list[Connection] = []

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.finish()
            connection.close()

    def send(
        self, method: str, address: str, body: bytes | None, headers: Mapping[str, str], name: str = ""
    ) -> Response:
        """Send one request to a URL and return the response, whatever its status; do not follow redirects.

        `name` is the host's name in messages. Raises `errors.TemporaryError` if there is no response,
        `errors.InvalidResponse` if it is not HTTP, `errors.UntrustedServer` or another error for a rejected
        certificate, and `errors.SettingsError` for an unusable proxy.
        """
        name = name or host(address)
        connection, target = self._connection(address, name), url.target(address)
        where = connection.origin
        # Neither a login nor a query: both can contain secrets.
        log.debug("%s %s://%s%s", method, where.scheme, where.netloc, target.partition("?")[0])
        headers = {"User-Agent": f"mender-oneshot/{__version__}", **headers}
        try:
            with console.waiting(f"Asking {name} ..."):
                reply = connection.ask(method, target, body, headers)
        except _FAILURES as error:
            if self._trust.reconsider():  # no byte of the request has been sent
                return self.send(method, address, body, headers, name)
            raise _failure(address, name, error) from error
        return Response(address, name, connection, reply)

    def _connection(self, address: str, name: str) -> Connection:
        """Return a connection to the host of a URL that no response occupies."""
        origin, named = url.origin(address), proxy.proxy_for(address)
        if origin is None:
            raise errors.InvalidResponse(f"The link to {name} is not a valid http(s) URL; check the server.")
        through = proxy.read_proxy(named) if named else None
        for connection in self._connections:
            if connection.is_free and (connection.origin, connection.through) == (origin, through):
                return connection
        self._connections.append(Connection(origin, through, self._trust))
        return self._connections[-1]


def _failure(address: str, name: str, error: BaseException) -> errors.Error:
    """Return our error for an exception of `http.client`, `ssl` or `socket`."""
    # The class of the last one is also that of errors with another meaning.
    if isinstance(error, (HeadTooLarge, http.client.LineTooLong)) or type(error) is http.client.HTTPException:
        return errors.InvalidResponse(
            f"{name} sent too many or too long header lines; check the server and any proxy or gateway in "
            "between."
        )
    no_http = isinstance(error, (Contradiction, http.client.UnknownProtocol))
    if no_http or type(error) is http.client.BadStatusLine:
        return errors.InvalidResponse(
            f"{name} sent a response that is not valid HTTP/1.1; check the scheme and the port of its URL, "
            "and any proxy or gateway in between."
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return network.certificate_error(_whose(address, error), error)
    lost = isinstance(error, http.client.HTTPException)
    return network.no_answer(name, network.CONNECTION_LOST if lost else network.why(error))


def _whose(address: str, error: ssl.SSLCertVerificationError) -> str:
    """Return the name of the host whose certificate was rejected, the server or a proxy."""
    origin, name = url.origin(address), getattr(error, "name", "")
    same = not name or (origin and name == network.server_name(origin.host))
    return host(address) if same else f"the proxy {name}"
