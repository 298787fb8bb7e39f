"""What one invocation leaves for the next: `mender-oneshot.json` in the data directory.

Every member is parsed strictly and on its own, so that a corrupt one does not affect the others. Members that
a newer version wrote are kept. What the files show (how much is downloaded, whether an update is being
installed) is not stored here.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import errors, paths
from .typed import Reader

SCHEMA = 1
LIMIT = 1 << 20
"""Size limit of the state file in bytes, for reading and for writing."""


class Unreadable(Exception):
    """The state file has content that no version of this program wrote; the message names the problem.

    `content` is that content, b"" if it was not read.
    """

    content = b""


class Deployment(NamedTuple):
    """The current deployment, from the answer of `next` until its final status is queued."""

    id: str
    artifact_id: str
    artifact_name: str
    uri: str
    expires: float = 0  # when the link expires by the server's clock, seconds since 1970; 0: unknown
    etag: str = ""
    last_modified: str = ""
    size: int = -1  # bytes of the whole object; -1: unknown
    boot: str = ""  # the kernel's boot id when the bytes on disk were written
    stalls: int = 0  # attempts to download, in a row, that brought no new byte
    verifying: int = 0  # attempts to verify, in a row, that were interrupted
    starts: int = 0  # attempts to start the sub-updater
    server: str = ""  # the URL of the server that offered it; "": unknown
    refused: int = 0  # conditions of `resume` that the storage did not honor
    spliced: bool = False  # bytes were joined without a strong validator
    entered: bool = False  # the state scripts Download_Enter have succeeded
    began: float = 0  # when the server first offered it, seconds since 1970; 0: unknown
    restarted: bool = False  # downloaded again after spliced bytes failed their checksums
    more: Mapping[str, Any] = {}  # members that a newer version wrote


class Handoff(NamedTuple):
    """An update that was handed off to the sub-updater, until it is reported or times out."""

    deployment: str
    artifact_name: str = ""
    boot: str = ""  # the kernel's boot id at the hand-off
    uptime: float = 0  # seconds from that boot to the hand-off, without suspended time; no clock changes them
    syslog: bool = False  # write the result to the syslog, because the run that handed it off did so
    began: float = 0  # `Deployment.began` and `size`
    size: int = -1
    more: Mapping[str, Any] = {}


class Result(NamedTuple):
    """A final status for the server."""

    deployment: str
    status: str
    at: float = 0
    sent: bool = False  # the server has the status, but not the log
    refusals: int = 0  # attempts that failed and count
    answer: str = ""  # DELIVERED, ABORTED or UNKNOWN; "": queued, or dropped after too many attempts
    attempts: int = 1  # how many times this device has carried out the deployment
    more: Mapping[str, Any] = {}


class Failure(NamedTuple):
    """How many times in a row a step failed or had to wait, and when and why it did last."""

    times: int
    at: float
    why: str = ""  # the message of the last failure, shortened
    failed: bool = True  # False: it only waits, with the back-off of a step that fails
    since: float = 0  # when the first of them happened; 0: unknown


class Gate(NamedTuple):
    """A state script that asked for a pause, and for how many seconds it has done so."""

    script: str
    waited: float = 0
    at: float = 0  # when it asked last: seconds since 1970, the boot, and its uptime
    boot: str = ""
    uptime: float = 0


class Pause(NamedTuple):
    """A `Retry-After` from one host to one step; other steps and other hosts are not affected."""

    step: str
    host: str
    at: float
    seconds: float


class Token(NamedTuple):
    """A JWT, the server that issued it, its lifetime by two clocks, and the credentials it is valid for."""

    jwt: str
    server: str
    at: float  # when it was received, by our clock
    lifetime: float = 0  # seconds; 0: unknown
    expires: float = 0  # seconds since 1970 by the server's clock; 0: unknown
    credentials: str = ""  # digest of the key and the settings that it was issued for


class State(NamedTuple):
    """Everything saved between two invocations; times in seconds since 1970, by a clock that may be wrong."""

    spread: float = -1  # jitter: this device's part of `plan.spread_share`, 0 to 1; -1: not drawn yet
    identity_format: str = ""
    owner: str = ""  # digest of the identity of the device that this state belongs to; "": not known yet
    token: Token | None = None
    form: str = ""  # the API version of `next` that the server supports: "v2" or "v1"; "": not known yet
    deployment: Deployment | None = None
    handoff: Handoff | None = None
    results: tuple[Result, ...] = ()  # final statuses not delivered yet, oldest first
    last_result: Result | None = None  # the newest final status, delivered or not
    past_results: tuple[Result, ...] = ()  # those before `last_result`, oldest first
    checked_at: float = 0
    inventory_at: float = 0
    inventory_sent_at: float = 0
    inventory_digest: str = ""
    failures: Mapping[str, Failure] = {}
    pauses: tuple[Pause, ...] = ()
    gates: Mapping[str, Gate] = {}  # by step
    unknown: Mapping[str, Any] = {}  # members that a newer version wrote
    damaged: tuple[str, ...] = ()  # names of members that could not be read; not written to disk


REMEMBERED = 8
"""Number of final statuses that are kept, so that an old deployment is not installed again."""

_NOT_WRITTEN = ("unknown", "damaged")
_PARTS: dict[str, type[Any]] = {
    "token": Token,
    "deployment": Deployment,
    "handoff": Handoff,
    "last_result": Result,
}
_BY_STEP: dict[str, type[Any]] = {"failures": Failure, "gates": Gate}
_LISTS: dict[str, type[Any]] = {"results": Result, "past_results": Result, "pauses": Pause}


def to_json(state: State) -> bytes:
    """Return a state as JSON text of at most `LIMIT` bytes.

    If it would be larger, which takes members of a newer version, those are dropped first. Raises
    `errors.NoSpace` if that is not enough.
    """
    for smaller in (state, *_shed(state)):
        content = json.dumps(_members(smaller), indent=1).encode() + b"\n"
        if len(content) <= LIMIT:
            return content
    raise errors.NoSpace(f"The state would be larger than {LIMIT} bytes; remove {paths.STATE} to start over.")


def _shed(state: State) -> Iterator[State]:
    """Yield smaller and smaller states, least needed members first; results and hand-off always stay."""
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
        elif name in _BY_STEP:
            value = {step: part._asdict() for step, part in value.items()}
        members[name] = value
    return members


def _flat(part: Any) -> dict[str, Any]:
    """Return a part as a JSON object, with the members that a newer version wrote into it."""
    members: dict[str, Any] = part._asdict()
    return {**members.pop("more", {}), **members}


def from_json(content: bytes) -> State:
    """Parse a state, member by member; a corrupt one gets its default and is named in `damaged`.

    Raises `Unreadable` if the content is not a JSON object.
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
        elif name in _BY_STEP:
            steps = reader.typed(dict, name, value) or {}
            read = {step: reader.part(_BY_STEP[name], name, part) for step, part in steps.items()}
            known[name] = {step: part for step, part in read.items() if part}
        else:
            read_value = reader.typed(State.__annotations__[name], name, value)
            known[name] = State._field_defaults[name] if read_value is None else read_value
    return State(**known, unknown=members, damaged=tuple(dict.fromkeys(reader.damaged)))


def bounded(text: str) -> str:
    """Return a text from the network if it is short enough for the state, else ""."""
    return text if len(text) <= 8192 else ""


DELIVERED, ABORTED, UNKNOWN = "delivered", "aborted", "unknown"
"""Answers to a result: the server has it, has aborted the deployment, or does not know it."""


def with_final_result(state: State, result: Result) -> State:
    """Return the state after an update has ended; a result without a deployment id is not queued.

    The result replaces that of an earlier attempt at the same deployment, and counts the attempts.
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
    """Return the final status of a deployment, or None if it has none.

    A deployment that is being tried again has none until that attempt has ended. A lock without an id has
    none either, because it cannot be compared with an earlier one.
    """
    trying = (state.deployment and state.deployment.id, state.handoff and state.handoff.deployment)
    if not deployment or deployment in trying:
        return None
    known = (*state.past_results, state.last_result)
    return next((result for result in known if result and result.deployment == deployment), None)


def answered(state: State, result: Result, answer: str) -> State:
    """Return the state after the oldest queued result got its answer, which removes it from the queue."""

    def note(one: Result) -> Result:
        return one._replace(answer=answer) if one.deployment == result.deployment else one

    return state._replace(
        results=state.results[1:],
        last_result=state.last_result and note(state.last_result),
        past_results=tuple(note(one) for one in state.past_results),
    )
