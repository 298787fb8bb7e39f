"""The life of `mender-oneshot terminal`: a lock, a connection, whoever comes, and an end that leaves nothing.

Knows when to connect, when to wait and when to go; knows nothing of what is served.
"""

import contextlib
import logging
import math
import os
from typing import NamedTuple

from .. import credentials, errors, network, plan, snapshot, state
from ..context import Outcome
from ..options import Options
from ..settings import Settings
from . import messages
from . import settings as own_settings
from .commands import Commands
from .confined_path import Root
from .connection import Connection, ConnectionLost, ConnectionRejected, connect
from .control import Control, enabled
from .fields import DecodeError
from .files import Transfers
from .forward import Forwards
from .loop import Loop, Signals, Stopped
from .messages import CONTROL, Message
from .outbox import Outbox, unknown
from .readiness import check, hold_root, take_lock
from .settings import TerminalSettings
from .shell import Shells
from .subcommand import authorize

PATH = "/api/devices/v1/deviceconnect/connect"

PING_SECONDS = 54.0
SILENCE_SECONDS = 60.0
"""How long the server may say nothing before the connection counts as dead; it pings every 30 s."""
LONGEST_PAUSE = 1800.0
LONGEST_PAUSE_AFTER_LOSS = 60.0
"""Before the next attempt, if the server took the last connection and then closed it without a word."""
SPREAD = 5.0
GOODBYE_SECONDS = 4.0
TICK = 1.0
IDLE_TICK = 5.0

log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """How long to stay, and for how many: seconds and sessions, 0 for no limit."""

    wait: int
    max_sessions: int
    max_runtime: int


def serve(options: Options, settings: Settings) -> Outcome:
    """Serve until it is time to go.

    Raises an `errors.Error` where there was never a connection, or the server does not want this device.
    """
    own = own_settings.load(settings.places)
    for warning in own.warnings:
        log.warning("%s", warning)
    check(settings, own)
    root = hold_root(own)
    lock = take_lock(settings)
    try:
        loop = Loop()
        try:
            return Service(options, settings, own, root, loop).run()
        finally:
            loop.close()
    finally:
        os.close(lock)


def pause(attempts: int, spread: float, longest: float = LONGEST_PAUSE) -> float:
    """Return how many seconds to wait before the next attempt; `spread` (0..1) keeps a fleet apart.

    The first comes at once, then at 1, 1, 2, 2, 2, 4 s and so on, as the reference client does.
    """
    return 0.0 if attempts == 0 else min(2.0 ** min(attempts // 3, 20), longest) + SPREAD * spread


def _draw() -> float:
    """Draw a number from 0 to 1; the module `random` would bring OpenSSL's digests along."""
    return int.from_bytes(os.urandom(4)) / 2**32


class Service:
    """One process' worth of serving."""

    def __init__(
        self, options: Options, settings: Settings, own: TerminalSettings, root: Root, loop: Loop
    ) -> None:
        self._settings = settings
        self._options = options
        self._limits = Limits(options.wait, options.max_sessions, options.max_runtime)
        self._loop = loop
        self._begun = loop.now()
        self._link: Connection | None = None
        self._heard = 0.0
        self._pinged = 0.0
        self._sent = 0
        self._moved = 0.0  # when the server last took something of what waits for it
        self._signals = Signals(loop, self._child_ended, options.max_runtime)
        self._outbox = Outbox(loop, own, self._limits.max_sessions)
        self._shells = Shells(self._outbox)
        self._files = Transfers(self._outbox, root)
        self._forwards = Forwards(self._outbox)
        self._commands = Commands(self._outbox, options)
        handlers = {
            messages.SHELL: self._shells.handle,
            messages.FILES: self._files.handle,
            messages.FORWARD: self._forwards.handle,
            messages.CLIENT: self._commands.handle,
        }
        self._handlers = {proto: handlers[proto] for proto in enabled(self._outbox)}
        self._control = Control(self._outbox, self._close)
        self._outbox.abandon = self._abandon
        self._handlers[CONTROL] = self._control.handle
        self._connections = 0
        self._is_same_device = False  # the identity was compared with that of the state
        self._trouble: errors.TemporaryError | None = None
        self._leaving = False
        self._often = False  # ticks come each second
        self._timer = loop.later(0, self._tick)

    def run(self) -> Outcome:
        """Connect, serve, reconnect, and go."""
        with self._signals:
            try:
                self._stay()
            except Stopped:
                pass
            finally:
                self._leave()
        return self._outcome()

    def _outcome(self) -> Outcome:
        served, seconds = self._outbox.served, round(self._loop.now() - self._begun)
        if not self._connections and not self._signals.stopped:
            raise self._trouble or errors.TemporaryError(
                "The time was over before there was a connection; the next run tries again."
            )
        sessions = "1 session" if served == 1 else f"{served} sessions"
        facts = {"sessions": served, "connections": self._connections, "seconds": seconds}
        return Outcome("served", f"Served {sessions} in {seconds} s.", facts)

    def _stay(self) -> None:
        """Be connected until it is time to go, whatever becomes of a connection."""
        attempts = 0
        while not self._time_to_go():
            try:
                link = self._connect()
            except errors.Error as error:
                trouble = self._passing(error)
                attempts += 1
                rest = max(pause(attempts, _draw()), trouble.retry_after or 0)
                level = logging.INFO if self._trouble else logging.WARNING
                self._trouble = trouble
                log.log(level, "%s (in %.0f s)", trouble, rest)
            else:
                self._serve(link)
                # A connection on which the server said something was a success, however short it was.
                attempts = 1 if link.heard else attempts + 1
                rest = pause(attempts, _draw(), LONGEST_PAUSE_AFTER_LOSS)
                if not self._time_to_go():
                    log.info("Connecting again in %.0f s.", rest)
            self._rest(rest)

    def _passing(self, error: errors.Error) -> errors.TemporaryError:
        """Return trouble that will pass, and raise all other.

        A server that had a terminal will have it again, whatever a gateway says while it restarts.
        """
        if isinstance(error, errors.TemporaryError):
            return error
        if self._connections and isinstance(error, (errors.ServerRejected, errors.InvalidResponse)):
            return errors.TemporaryError(str(error))
        raise error

    def _rest(self, seconds: float) -> None:
        end = self._loop.now() + seconds
        alarm = self._loop.later(seconds, lambda: None)
        self._loop.run(lambda: self._loop.now() >= end or self._time_to_go())
        alarm.cancel()

    def _connect(self) -> Connection:
        """Connect with the token there is, or after one authorization."""
        try:
            return self._connect_with(self._token())
        except ConnectionRejected as refused:
            if refused.status not in (401, 403):
                raise self._in_words(refused) from refused
        with self._signals.interrupting():
            authorize(self._options, self._seconds_to_wait(), fresh=True)
        try:
            return self._connect_with(self._token())
        except ConnectionRejected as refused:
            raise self._in_words(refused) from refused

    def _connect_with(self, token: state.Token) -> Connection:
        return connect(self._settings, token.server, PATH, token.jwt, self._seconds_to_wait(), self._signals)

    def _token(self) -> state.Token:
        """Return the token in the state, where need be after an authorization."""
        known = self._known()
        now = snapshot.look(self._settings.places)
        good = credentials.token_is_good(known.token, self._settings, now)
        with self._signals.interrupting():
            if good and not self._is_same_device:
                good = not credentials.is_another_device(self._settings, known)
            if not good:
                # Sets aside what belongs to another device.
                authorize(self._options, self._seconds_to_wait(), fresh=False)
                known = self._known()
                good = credentials.token_is_good(known.token, self._settings, now)
        self._is_same_device = True
        if known.token is None or not good:
            raise errors.TemporaryError(
                "There is no token although the device is authorized; the next run tries again."
            )
        return known.token

    def _known(self) -> state.State:
        """Read the state; one that cannot be read is the next invocation's business."""
        try:
            known = state.load(self._settings.places.data(state.FILE))
        except state.Unreadable:
            known = state.State()
        now = snapshot.look(self._settings.places).time
        wait = plan.pause_remaining(known, self._settings, "terminal", now)
        if wait:
            raise errors.TemporaryError(plan.pause_in_words(known, wait, now), wait)
        return known

    def _in_words(self, refused: ConnectionRejected) -> errors.Error:
        server = network.host(self._settings.servers[0])
        said = f"{server} answered {refused.status} instead of opening the terminal"
        if refused.status in (401, 403):
            return errors.NotAccepted(f"{said}, although the device is authorized; look at the server.")
        if refused.status in (408, 429) or refused.status >= 500:
            asked = float(refused.wait) if refused.wait.isdecimal() and len(refused.wait) < 10 else 0.0
            return errors.TemporaryError(
                f"{said}; the next attempt may do better.", min(asked, plan.LONGEST_PAUSE)
            )
        if refused.status == 404:
            said += "; it knows no remote terminal"
        return errors.ServerRejected(f"{said}; check ServerURL, and that the server has the add-on.")

    def _serve(self, link: Connection) -> None:
        """Serve over one connection until it is lost or it is time to go."""
        self._connections += 1
        self._trouble = None
        self._link = link
        self._heard = self._pinged = self._moved = self._loop.now()
        self._outbox.attach(link, self._receive)
        log.info("Connected to %s.", network.host(link.url))
        self._loop.run(lambda: bool(self._outbox.lost) or self._time_to_go())
        if self._outbox.lost:
            log.warning("The connection is lost: %s.", self._outbox.lost)
            self._drop()

    def _drop(self) -> None:
        """Give up the connection and all that was open in it: the server will know none of it again."""
        self._outbox.detach()
        self._link = None
        for part in (self._shells, self._files, self._forwards):
            part.drop_all()

    def _leave(self) -> None:
        """Say goodbye to everybody, and leave nothing behind."""
        self._leaving = True
        why = "its time is over" if self._out_of_time() else "it was told to"
        words = f"This device ends its terminal service: {why}."
        for part in (self._shells, self._files, self._forwards):
            part.stop_all(words)
        self._commands.leave()
        if self._link:
            with contextlib.suppress(ConnectionLost):
                self._link.close()
            self._outbox.flush()
        end = self._loop.now() + GOODBYE_SECONDS
        self._loop.later(GOODBYE_SECONDS, lambda: None)
        self._loop.run(
            lambda: (
                self._loop.now() >= end
                or ((not self._link or bool(self._outbox.lost)) and not self._shells.dying)
            )
        )
        if self._shells.dying:
            log.warning("%d shells could not be ended.", self._shells.dying)
        self._drop()

    def _receive(self) -> None:
        link = self._link
        if link is None or self._outbox.held or self._outbox.lost:
            return
        try:
            messages = link.receive()
        except ConnectionLost as lost:
            self._outbox.lost = str(lost)
            return
        self._heard = self._loop.now()
        for data in messages:
            self._take(data)
        self._outbox.flush()
        if link.unread and not self._outbox.held:
            self._loop.later(0, self._receive)

    def _take(self, data: bytes) -> None:
        if self._leaving:
            return
        try:
            message = messages.decode(data)
        except DecodeError as garbled:
            log.warning("A message is ignored: %s.", garbled)
            return
        if message.kind not in ("ping", "pong"):  # which come by themselves
            self._outbox.active = self._heard
        self._control.hear(message.sid)
        with self._outbox.answering(message):
            self._handlers.get(message.proto, self._unknown)(message)
        if self._busy and not self._often:
            self._timer.cancel()
            self._tick()

    def _unknown(self, message: Message) -> None:
        unknown(self._outbox, message)

    def _abandon(self, proto: int, sid: str) -> None:
        parts: dict[int, Shells | Transfers | Forwards] = {
            messages.SHELL: self._shells,
            messages.FILES: self._files,
            messages.FORWARD: self._forwards,
        }
        if proto in parts:
            parts[proto].abandon(sid)

    def _close(self, sid: str) -> None:
        self._files.close(sid)
        self._forwards.close(sid)

    def _child_ended(self) -> None:
        self._shells.child_ended()
        self._commands.child_ended()

    @property
    def _busy(self) -> bool:
        return any(len(part) for part in (self._shells, self._files, self._forwards, self._commands))

    def _out_of_time(self) -> bool:
        limit = self._limits.max_runtime
        return 0 < limit <= self._loop.now() - self._begun

    def _time_to_go(self) -> bool:
        if self._signals.stopped or self._out_of_time():
            return True
        if self._busy:
            return False
        return self._outbox.exhausted or self._seconds_to_wait() <= 0

    def _seconds_to_wait(self) -> float:
        """Return how long `--wait` lets us go on while nobody is there; `inf` without such a limit."""
        if not self._limits.wait or self._busy:
            return math.inf
        return self._outbox.active + self._limits.wait - self._loop.now()

    def _tick(self) -> None:
        """Look after what only time brings, each second while somebody is there, else less often."""
        now = self._loop.now()
        if self._busy:
            self._outbox.active = now
        for part in (self._shells, self._files, self._forwards):
            part.tick()
        self._control.tick(self._files.sids | self._forwards.sids)
        if self._link and not self._leaving:
            if self._outbox.held:
                self._heard = now  # whom we do not listen to is not silent
            if not self._link.pending or self._sent != self._link.sent:
                self._sent, self._moved = self._link.sent, now
            if now - self._heard >= SILENCE_SECONDS:
                self._outbox.lost = self._outbox.lost or "the server is silent"
            elif now - self._moved >= SILENCE_SECONDS:
                self._outbox.lost = self._outbox.lost or "the server takes nothing"
            elif now - self._pinged >= PING_SECONDS:
                self._pinged = now
                with contextlib.suppress(ConnectionLost):
                    self._link.ping()
        ends = [self._outbox.active + self._limits.wait] if self._limits.wait else []
        ends += [self._begun + self._limits.max_runtime] if self._limits.max_runtime else []
        idle = min([IDLE_TICK, *(max(end - now, 0.05) for end in ends)])
        self._often = self._busy
        self._timer = self._loop.later(TICK if self._often else idle, self._tick)
