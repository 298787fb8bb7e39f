"""Protocol 1: shells for people (remote-terminal.md section 3)."""

import logging
import os

from .fields import LARGEST
from .loop import Timer
from .messages import ERROR, KEEPALIVE, NORMAL, SHELL, Message
from .outbox import BROKEN, Outbox, fail, unknown
from .process import Account, Process, account, refusal

MOST_SHELLS = 16
CHUNK = 32768
"""Bytes of output in one message: each is a round trip inside the server."""
INPUT_LIMIT = 1 << 20
"""Bytes of input that wait for a program to read them before the server is not read from any more."""
STUCK_SECONDS = 2.0
"""How long one program that reads nothing may hold up everybody; then its input is dropped."""
SLOW_SECONDS = 5.0
"""How long one that reads slowly may."""
PING_SECONDS = 60.0
PATIENCE = 65
"""Seconds after a ping that either side waits for the other."""
LAST_WORDS = 0.1
"""Seconds of silence after which a shell that has ended has said all."""
MOST_LAST_WORDS = 20

log = logging.getLogger(__name__)


class Shell:
    """One session: a person, and a shell on a terminal."""

    def __init__(self, shells: "Shells", sid: str, user: str, process: Process) -> None:
        self.user = user
        self.process = process
        now = shells.outbox.loop.now()
        self.begun = self.heard = self.typed = self.pinged = now
        self._sid = sid
        self._shells = shells
        self._outbox = shells.outbox
        self._input = bytearray()
        self._stuck: Timer | None = None
        self._patience = 0.0  # until when others are held up, while they are
        self._dropping = False  # until all that was taken has been read
        self._over = False
        self._ended = False
        self._paused = False
        self._read_times = 0
        self._watch()

    def type(self, data: bytes) -> None:
        """Give the shell some input."""
        if self._over or not data:
            return
        if self._dropping and len(self._input) + len(data) > INPUT_LIMIT:
            return
        waiting = bool(self._input)
        self._input += data
        if not waiting:
            self._write()
        if len(self._input) > INPUT_LIMIT and not self._stuck:
            self._outbox.hold(self)
            self._patience = self._outbox.loop.now() + SLOW_SECONDS
            self._stuck = self._outbox.loop.later(STUCK_SECONDS, self._drop)
        self._watch()

    def end(self) -> None:
        """End the shell and all that belongs to it; says nothing."""
        if not self._over:
            self._over = True
            self._outbox.loop.watch(self.process.master)
            self._flow_again()
            self._shells.bury(self._sid, self.process)

    def child_ended(self) -> None:
        """Look whether the shell has ended; what it still had to say may be on its way through the kernel."""
        if not self._over and not self._ended and self.process.ended():
            self._ended = True
            self._conclude_soon()

    def _read(self) -> None:
        """Send what the terminal shows: as much as is there, up to one message."""
        pieces: list[bytes] = []
        size = 0
        hung_up = False
        while size < CHUNK:
            try:
                piece = os.read(self.process.master, CHUNK - size)
            except BlockingIOError:
                break
            except OSError:  # EIO: nobody has the terminal open any more
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
        """Conclude when the shell has ended, a matter of moments; else it does not want to be seen."""
        if not self._over:
            if self.process.ended() or not tries:
                self._conclude()
            else:
                self._outbox.loop.later(0.05, lambda: self._hung_up(tries - 1))

    def _conclude(self) -> None:
        if self._over:
            return
        how = self.process.ended() or "closed its terminal"
        if how not in ("ended with status 0", "closed its terminal"):
            self._shells.say(self._sid, f"The shell has {how}.")
        self._shells.stop(self._sid, f"The shell has {how}.", NORMAL)

    def _conclude_soon(self, tries: int = MOST_LAST_WORDS) -> None:
        """Conclude when nothing more comes; somebody else may use the terminal, and never cease."""
        heard = self._read_times

        def look() -> None:
            if self._paused or (heard != self._read_times and tries):
                self._conclude_soon(tries - (not self._paused))
            else:
                self._conclude()

        self._outbox.loop.later(LAST_WORDS, look)

    def _write(self) -> None:
        try:
            while self._input:
                del self._input[: os.write(self.process.master, self._input)]
                if self._stuck:  # slow is not stuck, up to a point
                    self._stuck.cancel()
                    left = max(self._patience - self._outbox.loop.now(), 0)
                    self._stuck = self._outbox.loop.later(min(STUCK_SECONDS, left), self._drop)
        except BlockingIOError:
            pass
        except OSError:
            self._input.clear()
        self._dropping = self._dropping and bool(self._input)
        if len(self._input) <= INPUT_LIMIT // 2:
            self._flow_again()
        self._watch()

    def _drop(self) -> None:
        size = len(self._input)
        words = f"{size} bytes of input are dropped, for the program does not read them."
        log.warning("The shell of user %s: %s", self.user or "unknown", words)
        self._shells.say(self._sid, words)
        self._input.clear()
        self._dropping = True
        self._flow_again()
        self._watch()

    def _flow_again(self) -> None:
        if self._stuck:
            self._stuck.cancel()
            self._stuck = None
        self._outbox.release(self)

    def _watch(self) -> None:
        if not self._over:
            self._outbox.loop.watch(
                self.process.master,
                None if self._paused else self._read,
                self._write if self._input else None,
            )


class Shells:
    """All shells that run."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.dying = 0  # what has been ended and is not gone yet
        self._shells: dict[str, Shell] = {}

    def __len__(self) -> int:
        return len(self._shells)

    def handle(self, message: Message) -> None:
        """Do what a message asks for."""
        shell = self._shells.get(message.sid)
        if shell:
            shell.heard = self.outbox.loop.now()
        if message.kind == "new":
            self._new(message)
        elif message.kind == "shell":
            if shell:
                shell.typed = shell.heard
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
            unknown(self.outbox, message)

    def say(self, sid: str, words: str) -> None:
        """Put a line of our own on somebody's terminal."""
        body = f"\r\n{words}\r\n".encode("utf-8", "replace")
        self.outbox.send(Message(SHELL, "shell", sid, {"status": NORMAL}, body))

    def stop(self, sid: str, words: str, status: int) -> None:
        """End a session and say so."""
        shell = self._shells.pop(sid)
        shell.end()
        self.outbox.send(Message(SHELL, "stop", sid, {"status": status}, words.encode("utf-8", "replace")))
        log.info("The shell of user %s is over. %s", shell.user or "unknown", words or "The user ended it.")

    def abandon(self, sid: str) -> None:
        """End a session and say so."""
        if sid in self._shells:
            self.stop(sid, BROKEN, ERROR)

    def stop_all(self, words: str) -> None:
        """End every session, on the screen and by message."""
        for sid in list(self._shells):
            self.say(sid, words)
            self.stop(sid, words, NORMAL)

    def drop_all(self) -> None:
        """End every session; there is nobody to tell."""
        for shell in self._shells.values():
            shell.end()
        self._shells.clear()

    def child_ended(self) -> None:
        """Look which shell has ended."""
        for sid, shell in list(self._shells.items()):
            with self.outbox.guarding(SHELL, sid):
                shell.child_ended()

    def tick(self) -> None:
        """Ask for signs of life, and end what has expired."""
        for sid, shell in list(self._shells.items()):
            with self.outbox.guarding(SHELL, sid):
                self._look_after(sid, shell)

    def bury(self, sid: str, process: Process) -> None:
        """Have a process and all that it started end, in the background."""
        self.dying += 1
        process.bury(self.outbox.loop, self._buried)

    def _look_after(self, sid: str, shell: Shell) -> None:
        now, settings = self.outbox.loop.now(), self.outbox.settings
        words = ""
        if settings.expire_after and now - shell.begun >= settings.expire_after:
            words = f"The session is over: it may last {settings.expire_after} s."
        elif settings.expire_idle and now - shell.typed >= settings.expire_idle:
            words = f"The session is over: nothing was typed for {settings.expire_idle} s."
        elif now - shell.heard >= PING_SECONDS + PATIENCE:
            words = "The session is over: there was no sign of life from the other side."
        if words:
            self.say(sid, words)
            self.stop(sid, words, ERROR)
        elif now - shell.pinged >= PING_SECONDS:
            shell.pinged = now
            self.outbox.send(Message(SHELL, "ping", sid, {"timeout": PATIENCE, "status": KEEPALIVE}))

    def _buried(self) -> None:
        self.dying -= 1

    def _new(self, message: Message) -> None:
        sid, user, settings = message.sid, message.fields.text("user_id"), self.outbox.settings
        words = ""
        if sid in self._shells:
            words = "failed to start shell: shell is already running"
        elif len(self._shells) >= MOST_SHELLS:
            words = f"This device serves at most {MOST_SHELLS} shells at a time; close one and try again."
        elif sum(shell.user == user for shell in self._shells.values()) >= settings.max_per_user:
            words = (
                f"You have {settings.max_per_user} session(s) open on this device, the most a user may have "
                "(Sessions.MaxPerUser); close one and try again."
            )
        else:
            words = refusal(settings.shell) or self.outbox.refusal(sid)
        if words:
            fail(self.outbox, message, words)
            return
        size = self._size(message) or (settings.width, settings.height)
        try:
            owner: Account = account(settings.user)
            process = Process(owner, settings.shell, settings.arguments, *size)
        except (OSError, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) else f"there is no user {settings.user}"
            fail(self.outbox, message, f"failed to start shell: {why}")
            return
        self.outbox.count(sid)
        log.info("User %s opens a shell as %s.", user or "unknown", owner.name)
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
