"""Connects a user's WebSocket to a session with a device, as `management.go` of mender-server does."""

import threading

from . import messages
from .messages import DecodeError, Message
from .relay import DeviceDisconnected, Session
from .websocket import ABNORMAL, ConnectionClosed, WebSocket

LIMIT = "session byte limit exceeded"


class UserConnection:
    """One user's connection; it ends after `session_bytes` of terminal output (None: no limit)."""

    def __init__(self, websocket: WebSocket, session: Session, session_bytes: int | None) -> None:
        self._websocket = websocket
        self._session = session
        self._bytes_left = session_bytes
        self._shell = False

    def serve(self) -> int:
        """Relay in both directions until the user's connection ends; return the close code."""
        writer = threading.Thread(target=self._write, name=f"devserver-user-{self._session.sid}", daemon=True)
        writer.start()
        try:
            while True:
                self._forward(messages.decode(self._websocket.receive()))
        except ConnectionClosed as ended:
            return ended.code
        except DeviceDisconnected:
            return ABNORMAL  # without a close frame, at the user's next key: remote-terminal.md 8
        except DecodeError:
            self._websocket.close_and_wait(1011, "internal error")
            return 1011
        finally:
            if self._shell:
                self._session.stop("user disconnected")
            self._session.close()
            self._websocket.release()
            writer.join()

    def _forward(self, message: Message) -> None:
        if message.proto == messages.SHELL and message.typ in ("new", "stop"):
            self._shell = message.typ == "new"
        self._session.send(message)

    def _write(self) -> None:
        """Forward the device's messages; a disconnected device is not noticed here."""
        while message := self._session.receive(ignore_disconnect=True):
            if message.proto == messages.SHELL and message.typ == "shell" and self._bytes_left is not None:
                if self._bytes_left <= 0:
                    self._session.stop(LIMIT)
                    self._websocket.close(1008, "session byte limit exhausted")
                    return
                self._bytes_left -= len(message.body)
            try:
                self._websocket.send(message.encode())
            except ConnectionClosed:
                return
