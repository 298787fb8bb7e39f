"""A user's end of a session, for tests: says to a device what a user's program would, and hears it."""

import time
from collections import deque
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from . import messages
from .messages import CONTROL, SHELL, Message, message
from .relay import Session


class UserSession(AbstractContextManager["UserSession"]):
    """One session with one device; the device is told `stop` at the end if a shell may be running.

    Numbers among properties go out nine bytes wide, as mender-cli's do; bytes are MessagePack already.
    Nothing is read that nobody asks for: after a few messages the device is held up. `heard` has the last
    messages. Every wait raises TimeoutError after `timeout` seconds, and `relay.DeviceDisconnected` when the
    device goes.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self.sid = session.sid
        self.timeout = timeout
        self.heard: deque[Message] = deque(maxlen=100)
        self._session = session
        self._shell = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave, as a user does whose connection ends: "user disconnected" goes to the device."""
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
        """The device's next message, whatever it is."""
        received = self._session.receive(self.timeout if timeout is None else timeout)
        if received is None:
            raise ValueError("the session has been closed")
        self.heard.append(received)
        return received

    def expect(self, proto: int, typ: str) -> Message:
        """The next message of this protocol and type; others are heard and passed over."""
        end = time.monotonic() + self.timeout
        while True:
            try:
                received = self.receive(max(0.0, end - time.monotonic()))
            except TimeoutError:
                last = [(heard.proto, heard.typ, heard.body[:60]) for heard in list(self.heard)[-10:]]
                raise TimeoutError(f"no {typ!r} of protocol {proto}; the last ones were {last}") from None
            if (received.proto, received.typ) == (proto, typ):
                return received

    def new(self, width: int | None = 80, height: int | None = 40) -> Message:
        """Ask for a shell and return the answer; sizes of None are left out, as the UI does."""
        sizes: dict[str, Any] = {"terminal_width": width, "terminal_height": height}
        self.send(SHELL, "new", **{name: size for name, size in sizes.items() if size is not None})
        return self.expect(SHELL, "new")

    def type(self, text: bytes) -> None:
        """Type into the shell."""
        self.send(SHELL, "shell", text)

    def until(self, mark: bytes) -> bytes:
        """The shell's output up to and including some bytes, which may come in several messages."""
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
        """Change the size; there is no answer."""
        self.send(SHELL, "resize", terminal_width=width, terminal_height=height)

    def stop(self) -> Message:
        """End the shell and return the answer."""
        self.send(SHELL, "stop")
        return self.expect(SHELL, "stop")

    def open(self) -> dict[str, Any]:
        """Shake hands as mender-cli's port-forward does, and return the body of the device's `accept`."""
        self.send(CONTROL, "open", messages.pack({"versions": [1]}))
        return messages.unpack_map(self.expect(CONTROL, "accept").body)
