"""Sends one answer, whole or spoilt by a fault, and records it. Knows sockets, but no endpoint."""

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Protocol

from .faults import Fault, Faults
from .request_log import RequestLog, Seen
from .routing import Answer, Request, error_answer
from .validation import Refusal


class Broken(Exception):
    """The connection is at its end: by a fault, or because the client has gone."""


class Surroundings(Protocol):
    """What a transmission needs of its listener."""

    faults: Faults
    record: RequestLog
    stopping: threading.Event


def spoilt(fault: Fault | None, target: str) -> Answer | None:
    """The answer a fault gives in place of ours, None when ours shall be made."""
    if fault is None:
        return None
    body = fault.body.encode() if isinstance(fault.body, str) else fault.body
    if fault.redirect is not None:
        location = fault.redirect.replace("{target}", target)
        return Answer(fault.status or 302, {"Location": location, **fault.headers}, body)
    if fault.retry_after is not None:
        answer = error_answer(Refusal(429, "too many requests"))
        answer.headers["Retry-After"] = str(fault.retry_after)
        return answer
    if fault.status is not None:
        return Answer(fault.status, dict(fault.headers), body)
    return Answer(0) if fault.drop_before else None


def abort(connection: socket.socket, *, reset: bool) -> None:
    """End a connection without a word: no TLS goodbye, and RST in place of FIN if asked for."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The file objects made of the socket keep it open, so closing alone would not end it.
    descriptor = socket.socket.detach(connection)
    socket.close(descriptor)


class ResponseWriter:
    """One answer on its way out.

    One piece is always held back, and the request is recorded before the last one goes: the client cannot
    have the answer before `server.requests` has it.
    """

    def __init__(
        self,
        request: Request,
        answer: Answer,
        connection: socket.socket,
        surroundings: Surroundings,
        at: float,
        *,
        silent: bool,
    ) -> None:
        self.answer = answer
        self.fault = request.fault or Fault()
        bodiless = answer.status < 200 or answer.status in (204, 304)
        self.chunked = (self.fault.chunked or answer.length is None) and not bodiless
        self._request = request
        self._connection = connection
        self._around = surroundings
        self._at = at
        self._silent = silent
        self._held = b""
        self._held_body = 0
        self._sent = 0
        self._seen: Seen | None = None

    def send(self, head: bytes) -> None:
        """Send head and body as the fault, if any, will have it; `Broken` where that ends the connection."""
        fault = self.fault
        if fault.drop_before or fault.drop_after:
            self._record(0)
            abort(self._connection, reset=fault.reset)
            raise Broken
        try:
            self._hold(head, 0)
            bodiless = self._request.method == "HEAD" or self.answer.take_over is not None
            cut = False if bodiless else self._send_body()
            if self.chunked and not cut:
                self._hold(b"0\r\n\r\n", 0)
            self._record(self.answer.status)
            self._flush()
        except (OSError, Broken):
            self._record(self.answer.status)
            raise Broken from None
        if cut:
            abort(self._connection, reset=fault.reset)
            raise Broken

    def _send_body(self) -> bool:
        """Hold out the body piece by piece; tell whether it was cut."""
        fault = self.fault
        for piece in self._pieces():
            if fault.slow:
                self._flush()
                if self._around.stopping.wait(len(piece) / fault.slow):
                    raise Broken
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked and piece else piece
            self._hold(framed, len(piece))
            at = self._sent + self._held_body
            if at == fault.stall_after:
                self._stall()
            if at == fault.cut_after:
                return True
        return False

    def _pieces(self) -> Iterator[bytes]:
        """The body's pieces, divided where something happens; first an empty one if that is at the start."""
        fault, at = self.fault, 0
        points = sorted(p for p in (fault.cut_after, fault.stall_after) if p is not None)
        largest = max(1, int(fault.slow / 20)) if fault.slow else 1 << 30
        if 0 in points:
            yield b""
        for piece in self.answer.pieces():
            while piece:
                ahead = [p - at for p in points if p > at]
                part = piece[: min([largest, len(piece), *ahead])]
                piece = piece[len(part) :]
                at += len(part)
                yield part

    def _hold(self, piece: bytes, body: int) -> None:
        if self._held and len(self._held) + len(piece) > 65536:
            self._flush()
        self._held += piece
        self._held_body += body

    def _flush(self) -> None:
        if self._held:
            self._connection.sendall(self._held)
        self._sent += self._held_body
        self._held, self._held_body = b"", 0

    def _stall(self) -> None:
        self._flush()
        if not self._around.faults.stall(self._connection):
            raise Broken

    def _record(self, status: int) -> None:
        """Add the request to the record; a second time only corrects what was sent."""
        if self._silent:
            return
        if self._seen:
            self._around.record.correct(self._seen, self._sent)
            return
        request = self._request
        self._seen = Seen(
            request.method,
            request.path,
            request.query,
            request.headers,
            request.body,
            status,
            self._sent + self._held_body,
            request.origin,
            self._at,
        )
        self._around.record.add(self._seen)
