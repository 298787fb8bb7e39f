"""The handlers of deviceconnect, for devices and for users (remote-terminal.md 1, 4, 6 and 8)."""

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
from .routing import Request, Response, json_response
from .transfers import Transfer
from .user_connection import UserConnection
from .validation import HTTPError, rfc3339
from .websocket import ABNORMAL, WebSocket, accept

DISCONNECTED = "failed to connect to device: device disconnected"


@dataclass
class Limits:
    """Limits that are fixed on the real server; times in seconds.

    A session ends after `session_bytes` of terminal output (None: no limit); a device that is silent for
    twice `ping_seconds` is disconnected.
    """

    session_bytes: int | None
    ping_seconds: float
    transfer_seconds: float


@dataclass
class DeviceConnect:
    """The handlers, and the relay between devices and users.

    The handlers raise HTTPError with the status and the message of the real server.
    """

    model: Model
    faults: Faults
    limits: Limits

    def __post_init__(self) -> None:
        self.relay = Relay(self.model.clock, self.limits.ping_seconds)

    def stop(self) -> None:
        """Cut the connection of every device."""
        self.relay.stop()

    def connect_device(self, request: Request) -> Response:
        """Upgrade a device's connection; the gate has checked its token."""
        headers = _upgrade(request)
        device = self.model.device_of(request.bearer)
        if device is None:
            raise HTTPError(401, "dev auth: unauthorized")
        return Response(101, headers, take_over=partial(self._serve_device, device.id, request.fault))

    def status(self, request: Request) -> Response:
        """Return whether a device is connected."""
        device = self.model.devices.get(request.params["id"])
        if device is None:
            raise HTTPError(404, "device not found", request_id=False)
        connections = self.relay.connections(device.id)
        status = "connected" if connections.current else "disconnected"
        times = {
            "created_ts": rfc3339(device.created),
            "updated_ts": rfc3339(connections.changed_at or device.created),
        }
        return json_response(200, {"device_id": device.id, "status": status, **times})

    def connect_user(self, request: Request) -> Response:
        """Upgrade a user's connection, for a session with a device."""
        device_id = request.params["id"]
        if device_id not in self.relay.connected():
            raise HTTPError(404, DISCONNECTED)
        take_over = partial(self._serve_user, device_id, self._user(request), request.fault)
        return Response(101, _upgrade(request), take_over=take_over)

    def command(self, request: Request) -> Response:
        """Have a device check for updates or send its inventory.

        The device's reply is discarded, as on the real server (section 6).
        """
        session = self._session(request, HTTPError(404, "device not connected"))
        try:
            session.send(message(CLIENT, request.path.rpartition("/")[2]), sid=False)
        except DeviceDisconnected:
            raise HTTPError(404, "device not connected") from None
        finally:
            session.close()
        return json_response(202, None)

    def download(self, request: Request) -> Response:
        """Return a file of a device; for HEAD, only its attributes."""
        path = _absolute(request.query.get("path"))
        session = self._session(request, HTTPError(409, "device disconnected"))
        transfer = Transfer(session, self.limits.transfer_seconds)
        try:
            transfer.open()
            try:
                headers = _headers(transfer.stat(path))
            except HTTPError:
                transfer.close()
                raise
        except HTTPError:
            session.close()
            raise
        body = _body(session, transfer, path)
        next(body)  # a generator that was never started would not run its `finally`
        return Response(200, headers, body)

    def upload(self, request: Request) -> Response:
        """Send a file to a device; the fields after the file are not read, as on the real server (4)."""
        kind = request.headers.get("Content-Type", "")
        received: list[str] = []

        def receive(part: multipart.Part) -> None:
            received.append(part.filename)
            self._upload(request, part)

        multipart.parse(kind, request.chunks, "file", receive)
        if not received:
            raise HTTPError(400, "file: cannot be blank.")
        return Response(201)

    def _upload(self, request: Request, part: multipart.Part) -> None:
        attributes = _file_attributes(part)
        session = self._session(request, HTTPError(409, "device disconnected"))
        transfer = Transfer(session, self.limits.transfer_seconds)
        try:
            transfer.open()
            try:
                transfer.upload(attributes, part.pieces)
            finally:
                transfer.close()
        finally:
            session.close()

    def _session(self, request: Request, error: HTTPError) -> Session:
        """Open a session with the device in a request's path; raise `error` if it is not connected."""
        with self.model.lock:
            self.model.device(request.params["id"])
        try:
            return self.relay.session(request.params["id"], self._user(request))
        except DeviceDisconnected:
            raise error from None

    def _user(self, request: Request) -> str:
        claims = self.model.signer.claims(request.bearer) or {}
        return str(claims.get("sub", ""))

    def _serve_device(
        self, device_id: str, fault: Fault | None, stream: socket.socket, buffered: bytes
    ) -> bool:
        websocket = WebSocket(stream, buffered, fault, self.faults)
        return self.relay.serve(device_id, websocket) != ABNORMAL

    def _serve_user(
        self, device_id: str, user: str, fault: Fault | None, stream: socket.socket, buffered: bytes
    ) -> bool:
        websocket = WebSocket(stream, buffered, fault, self.faults)
        try:
            session = self.relay.session(device_id, user)
        except DeviceDisconnected:
            return False
        return UserConnection(websocket, session, self.limits.session_bytes).serve() != ABNORMAL


def _upgrade(request: Request) -> dict[str, str]:
    if request.method != "GET":
        raise HTTPError(405, "websocket: the client is not using the websocket protocol: method is not GET")
    return accept(request.headers)


def _absolute(path: str | None) -> str:
    if not path:
        raise HTTPError(400, "path: cannot be blank.")
    if not path.startswith("/"):
        raise HTTPError(400, "path: must be absolute.")
    return path


def _headers(info: dict[str, Any]) -> dict[str, str]:
    """Return the attributes of a device's file as headers."""
    headers = {"Content-Type": "application/octet-stream"}
    path = info.get("path")
    if isinstance(path, str):
        # Go writes the bytes of a string unchanged, except for line ends.
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
    """Yield the file, then end the transfer, even if it is not read to the end."""
    try:
        yield b""
        yield from transfer.download(path)
    finally:
        transfer.close()
        session.close()


def _file_attributes(part: multipart.Part) -> dict[str, Any]:
    attributes: dict[str, Any] = {"src_path": part.filename, "path": _absolute(part.fields.get("path"))}
    for name, base in (("uid", 10), ("gid", 10), ("mode", 8)):
        if name in part.fields:
            try:
                attributes[name] = int(part.fields[name], base)
            except ValueError:
                text = f'strconv.Atoi: parsing "{part.fields[name]}": invalid syntax'
                raise HTTPError(400, text) from None
    return attributes
