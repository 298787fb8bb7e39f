"""Protocol 4: the buttons "check for update" and "send inventory" (remote-terminal.md section 6)."""

import logging
import subprocess

from ..options import Options
from .messages import CLIENT, NORMAL, Message
from .outbox import Outbox, fail, unknown
from .subcommand import command

KINDS = ("check-update", "send-inventory")

log = logging.getLogger(__name__)


class Commands:
    """The steps that were asked for and are under way, each a process of its own."""

    def __init__(self, outbox: Outbox, options: Options) -> None:
        self._outbox = outbox
        self._options = options
        self._running: dict[str, tuple[Message, subprocess.Popen[bytes]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def handle(self, message: Message) -> None:
        """Start the step that a message names."""
        if message.kind not in KINDS:
            unknown(self._outbox, message)
        elif message.kind in self._running:
            self._answer(message, f"{message.kind} is already under way")
        else:
            log.info("User %s asks for %s.", message.fields.text("user_id") or "unknown", message.kind)
            try:
                process = subprocess.Popen(
                    command(self._options, message.kind),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,  # it goes on when we are told to end
                )
            except OSError as error:
                self._answer(message, f"{message.kind} cannot be started ({error.strerror})")
            else:
                self._running[message.kind] = (message, process)

    def child_ended(self) -> None:
        """Look which step has ended, and say how."""
        for kind, (message, process) in list(self._running.items()):
            with self._outbox.guarding(CLIENT, message.sid):
                if process.poll() is not None:
                    del self._running[kind]
                    code = process.returncode
                    self._answer(message, f"{kind} ended with {code}" if code else "")

    def abandon(self, sid: str) -> None:
        """Do nothing: a step is a process of its own, and ends by itself."""

    def leave(self) -> None:
        """Let what is under way go on without us."""
        for _, process in self._running.values():
            process.returncode = 0  # else Python would complain that nobody waits for it
        self._running.clear()

    def _answer(self, message: Message, words: str) -> None:
        if words:
            fail(self._outbox, message, words)
        else:
            self._outbox.send(Message(CLIENT, message.kind, message.sid, {"status": NORMAL}))
