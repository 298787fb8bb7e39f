"""Requests, answers and the table of routes between them. Knows HTTP's words, but no socket."""

import json
import re
import socket
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

from . import gateway, go_json, validation
from .faults import Fault
from .validation import Refusal

CHUNK = 64 * 1024


@dataclass
class Request:
    """One request, its body read already unless the route asked to read it by itself."""

    origin: str
    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: Message
    client: str
    """The peer's address."""
    host: str
    """The name the client reached us by, for links that shall lead it back here."""
    length: int | None
    """Content-Length; None when the body is chunked."""
    body: bytes = b""
    chunks: Iterator[bytes] = iter(())
    """The body of a route with `streams`, piece by piece."""
    fault: Fault | None = None
    params: dict[str, str] = field(default_factory=dict)
    """The named parts of the route's path."""

    def check_json_type(self) -> None:
        """Refuse a body that does not call itself JSON."""
        validation.content_type(self.headers.get("Content-Type"), self.length)

    def object(self, into: str, prefix: str = "") -> dict[str, Any]:
        """Return the JSON object of the body; `into` is the Go type, and `prefix` precedes Go's words."""
        found: dict[str, Any] = self._json(dict, into, prefix)
        return found

    def list(self, into: str, prefix: str = "") -> list[Any]:
        """Return the JSON array of the body, likewise."""
        found: list[Any] = self._json(list, into, prefix)
        return found

    def _json(self, kind: Any, into: str, prefix: str) -> Any:
        try:
            return go_json.fit(go_json.decode_first(self.body), kind, into)
        except ValueError as error:
            raise Refusal(400, f"{prefix}{error}") from None

    @property
    def bearer(self) -> str:
        """Return the token, which the gate has looked at; empty if there is none."""
        try:
            return gateway.bearer(self.headers)
        except Refusal:
            return ""


@dataclass
class File:
    """A part of a file as a body; opened when the answer was made, so that replacing the file is harmless."""

    file: BinaryIO
    start: int
    length: int

    @classmethod
    def open(cls, path: Path, start: int, length: int) -> "File":
        """A part of the file at `path`."""
        return cls(path.open("rb"), start, length)

    def pieces(self) -> Iterator[bytes]:
        """The bytes, a chunk at a time."""
        self.file.seek(self.start)
        left = self.length
        while left and (piece := self.file.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece


TakeOver = Callable[[socket.socket, bytes], bool]
"""What is done with a connection, and with the bytes already read of it, after an answer 101.

It returns whether the two sides have said goodbye to each other.
"""


@dataclass
class Answer:
    """What the server has to say; Content-Length, Date and the request id are added on the way out."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | File | Generator[bytes, None, None] = b""
    """A generator's length is not known before its end: it goes out chunked."""
    take_over: TakeOver | None = None
    by_service: bool = True
    """Answers of a service bear a request id in a header, those of the gateway and the storage do not."""

    @property
    def length(self) -> int | None:
        """The body's length, if it is known."""
        if isinstance(self.body, bytes):
            return len(self.body)
        return self.body.length if isinstance(self.body, File) else None

    def pieces(self) -> Iterator[bytes]:
        """The body, a chunk at a time."""
        if isinstance(self.body, File):
            yield from self.body.pieces()
        elif isinstance(self.body, bytes):
            for at in range(0, len(self.body), CHUNK):
                yield self.body[at : at + CHUNK]
        else:
            yield from self.body

    def close(self) -> None:
        """Let go of the file or the generator, if there is one."""
        if isinstance(self.body, File):
            self.body.file.close()
        elif not isinstance(self.body, bytes):
            self.body.close()


def json_answer(status: int, body: Any, **headers: str) -> Answer:
    """An answer in JSON."""
    return Answer(status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode())


def error_answer(refusal: Refusal) -> Answer:
    """Return an error in the form of the Mender services."""
    request_id = str(uuid.uuid4())
    headers = {"X-MEN-RequestID": request_id, **refusal.headers}
    if refusal.text is None:
        return Answer(refusal.status, headers)
    body = {"error": refusal.text} | ({"request_id": request_id} if refusal.request_id else {})
    return json_answer(refusal.status, body, **headers)


def no_such_page() -> Answer:
    """Return what the gateway itself answers to a path that belongs to none of the services."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Answer(404, headers, b"404 page not found\n", by_service=False)


Handler = Callable[[Request], Answer]
Gate = Callable[[Request], Answer | None]  # None: let it pass


@dataclass(frozen=True)
class Route:
    """One endpoint; `{name}` in its path stands for one segment. HEAD goes wherever GET does."""

    method: str
    path: str
    handler: Handler
    streams: bool = False
    """The handler reads the body itself and takes the world's lock itself."""

    def match(self, path: str) -> dict[str, str] | None:
        """The path's named parts, None when it is another path."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        found = re.fullmatch(pattern, path)
        return found.groupdict() if found else None


class Site:
    """The routes of one origin and the gate before them."""

    def __init__(self, routes: list[Route], gate: Gate | None, lock: AbstractContextManager[Any]) -> None:
        self._routes = routes
        self._gate = gate
        self._lock = lock

    def route(self, method: str, path: str) -> Route | Refusal:
        """The route for a request, or the refusal to be made once the gate has been passed."""
        method = "GET" if method == "HEAD" else method
        fitting = [route for route in self._routes if route.match(path) is not None]
        for route in fitting:
            if route.method == method:
                return route
        if fitting:
            return Refusal(405, "method not allowed", request_id=gateway.identifies_refused_methods(path))
        return Refusal(404, "not found", request_id=False)

    def answer(self, request: Request, route: Route | Refusal) -> Answer:
        """Answer a request; every refusal becomes its error body here."""
        try:
            if self._gate:
                with self._lock:
                    refused = self._gate(request)
                if refused:
                    return refused
            if isinstance(route, Refusal):
                return error_answer(route)
            request.params = route.match(request.path) or {}
            if route.streams:
                return route.handler(request)
            with self._lock:
                return route.handler(request)
        except Refusal as refusal:
            return error_answer(refusal)
