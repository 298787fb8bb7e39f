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
from urllib.parse import unquote

from mender_oneshot.devserver import rules
from mender_oneshot.devserver.faults import Fault
from mender_oneshot.devserver.rules import Refusal

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

    def json(self) -> Any:
        """The body, decoded, with the checks of the real server's middleware before it."""
        rules.content_type(self.headers.get("Content-Type"), self.length)
        return rules.parse_json(self.body)

    @property
    def raw_path(self) -> str:
        """The path as it was sent, where an encoded slash is not the end of a segment."""
        return self.target.partition("?")[0]

    @property
    def bearer(self) -> str | None:
        """The token of the Authorization header, or else of the cookie JWT (remote-terminal.md 1)."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if not scheme:
            pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
            token = next((value for name, _, value in pairs if name == "JWT"), "")
            scheme = "bearer"
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


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
    """An error as every Mender service says it (device-api.md 1.4)."""
    request_id = str(uuid.uuid4())
    body = {"error": refusal.text, "request_id": request_id}
    return json_answer(refusal.status, body, **{"X-MEN-RequestID": request_id})


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
        return Refusal(405, "method not allowed") if fitting else Refusal(404, "not found")

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
            found = route.match(request.raw_path) or {}
            request.params = {name: unquote(part) for name, part in found.items()}
            if route.streams:
                return route.handler(request)
            with self._lock:
                return route.handler(request)
        except Refusal as refusal:
            return error_answer(refusal)
