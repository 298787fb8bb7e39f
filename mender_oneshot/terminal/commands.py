"""Protocol 4: the requests "check for update" and "send inventory" (remote-terminal.md section 6)."""

import logging
import subprocess

from ..options import Options
from .messages import CLIENT, NORMAL, Message
from .outbox import Outbox, fail, reject_unknown
from .subcommand import command

KINDS = ("check-update", "send-inventory")

log = logging.getLogger(__name__)


class Commands:
    """The requested steps that are running, each in a process of its own."""

    def __init__(self, outbox: Outbox, options: Options) -> None:
        self._outbox = outbox
        self._options = options
        self._running: dict[str, tuple[Message, subprocess.Popen[bytes]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def handle(self, message: Message) -> None:
        """Start the step that a message requests."""
        if message.kind not in KINDS:
            reject_unknown(self._outbox, message)
        elif message.kind in self._running:
            self._answer(message, f"{message.kind} is already running")
        else:
            log.info("%s: requested %s.", message.fields.text("user_id") or "unknown", message.kind)
            try:
                process = subprocess.Popen(
                    command(self._options, message.kind),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,  # it continues when this process is stopped
                )
            except OSError as error:
                self._answer(message, f"{message.kind} cannot be started ({error.strerror})")
            else:
                self._running[message.kind] = (message, process)

    def child_ended(self) -> None:
        """Report the steps that have ended."""
        for kind, (message, process) in list(self._running.items()):
            with self._outbox.guarding(CLIENT, message.sid):
                if process.poll() is not None:
                    del self._running[kind]
                    code = process.returncode
                    self._answer(message, f"{kind} exited with status {code}" if code else "")

    def abandon(self, sid: str) -> None:
        """Do nothing: a step is a separate process, which ends by itself."""

    def detach(self) -> None:
        """Let running steps continue after this process."""
        for _, process in self._running.values():
            process.returncode = 0  # otherwise Python warns that it was not waited for
        self._running.clear()

    def _answer(self, message: Message, problem: str) -> None:
        if problem:
            fail(self._outbox, message, problem)
        else:
            self._outbox.send(Message(CLIENT, message.kind, message.sid, {"status": NORMAL}))
