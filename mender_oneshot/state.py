"""What one invocation leaves for the next: `mender-oneshot.json` in the data directory.

Frozen values, parsed strictly at this border, each by itself: one that cannot be read costs no other. Members
that a newer version wrote are kept. What the disk can tell (how much is downloaded, whether an update is
installing) is not stored here.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import disk, errors, paths
from .typed import Reader

SCHEMA = 1
LIMIT = 1 << 20
"""Bytes of the largest state that is read, and so of the largest that is written."""
SPARE = 16384
"""Bytes that a step may add to the state: room for them is asked for before the step begins."""


class Unreadable(Exception):
    """The state file holds something that no version of this program wrote; the text says what.

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
    server: str = ""  # the URL of the server that offered it; "": not known
    refused: int = 0  # conditions of `resume` that the object's hosts have not honoured
    spliced: bool = False  # bytes were joined without a strong validator
    restarted: bool = False  # fetched anew after a splice that failed its checksums
    more: Mapping[str, Any] = {}  # members that a newer version wrote


class Handoff(NamedTuple):
    """An update given into the hands of the sub-updater; kept until it is reported or given up."""

    deployment: str
    artifact_name: str = ""
    boot: str = ""  # the kernel's boot id at the hand-off
    uptime: float = 0  # seconds awake from that boot to the hand-off: no clock can spoil them
    syslog: bool = False  # the result is written to the syslog, as the run that handed it off did
    more: Mapping[str, Any] = {}


class Result(NamedTuple):
    """A final status for the server."""

    deployment: str
    status: str
    at: float = 0
    sent: bool = False  # the server has the status; the log is still to go
    refusals: int = 0  # answers that were neither yes nor "void"
    answer: str = ""  # what became of it: DELIVERED, ABORTED or UNKNOWN; "": in the queue, or given up
    attempts: int = 1  # how many times the deployment has come to a final status here
    more: Mapping[str, Any] = {}


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
    unknown: Mapping[str, Any] = {}  # members that a newer version wrote
    damaged: tuple[str, ...] = ()  # names of members that could not be read; not written


REMEMBERED = 8
"""Final statuses that are kept: what a server could offer once more must not be installed once more."""

_NOT_WRITTEN = ("unknown", "damaged")
_PARTS: dict[str, type[Any]] = {
    "token": Token,
    "deployment": Deployment,
    "handoff": Handoff,
    "last_result": Result,
}
_LISTS: dict[str, type[Any]] = {"results": Result, "past_results": Result, "pauses": Pause}


def to_json(state: State) -> bytes:
    """Write a state as JSON text of at most `LIMIT` bytes.

    Too large a state, which only members of a newer version can make, loses those first. Raises
    `errors.NoSpace` if that is not enough.
    """
    for smaller in (state, *_shed(state)):
        content = json.dumps(_members(smaller), indent=1).encode() + b"\n"
        if len(content) <= LIMIT:
            return content
    raise errors.NoSpace(
        f"The state would be larger than {LIMIT} bytes; remove {paths.STATE} to start afresh."
    )


def _shed(state: State) -> Iterator[State]:
    """Name ever smaller states, the least needed members going first; results and hand-off always stay."""
    plain = {name: _without_more(value) for name, value in state._asdict().items()}
    for name in ("unknown", "failures", "past_results", "token", "deployment"):
        plain[name] = State._field_defaults[name]
        yield State(**plain)


def _without_more(value: Any) -> Any:
    if hasattr(value, "more"):
        return value._replace(more={})
    return tuple(_without_more(one) for one in value) if type(value) is tuple else value


def _members(state: State) -> dict[str, Any]:
    members: dict[str, Any] = {"schema": SCHEMA, **state.unknown}
    for name, value in state._asdict().items():
        if name in _NOT_WRITTEN or value == State._field_defaults.get(name):
            continue
        if name in _PARTS:
            value = _flat(value)
        elif name in _LISTS:
            value = [_flat(item) for item in value]
        elif name == "failures":
            value = {step: failure._asdict() for step, failure in value.items()}
        members[name] = value
    return members


def _flat(part: Any) -> dict[str, Any]:
    """Write a part as an object, with the members that a newer version wrote into it."""
    members: dict[str, Any] = part._asdict()
    return {**members.pop("more", {}), **members}


def from_json(content: bytes) -> State:
    """Read a state, member by member: what cannot be read gets its default and is named in `damaged`.

    Raises `Unreadable` for what is no JSON object at all.
    """
    try:
        members = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON") from error
    if not isinstance(members, dict):
        raise Unreadable("it is not a JSON object")
    reader = Reader()
    if not isinstance(members.pop("schema", None), int):
        reader.damaged.append("schema")
    known: dict[str, Any] = {}
    for name in [name for name in members if name in State._fields and name not in _NOT_WRITTEN]:
        value = members.pop(name)
        if name in _PARTS:
            known[name] = reader.part(_PARTS[name], name, value)
        elif name in _LISTS:
            found = [reader.part(_LISTS[name], name, item) for item in reader.typed(list, name, value) or ()]
            known[name] = tuple(item for item in found if item)
        elif name == "failures":
            steps = reader.typed(dict, name, value) or {}
            read = {step: reader.part(Failure, name, failure) for step, failure in steps.items()}
            known[name] = {step: failure for step, failure in read.items() if failure}
        else:
            read_value = reader.typed(State.__annotations__[name], name, value)
            known[name] = State._field_defaults[name] if read_value is None else read_value
    return State(**known, unknown=members, damaged=tuple(dict.fromkeys(reader.damaged)))


def bounded(text: str) -> str:
    """Return a text of a stranger's if it is of a reasonable length, else none: the state has a limit."""
    return text if len(text) <= 8192 else ""


DELIVERED, ABORTED, UNKNOWN = "delivered", "aborted", "unknown"
"""What became of a result: the server has it, has aborted the deployment, or does not know it."""


def with_final_result(state: State, result: Result) -> State:
    """Return the state after an update has come to its end; a result of no known deployment goes nowhere.

    The result of an earlier attempt at the same deployment makes way for this one, which counts it.
    """
    past = (*state.past_results, state.last_result) if state.last_result else state.past_results
    before = [one for one in past if one.deployment and one.deployment == result.deployment]
    past = tuple(one for one in past if one not in before)
    result = result._replace(attempts=1 + max((one.attempts for one in before), default=0))
    return state._replace(
        deployment=None,
        handoff=None,
        results=(*state.results, result) if result.deployment else state.results,
        last_result=result,
        past_results=past[-REMEMBERED + 1 :],
    )


def final_result(state: State, deployment: str) -> Result | None:
    """Return the final status that a deployment was given, if it was: the first one stands.

    A lock without an id is always another one: nobody can say that it was that of the last time. A deployment
    that is tried again has none until that attempt has come to its end.
    """
    trying = (state.deployment and state.deployment.id, state.handoff and state.handoff.deployment)
    if not deployment or deployment in trying:
        return None
    known = (*state.past_results, state.last_result)
    return next((result for result in known if result and result.deployment == deployment), None)


def answered(state: State, result: Result, answer: str) -> State:
    """Return the state with what became of the oldest queued result, which leaves the queue."""

    def note(one: Result) -> Result:
        return one._replace(answer=answer) if one.deployment == result.deployment else one

    return state._replace(
        results=state.results[1:],
        last_result=state.last_result and note(state.last_result),
        past_results=tuple(note(one) for one in state.past_results),
    )


class Store:
    """The state of this invocation.

    To change it in memory, assign `state`; `save` writes it to disk, at the latest when the invocation ends.
    """

    def __init__(self, path: str, state: State) -> None:
        self.path = path
        self.state = state
        self._saved: State | None = None if state == State() or state.damaged else state

    def save(self, state: State | None = None) -> None:
        """Write the state to disk if it has changed; with an argument, this is the state from now on.

        Atomic and durable: after a power cut the file holds the old or the new state. Raises `errors.NoSpace`
        or `errors.DiskError`; the state in memory has changed even so.
        """
        if state is not None:
            self.state = state
        if self.state != self._saved:
            disk.write_whole(self.path, to_json(self.state))
            self._saved = self.state

    def ensure_writable(self) -> None:
        """Write the state, changed or not, to be sure that what follows can be saved.

        A back-off that cannot be saved has no effect: every run would ask the server again. Raises
        `errors.NoSpace` or `errors.DiskError`.
        """
        try:
            if disk.free(os.path.dirname(self.path)) < SPARE:
                raise OSError(errno.ENOSPC, "", self.path)
        except OSError as error:
            raise disk.failure(f"write {self.path}", error) from error
        disk.write_whole(self.path, to_json(self.state))
        self._saved = self.state


def load(path: str) -> State:
    """Read the state file; none yet is an empty state. Raises `Unreadable` or `errors.DiskError`."""
    try:
        content = disk.read_own(path, LIMIT)
    except (errors.UntrustedFile, errors.FileTooLarge) as error:
        unreadable = Unreadable(f"it {error.reason}")
        unreadable.content = error.content
        raise unreadable from error
    try:
        return State() if content is None else from_json(content)
    except Unreadable as error:
        error.content = content or b""
        raise


def quarantine(path: str, corrupt: bytes) -> str:
    """Copy the content of a corrupt state file, and return the path of the copy.

    The file itself stays until the new state replaces it, so that a power cut in between does not make the
    device look new. An older copy is overwritten.
    """
    copy = path + paths.UNREADABLE
    disk.write_whole(copy, corrupt)
    return copy
