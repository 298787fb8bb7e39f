"""A user's websocket joined to a session with a device, as `management.go` of mender-server does it."""

import threading

from . import messages
from .messages import DecodeError, Message
from .relay import DeviceDisconnected, Session
from .websocket import ABNORMAL, ConnectionClosed, WebSocket

LIMIT = "session byte limit exceeded"


class UserConnection:
    """One user's connection; `session_bytes` of terminal output are recorded, then the session is ended."""

    def __init__(self, websocket: WebSocket, session: Session, session_bytes: int | None) -> None:
        self._websocket = websocket
        self._session = session
        self._left = session_bytes
        self._shell = False

    def serve(self) -> int:
        """Relay in both directions until the user's connection ends; return the close code."""
        writer = threading.Thread(target=self._write, name=f"devserver-user-{self._session.sid}", daemon=True)
        writer.start()
        try:
            while True:
                self._pass_on(messages.decode(self._websocket.receive()))
        except ConnectionClosed as ended:
            return ended.code
        except DeviceDisconnected:
            return ABNORMAL  # without a close frame, at the user's next key: remote-terminal.md 8
        except DecodeError:
            self._websocket.farewell(1011, "internal error")
            return 1011
        finally:
            if self._shell:
                self._session.stop("user disconnected")
            self._session.close()
            self._websocket.finish()
            writer.join()

    def _pass_on(self, message: Message) -> None:
        if message.proto == messages.SHELL and message.typ in ("new", "stop"):
            self._shell = message.typ == "new"
        self._session.send(message)

    def _write(self) -> None:
        """What the device says, to the user; a device that goes says nothing, and is not noticed here."""
        while message := self._session.receive(outlive=True):
            if message.proto == messages.SHELL and message.typ == "shell" and self._left is not None:
                if self._left <= 0:
                    self._session.stop(LIMIT)
                    self._websocket.close(1008, "session byte limit exhausted")
                    return
                self._left -= len(message.body)
            try:
                self._websocket.send(message.encode())
            except ConnectionClosed:
                return
