"""Hold the lock, connect, serve sessions until a limit is reached, then clean up."""

import contextlib
import logging
import math
import os
from typing import NamedTuple

from .. import errors, network
from ..context import Outcome
from ..options import Options
from ..settings import Settings
from . import messages
from . import settings as own_settings
from .commands import Commands
from .confined_path import Root
from .connection import Connection, ConnectionLost
from .control import Control, enabled
from .fields import DecodeError
from .files import Transfers
from .forward import Forwards
from .keepalive import Keepalive
from .loop import Loop
from .messages import CONTROL, Message
from .outbox import Outbox, reject_unknown
from .readiness import check, hold_root, take_lock
from .reconnect import Reconnector
from .settings import TerminalSettings
from .shell import Shells
from .signals import Signals, Stopped

CLOSE_SECONDS = 4.0
"""How long the server may take to answer the close frame, and processes to end."""
TICK = 1.0
IDLE_TICK = 5.0

log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """When to exit: seconds and sessions, 0 for no limit."""

    wait: int
    max_sessions: int
    max_runtime: int


def serve(options: Options, settings: Settings) -> Outcome:
    """Serve until a limit is reached or a signal arrives.

    Raises an `errors.Error` if there never was a connection, or the server rejects this device.
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


class Service:
    """One run of the terminal: its connections, one after the other, and the sessions on them."""

    def __init__(
        self, options: Options, settings: Settings, own: TerminalSettings, root: Root, loop: Loop
    ) -> None:
        self._limits = Limits(options.wait, options.max_sessions, options.max_runtime)
        self._loop = loop
        self._begun = loop.now()
        self._signals = Signals(loop, self._child_ended, options.max_runtime)
        self._reconnector = Reconnector(options, settings, self._signals, self._seconds_to_wait)
        self._connection: Connection | None = None
        self._keepalive = Keepalive(self._begun)
        self._outbox = Outbox(loop, own, self._limits.max_sessions)
        self._outbox.abandon = self._abandon
        self._shells = Shells(self._outbox)
        self._files = Transfers(self._outbox, root)
        self._forwards = Forwards(self._outbox)
        self._commands = Commands(self._outbox, options)
        self._control = Control(self._outbox, self._close_session)
        handlers = {
            messages.SHELL: self._shells.handle,
            messages.FILES: self._files.handle,
            messages.FORWARD: self._forwards.handle,
            messages.CLIENT: self._commands.handle,
        }
        self._handlers = {proto: handlers[proto] for proto in enabled(self._outbox)}
        self._handlers[CONTROL] = self._control.handle
        self._closing = False
        self._ticking_fast = False
        self._timer = loop.later(0, self._tick)

    def run(self) -> Outcome:
        """Connect, serve, reconnect, and close."""
        with self._signals:
            try:
                self._serve_until_done()
            except Stopped:
                pass
            finally:
                self._close()
        return self._outcome()

    def _outcome(self) -> Outcome:
        served, seconds = self._outbox.served, round(self._loop.now() - self._begun)
        connections = self._reconnector.connections
        if not connections and not self._signals.stopped:
            raise self._reconnector.last_error or errors.NetworkError(
                "Could not connect within the time limit; will retry on the next run."
            )
        sessions = "1 session" if served == 1 else f"{served} sessions"
        facts = {"sessions": served, "connections": connections, "seconds": seconds}
        return Outcome("served", f"Served {sessions} in {seconds} s.", facts)

    def _serve_until_done(self) -> None:
        while not self._done():
            connection = self._reconnector.attempt()
            if connection:
                self._serve(connection)
                self._reconnector.lost(connection)
                if not self._done():
                    log.info("Reconnecting in %.0f s.", self._reconnector.pause)
            self._sleep(self._reconnector.pause)

    def _sleep(self, seconds: float) -> None:
        end = self._loop.now() + seconds
        timer = self._loop.later(seconds, lambda: None)
        self._loop.run(lambda: self._loop.now() >= end or self._done())
        timer.cancel()

    def _serve(self, connection: Connection) -> None:
        """Serve on one connection until it is lost or a limit is reached."""
        self._connection = connection
        self._keepalive = Keepalive(self._loop.now())
        self._outbox.attach(connection, self._receive)
        log.info("Connected to %s; a terminal can be opened now.", network.host(connection.url))
        self._loop.run(lambda: bool(self._outbox.lost) or self._done())
        if self._outbox.lost:
            log.warning("Connection lost: %s.", self._outbox.lost)
            self._drop()

    def _drop(self) -> None:
        """Close the connection and its sessions: the server does not resume them on another connection."""
        self._outbox.detach()
        self._connection = None
        for part in (self._shells, self._files, self._forwards):
            part.drop_all()

    def _close(self) -> None:
        """Notify the users, end their sessions, and close the connection gracefully."""
        self._closing = True
        why = "its time limit is reached" if self._timed_out() else "it was stopped"
        for part in (self._shells, self._files, self._forwards):
            part.stop_all(f"This device ends its terminal service: {why}.")
        self._commands.detach()
        if self._connection:
            with contextlib.suppress(ConnectionLost):
                self._connection.close_gracefully()
            self._outbox.flush()
        end = self._loop.now() + CLOSE_SECONDS
        self._loop.later(CLOSE_SECONDS, lambda: None)
        self._loop.run(lambda: self._loop.now() >= end or self._closed())
        if self._shells.terminating:
            log.warning("%d shells could not be ended.", self._shells.terminating)
        self._drop()

    def _closed(self) -> bool:
        return (not self._connection or bool(self._outbox.lost)) and not self._shells.terminating

    def _receive(self) -> None:
        connection = self._connection
        if connection is None or self._outbox.reading_paused or self._outbox.lost:
            return
        try:
            received = connection.receive()
        except ConnectionLost as lost:
            self._outbox.lost = str(lost)
            return
        self._keepalive.last_received = self._loop.now()
        for data in received:
            self._handle(data)
        self._outbox.flush()
        if connection.unread and not self._outbox.reading_paused:
            self._loop.later(0, self._receive)

    def _handle(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            message = messages.decode(data)
        except DecodeError as error:
            log.warning("Ignoring a malformed message: %s.", error)
            return
        if message.kind not in ("ping", "pong"):  # which are sent without a user
            self._outbox.last_active = self._keepalive.last_received
        self._control.on_activity(message.sid)
        with self._outbox.answering(message):
            self._handlers.get(message.proto, self._reject)(message)
        if self._busy and not self._ticking_fast:
            self._timer.cancel()
            self._tick()

    def _reject(self, message: Message) -> None:
        reject_unknown(self._outbox, message)

    def _abandon(self, proto: int, sid: str) -> None:
        parts: dict[int, Shells | Transfers | Forwards] = {
            messages.SHELL: self._shells,
            messages.FILES: self._files,
            messages.FORWARD: self._forwards,
        }
        if proto in parts:
            parts[proto].abandon(sid)

    def _close_session(self, sid: str) -> None:
        self._files.close(sid)
        self._forwards.close(sid)

    def _child_ended(self) -> None:
        self._shells.child_ended()
        self._commands.child_ended()

    @property
    def _busy(self) -> bool:
        return any(len(part) for part in (self._shells, self._files, self._forwards, self._commands))

    def _timed_out(self) -> bool:
        limit = self._limits.max_runtime
        return 0 < limit <= self._loop.now() - self._begun

    def _done(self) -> bool:
        if self._signals.stopped or self._timed_out():
            return True
        if self._busy:
            return False
        return self._outbox.exhausted or self._seconds_to_wait() <= 0

    def _seconds_to_wait(self) -> float:
        """Return the seconds until `--wait` ends an idle service; `inf` if it is busy or has no limit."""
        if not self._limits.wait or self._busy:
            return math.inf
        return self._outbox.last_active + self._limits.wait - self._loop.now()

    def _tick(self) -> None:
        """Check timeouts: each second during sessions, less often without."""
        now = self._loop.now()
        if self._busy:
            self._outbox.last_active = now
        for part in (self._shells, self._files, self._forwards):
            part.tick()
        self._control.tick(self._files.sids | self._forwards.sids)
        if self._connection and not self._closing:
            self._check_connection(self._connection, now)
        ends = [self._outbox.last_active + self._limits.wait] if self._limits.wait else []
        ends += [self._begun + self._limits.max_runtime] if self._limits.max_runtime else []
        idle = min([IDLE_TICK, *(max(end - now, 0.05) for end in ends)])
        self._ticking_fast = self._busy
        self._timer = self._loop.later(TICK if self._ticking_fast else idle, self._tick)

    def _check_connection(self, connection: Connection, now: float) -> None:
        problem = self._keepalive.problem(
            now, pending=connection.pending, sent=connection.sent, paused=self._outbox.reading_paused
        )
        if problem:
            self._outbox.lost = self._outbox.lost or problem
        elif self._keepalive.ping_due(now):
            with contextlib.suppress(ConnectionLost):
                connection.ping()
