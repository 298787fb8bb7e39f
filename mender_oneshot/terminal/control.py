"""Protocol 0xFFFF: what a session begins and ends with (remote-terminal.md section 1)."""

import logging
from collections.abc import Callable

from . import wire
from .fields import Garbled
from .host import Host, unknown
from .wire import CONTROL, Message

VERSION = 1
SILENT_SECONDS = 48.0
DEAD_SECONDS = 60.0

log = logging.getLogger(__name__)


class Control:
    """Answers for the device as a whole; `close` ends what a session has open, but for its shell."""

    def __init__(self, host: Host, close: Callable[[str], None]) -> None:
        self._host = host
        self._close = close
        self._heard: dict[str, float] = {}
        self._asked: set[str] = set()

    def hear(self, sid: str) -> None:
        """Take note of a sign of life, of a session that has something open; others could be any number."""
        if sid in self._heard:
            self._heard[sid] = self._host.loop.now()
            self._asked.discard(sid)

    def tick(self, sids: set[str]) -> None:
        """Ask silent sessions, of those that have something open, for a sign of life; end the dead ones."""
        now = self._host.loop.now()
        for sid in list(self._heard):
            if sid not in sids:
                del self._heard[sid]
                self._asked.discard(sid)
        for sid in sids:
            silent = now - self._heard.setdefault(sid, now)
            if silent >= DEAD_SECONDS:
                body = {"err": "session timeout", "close": True}
                self._host.send(Message(CONTROL, "error", sid, {}, wire.pack(body)))
                self._close(sid)
            elif silent >= SILENT_SECONDS and sid not in self._asked:
                self._asked.add(sid)
                self._host.send(Message(CONTROL, "ping", sid))

    def handle(self, message: Message) -> None:
        """Do what a message asks for."""
        if message.kind == "open":
            self._open(message)
        elif message.kind == "ping":
            self._host.send(Message(CONTROL, "pong", message.sid))
        elif message.kind == "close":
            self._close(message.sid)
        elif message.kind == "error":
            log.info("The other side of a session reports an error.")
            if wire.unpack(message.body).flag("close"):
                self._close(message.sid)
        elif message.kind not in ("pong", "accept"):
            unknown(self._host, message)

    def _open(self, message: Message) -> None:
        try:
            versions = wire.unpack(message.body).numbers("versions")
        except Garbled:
            versions = []
        if VERSION not in versions:
            body: dict[str, object] = {"err": f"handshake rejected: require version {VERSION}", "close": True}
            self._host.send(Message(CONTROL, "error", message.sid, {}, wire.pack(body)))
            return
        body = {"version": VERSION, "protocols": enabled(self._host)}
        self._host.send(Message(CONTROL, "accept", message.sid, {}, wire.pack(body)))


def enabled(host: Host) -> list[int]:
    """List the protocols that the configuration allows."""
    settings = host.settings
    disabled = {
        wire.SHELL: settings.shell_disabled,
        wire.FILES: settings.files_disabled,
        wire.FORWARD: settings.forward_disabled,
        wire.CLIENT: settings.client_disabled,
    }
    return [proto for proto, off in disabled.items() if not off]
