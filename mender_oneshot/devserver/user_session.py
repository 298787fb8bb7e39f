"""A user's end of a session, for tests: sends what a user's program would send, and receives the replies."""

import time
from collections import deque
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from . import messages
from .messages import CONTROL, SHELL, Message, message
from .relay import Session


class UserSession(AbstractContextManager["UserSession"]):
    """One session with one device; `close` stops the shell, if any.

    Numbers in properties are encoded in nine bytes, as by mender-cli; bytes have to be MessagePack already.
    Messages are only read when a method needs them, so the device is blocked after a few. `received` has the
    last messages. Every wait raises TimeoutError after `timeout` seconds, and `relay.DeviceDisconnected` if
    the device disconnects.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self.sid = session.sid
        self.timeout = timeout
        self.received: deque[Message] = deque(maxlen=100)
        self._session = session
        self._shell = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave like a user who disconnects: the device receives "user disconnected"."""
        if self._shell:
            self._shell = False
            self._session.stop("user disconnected")
        self._session.close()

    def send(self, proto: int, typ: str, body: bytes = b"", **props: Any) -> None:
        """Send one message."""
        if proto == SHELL and typ in ("new", "stop"):
            self._shell = typ == "new"
        self._session.send(message(proto, typ, body, **props))

    def receive(self, timeout: float | None = None) -> Message:
        """Return the device's next message of any type; raise ValueError if the session is closed."""
        received = self._session.receive(self.timeout if timeout is None else timeout)
        if received is None:
            raise ValueError("the session has been closed")
        self.received.append(received)
        return received

    def expect(self, proto: int, typ: str) -> Message:
        """Return the next message of this protocol and type; others are skipped, but kept in `received`."""
        end = time.monotonic() + self.timeout
        while True:
            try:
                received = self.receive(max(0.0, end - time.monotonic()))
            except TimeoutError:
                last = [
                    (message.proto, message.typ, message.body[:60]) for message in list(self.received)[-10:]
                ]
                raise TimeoutError(f"no {typ!r} of protocol {proto}; the last ones were {last}") from None
            if (received.proto, received.typ) == (proto, typ):
                return received

    def new(self, width: int | None = 80, height: int | None = 40) -> Message:
        """Request a shell and return the reply; sizes of None are omitted, as by the UI."""
        sizes: dict[str, Any] = {"terminal_width": width, "terminal_height": height}
        self.send(SHELL, "new", **{name: size for name, size in sizes.items() if size is not None})
        return self.expect(SHELL, "new")

    def type(self, text: bytes) -> None:
        """Type into the shell."""
        self.send(SHELL, "shell", text)

    def until(self, mark: bytes) -> bytes:
        """Return the shell's output up to and including `mark`, which may be split between messages."""
        parts: list[bytes] = []
        tail = b""
        while mark not in tail:
            try:
                parts.append(self.expect(SHELL, "shell").body)
            except TimeoutError:
                raise TimeoutError(f"no {mark!r} in the output, which ended in {tail[-2000:]!r}") from None
            tail = tail[-len(mark) :] + parts[-1]
        return b"".join(parts)

    def resize(self, width: int, height: int) -> None:
        """Change the size of the terminal; there is no reply."""
        self.send(SHELL, "resize", terminal_width=width, terminal_height=height)

    def stop(self) -> Message:
        """End the shell and return the reply."""
        self.send(SHELL, "stop")
        return self.expect(SHELL, "stop")

    def open(self) -> dict[str, Any]:
        """Open a port forward as mender-cli does; return the body of the device's `accept`."""
        self.send(CONTROL, "open", messages.pack({"versions": [1]}))
        return messages.unpack_map(self.expect(CONTROL, "accept").body)
