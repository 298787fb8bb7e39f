"""One HTTP connection: direct or through a proxy, with or without TLS.

Contains nothing specific to Mender. Builds on `http.client`, because importing a larger library takes longer
than the request itself (docs/decisions/0016-requests-with-http-client.md).
"""

import contextlib
import http.client
import select
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from . import network, proxy, reach
from .reply import Reply
from .url import Origin

CONNECT_SECONDS = 30.0
READ_SECONDS = 60.0


class Connection(http.client.HTTPConnection):
    """A connection to one origin, `through` a proxy if that is not None; `ask` opens it when necessary."""

    response_class = Reply
    sock: Any

    def __init__(self, origin: Origin, through: proxy.Proxy | None, context: network.Context) -> None:
        super().__init__(origin.host, origin.port)
        self.origin = origin
        self.through = through
        self._context = context
        self._response: http.client.HTTPResponse | None = None

    @property
    def forwarding_proxy(self) -> str:
        """The address of a proxy that forwards requests, without a tunnel, and may respond itself; or ""."""
        return self.through.address if self.through and self.origin.scheme == "http" else ""

    @property
    def is_free(self) -> bool:
        """Whether the next request can be sent."""
        return self._response is None

    def ask(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send one request and return the response when its head has arrived; `target` is path and query.

        Call `finish` when the response is no longer needed. Raises `OSError` or `http.client.HTTPException`;
        the connection is then closed.
        """
        host = self.origin.netloc
        headers = {"Host": host, **headers}
        if self.through and self.forwarding_proxy:
            target = f"http://{host}{target}"
            headers |= proxy.authorization(self.through)
        try:
            if self.sock and self._has_ended():
                self.close()
            if not self.sock:
                self.connect()
            # A server that rejects a large body may respond and close before it has received all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.request(method, target, body, headers)
            self._response = self.getresponse()
        except BaseException:
            self.close()
            raise
        return self._response

    def finish(self) -> None:
        """Get ready for the next request; closes the connection if the response was not read to its end."""
        response, self._response = self._response, None
        if response:
            unread = not response.isclosed() and response.length != 0
            response.close()
            if unread:
                self.close()

    def _has_ended(self) -> bool:
        """Return whether the other side has closed an idle connection, or sent data without a request."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(0))

    def connect(self) -> None:
        """Connect to the host or the proxy; open the tunnel and start TLS where they are needed."""
        sock: Any = _reach(self.origin) if self.through is None else self._reach_proxy(self.through)
        try:
            if self.through and self.origin.scheme == "https":
                _open_tunnel(sock, self.through, self.origin)
            if self.origin.scheme == "https":
                sock = self._start_tls(sock, self.origin.host)
            sock.settimeout(READ_SECONDS)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def _reach_proxy(self, through: proxy.Proxy) -> Any:
        try:
            sock = _reach(through.origin)
            return self._start_tls(sock, through.origin.host) if through.origin.scheme == "https" else sock
        except network.Rejected:
            raise
        except OSError as error:
            raise network.ProxyFailed(f"the proxy cannot be reached: {network.why(error)}") from error

    def _start_tls(self, sock: Any, host: str) -> Any:
        if isinstance(sock, ssl.SSLSocket):
            # Only for https through an https proxy: Python has no TLS within TLS for sockets.
            from urllib3.util.ssltransport import SSLTransport

            return SSLTransport(sock, self._context, network.server_name(host))
        secured = network.start_tls(self._context, sock, host)
        try:
            secured.do_handshake()
        except BaseException:  # the time limit of the invocation, too
            secured.close()
            raise
        return secured


def _reach(origin: Origin) -> socket.socket:
    """Connect to the first address that answers."""
    # As bytes: Python would encode a text, and import its tables of Unicode characters for that.
    found = socket.getaddrinfo(origin.host.encode(), origin.port, type=socket.SOCK_STREAM)
    sock = reach.connect([(one[0], one[4]) for one in found], CONNECT_SECONDS)
    sock.settimeout(CONNECT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _open_tunnel(sock: Any, through: proxy.Proxy, origin: Origin) -> None:
    """Have a proxy connect to a host (CONNECT, RFC 9110 section 9.3.6); raise `network.ProxyFailed`."""
    try:
        sock.sendall(proxy.connect_request(through, origin))
        with Reply(sock, method="CONNECT") as response:
            response.begin()
    except OSError as error:
        reason = f"the proxy failed to open a tunnel: {network.why(error)}"
        raise network.ProxyFailed(reason) from error
    except http.client.HTTPException as error:
        raise network.ProxyFailed(network.NO_PROXY) from error
    if not 200 <= response.status < 300:
        raise network.no_tunnel(response.status)
