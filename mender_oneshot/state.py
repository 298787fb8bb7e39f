"""What one invocation leaves for the next: `mender-oneshot.json` in the data directory.

Frozen values, parsed strictly at this border; members that a newer version wrote are kept. What the disk can
tell (how much is downloaded, whether an update is in the sub-updater's hands) is not stored here.
"""

import errno
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from . import disk, errors

SCHEMA = 1
FILE = "mender-oneshot.json"
LOCK = "mender-oneshot.lock"
UPDATE_LOCK = "update.lock"
PART = "artifact.part"
ARTIFACT = "artifact.mender"
SUB_UPDATER_FILE = "sub-updater.log"
SUB_UPDATER_LOCK = "sub-updater.lock"
SPARE = 16384
"""Bytes that a step may add to the state: room for them is asked for before the step begins."""


class Unreadable(Exception):
    """The state file holds something that this program never wrote; the text says what.

    `content` is what was found, b"" if it was not read.
    """

    content = b""


class Deployment(NamedTuple):
    """An update the server has for us, from the answer of `next` until its final status is queued."""

    id: str
    artifact_id: str
    artifact_name: str
    uri: str
    expires: float = 0  # end of the link's life by the server's clock, seconds since 1970; 0: unknown
    etag: str = ""
    last_modified: str = ""
    size: int = -1  # bytes of the whole object; -1: the server has not said
    boot: str = ""  # the kernel's boot id when the bytes on disk were written
    stalls: int = 0  # attempts to download that brought no new byte, in a row
    verifying: int = 0  # attempts to verify it, in a row, that have not come to an end
    starts: int = 0  # attempts to start the sub-updater


class Handoff(NamedTuple):
    """An update given into the hands of the sub-updater; kept until it is reported or given up."""

    deployment: str
    artifact_name: str
    boot: str  # the kernel's boot id at the hand-off
    uptime: float  # seconds awake from that boot to the hand-off: no clock can spoil them
    syslog: bool = False  # the result is written to the syslog, as the run that handed it off did


class Result(NamedTuple):
    """A final status for the server."""

    deployment: str
    status: str
    at: float
    sent: bool = False  # the server has the status; the log is still to go
    refusals: int = 0  # answers that were neither yes nor "void"


class Failure(NamedTuple):
    """How often in a row a step failed or had to wait, when it did last, and why."""

    times: int
    at: float
    why: str = ""  # the sentence of the last failure, shortened
    failed: bool = True  # False: it only waits, with the growing pauses of a step that fails


class Pause(NamedTuple):
    """A host answered one step with `Retry-After`; no other step and no other host is concerned."""

    step: str
    host: str
    at: float
    seconds: float


class Token(NamedTuple):
    """The JWT, who gave it, its life by two clocks (ours when it came, and the server's), and whose it is."""

    jwt: str
    server: str
    at: float
    lifetime: float = 0  # seconds; 0: the token does not say
    expires: float = 0  # seconds since 1970 by the server's clock; 0: the token does not say
    credentials: str = ""  # digest of the key and the settings that it was asked for with
    boot: str = ""  # the kernel's boot id when the identity was last compared


class State(NamedTuple):
    """Everything remembered between two invocations; times in seconds since 1970, by a clock that may err."""

    spread: float = -1  # this device's place in the fleet, 0..1, drawn once; -1: not drawn yet
    identity_format: str = ""
    owner: str = ""  # digest of the identity of the device that all of this belongs to; "": not known yet
    token: Token | None = None
    form: str = ""  # the variant of `next` that the server knows: "v2" or "v1"
    deployment: Deployment | None = None
    handoff: Handoff | None = None
    results: tuple[Result, ...] = ()  # final statuses not delivered yet, oldest first
    last_result: Result | None = None  # the newest final status, delivered or not
    past_results: tuple[Result, ...] = ()  # the ones before it, oldest first
    checked_at: float = 0
    inventory_at: float = 0
    inventory_sent_at: float = 0
    inventory_digest: str = ""
    failures: Mapping[str, Failure] = {}
    pauses: tuple[Pause, ...] = ()
    unknown: Mapping[str, Any] = {}


REMEMBERED = 8
"""Final statuses that are kept: what a server could offer once more must not be installed once more."""

_T = TypeVar("_T")
_PARTS: dict[str, type[Any]] = {
    "token": Token,
    "deployment": Deployment,
    "handoff": Handoff,
    "last_result": Result,
}
_LISTS: dict[str, type[Any]] = {"results": Result, "past_results": Result, "pauses": Pause}


def to_json(state: State) -> bytes:
    """Write a state as JSON text."""
    members: dict[str, Any] = {"schema": SCHEMA, **state.unknown}
    for name, value in state._asdict().items():
        if name == "unknown" or value == State._field_defaults.get(name):
            continue
        if name in _PARTS:
            value = value._asdict()
        elif name in _LISTS:
            value = [item._asdict() for item in value]
        elif name == "failures":
            value = {step: failure._asdict() for step, failure in value.items()}
        members[name] = value
    return json.dumps(members, indent=1).encode() + b"\n"


def from_json(content: bytes) -> State:
    """Read a state; raises `Unreadable` for anything that `to_json` could not have written."""
    try:
        members = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON") from error
    if not isinstance(members, dict) or not isinstance(members.pop("schema", None), int):
        raise Unreadable("it has no schema number")
    known: dict[str, Any] = {}
    for name in [name for name in members if name in State._fields and name != "unknown"]:
        value = members.pop(name)
        if name in _PARTS:
            known[name] = _part(_PARTS[name], name, value)
        elif name in _LISTS:
            known[name] = tuple(_part(_LISTS[name], name, item) for item in _typed(list, name, value))
        elif name == "failures":
            steps = _typed(dict, name, value)
            known[name] = {step: _part(Failure, name, failure) for step, failure in steps.items()}
        else:
            known[name] = _typed(State.__annotations__[name], name, value)
    return State(**known, unknown=members)


def _part(kind: type[_T], name: str, value: object) -> _T:
    """Read one of the small tuples above; its members a newer version added are dropped."""
    members = _typed(dict, name, value)
    types = kind.__annotations__
    try:
        return kind(
            **{key: _typed(types[key], f"{name}.{key}", members[key]) for key in types if key in members}
        )
    except TypeError as error:
        raise Unreadable(f"{name} is incomplete") from error


def _typed(kind: type[_T], name: str, value: Any) -> _T:
    if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        # A time may be written without a fraction; NaN and infinity are nobody's time.
        largest = 2**53 if kind is int else 1e15
        if abs(value) < largest and (kind is float or isinstance(value, int)):
            return value  # type: ignore[return-value]  # an int is as good as a float
    elif isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
        return value
    raise Unreadable(f"{name} is not of type {kind.__name__}")


def concluded(state: State, result: Result) -> State:
    """Return the state after an update has come to its end; a result of no known deployment goes nowhere."""
    past = (*state.past_results, state.last_result) if state.last_result else state.past_results
    return state._replace(
        deployment=None,
        handoff=None,
        results=(*state.results, result) if result.deployment else state.results,
        last_result=result,
        past_results=past[-REMEMBERED + 1 :],
    )


def final_result(state: State, deployment: str) -> Result | None:
    """Return the final status that a deployment was given, if it was: the first one stands.

    A lock without an id is always another one: nobody can say that it was that of the last time.
    """
    if not deployment:
        return None
    known = (*state.past_results, state.last_result)
    return next((result for result in known if result and result.deployment == deployment), None)


class Store:
    """Holds the state of this invocation and puts it on disk."""

    def __init__(self, path: str, state: State) -> None:
        self.path = path
        self.state = state
        self._saved: State | None = None if state == State() else state

    def update(self, **changes: Any) -> None:
        """Change the state in memory; the end of the invocation, or `save`, makes it last."""
        self.state = self.state._replace(**changes)

    def save(self, **changes: Any) -> None:
        """Change the state and put it on disk now, whole; raises `errors.NoSpace` or `errors.DiskError`."""
        self.update(**changes)
        if self.state != self._saved:
            disk.write_whole(self.path, to_json(self.state))
            self._saved = self.state

    def prove(self) -> None:
        """Put the state on disk although it may not have changed: what follows will have to be remembered.

        A back-off that cannot be written down is none, and every tick of a timer would ask the server again.
        """
        try:
            if disk.free(os.path.dirname(self.path)) < SPARE:
                raise OSError(errno.ENOSPC, "")
        except OSError as error:
            raise disk.failure(f"write {self.path}", error) from error
        disk.write_whole(self.path, to_json(self.state))
        self._saved = self.state


def load(path: str) -> State:
    """Read the state file; none yet is an empty state. Raises `Unreadable` or `errors.DiskError`."""
    try:
        content = disk.read_own(path)
    except errors.NotOurs as error:
        unreadable = Unreadable(f"it {error.reason}")
        unreadable.content = error.content
        raise unreadable from error
    try:
        return State() if content is None else from_json(content)
    except Unreadable as error:
        error.content = content or b""
        raise


def set_aside(path: str, ruins: bytes) -> str:
    """Keep what an unreadable state file holds under another name, and say which; one kept before is lost.

    A copy: the file itself stands until the new state takes its place, so that a power cut in between finds
    the ruins again and not a device that seems to be new.
    """
    aside = path + ".unreadable"
    disk.write_whole(aside, ruins)
    return aside
