"""A device that takes part in file transfers of the development server as a test scripts it."""

import threading
from collections.abc import Callable
from typing import Any

from helpers.raw_socket import RawSocket
from mender_oneshot.devserver import messages
from mender_oneshot.devserver.messages import Message


class ScriptedDevice:
    """A device that handles each message of a transfer with the next of some functions, in its own thread."""

    def __init__(self, device: RawSocket, *steps: Callable[[Message], None]) -> None:
        self.received: list[Message] = []
        self._device = device
        self._steps = steps
        self._thread = threading.Thread(target=self._play)

    def __enter__(self) -> "ScriptedDevice":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _play(self) -> None:
        for step in self._steps:
            self.received.append(self._device.hear())
            step(self.received[-1])


def accepting(device: RawSocket, *protocols: int) -> Callable[[Message], None]:
    """Return a step that accepts a handshake for some protocols."""
    body = messages.pack({"version": 1, "protocols": list(protocols)})
    return lambda message: device.reply(message, "accept", body)


def error(device: RawSocket, **details: Any) -> Callable[[Message], None]:
    """Return a step that replies with an error."""
    return lambda message: device.reply(message, "error", messages.pack(details))


def info(device: RawSocket, **more: Any) -> Callable[[Message], None]:
    """Return a step that replies to `stat` with a regular file."""
    details = {"path": "/a/b c", "size": 6, "uid": 3, "gid": 4, "mode": 0o640} | more
    return lambda message: device.reply(message, "file_info", messages.pack(details))


def ignore(message: Message) -> None:
    """Do not reply."""


class Upload:
    """A step that receives one file."""

    def __init__(self, device: RawSocket) -> None:
        self.content = b""
        self.attributes: dict[str, Any] = {}
        self.ahead = 0
        self._device = device

    def __call__(self, message: Message) -> None:
        self.attributes = messages.unpack_map(message.body)
        self._device.reply(message, "ack", offset=0)
        acked = 0
        while chunk := self._device.hear():
            assert (chunk.typ, chunk.props["offset"]) == ("file_chunk", len(self.content))
            if not chunk.body:
                break
            self.content += chunk.body
            self.ahead = max(self.ahead, len(self.content) - acked)
            if len(self.content) - acked > 20 * 4096:
                acked = len(self.content)
                self._device.reply(message, "ack", offset=acked)
        self._device.reply(message, "ack", offset=len(self.content))


def form(*fields: tuple[str, bytes], name: bytes = b"some name", content: bytes = b"x") -> bytes:
    """Return a form as mender-cli writes it: the mode comes last, and is ignored there."""
    head = b"--B\r\nContent-Disposition: form-data; name="
    parts = [head + b'"%b"\r\n\r\n%b\r\n' % (key.encode(), value) for key, value in fields]
    file = head + b'"file"; filename="%b"\r\nContent-Type: x/y\r\n\r\n%b\r\n' % (name, content)
    return b"".join([*parts, file, head + b'"mode"\r\n\r\n777\r\n--B--\r\n'])


FORM = {"Content-Type": "multipart/form-data; boundary=B"}
