"""Writes one HTTP response, which a fault may replace, change or interrupt, and logs the request."""

from .faults import Fault
from .faulty_socket import FaultySocket
from .request_log import RequestLog, Seen
from .routing import Request, Response, error_response
from .validation import HTTPError

HELD_LIMIT = 65536


class ConnectionBroken(Exception):
    """The connection cannot be used any longer: a fault has ended it, or the client has disconnected."""


def substitute(fault: Fault | None, target: str) -> Response | None:
    """Return the response that the fault substitutes, or None to handle the request normally."""
    if fault is None:
        return None
    body = fault.body.encode() if isinstance(fault.body, str) else fault.body
    if fault.redirect is not None:
        location = fault.redirect.replace("{target}", target)
        return Response(fault.status or 302, {"Location": location, **fault.headers}, body)
    if fault.retry_after is not None:
        response = error_response(HTTPError(429, "too many requests"))
        response.headers["Retry-After"] = str(fault.retry_after)
        return response
    if fault.status is not None:
        return Response(fault.status, dict(fault.headers), body)
    return Response(0) if fault.drop_before else None


class ResponseWriter:
    """Writes one response to a connection and adds the request to the log, unless `log` is None.

    The last piece is held back until the request has been logged: when the client has the response,
    `server.requests` has the request.
    """

    def __init__(
        self,
        request: Request,
        response: Response,
        connection: FaultySocket,
        log: RequestLog | None,
        at: float,
    ) -> None:
        self.response = response
        self.fault = connection.fault
        bodiless = response.status < 200 or response.status in (204, 304)
        self.chunked = (self.fault.chunked or response.length is None) and not bodiless
        self._request = request
        self._connection = connection
        self._log = log
        self._at = at
        self._held = b""
        self._held_body = 0
        self._seen: Seen | None = None

    def send(self, head: bytes) -> None:
        """Send head and body; raise `ConnectionBroken` if the fault or the client ends the connection."""
        if self.fault.drop_before or self.fault.drop_after:
            self._record(0)
            self._connection.abort(reset=self.fault.reset)
            raise ConnectionBroken
        try:
            self._hold(head, 0)
            if self._request.method != "HEAD" and self.response.take_over is None:
                self._send_body()
                if self.chunked:
                    self._hold(b"0\r\n\r\n", 0)
            self._record(self.response.status)
            self._flush()
        except OSError:
            self._record(self.response.status)
            raise ConnectionBroken from None

    def _send_body(self) -> None:
        for piece in self.response.pieces():
            rest = piece
            while rest:
                part = rest[: self._room()]
                rest = rest[len(part) :]
                self._hold(b"%x\r\n%b\r\n" % (len(part), part) if self.chunked else part, len(part))
        self._room()

    def _room(self) -> int:
        """Return how many bytes of the body may follow; first let the fault act if that is due."""
        if self._connection.room() <= self._held_body:
            if self._connection.is_cut_within(self._held_body):
                self._record(self.response.status)
            self._flush()
            self._connection.act_or_raise()
        return self._connection.room() - self._held_body

    def _hold(self, data: bytes, counted: int) -> None:
        if self._held and len(self._held) + len(data) > HELD_LIMIT:
            self._flush()
        self._held += data
        self._held_body += counted

    def _flush(self) -> None:
        held, counted = self._held, self._held_body
        self._held, self._held_body = b"", 0
        self._connection.sendall(held, counted)

    def _record(self, status: int) -> None:
        """Log the request; the second time, only correct the number of bytes sent."""
        if self._log is None:
            return
        if self._seen:
            self._log.correct(self._seen, self._connection.passed)
            return
        request = self._request
        self._seen = Seen(
            request.method,
            request.path,
            request.query,
            request.headers,
            request.body,
            status,
            self._connection.passed + self._held_body,
            request.origin,
            self._at,
        )
        self._log.add(self._seen)
