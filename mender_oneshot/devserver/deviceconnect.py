"""What the endpoints of deviceconnect do, for devices and for users (remote-terminal.md 1, 4, 6 and 8)."""

import socket
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import multipart
from .faults import Fault, Faults
from .messages import CLIENT, message
from .model import Model
from .relay import DeviceDisconnected, Relay, Session
from .routing import Answer, Request, json_answer
from .transfers import Transfer
from .user_connection import UserConnection
from .validation import Refusal, rfc3339
from .websocket import ABNORMAL, WebSocket, accept

DISCONNECTED = "failed to connect to device: device disconnected"


@dataclass
class Limits:
    """What the real server has fixed; times in seconds.

    `session_bytes` is how much output of a terminal is recorded before the session is ended, None for no end;
    a device that is silent for twice `ping_seconds` is given up.
    """

    session_bytes: int | None
    ping_seconds: float
    transfer_seconds: float


@dataclass
class DeviceConnect:
    """The handlers, and the relay between the two sides."""

    world: Model
    faults: Faults
    limits: Limits

    def __post_init__(self) -> None:
        self.relay = Relay(self.world.clock, self.limits.ping_seconds)

    def stop(self) -> None:
        """Cut every device's connection."""
        self.relay.stop()

    def connect_device(self, request: Request) -> Answer:
        """Upgrade a device's connection; the gate has looked at its token."""
        headers = _upgrade(request)
        device = self.world.device_of(request.bearer)
        if device is None:
            raise Refusal(401, "dev auth: unauthorized")
        return Answer(101, headers, take_over=partial(self._serve_device, device.id, request.fault))

    def status(self, request: Request) -> Answer:
        """Whether a device is connected."""
        device = self.world.devices.get(request.params["id"])
        if device is None:
            raise Refusal(404, "device not found", request_id=False)
        life = self.relay.life(device.id)
        status = "connected" if life.line else "disconnected"
        times = {"created_ts": rfc3339(device.created), "updated_ts": rfc3339(life.changed or device.created)}
        return json_answer(200, {"device_id": device.id, "status": status, **times})

    def connect_user(self, request: Request) -> Answer:
        """Upgrade a user's connection, for a session with a device."""
        device_id = request.params["id"]
        if device_id not in self.relay.connected():
            raise Refusal(404, DISCONNECTED)
        take_over = partial(self._serve_user, device_id, self._user(request), request.fault)
        return Answer(101, _upgrade(request), take_over=take_over)

    def command(self, request: Request) -> Answer:
        """Have a device check for updates or send its inventory; what it answers is for nobody (6)."""
        session = self._session(request, Refusal(404, "device not connected"))
        try:
            session.send(message(CLIENT, request.path.rpartition("/")[2]), sid=False)
        except DeviceDisconnected:
            raise Refusal(404, "device not connected") from None
        finally:
            session.close()
        return json_answer(202, None)

    def download(self, request: Request) -> Answer:
        """A file off a device; HEAD asks only what it is."""
        path = _absolute(request.query.get("path"))
        session = self._session(request, Refusal(409, "device disconnected"))
        transfer = Transfer(session, self.limits.transfer_seconds)
        try:
            transfer.open()
            try:
                headers = _headers(transfer.stat(path))
            except Refusal:
                transfer.close()
                raise
        except Refusal:
            session.close()
            raise
        body = _body(session, transfer, path)
        next(body)  # a generator that was never begun cannot tidy up
        return Answer(200, headers, body)

    def upload(self, request: Request) -> Answer:
        """A file to a device. What the form says behind the file is not read: it may never be needed (4)."""
        kind = request.headers.get("Content-Type", "")
        received: list[str] = []

        def receive(part: multipart.Part) -> None:
            received.append(part.filename)
            self._upload(request, part)

        multipart.parse(kind, request.chunks, "file", receive)
        if not received:
            raise Refusal(400, "file: cannot be blank.")
        return Answer(201)

    def _upload(self, request: Request, part: multipart.Part) -> None:
        wanted = _upload_request(part)
        session = self._session(request, Refusal(409, "device disconnected"))
        transfer = Transfer(session, self.limits.transfer_seconds)
        try:
            transfer.open()
            try:
                transfer.upload(wanted, part.pieces)
            finally:
                transfer.close()
        finally:
            session.close()

    def _session(self, request: Request, refusal: Refusal) -> Session:
        """A new session with the device of a request's path."""
        with self.world.lock:
            self.world.device(request.params["id"])
        try:
            return self.relay.session(request.params["id"], self._user(request))
        except DeviceDisconnected:
            raise refusal from None

    def _user(self, request: Request) -> str:
        claims = self.world.signer.claims(request.bearer) or {}
        return str(claims.get("sub", ""))

    def _serve_device(self, device_id: str, fault: Fault | None, stream: socket.socket, early: bytes) -> bool:
        websocket = WebSocket(stream, early, fault, self.faults)
        return self.relay.serve(device_id, websocket) != ABNORMAL

    def _serve_user(
        self, device_id: str, user: str, fault: Fault | None, stream: socket.socket, early: bytes
    ) -> bool:
        websocket = WebSocket(stream, early, fault, self.faults)
        try:
            session = self.relay.session(device_id, user)
        except DeviceDisconnected:
            return False
        return UserConnection(websocket, session, self.limits.session_bytes).serve() != ABNORMAL


def _upgrade(request: Request) -> dict[str, str]:
    if request.method != "GET":
        raise Refusal(405, "websocket: the client is not using the websocket protocol: method is not GET")
    return accept(request.headers)


def _absolute(path: str | None) -> str:
    if not path:
        raise Refusal(400, "path: cannot be blank.")
    if not path.startswith("/"):
        raise Refusal(400, "path: must be absolute.")
    return path


def _headers(info: dict[str, Any]) -> dict[str, str]:
    """What a device says of a file, as headers."""
    headers = {"Content-Type": "application/octet-stream"}
    path = info.get("path")
    if isinstance(path, str):
        # Go writes a text's bytes as they are, but for the ends of lines.
        shown = path.encode("utf-8", "surrogateescape").decode("latin-1")
        shown = shown.replace("\r", " ").replace("\n", " ")
        headers["Content-Disposition"] = f'attachment; filename="{shown.rpartition("/")[2]}"'
        headers["X-MEN-File-Path"] = shown
    for name, form in (("uid", "d"), ("gid", "d"), ("mode", "o"), ("size", "d")):
        value = info.get(name)
        if isinstance(value, int):
            headers[f"X-MEN-File-{name.upper() if len(name) == 3 else name.title()}"] = format(value, form)
    return headers


def _body(session: Session, transfer: Transfer, path: str) -> Generator[bytes, None, None]:
    """The file, and the end of the transfer, even if nobody reads so far."""
    try:
        yield b""
        yield from transfer.download(path)
    finally:
        transfer.close()
        session.close()


def _upload_request(part: multipart.Part) -> dict[str, Any]:
    wanted: dict[str, Any] = {"src_path": part.filename, "path": _absolute(part.fields.get("path"))}
    for name, base in (("uid", 10), ("gid", 10), ("mode", 8)):
        if name in part.fields:
            try:
                wanted[name] = int(part.fields[name], base)
            except ValueError:
                text = f'strconv.Atoi: parsing "{part.fields[name]}": invalid syntax'
                raise Refusal(400, text) from None
    return wanted
