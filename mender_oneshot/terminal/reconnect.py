"""Open connections with the device's token, and choose the pauses between attempts."""

import logging
import os
from collections.abc import Callable

from .. import credentials, errors, identity, network, paths, plan, snapshot, state, state_store
from ..options import Options
from ..settings import Settings
from .connection import Connection, ConnectionRejected, connect
from .signals import Signals
from .subcommand import authorize

PATH = "/api/devices/v1/deviceconnect/connect"

LONGEST_PAUSE = 1800.0
LONGEST_PAUSE_AFTER_LOSS = 60.0
"""The limit if the server accepted the last connection, but sent nothing on it."""
JITTER = 5.0

log = logging.getLogger(__name__)


def backoff(attempts: int, jitter: float, longest: float = LONGEST_PAUSE) -> float:
    """Return how many seconds to wait before the next attempt; `jitter` (0..1) spreads a fleet.

    The first attempt is immediate, the next follow after 1, 1, 2, 2, 2, 4 s and so on, as in mender-connect.
    """
    return 0.0 if attempts == 0 else min(2.0 ** min(attempts // 3, 20), longest) + JITTER * jitter


def _random() -> float:
    """Return a random number from 0 to 1; the module `random` would load OpenSSL's digests."""
    return int.from_bytes(os.urandom(4)) / 2**32


class Reconnector:
    """Opens one connection after the other; `time_left` returns the seconds that an attempt may take."""

    def __init__(
        self, options: Options, settings: Settings, signals: Signals, time_left: Callable[[], float]
    ) -> None:
        self.connections = 0  # opened so far
        self.last_error: errors.TemporaryError | None = None  # of the attempts since the last connection
        self.pause = 0.0  # seconds to wait before the next attempt
        self._options = options
        self._settings = settings
        self._signals = signals
        self._time_left = time_left
        self._attempts = 0
        self._is_same_device = False  # the identity was compared with that in the state

    def attempt(self) -> Connection | None:
        """Try to connect; after a temporary error log it, set `pause` and return None.

        Raises every other `errors.Error`, and `Stopped` if a signal interrupts it.
        """
        try:
            connection = self._connect()
        except errors.Error as error:
            temporary = self._as_temporary(error)
            self._attempts += 1
            self.pause = max(backoff(self._attempts, _random()), temporary.retry_after or 0)
            level = logging.INFO if self.last_error else logging.WARNING
            self.last_error = temporary
            log.log(level, "%s (retrying in %.0f s)", temporary, self.pause)
            return None
        self.connections += 1
        self.last_error = None
        return connection

    def lost(self, connection: Connection) -> None:
        """Set `pause` after a connection was lost.

        A connection on which the server sent anything was a success, however short it was.
        """
        self._attempts = 1 if connection.received_any else self._attempts + 1
        self.pause = backoff(self._attempts, _random(), LONGEST_PAUSE_AFTER_LOSS)

    def _as_temporary(self, error: errors.Error) -> errors.TemporaryError:
        """Return the error if retrying may help, else raise it.

        After a first connection a rejection is temporary: the server has a remote terminal, and a gateway
        answers like this while the server restarts.
        """
        if isinstance(error, errors.TemporaryError):
            return error
        if self.connections and isinstance(error, (errors.ServerRejected, errors.InvalidResponse)):
            return errors.TemporaryError(str(error))
        raise error

    def _connect(self) -> Connection:
        """Connect with the token in the state; if the server rejects it, authorize once and try again."""
        try:
            return self._connect_with(self._token())
        except ConnectionRejected as rejected:
            if rejected.status not in (401, 403):
                raise self._as_error(rejected) from rejected
        with self._signals.interrupting():
            authorize(self._options, self._time_left(), fresh=True)
        try:
            return self._connect_with(self._token())
        except ConnectionRejected as rejected:
            raise self._as_error(rejected) from rejected

    def _connect_with(self, token: state.Token) -> Connection:
        return connect(self._settings, token.server, PATH, token.jwt, self._time_left(), self._signals)

    def _token(self) -> state.Token:
        """Return the token in the state, after an authorization if there is no valid one."""
        known = self._load_state()
        now = snapshot.look(self._settings.places)
        good = credentials.token_is_good(known.token, self._settings, now)
        with self._signals.interrupting():
            if good and not self._is_same_device:
                good = not identity.is_another_device(self._settings, known)
            if not good:
                # This also sets a state aside that belongs to another device.
                authorize(self._options, self._time_left(), fresh=False)
                known = self._load_state()
                good = credentials.token_is_good(known.token, self._settings, now)
        self._is_same_device = True
        if known.token is None or not good:
            raise errors.TemporaryError(
                "There is no valid token although the device is authorized; check the file system, then "
                "try again."
            )
        return known.token

    def _load_state(self) -> state.State:
        """Return the state; raises `TemporaryError` during a pause that the server asked for.

        If it is corrupt, returns an empty one: the next command that writes the state sets the old one aside.
        """
        try:
            known = state_store.load(self._settings.places.data(paths.STATE))
        except state.Unreadable:
            known = state.State()
        now = snapshot.look(self._settings.places).time
        wait = plan.pause_remaining(known, self._settings, "terminal", now)
        if wait:
            raise errors.ServerPause(plan.pause_in_words(known, wait, now), wait)
        return known

    def _as_error(self, rejected: ConnectionRejected) -> errors.Error:
        server = network.host(self._settings.servers[0])
        problem = f"{server} answered {rejected.status} instead of opening the terminal"
        if rejected.status in (401, 403):
            return errors.NotAccepted(
                f"{problem}, although the device is authorized; check the device on the server."
            )
        if rejected.status in (408, 429) or rejected.status >= 500:
            asked = rejected.retry_after
            seconds = float(asked) if asked.isdecimal() and len(asked) < 10 else 0.0
            return errors.ServerBusy(
                f"{problem}; the server may be restarting, try again later.", min(seconds, plan.LONGEST_PAUSE)
            )
        if rejected.status == 404:
            problem += "; it has no remote terminal"
        return errors.ServerRejected(f"{problem}; check ServerURL, and that the server has the add-on.")
