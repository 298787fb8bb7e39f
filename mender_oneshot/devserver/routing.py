"""Requests, responses and the routes between them: HTTP without sockets."""

import json
import re
import socket
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import Message as Headers
from pathlib import Path
from typing import Any, BinaryIO

from . import gateway, go_json, validation
from .faults import Fault
from .validation import HTTPError

CHUNK = 64 * 1024


@dataclass
class Request:
    """One request; the body has been read unless the route streams it."""

    origin: str
    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: Headers
    client: str
    """The address of the peer."""
    own_address: str
    """The address of this machine to which the peer has connected."""
    host: str
    """The host name that the client used, for links that lead back to this server."""
    length: int | None
    """Content-Length; None for a chunked body."""
    body: bytes = b""
    chunks: Iterator[bytes] = iter(())
    """The body of a route with `streams`, piece by piece."""
    fault: Fault | None = None
    params: dict[str, str] = field(default_factory=dict)
    """The named segments of the path."""

    def check_json_type(self) -> None:
        """Raise HTTPError 415 or 400 unless the body is declared as JSON."""
        validation.check_content_type(self.headers.get("Content-Type"), self.length)

    def object(self, into: str, prefix: str = "") -> dict[str, Any]:
        """Return the JSON object of the body; raise HTTPError 400 with Go's error message.

        `into` is the name of the Go type in that message, and `prefix` precedes it.
        """
        value: dict[str, Any] = self._json(dict, into, prefix)
        return value

    def list(self, into: str, prefix: str = "") -> list[Any]:
        """Return the JSON array of the body; otherwise like `object`."""
        value: list[Any] = self._json(list, into, prefix)
        return value

    def _json(self, kind: Any, into: str, prefix: str) -> Any:
        try:
            return go_json.fit(go_json.decode_first(self.body), kind, into)
        except ValueError as error:
            raise HTTPError(400, f"{prefix}{error}") from None

    @property
    def bearer(self) -> str:
        """The bearer token, whose format the gate has checked; empty if there is none."""
        try:
            return gateway.bearer_token(self.headers)
        except HTTPError:
            return ""


@dataclass
class File:
    """Part of a file as a response body.

    It is opened when the response is made, so that the file may be replaced while it is sent.
    """

    file: BinaryIO
    start: int
    length: int

    @classmethod
    def open(cls, path: Path, start: int, length: int) -> "File":
        """Open the file at `path` for `length` bytes from `start`."""
        return cls(path.open("rb"), start, length)

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in chunks."""
        self.file.seek(self.start)
        left = self.length
        while left and (piece := self.file.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece


TakeOver = Callable[[socket.socket, bytes], bool]
"""Takes over a connection after a 101, with the bytes already read from it; returns whether it was closed
cleanly."""


@dataclass
class Response:
    """One response; Content-Length, Date and the request id are added when it is sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | File | Generator[bytes, None, None] = b""
    """The length of a generator is unknown, so it is sent chunked."""
    take_over: TakeOver | None = None
    by_service: bool = True
    """Whether a service responds, with a request id in a header; not the gateway or the storage."""

    @property
    def length(self) -> int | None:
        """The length of the body in bytes, None if unknown."""
        if isinstance(self.body, bytes):
            return len(self.body)
        return self.body.length if isinstance(self.body, File) else None

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in chunks."""
        if isinstance(self.body, File):
            yield from self.body.pieces()
        elif isinstance(self.body, bytes):
            for at in range(0, len(self.body), CHUNK):
                yield self.body[at : at + CHUNK]
        else:
            yield from self.body

    def close(self) -> None:
        """Close the file or the generator, if any."""
        if isinstance(self.body, File):
            self.body.file.close()
        elif not isinstance(self.body, bytes):
            self.body.close()


def json_response(status: int, body: Any, **headers: str) -> Response:
    """Return a response with a JSON body."""
    return Response(status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode())


def error_response(error: HTTPError) -> Response:
    """Return an error as the Mender services send it."""
    request_id = str(uuid.uuid4())
    headers = {"X-MEN-RequestID": request_id, **error.headers}
    if error.text is None:
        return Response(error.status, headers)
    body = {"error": error.text} | ({"request_id": request_id} if error.request_id else {})
    return json_response(error.status, body, **headers)


def not_found_page() -> Response:
    """Return the gateway's own response, for a path that belongs to no service."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Response(404, headers, b"404 page not found\n", by_service=False)


Handler = Callable[[Request], Response]
"""Handles a request; raises HTTPError to respond with an error."""
Gate = Callable[[Request], Response | None]
"""Checks a request; returns None if it may pass, a response to send instead, or raises HTTPError."""


@dataclass(frozen=True)
class Route:
    """One endpoint; `{name}` in its path stands for one segment. A HEAD request takes the route of GET."""

    method: str
    path: str
    handler: Handler
    streams: bool = False
    """Whether the handler reads the body and takes the model's lock itself."""

    def match(self, path: str) -> dict[str, str] | None:
        """Return the named segments of a path, None if the path does not match."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        match = re.fullmatch(pattern, path)
        return match.groupdict() if match else None


class Site:
    """The routes of one origin, and the gate that each request passes first."""

    def __init__(self, routes: list[Route], gate: Gate | None, lock: AbstractContextManager[Any]) -> None:
        self._routes = routes
        self._gate = gate
        self._lock = lock

    def route(self, method: str, path: str) -> Route | HTTPError:
        """Return the route of a request, or the error to send after the gate."""
        method = "GET" if method == "HEAD" else method
        matching = [route for route in self._routes if route.match(path) is not None]
        for route in matching:
            if route.method == method:
                return route
        if matching:
            return HTTPError(405, "method not allowed", request_id=gateway.identifies_405(path))
        return HTTPError(404, "not found", request_id=False)

    def respond(self, request: Request, route: Route | HTTPError) -> Response:
        """Handle a request; an HTTPError of the gate or the handler becomes the response."""
        try:
            if self._gate:
                with self._lock:
                    rejected = self._gate(request)
                if rejected:
                    return rejected
            if isinstance(route, HTTPError):
                return error_response(route)
            request.params = route.match(request.path) or {}
            if route.streams:
                return route.handler(request)
            with self._lock:
                return route.handler(request)
        except HTTPError as error:
            return error_response(error)
