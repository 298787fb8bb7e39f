"""Protocol 0xFFFF: the handshake, pings and the end of a session (remote-terminal.md section 1)."""

import logging
from collections.abc import Callable

from . import messages
from .fields import DecodeError
from .messages import CONTROL, Message
from .outbox import Outbox, reject_unknown

VERSION = 1
PING_SECONDS = 48.0
TIMEOUT_SECONDS = 60.0
"""Seconds without a message of a session after which it gets a ping, and after which it is closed."""

log = logging.getLogger(__name__)


class Control:
    """Handles the control messages of all sessions; `close` ends a session's transfers and port forwards."""

    def __init__(self, outbox: Outbox, close: Callable[[str], None]) -> None:
        self._outbox = outbox
        self._close = close
        self._last_received: dict[str, float] = {}
        self._pinged: set[str] = set()

    def on_activity(self, sid: str) -> None:
        """Record the time of a message, but only of sessions with anything open: others are unlimited."""
        if sid in self._last_received:
            self._last_received[sid] = self._outbox.loop.now()
            self._pinged.discard(sid)

    def tick(self, sids: set[str]) -> None:
        """Ping idle sessions, and close those that time out; `sids` are those that have anything open."""
        now = self._outbox.loop.now()
        for sid in list(self._last_received):
            if sid not in sids:
                del self._last_received[sid]
                self._pinged.discard(sid)
        for sid in sids:
            idle = now - self._last_received.setdefault(sid, now)
            if idle >= TIMEOUT_SECONDS:
                body = {"err": "session timeout", "close": True}
                self._outbox.send(Message(CONTROL, "error", sid, {}, messages.pack(body)))
                self._close(sid)
            elif idle >= PING_SECONDS and sid not in self._pinged:
                self._pinged.add(sid)
                self._outbox.send(Message(CONTROL, "ping", sid))

    def handle(self, message: Message) -> None:
        """Handle a message of this protocol."""
        if message.kind == "open":
            self._open(message)
        elif message.kind == "ping":
            self._outbox.send(Message(CONTROL, "pong", message.sid))
        elif message.kind == "close":
            self._close(message.sid)
        elif message.kind == "error":
            log.info("The peer of a session reported an error.")
            if messages.unpack(message.body).flag("close"):
                self._close(message.sid)
        elif message.kind not in ("pong", "accept"):
            reject_unknown(self._outbox, message)

    def _open(self, message: Message) -> None:
        try:
            versions = messages.unpack(message.body).numbers("versions")
        except DecodeError:
            versions = []
        if VERSION not in versions:
            body: dict[str, object] = {"err": f"handshake rejected: require version {VERSION}", "close": True}
            self._outbox.send(Message(CONTROL, "error", message.sid, {}, messages.pack(body)))
            return
        body = {"version": VERSION, "protocols": enabled(self._outbox)}
        self._outbox.send(Message(CONTROL, "accept", message.sid, {}, messages.pack(body)))


def enabled(outbox: Outbox) -> list[int]:
    """Return the protocols that the configuration allows."""
    settings = outbox.settings
    disabled = {
        messages.SHELL: settings.shell_disabled,
        messages.FILES: settings.files_disabled,
        messages.FORWARD: settings.forward_disabled,
        messages.CLIENT: settings.client_disabled,
    }
    return [proto for proto, off in disabled.items() if not off]
