"""File transfers from and to a device, as in management_filetransfer.go of mender-server (4).

Numbers in brackets are sections of remote-terminal.md.
"""

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

from . import messages
from .messages import FILES, DecodeError, Message
from .relay import DeviceDisconnected, Session
from .validation import HTTPError

CHUNK = 4096
WINDOW = 20 * CHUNK
ACK_EVERY = 10
UPLOAD_LIMIT = 1024 * 1024 * 1024
NOT_REGULAR = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""Go's os.ModeType: directory, symlink, device, pipe, socket, character device, irregular."""


class Transfer:
    """One transfer in a session of its own; all methods raise `HTTPError` with the server's message.

    `seconds` is how long to wait for the device. If the device disconnects, the error is raised at once, on
    the real server after `seconds`.
    """

    def __init__(self, session: Session, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    def open(self) -> None:
        """Agree with the device on file transfer."""
        self._control("open", {"versions": [1]})
        reply = self._receive()
        if reply.typ == "error":
            # The real server reads the text from the wrong place and finds none.
            raise HTTPError(500, "handshake error from client: handshake error from client: ")
        if reply.typ != "accept":
            raise HTTPError(502, "file transfer not implemented on device")
        if FILES not in (_map(reply).get("protocols") or []):
            self.close()
            raise HTTPError(502, "file transfer disabled on device")

    def close(self) -> None:
        """End the transfer; a device that has disconnected is ignored."""
        with suppress(HTTPError):
            self._control("close")

    def stat(self, path: str) -> dict[str, Any]:
        """Return the device's description of a regular file; raise HTTPError 400 for any other."""
        self._send("stat", messages.pack({"path": path}))
        reply = self._receive()
        if reply.typ == "error":
            error = _device_error(reply, 400)
            text = f"failed to retrieve file info: error received from device: {error.text}"
            raise HTTPError(error.status, text)
        if reply.proto != FILES or reply.typ != "file_info":
            text = f'failed to retrieve file info: unexpected response from device "{reply.typ}"'
            raise HTTPError(500, text)
        info = _map(reply)
        mode = info.get("mode")
        if not isinstance(mode, int) or mode & NOT_REGULAR:
            raise HTTPError(400, "path is not a regular file")
        return info

    def download(self, path: str) -> Generator[bytes, None, None]:
        """Yield the bytes of a file; an error ends them early, without notice (4)."""
        with suppress(HTTPError):
            yield from self._download(path)

    def _download(self, path: str) -> Iterator[bytes]:
        self._send("get_file", messages.pack({"path": path}))
        offset = chunks = 0
        while True:
            message = self._receive()
            if message.typ == "file_chunk":
                if not message.body:
                    self._send("ack", offset=offset)
                    return
                if _offset(message) != offset:
                    raise HTTPError(500, "file transfer failed: wrong offset received")
                yield message.body
                offset += len(message.body)
                chunks += 1
                if chunks % ACK_EVERY == 0:
                    self._send("ack", offset=offset)
            else:
                self._handle_other(message, 500)

    def upload(self, request: dict[str, Any], pieces: Iterator[bytes]) -> None:
        """Send a file; return when the device has acknowledged all of it."""
        self._send("put_file", messages.pack(request))
        reply = self._receive()
        if reply.typ != "ack":
            self._handle_other(reply, 400)
        offset = acked = 0
        for chunk in _chunks(pieces):
            self._send("file_chunk", chunk, offset=offset)
            offset += len(chunk)
            if offset > UPLOAD_LIMIT:
                raise HTTPError(413, "http: request body too large")
            acked = self._wait_for_ack(acked, at_least=offset - WINDOW)
        self._send("file_chunk", offset=offset)
        self._wait_for_ack(acked, at_least=offset)

    def _wait_for_ack(self, acked: int, at_least: int) -> int:
        """Return how many bytes are acknowledged; block until there are at least `at_least`."""
        while True:
            try:
                # Once enough is acknowledged, take only messages that have already arrived.
                message = self._receive(0 if acked >= at_least else self._seconds)
            except HTTPError:
                if acked >= at_least:
                    return acked
                raise
            if message.typ == "ack":
                acked = max(acked, _offset(message) or 0)
            else:
                self._handle_other(message, 400)

    def _handle_other(self, message: Message, status: int) -> None:
        """Handle a message other than the expected one."""
        if message.typ == "error":
            raise _device_error(message, status)
        if message.typ == "ping":
            self._control("pong")
        elif message.typ not in ("pong", "file_info", "ack", "file_chunk"):
            raise HTTPError(500, f"unexpected message type '{message.typ}'")

    def _receive(self, seconds: float | None = None) -> Message:
        try:
            message = self._session.receive(self._seconds if seconds is None else seconds)
        except (TimeoutError, DeviceDisconnected):
            raise HTTPError(408, "file transfer timed out") from None
        if message is None:
            raise HTTPError(408, "file transfer timed out")
        return message

    def _send(self, typ: str, body: bytes = b"", **props: Any) -> None:
        try:
            self._session.send(messages.message(FILES, typ, body, **props))
        except DeviceDisconnected:
            raise HTTPError(408, "file transfer timed out") from None

    def _control(self, typ: str, body: Any = None) -> None:
        try:
            self._session.control(typ, body)
        except DeviceDisconnected:
            raise HTTPError(408, "file transfer timed out") from None


def _map(message: Message) -> dict[str, Any]:
    try:
        return messages.unpack_map(message.body)
    except DecodeError as error:
        raise HTTPError(500, f"malformed message body from device: {error}") from None


def _device_error(message: Message, status: int) -> HTTPError:
    """Return an error of the device as an HTTPError; it may contain the status (remote-terminal.md 2)."""
    details = _map(message)
    code = details.get("code")
    return HTTPError(
        code if isinstance(code, int) and 100 <= code <= 599 else status, str(details.get("err", ""))
    )


def _offset(message: Message) -> int | None:
    """Return the offset if it is encoded as an int64: the real server ignores any other encoding (0)."""
    raw = message.raw.get("offset", b"")
    return int.from_bytes(raw[1:], signed=True) if raw[:1] == b"\xd3" else None


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in chunks of the protocol's size."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % CHUNK
        for at in range(0, whole, CHUNK):
            yield rest[at : at + CHUNK]
        rest = rest[whole:]
    if rest:
        yield rest
