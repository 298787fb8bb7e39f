"""Protocol 1: shells (remote-terminal.md section 3)."""

import logging
import os

from .fields import LARGEST
from .loop import Timer
from .messages import ERROR, KEEPALIVE, NORMAL, SHELL, Message
from .outbox import BROKEN, Outbox, fail, reject_unknown
from .process import Account, Process, account, shell_problem

MOST_SHELLS = 16
CHUNK = 32768
"""Bytes of output in one message; each message costs the server a round trip."""
INPUT_LIMIT = 1 << 20
"""Bytes of input queued for a program; with more, nothing is read from the server."""
STUCK_SECONDS = 2.0
"""How long a program that reads nothing may block the connection; then its input is dropped."""
SLOW_SECONDS = 5.0
"""How long a program that reads slowly may block the connection."""
PING_SECONDS = 60.0
PING_TIMEOUT = 65
"""Seconds that either side waits for the other after a ping."""
DRAIN_SECONDS = 0.1
"""After the shell exits, keep reading until this long passes without output."""
MOST_DRAINS = 20

log = logging.getLogger(__name__)


class Shell:
    """One session: a user, and a shell on a pseudo-terminal."""

    def __init__(self, shells: "Shells", sid: str, user: str, process: Process) -> None:
        self.user = user
        self.process = process
        now = shells.outbox.loop.now()
        self.begun = self.last_received = self.last_typed = self.last_ping = now
        self._sid = sid
        self._shells = shells
        self._outbox = shells.outbox
        self._input = bytearray()
        self._stuck: Timer | None = None
        self._block_end = 0.0  # until when the program may block the connection
        self._dropping = False  # input was dropped, and the program has not read the rest yet
        self._closed = False
        self._ended = False
        self._paused = False
        self._read_times = 0
        self._watch()

    def type(self, data: bytes) -> None:
        """Send input to the shell, or queue it."""
        if self._closed or not data:
            return
        if self._dropping and len(self._input) + len(data) > INPUT_LIMIT:
            return
        waiting = bool(self._input)
        self._input += data
        if not waiting:
            self._write()
        if len(self._input) > INPUT_LIMIT and not self._stuck:
            self._outbox.pause_reading(self)
            self._block_end = self._outbox.loop.now() + SLOW_SECONDS
            self._stuck = self._outbox.loop.later(STUCK_SECONDS, self._drop)
        self._watch()

    def terminate(self) -> None:
        """End the shell and all processes of its session, in the background; sends nothing."""
        if not self._closed:
            self._closed = True
            self._outbox.loop.watch(self.process.master)
            self._stop_blocking()
            self._shells.terminate(self.process)

    def child_ended(self) -> None:
        """Check whether the shell has ended; the kernel may still hold some of its output."""
        if not self._closed and not self._ended and self.process.ended():
            self._ended = True
            self._drain()

    def _read(self) -> None:
        """Send the output that is available, up to one message."""
        pieces: list[bytes] = []
        size = 0
        hung_up = False
        while size < CHUNK:
            try:
                piece = os.read(self.process.master, CHUNK - size)
            except BlockingIOError:
                break
            except OSError:  # EIO: no process has the terminal open
                hung_up = True
                break
            pieces.append(piece)
            size += len(piece)
        if pieces:
            self._read_times += 1
            self._outbox.send(Message(SHELL, "shell", self._sid, {"status": NORMAL}, b"".join(pieces)))
        if hung_up:
            self._outbox.loop.watch(self.process.master)
            self._hung_up()
        elif self._outbox.full:
            self._paused = True
            self._watch()
            self._outbox.when_room(self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._watch()

    def _hung_up(self, tries: int = 20) -> None:
        """Finish when the shell has ended, usually at once, or after a second without its terminal."""
        if not self._closed:
            if self.process.ended() or not tries:
                self._finish()
            else:
                self._outbox.loop.later(0.05, lambda: self._hung_up(tries - 1))

    def _finish(self) -> None:
        if self._closed:
            return
        how = self.process.ended() or "closed its terminal"
        if how not in ("ended with status 0", "closed its terminal"):
            self._shells.show(self._sid, f"The shell has {how}.")
        self._shells.stop(self._sid, f"The shell has {how}.", NORMAL)

    def _drain(self, tries: int = MOST_DRAINS) -> None:
        """Finish when no more output arrives, or after `tries`: another process may write forever."""
        before = self._read_times

        def check() -> None:
            if self._paused or (before != self._read_times and tries):
                self._drain(tries - (not self._paused))
            else:
                self._finish()

        self._outbox.loop.later(DRAIN_SECONDS, check)

    def _write(self) -> None:
        try:
            while self._input:
                del self._input[: os.write(self.process.master, self._input)]
                if self._stuck:  # it reads, so it gets more time, up to `SLOW_SECONDS`
                    self._stuck.cancel()
                    left = max(self._block_end - self._outbox.loop.now(), 0)
                    self._stuck = self._outbox.loop.later(min(STUCK_SECONDS, left), self._drop)
        except BlockingIOError:
            pass
        except OSError:
            self._input.clear()
        self._dropping = self._dropping and bool(self._input)
        if len(self._input) <= INPUT_LIMIT // 2:
            self._stop_blocking()
        self._watch()

    def _drop(self) -> None:
        size = len(self._input)
        text = f"{size} bytes of input were dropped because the program does not read them."
        log.warning("%s: %s", self.user or "unknown", text)
        self._shells.show(self._sid, text)
        self._input.clear()
        self._dropping = True
        self._stop_blocking()
        self._watch()

    def _stop_blocking(self) -> None:
        if self._stuck:
            self._stuck.cancel()
            self._stuck = None
        self._outbox.resume_reading(self)

    def _watch(self) -> None:
        if not self._closed:
            self._outbox.loop.watch(
                self.process.master,
                None if self._paused else self._read,
                self._write if self._input else None,
            )


class Shells:
    """All shells."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.terminating = 0  # shells that were ended and still have processes
        self._shells: dict[str, Shell] = {}

    def __len__(self) -> int:
        return len(self._shells)

    def handle(self, message: Message) -> None:
        """Handle a message of this protocol."""
        shell = self._shells.get(message.sid)
        if shell:
            shell.last_received = self.outbox.loop.now()
        if message.kind == "new":
            self._new(message)
        elif message.kind == "shell":
            if shell:
                shell.last_typed = shell.last_received
                shell.type(message.body)
            else:
                fail(self.outbox, message, "session not found")
        elif message.kind == "resize":
            size = self._size(message)
            if shell and size:
                shell.process.resize(*size)
        elif message.kind == "stop":
            self._stop(message)
        elif message.kind not in ("pong", "ping"):
            reject_unknown(self.outbox, message)

    def show(self, sid: str, text: str) -> None:
        """Show the user a line of our own."""
        body = f"\r\n{text}\r\n".encode("utf-8", "replace")
        self.outbox.send(Message(SHELL, "shell", sid, {"status": NORMAL}, body))

    def stop(self, sid: str, reason: str, status: int) -> None:
        """End a session, and send a `stop`."""
        shell = self._shells.pop(sid)
        shell.terminate()
        self.outbox.send(Message(SHELL, "stop", sid, {"status": status}, reason.encode("utf-8", "replace")))
        log.info("%s: shell closed. %s", shell.user or "unknown", reason or "The user closed it.")

    def abandon(self, sid: str) -> None:
        """End a session after a bug, and send a `stop`."""
        if sid in self._shells:
            self.stop(sid, BROKEN, ERROR)

    def stop_all(self, reason: str) -> None:
        """End all sessions: show the reason to each user, and send a `stop`."""
        for sid in list(self._shells):
            self.show(sid, reason)
            self.stop(sid, reason, NORMAL)

    def drop_all(self) -> None:
        """End all sessions; sends nothing, as the connection is gone."""
        for shell in self._shells.values():
            shell.terminate()
        self._shells.clear()

    def child_ended(self) -> None:
        """Check which shells have ended."""
        for sid, shell in list(self._shells.items()):
            with self.outbox.guarding(SHELL, sid):
                shell.child_ended()

    def tick(self) -> None:
        """Send pings, and end sessions that have expired or timed out."""
        for sid, shell in list(self._shells.items()):
            with self.outbox.guarding(SHELL, sid):
                self._check(sid, shell)

    def terminate(self, process: Process) -> None:
        """End a shell and all processes of its session, in the background."""
        self.terminating += 1
        process.terminate(self.outbox.loop, self._terminated)

    def _check(self, sid: str, shell: Shell) -> None:
        now, settings = self.outbox.loop.now(), self.outbox.settings
        reason = ""
        if settings.expire_after and now - shell.begun >= settings.expire_after:
            reason = f"Session expired: it may last {settings.expire_after} s."
        elif settings.expire_idle and now - shell.last_typed >= settings.expire_idle:
            reason = f"Session expired: no input for {settings.expire_idle} s."
        elif now - shell.last_received >= PING_SECONDS + PING_TIMEOUT:
            reason = "Session closed: the peer does not respond."
        if reason:
            self.show(sid, reason)
            self.stop(sid, reason, ERROR)
        elif now - shell.last_ping >= PING_SECONDS:
            shell.last_ping = now
            self.outbox.send(Message(SHELL, "ping", sid, {"timeout": PING_TIMEOUT, "status": KEEPALIVE}))

    def _terminated(self) -> None:
        self.terminating -= 1

    def _new(self, message: Message) -> None:
        sid, user, settings = message.sid, message.fields.text("user_id"), self.outbox.settings
        if sid in self._shells:
            reason = "failed to start shell: shell is already running"
        elif len(self._shells) >= MOST_SHELLS:
            reason = f"This device serves at most {MOST_SHELLS} shells at a time; close one and try again."
        elif sum(shell.user == user for shell in self._shells.values()) >= settings.max_per_user:
            reason = (
                f"You have {settings.max_per_user} session(s) open on this device, the most a user may have "
                "(Sessions.MaxPerUser); close one and try again."
            )
        else:
            reason = shell_problem(settings.shell) or self.outbox.rejection(sid)
        if reason:
            fail(self.outbox, message, reason)
            return
        size = self._size(message) or (settings.width, settings.height)
        try:
            owner: Account = account(settings.user)
            process = Process(owner, settings.shell, settings.arguments, *size)
        except (OSError, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) else f"there is no user {settings.user}"
            fail(self.outbox, message, f"failed to start shell: {why}")
            return
        self.outbox.count_session(sid)
        log.info("%s: shell opened as %s.", user or "unknown", owner.name)
        self.outbox.send(Message(SHELL, "new", sid, {"status": NORMAL}, b"Shell started"))
        self._shells[sid] = Shell(self, sid, user, process)

    def _stop(self, message: Message) -> None:
        sids = [message.sid]
        if not message.sid:
            user = message.fields.text("user_id")
            sids = [sid for sid, shell in self._shells.items() if shell.user == user]
        for sid in sids:
            if sid in self._shells:
                self.stop(sid, "", NORMAL)
            else:
                fail(self.outbox, message, "session not found")

    def _size(self, message: Message) -> tuple[int, int] | None:
        asked = [message.fields.number(f"terminal_{name}", -LARGEST) or 0 for name in ("width", "height")]
        width, height = (min(number, 65535) for number in asked)
        return (width, height) if width > 0 and height > 0 else None
