"""A WebSocket client that sends what a test wants, and checks nothing."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
)
from wsproto.utilities import LocalProtocolError

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.messages import Message, decode, message

DEVICE = "/api/devices/v1/deviceconnect/connect"
USERS = "/api/management/v1/deviceconnect/devices/{}/connect"


class ConnectionClosed(Exception):
    """The peer closed; `code` is 1006 if it sent no close frame."""

    def __init__(self, code: int, reason: str | None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class HandshakeRejected(Exception):
    """The handshake was answered with an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class RawSocket:
    """One connection; every wait times out after `timeout` seconds."""

    def __init__(self, server: DevServer, path: str, *headers: tuple[str, str], timeout: float = 20) -> None:
        split = urlsplit(server.url)
        assert split.hostname
        self.stream = socket.create_connection((split.hostname, split.port or 0), timeout=timeout)
        if split.scheme == "https":
            context = ssl.create_default_context(cafile=str(server.ca))
            self.stream = context.wrap_socket(self.stream, server_hostname=split.hostname)
        self.pings: list[bytes] = []
        self.answer: AcceptConnection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._parts: list[bytes] = []
        sent = [(name.encode(), value.encode()) for name, value in headers]
        try:
            self.put(Request(host=split.hostname, target=path, extra_headers=sent))
            answer = self.event()
            if isinstance(answer, RejectConnection):
                raise HandshakeRejected(answer.status_code)
            assert isinstance(answer, AcceptConnection)
            self.answer = answer
        except BaseException:
            self.stream.close()
            raise

    def put(self, event: Event) -> None:
        """Send an event of wsproto."""
        self.stream.sendall(self._protocol.send(event))

    def raw(self, data: bytes) -> None:
        """Send a binary message."""
        self.put(BytesMessage(data=data))

    def say(self, envelope: Message) -> None:
        """Send a message of deviceconnect."""
        self.raw(envelope.encode())

    def reply(self, to: Message, typ: str, body: bytes = b"", **props: Any) -> None:
        """Send an answer in the session of a message."""
        made = message(to.proto, typ, body, **props)
        self.say(Message(made.proto, made.typ, to.sid, made.raw, made.body))

    def event(self) -> Event:
        """Return the next event; pings are recorded in `pings`, and not answered."""
        while True:
            for event in self._protocol.events():
                if isinstance(event, Ping):
                    self.pings.append(bytes(event.payload))
                elif isinstance(event, CloseConnection):
                    with contextlib.suppress(OSError, LocalProtocolError):
                        self.put(event.response())
                    raise ConnectionClosed(event.code, event.reason)
                else:
                    return event
            try:
                data = self.stream.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                raise ConnectionClosed(1006, "reset") from None
            if not data:
                raise ConnectionClosed(1006, None)
            self._protocol.receive_data(data)

    def hear(self) -> Message:
        """Return the next message."""
        while True:
            event = self.event()
            assert isinstance(event, BytesMessage), event
            self._parts.append(bytes(event.data))
            if event.message_finished:
                parts, self._parts = self._parts, []
                return decode(b"".join(parts))

    def end(self) -> ConnectionClosed:
        """Read until the peer closes."""
        with contextlib.suppress(TimeoutError):
            while True:
                try:
                    self.event()
                except ConnectionClosed as ended:
                    return ended
        raise AssertionError("the peer did not close")

    def close(self) -> None:
        """Close the socket without a close frame."""
        self.stream.close()


@contextlib.contextmanager
def device_socket(server: DevServer, token: str, **options: Any) -> Iterator[RawSocket]:
    """Provide the connection of a device."""
    headers = (("Authorization", f"Bearer {token}"),)
    with contextlib.closing(RawSocket(server, DEVICE, *headers, **options)) as made:
        yield made


@contextlib.contextmanager
def user_socket(server: DevServer, device_id: str, token: str) -> Iterator[RawSocket]:
    """Provide the connection of a user to a device."""
    headers = (("Authorization", f"Bearer {token}"),)
    with contextlib.closing(RawSocket(server, USERS.format(device_id), *headers)) as made:
        yield made
