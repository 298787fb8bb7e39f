"""What a step gets, and what it returns."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors, plan
from .identity import Identity
from .settings import Settings
from .snapshot import Snapshot
from .state_store import Store

if TYPE_CHECKING:
    # Only for the type: importing it at run time would load TLS for steps that need no network.
    from .server import Server


class Outcome(NamedTuple):
    """What a step did: a word for programs (`--json`), a sentence for people, and facts with stable names."""

    word: str
    sentence: str
    facts: Mapping[str, Any] = {}
    syslog: bool = False  # write it to the syslog as well, wherever the output of the caller goes


class Done(NamedTuple):
    """A step and its outcome."""

    step: str
    outcome: Outcome


Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all (-1: unknown)."""


class Connection:
    """The connection to the server of this invocation, opened by the first step that needs one."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def replace(self, server: "Server") -> None:
        """Use this server from now on, and close the connection to the previous one."""
        self.close()
        self.server = server

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.server:
            self.server.close()
            self.server = None


class IdentityScript:
    """The identity of the device; the script that prints it runs at most once per invocation."""

    def __init__(self, run: Callable[[], Identity]) -> None:
        self._run = run
        self._found: Identity | errors.Error | None = None

    @property
    def has_run(self) -> bool:
        """Whether the result, an identity or an error, is known."""
        return self._found is not None

    def result(self) -> Identity:
        """Return the identity, or raise the same `errors.SettingsError` or `errors.TemporaryError` again."""
        if self._found is None:
            try:
                self._found = self._run()
            except (errors.SettingsError, errors.TemporaryError) as error:
                self._found = error
        if isinstance(self._found, errors.Error):
            raise self._found
        return self._found


class Context(NamedTuple):
    """The first argument of every step."""

    settings: Settings
    store: Store
    now: Callable[[], Snapshot]
    progress: Progress
    syslog: (
        bool  # this invocation writes to the syslog, and so will the report of an update that it hands off
    )
    connection: Connection
    identity: IdentityScript
    perform: Callable[[str], Outcome]
    """Performs another step, counts its failures, and raises the `errors.Error` that it ends with."""

    def store_pause(self, step: str, error: errors.Error) -> None:
        """Store the `Retry-After` of an error as a pause of `step`, in memory; other errors change nothing.

        A longer pause that is in force stays. An error is used once: if it passes through a second step, that
        one gets no pause of its own.
        """
        if not isinstance(error, errors.TemporaryError) or error.pause_stored:
            return
        if error.host and error.retry_after:
            error.pause_stored = True
            store, now = self.store, self.now().time
            store.state = plan.with_pause(store.state, step, error.host, error.retry_after, now)

    def data(self, name: str) -> str:
        """Return the path of a file in the data directory."""
        return self.settings.places.data(name)
