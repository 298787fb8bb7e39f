"""HTTP connections: TLS, proxies, timeouts, and messages for what fails. The only user of `urllib3`.

Callers get `errors.Error` only, never an exception of a library or a network errno, not even while they read
a body. Contains nothing specific to Mender.
"""

import base64
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import urllib3
import urllib3.connection
import urllib3.exceptions
from urllib3.exceptions import HTTPError

from . import __version__, console, errors, network, proxy, reach
from .network import host as host
from .reply import HeadTooLarge, Reply
from .settings import Settings

CONNECT_SECONDS = 30.0
READ_SECONDS = 60.0
WHOLE_SECONDS = 300.0
"""Time limit for reading a whole response of the API, even if data arrives steadily."""
PIECE = 65536

# The message about a certificate that is not valid yet, or has expired, names the clock.
urllib3.disable_warnings(urllib3.exceptions.SystemTimeWarning)
# `network.tls_context` logs SkipVerify once.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

_TOO_MUCH = (HeadTooLarge, http.client.LineTooLong)
_NO_HTTP = (http.client.UnknownProtocol, urllib3.exceptions.InvalidHeader)
_FAILURES = (HTTPError, http.client.HTTPException, OSError, UnicodeError)

log = logging.getLogger(__name__)


class Response:
    """A response whose body has not been read yet; a context manager that discards the unread rest."""

    def __init__(self, url: str, response: Any, name: str = "", way: str = "") -> None:
        self.url = url
        self.name = name or host(url)
        self.proxy = way
        """The proxy that may have sent the response itself, because it is used without a tunnel; or ""."""
        self._end = time.monotonic() + WHOLE_SECONDS
        # urllib3 1.26 lacks the base class of urllib3 2, so no type is correct for both.
        self._response = response
        self.status: int = response.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def __enter__(self) -> "Response":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def read(self, limit: int) -> bytes:
        """Return the whole body, or its first `limit` bytes.

        A body that was read to its end frees the connection for the next request. Raises
        `errors.TemporaryError` if the connection is lost, the body is shorter than its Content-Length, or
        reading takes more than `WHOLE_SECONDS`.
        """
        with console.waiting(f"Waiting for the rest of the answer of {self.name} ..."):
            return self._read(limit)

    def _read(self, limit: int) -> bytes:
        # In pieces: urllib3 would keep one object for each chunk, and a chunk may have one byte.
        content = bytearray()
        for piece in self.pieces():
            content += piece
            if len(content) >= limit:
                return bytes(content[:limit])
            if time.monotonic() > self._end:
                raise network.no_answer(self.name, f"it takes more than {WHOLE_SECONDS:.0f} s")
        if self._is_short(len(content)):
            raise network.no_answer(self.name, network.CONNECTION_LOST)
        self._response.release_conn()
        return bytes(content)

    def _is_short(self, size: int) -> bool:
        """Return whether a body is shorter than its Content-Length; urllib3 1.26 does not check that."""
        promised = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers or self.status in (204, 304) or not promised.isdecimal():
            return False
        return len(promised) < 20 and size < int(promised)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, in pieces of at most 64 KiB that need not be full.

        Raises `errors.TemporaryError` if the connection is lost or times out.
        """
        # That of http.client: urllib3 1.26 has none, and that of urllib3 2 takes three times as long.
        read1 = self._response._fp.read1
        while True:
            try:
                piece: bytes = read1(PIECE)
            except _FAILURES as error:
                raise translate(self.url, error, self.name) from error
            if not piece:
                return
            yield piece


class Transport:
    """Connections kept open between the requests of one invocation."""

    def __init__(self, settings: Settings) -> None:
        self._trust = network.tls_context(settings)
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.clear()

    def send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], name: str = ""
    ) -> Response:
        """Send one request and return the response, whatever its status; redirects are not followed.

        `name` is the host's name in messages. Raises `errors.TemporaryError` if there is no response,
        `errors.InvalidResponse` if it is not HTTP, `errors.UntrustedServer` or another error for a rejected
        certificate, and `errors.SettingsError` for an unusable proxy.
        """
        log.debug("%s %s", method, url.partition("?")[0])
        named = proxy.proxy_for(url)
        way = (named, host(url))
        if way not in self._pools:
            self._pools[way] = _connect_through(named, url, self._trust)
        try:
            with console.waiting(f"Asking {name or host(url)} ..."):
                response = self._pools[way].request(
                    method,
                    url,
                    body=body,
                    headers={"User-Agent": f"mender-oneshot/{__version__}", **headers},
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
        except _FAILURES as error:
            if self._trust.reconsider():  # no byte of the request has been sent
                return self.send(method, url, body, headers, name)
            raise translate(url, error, name) from error
        plain = bool(named) and not url.lower().startswith("https:")
        return Response(url, response, name, proxy.read_proxy(named).address if plain else "")


class _Connecting:
    """Connects in place of urllib3: addresses share the timeout, and errors tell a proxy from a server."""

    def _new_conn(self) -> socket.socket:
        connection: Any = self
        try:
            # The name as it was written: urllib3's `host` drops the trailing dot.
            found = socket.getaddrinfo(
                connection._dns_host.strip("[]"), connection.port, type=socket.SOCK_STREAM
            )
            stream = reach.connect([(one[0], one[4]) for one in found], CONNECT_SECONDS)
        except OSError as error:
            if connection.proxy is None:
                raise
            raise network.ProxyFailed(f"the proxy cannot be reached: {network.why(error)}") from error
        stream.settimeout(connection.timeout)
        for option in connection.socket_options or ():
            stream.setsockopt(*option)
        return stream

    def _tunnel(self) -> None:
        try:
            super()._tunnel()  # type: ignore[misc]
        except (http.client.HTTPException, OSError) as error:
            if "Tunnel connection failed" in str(error):
                raise
            self.close()  # type: ignore[attr-defined]
            broken = isinstance(error, (http.client.RemoteDisconnected, OSError))
            reason = (
                f"the proxy failed to open a tunnel: {network.why(error)}" if broken else network.NO_PROXY
            )
            raise network.ProxyFailed(reason) from error


class _Plain(_Connecting, urllib3.connection.HTTPConnection):
    response_class = Reply


class _Secure(_Connecting, urllib3.connection.HTTPSConnection):
    response_class = Reply


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


def _connect_through(named: str, url: str, context: network.Context) -> urllib3.PoolManager:
    """Return the connections to the host of a URL, direct if `named` is "", else through that proxy."""
    manager = _manager(named, url, context)
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager


def _manager(named: str, url: str, context: network.Context) -> urllib3.PoolManager:
    parts = urlsplit(url)
    checked: Any = network.ForHost(context, parts.hostname or "")
    # Without cert_reqs, urllib3 1.26 would replace the context's verify_mode. Without ca_certs, Debian's
    # would load the system's CA bundle again, and fail on a device that has none.
    options: Any = {"cert_reqs": context.verify_mode, "ca_certs": None}
    if not named:
        return urllib3.PoolManager(ssl_context=checked, **options)
    scheme, address, login = proxy.read_proxy(named)
    for_proxy: Any = network.ForHost(context, urlsplit(f"//{address}").hostname or "")
    if parts.scheme.lower() != "https":
        checked = for_proxy  # without a tunnel only the proxy has a certificate to check
    try:
        coded = base64.b64encode(login.encode("utf-8", "surrogateescape")).decode()
        headers = {"Proxy-Authorization": f"Basic {coded}"} if login else None
        return urllib3.ProxyManager(
            f"{scheme}://{address}",
            proxy_headers=headers,
            proxy_ssl_context=for_proxy,
            ssl_context=checked,
            **options,
        )
    except (ValueError, HTTPError) as error:
        raise proxy.not_a_proxy() from error


def translate(url: str, error: BaseException, name: str = "") -> errors.Error:
    """Return our error for an exception of urllib3, `http.client`, `ssl` or `socket`.

    `name` is the host's name in the message, "" for the host of the URL.
    """
    where = name or host(url)
    for _ in range(20):
        if isinstance(error, _TOO_MUCH) or type(error) is http.client.HTTPException:
            return errors.InvalidResponse(
                f"{where} sent too many or too long header lines; check the server and any proxy or gateway "
                "in between."
            )
        if isinstance(error, _NO_HTTP) or type(error) is http.client.BadStatusLine:
            return errors.InvalidResponse(
                f"{where} sent a response that is not valid HTTP/1.1; check the scheme and the port of its "
                "URL, and any proxy or gateway in between."
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return network.certificate_error(_whose(url, error), error)
        if isinstance(error, network.ProxyFailed):
            break
        cause = _cause(error)
        if cause is None:
            break
        error = cause
    return network.no_answer(where, _why(error))


def _whose(url: str, error: ssl.SSLCertVerificationError) -> str:
    """Return the name of the host whose certificate was rejected, the server or a proxy."""
    name = getattr(error, "name", "")
    same = name in ("", network.server_name(urlsplit(url).hostname or ""))
    return host(url) if same else f"the proxy {name}"


def _why(error: BaseException) -> str:
    """Return the cause of a network error; extends `network.why` by the exceptions of urllib3."""
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return network.TIMED_OUT
    if isinstance(error, (http.client.HTTPException, urllib3.exceptions.ProtocolError)):
        return network.CONNECTION_LOST
    return network.why(error)


def _cause(error: BaseException) -> BaseException | None:
    """Return the cause of an exception, or None; urllib3 keeps it in an attribute, Python in the chain.

    Our own errors are not a cause: they were being handled when the exception was raised.
    """
    context = None if error.__suppress_context__ else error.__context__
    if isinstance(error, http.client.HTTPException) and isinstance(context, ValueError):
        return None  # http.client parsed a chunk without a length, which means that the connection was lost
    for candidate in (getattr(error, "reason", None), *error.args, error.__cause__, context):
        ours = isinstance(candidate, errors.Error)
        if isinstance(candidate, BaseException) and candidate is not error and not ours:
            return candidate
    return None
