"""Protocol 0xFFFF: what a session begins and ends with (remote-terminal.md section 1)."""

import logging
from collections.abc import Callable

from . import messages
from .fields import DecodeError
from .messages import CONTROL, Message
from .outbox import Outbox, unknown

VERSION = 1
SILENT_SECONDS = 48.0
DEAD_SECONDS = 60.0

log = logging.getLogger(__name__)


class Control:
    """Answers for the device as a whole; `close` ends what a session has open, but for its shell."""

    def __init__(self, outbox: Outbox, close: Callable[[str], None]) -> None:
        self._outbox = outbox
        self._close = close
        self._heard: dict[str, float] = {}
        self._asked: set[str] = set()

    def hear(self, sid: str) -> None:
        """Take note of a sign of life, of a session that has something open; others could be any number."""
        if sid in self._heard:
            self._heard[sid] = self._outbox.loop.now()
            self._asked.discard(sid)

    def tick(self, sids: set[str]) -> None:
        """Ask silent sessions, of those that have something open, for a sign of life; end the dead ones."""
        now = self._outbox.loop.now()
        for sid in list(self._heard):
            if sid not in sids:
                del self._heard[sid]
                self._asked.discard(sid)
        for sid in sids:
            silent = now - self._heard.setdefault(sid, now)
            if silent >= DEAD_SECONDS:
                body = {"err": "session timeout", "close": True}
                self._outbox.send(Message(CONTROL, "error", sid, {}, messages.pack(body)))
                self._close(sid)
            elif silent >= SILENT_SECONDS and sid not in self._asked:
                self._asked.add(sid)
                self._outbox.send(Message(CONTROL, "ping", sid))

    def handle(self, message: Message) -> None:
        """Do what a message asks for."""
        if message.kind == "open":
            self._open(message)
        elif message.kind == "ping":
            self._outbox.send(Message(CONTROL, "pong", message.sid))
        elif message.kind == "close":
            self._close(message.sid)
        elif message.kind == "error":
            log.info("The other side of a session reports an error.")
            if messages.unpack(message.body).flag("close"):
                self._close(message.sid)
        elif message.kind not in ("pong", "accept"):
            unknown(self._outbox, message)

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
    """List the protocols that the configuration allows."""
    settings = outbox.settings
    disabled = {
        messages.SHELL: settings.shell_disabled,
        messages.FILES: settings.files_disabled,
        messages.FORWARD: settings.forward_disabled,
        messages.CLIENT: settings.client_disabled,
    }
    return [proto for proto, off in disabled.items() if not off]
