"""What a step gets, and what it hands back."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import errors, plan
from .settings import Settings
from .snapshot import Snapshot
from .state import Store

if TYPE_CHECKING:
    # Named, not imported: the step that needs the network brings urllib3 along, no other.
    from .server import Server


class Outcome(NamedTuple):
    """What a step did: a word for programs (`--json`), a sentence for people, and facts with stable names."""

    word: str
    sentence: str
    facts: Mapping[str, Any] = {}
    syslog: bool = False  # for the syslog as well, wherever the caller reads it


class Done(NamedTuple):
    """A step and what came of it."""

    step: str
    outcome: Outcome


Progress = Callable[[int, int], None]
"""Tells of (bytes done, bytes in all)."""


class Context:
    """The one argument of every step."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], Snapshot],
        progress: Progress | None = None,
        syslog: bool = False,
    ) -> None:
        self.settings = settings
        self.store = store
        self.now = clock
        self.progress = progress or (lambda done, size: None)
        self.syslog = syslog
        """This invocation writes to the syslog, and so does the report of an update that it hands off."""
        self.server: Server | None = None
        self.confirmed = False  # this invocation has compared the device with the state (owner.confirm)
        self.identity: dict[str, str | list[str]] | None = None
        self.identity_error: errors.Error | None = None  # why it is not known
        self.met: dict[str, errors.Error | None] = {}
        """What a step of this invocation needed: the step for it, and why that could not help, if so."""

    def close(self) -> None:
        """Close the connection to the server, if there is one."""
        if self.server:
            self.server.close()
            self.server = None

    def keep_away(self, step: str, error: errors.Error) -> None:
        """Store the pause that a host has asked a step for, if it has."""
        if isinstance(error, errors.TemporaryError) and error.host and error.retry_after:
            store, now = self.store, self.now().time
            store.state = plan.with_pause(store.state, step, error.host, error.retry_after, now)

    def data(self, name: str) -> str:
        """Return the path of a file in the data directory."""
        return self.settings.places.data(name)
