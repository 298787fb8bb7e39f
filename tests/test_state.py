"""The state survives every round trip, and whatever the file holds, reading it ends in a sentence."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot import errors, resume
from mender_oneshot import state as states
from mender_oneshot.state import (
    Deployment,
    Failure,
    Handoff,
    Pause,
    Result,
    State,
    Store,
    Token,
    Unreadable,
    from_json,
    to_json,
)

FULL = State(
    spread=0.25,
    identity_format="list",
    token=Token("header.claims.signature", "https://server", 1_750_000_000.5, 604800, 1_750_604_800),
    form="v1",
    deployment=Deployment(
        "d1", "a1", "release-2", "https://storage/a?sig=x", 1_750_086_400, '"e"', "", 7, "b", 2
    ),
    handoff=Handoff("d0", "release-1", "b", 12.5),
    results=(Result("d8", "success", 1.5, sent=True), Result("d9", "failure", 2.5, refusals=3)),
    last_result=Result("d9", "failure", 2.5),
    past_results=(Result("d7", "success", 1.5, True),),
    checked_at=3,
    inventory_at=4,
    inventory_sent_at=5,
    inventory_digest="abc",
    failures={"download": Failure(2, 6)},
    pauses=(Pause("download", "storage.example.com:9000", 7, 30),),
    unknown={"colour": {"of": ["the", "sky", None, True, 1.5]}},
)

texts = st.text(max_size=20)
times = st.floats(-9e14, 9e14) | st.integers(-(10**14), 10**14)
numbers = st.integers(-(10**14), 10**14)
MEMBERS: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    float: times,
    int: numbers,
    bool: st.booleans(),
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def arbitrary(kind: Any) -> st.SearchStrategy[Any]:
    """One of the small tuples with any values of the right types in it."""
    return st.tuples(*(MEMBERS[annotation] for annotation in kind.__annotations__.values())).map(kind._make)


def state_of(members: dict[str, Any]) -> State:
    return State(**members)


arbitrary_states = st.fixed_dictionaries(
    {},
    optional={
        "spread": times,
        "identity_format": texts,
        "token": st.none() | arbitrary(Token),
        "form": texts,
        "deployment": st.none() | arbitrary(Deployment),
        "handoff": st.none() | arbitrary(Handoff),
        "results": st.lists(arbitrary(Result), max_size=3).map(tuple),
        "last_result": st.none() | arbitrary(Result),
        "checked_at": times,
        "inventory_at": times,
        "inventory_sent_at": times,
        "inventory_digest": texts,
        "failures": st.dictionaries(texts, arbitrary(Failure), max_size=3),
        "pauses": st.lists(arbitrary(Pause), max_size=3).map(tuple),
        "unknown": st.dictionaries(
            texts.filter(lambda name: name not in {*State._fields, "schema"}), anything, max_size=3
        ),
    },
).map(state_of)


def text(**members: Any) -> bytes:
    return json.dumps({"schema": 1, **members}).encode()


@given(arbitrary_states)
@example(FULL)
@example(State())
@examples(deadline=None)
def test_what_is_written_is_what_is_read(state: State) -> None:
    assert from_json(to_json(state)) == state


def test_every_member_of_the_state_is_tried() -> None:
    assert all(value != State._field_defaults[name] for name, value in FULL._asdict().items())


def test_what_is_at_its_default_is_not_written() -> None:
    assert json.loads(to_json(State())) == {"schema": 1}


@given(st.dictionaries(texts.filter(lambda name: name not in State._fields), anything, max_size=4))
@example({"unknown": {"schema": 3}})
@examples(deadline=None)
def test_members_of_a_newer_version_are_kept(newer: dict[str, Any]) -> None:
    newer.pop("schema", None)
    known = from_json(json.dumps({**json.loads(to_json(FULL)), **newer}).encode())
    assert known._replace(unknown={}) == FULL._replace(unknown={})
    written = json.loads(to_json(known._replace(checked_at=99)))
    assert {name: written[name] for name in newer} == newer
    assert written["checked_at"] == 99


def test_a_member_called_unknown_is_a_member_like_others() -> None:
    known = from_json(text(unknown=5))
    assert known.unknown == {"unknown": 5}
    assert json.loads(to_json(known)) == {"schema": 1, "unknown": 5}


@pytest.mark.parametrize("schema", [2, 99, 10**30])
def test_a_higher_schema_is_read_as_far_as_it_is_known(schema: int) -> None:
    content = text(**{**json.loads(to_json(FULL)), "schema": schema, "more": 1})
    assert from_json(content) == FULL._replace(unknown={**FULL.unknown, "more": 1})


def test_members_that_a_newer_version_added_inside_do_not_disturb() -> None:
    pause = {"step": "auth", "host": "a", "at": 1, "seconds": 2}
    assert from_json(text(pauses=[pause | {"why": "429"}])).pauses == (Pause("auth", "a", 1, 2),)


def test_whole_numbers_are_times_too() -> None:
    assert from_json(text(checked_at=5, spread=1)) == State(checked_at=5, spread=1)


NOT_A_STATE = {
    "empty": b"",
    "blank": b" \n",
    "one NUL": b"\0",
    "a block of NULs": bytes(4096),
    "NULs behind": to_json(FULL) + bytes(512),
    "NULs before": bytes(512) + to_json(FULL),
    "NULs over the end": to_json(FULL)[:300] + bytes(200),
    "twice": to_json(FULL) * 2,
    "not UTF-8": b'{"schema": 1, "form": "\xff\xfe"}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"schema":1,"x":' * 100_000,
    "deep and whole": b'{"schema":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "number with too many digits": b'{"schema": 1, "x": ' + b"9" * 10_000 + b"}",
    "list": b"[]",
    "null": b"null",
    "text": b'"schema"',
    "no schema": b"{}",
    "schema text": b'{"schema": "1"}',
    "schema null": b'{"schema": null}',
    "schema fraction": b'{"schema": 1.5}',
    "NaN": b'{"schema": 1, "checked_at": NaN}',
    "Infinity": b'{"schema": 1, "checked_at": Infinity}',
    "-Infinity": b'{"schema": 1, "checked_at": -Infinity}',
    "overflow": b'{"schema": 1, "checked_at": 1e999}',
    "beyond all time": b'{"schema": 1, "checked_at": 1e15}',
    "time is text": text(checked_at="5"),
    "time is true": text(checked_at=True),
    "time is null": text(checked_at=None),
    "form is a number": text(form=2),
    "form is null": text(form=None),
    "token is null": text(token=None),
    "token is text": text(token="a.b.c"),
    "token is empty": text(token={}),
    "token without a server": text(token={"jwt": "a", "at": 1}),
    "token of a number": text(token={"jwt": 5, "server": "s", "at": 1}),
    "deployment is a list": text(deployment=["a"]),
    "deployment without a link": text(deployment={"id": "d", "artifact_id": "a", "artifact_name": "n"}),
    "size is a fraction": text(
        deployment={"id": "d", "artifact_id": "a", "artifact_name": "n", "uri": "u", "size": 1.5}
    ),
    "stalls are true": text(
        deployment={"id": "d", "artifact_id": "a", "artifact_name": "n", "uri": "u", "stalls": True}
    ),
    "results are an object": text(results={}),
    "results of text": text(results=["success"]),
    "result incomplete": text(results=[{"deployment": "d"}]),
    "sent is a number": text(results=[{"deployment": "d", "status": "success", "at": 1, "sent": 1}]),
    "failures are a list": text(failures=[]),
    "failure is a number": text(failures={"download": 3}),
    "failure incomplete": text(failures={"download": {"times": 3}}),
}


@pytest.mark.parametrize("content", NOT_A_STATE.values(), ids=NOT_A_STATE.keys())
def test_what_is_not_a_state_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        from_json(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 100


def readable(content: bytes) -> bool:
    """Whether this is a state; if so, it can be written and read again."""
    try:
        state = from_json(content)
    except Unreadable:
        return False
    assert from_json(to_json(state)) == state
    return True


@given(st.binary(max_size=200))
@examples(deadline=None)
def test_any_bytes_are_a_state_or_unreadable(content: bytes) -> None:
    readable(content)


@given(st.dictionaries(st.sampled_from(State._fields) | texts, anything))
@examples(deadline=None)
def test_any_members_are_a_state_or_unreadable(members: dict[str, Any]) -> None:
    readable(text(**members))


def test_a_file_cut_short_anywhere_is_unreadable() -> None:
    whole = to_json(FULL)
    assert whole.endswith(b"}\n")
    assert not [length for length in range(len(whole) - 1) if readable(whole[:length])]


def test_one_flipped_byte_is_a_state_or_unreadable() -> None:
    whole = to_json(FULL)
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            try:
                from_json(bytes(flipped))
            except Unreadable:
                continue


def test_the_largest_size_that_a_server_is_believed_can_be_remembered() -> None:
    assert resume.content_length(str(resume.MAX_SIZE)) == resume.MAX_SIZE
    state = State(deployment=Deployment("d", "a", "n", "https://s/a", size=resume.MAX_SIZE))
    assert from_json(to_json(state)) == state


def test_a_lock_without_an_id_has_no_final_result() -> None:
    nameless, named = Result("", "failure", 1), Result("d1", "success", 2)
    state = State(last_result=nameless, past_results=(named,))
    assert states.final_result(state, "") is None
    assert states.final_result(state, "d1") == named


def saves(store: Store) -> tuple[int, int]:
    """What tells one writing of the file from the next."""
    found = os.stat(store.path)
    return found.st_ino, found.st_mtime_ns


def test_saving_writes_only_what_changed(tmp_path: Path) -> None:
    path = tmp_path / states.FILE
    store = Store(str(path), State())
    store.save()
    assert json.loads(path.read_bytes()) == {"schema": 1}
    store.save(form="v2")
    first = saves(store)
    store.save()
    store.save(form="v2")
    store.update(form="v1")
    store.update(form="v2")
    store.save()
    assert saves(store) == first
    store.update(form="v1")
    assert saves(store) == first
    store.save()
    assert saves(store) != first
    assert states.load(str(path)).form == "v1"
    assert os.listdir(tmp_path) == [states.FILE]


def test_a_state_just_read_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / states.FILE
    path.write_bytes(to_json(FULL))
    store = Store(str(path), states.load(str(path)))
    first = saves(store)
    store.save()
    assert saves(store) == first


def test_the_file_is_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / states.FILE
    before = os.umask(0)
    try:
        Store(str(path), State()).save(token=FULL.token)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_state_that_cannot_be_saved_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    store = Store(str(directory / states.FILE), State())
    with pytest.raises(errors.DiskError):
        store.save(form="v1")
    directory.mkdir()
    store.save()
    assert states.load(store.path).form == "v1"


def test_no_file_is_an_empty_state(tmp_path: Path) -> None:
    assert states.load(str(tmp_path / states.FILE)) == State()


def test_an_unreadable_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / states.FILE
    for content in (b"first", b"second"):
        path.write_bytes(content)
        with pytest.raises(Unreadable):
            states.load(str(path))
        aside = states.set_aside(str(path), content)
        assert Path(aside).read_bytes() == content
        assert path.read_bytes() == content
    assert len(os.listdir(tmp_path)) == 2
