"""A file to or from a device, as mender-server does it in management_filetransfer.go (4).

Numbers in brackets are sections of remote-terminal.md.
"""

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

from . import messages
from .messages import FILES, DecodeError, Message
from .relay import DeviceDisconnected, Session
from .validation import Refusal

CHUNK = 4096
WINDOW = 20 * CHUNK
ACK_EVERY = 10
UPLOAD_LIMIT = 1024 * 1024 * 1024
NOT_REGULAR = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
"""Go's os.ModeType: directory, symlink, device, pipe, socket, character device, irregular."""


class Transfer:
    """One transfer on a session of its own; each of its methods raises `Refusal` with the server's words.

    `seconds` is how long it waits for the device. A device that goes is found out at once here, and after
    `seconds` on the real server, with the same answer.
    """

    def __init__(self, session: Session, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    def open(self) -> None:
        """Agree with the device that files may be transferred."""
        self._control("open", {"versions": [1]})
        answer = self._receive()
        if answer.typ == "error":
            # The real server looks for the text in the wrong place and finds none.
            raise Refusal(500, "handshake error from client: handshake error from client: ")
        if answer.typ != "accept":
            raise Refusal(502, "file transfer not implemented on device")
        if FILES not in (_map(answer).get("protocols") or []):
            self.close()
            raise Refusal(502, "file transfer disabled on device")

    def close(self) -> None:
        """Tell the device that this was all."""
        with suppress(Refusal):
            self._control("close")

    def stat(self, path: str) -> dict[str, Any]:
        """What the device says of a regular file; 400 for anything else."""
        self._send("stat", messages.pack({"path": path}))
        answer = self._receive()
        if answer.typ == "error":
            refusal = _refusal(answer, 400)
            text = f"failed to retrieve file info: error received from device: {refusal.text}"
            raise Refusal(refusal.status, text)
        if answer.proto != FILES or answer.typ != "file_info":
            text = f'failed to retrieve file info: unexpected response from device "{answer.typ}"'
            raise Refusal(500, text)
        info = _map(answer)
        mode = info.get("mode")
        if not isinstance(mode, int) or mode & NOT_REGULAR:
            raise Refusal(400, "path is not a regular file")
        return info

    def download(self, path: str) -> Generator[bytes, None, None]:
        """The file's bytes. What goes wrong from here on ends them early; nobody is told (4)."""
        with suppress(Refusal):
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
                    raise Refusal(500, "file transfer failed: wrong offset received")
                yield message.body
                offset += len(message.body)
                chunks += 1
                if chunks % ACK_EVERY == 0:
                    self._send("ack", offset=offset)
            else:
                self._others(message, 500)

    def upload(self, request: dict[str, Any], pieces: Iterator[bytes]) -> None:
        """Send a file; returns once the device has acknowledged all of it."""
        self._send("put_file", messages.pack(request))
        answer = self._receive()
        if answer.typ != "ack":
            self._others(answer, 400)
        offset = acked = 0
        for chunk in _chunks(pieces):
            self._send("file_chunk", chunk, offset=offset)
            offset += len(chunk)
            if offset > UPLOAD_LIMIT:
                raise Refusal(413, "http: request body too large")
            acked = self._acknowledged(acked, at_least=offset - WINDOW)
        self._send("file_chunk", offset=offset)
        self._acknowledged(acked, at_least=offset)

    def _acknowledged(self, acked: int, at_least: int) -> int:
        """How far the device has come, once that is far enough."""
        while True:
            try:
                # Beyond what has to be waited for, only what is there already counts.
                message = self._receive(0 if acked >= at_least else self._seconds)
            except Refusal:
                if acked >= at_least:
                    return acked
                raise
            if message.typ == "ack":
                acked = max(acked, _offset(message) or 0)
            else:
                self._others(message, 400)

    def _others(self, message: Message, status: int) -> None:
        """What may come besides what is waited for."""
        if message.typ == "error":
            raise _refusal(message, status)
        if message.typ == "ping":
            self._control("pong")
        elif message.typ not in ("pong", "file_info", "ack", "file_chunk"):
            raise Refusal(500, f"unexpected message type '{message.typ}'")

    def _receive(self, seconds: float | None = None) -> Message:
        try:
            message = self._session.receive(self._seconds if seconds is None else seconds)
        except (TimeoutError, DeviceDisconnected):
            raise Refusal(408, "file transfer timed out") from None
        if message is None:
            raise Refusal(408, "file transfer timed out")
        return message

    def _send(self, typ: str, body: bytes = b"", **props: Any) -> None:
        try:
            self._session.send(messages.message(FILES, typ, body, **props))
        except DeviceDisconnected:
            raise Refusal(408, "file transfer timed out") from None

    def _control(self, typ: str, body: Any = None) -> None:
        try:
            self._session.control(typ, body)
        except DeviceDisconnected:
            raise Refusal(408, "file transfer timed out") from None


def _map(message: Message) -> dict[str, Any]:
    try:
        return messages.unpack_map(message.body)
    except DecodeError as error:
        raise Refusal(500, f"malformed message body from device: {error}") from None


def _refusal(message: Message, status: int) -> Refusal:
    """An error of the device as an answer; it may name the status itself (remote-terminal.md 2)."""
    said = _map(message)
    code = said.get("code")
    return Refusal(code if isinstance(code, int) and 100 <= code <= 599 else status, str(said.get("err", "")))


def _offset(message: Message) -> int | None:
    """The offset, if it is an int64 on the wire: any other is none to the real server (0)."""
    raw = message.raw.get("offset", b"")
    return int.from_bytes(raw[1:], signed=True) if raw[:1] == b"\xd3" else None


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, in chunks of the protocol's size."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) - len(rest) % CHUNK
        for at in range(0, whole, CHUNK):
            yield rest[at : at + CHUNK]
        rest = rest[whole:]
    if rest:
        yield rest
