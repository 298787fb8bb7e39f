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

from mender_oneshot import errors, paths, resume, state_store
from mender_oneshot import state as states
from mender_oneshot.state import (
    Deployment,
    Failure,
    Gate,
    Handoff,
    Pause,
    Result,
    State,
    Token,
    Unreadable,
    from_json,
    to_json,
)
from mender_oneshot.state_store import Store

FULL = State(
    spread=0.25,
    identity_format="list",
    owner="0123",
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
    gates={"download": Gate("Download_Enter_00", 3.5, 8, "boot", 60)},
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
NOT_WRITTEN = ("unknown", "damaged")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def arbitrary(kind: Any) -> st.SearchStrategy[Any]:
    """One of the small tuples with any values of the right types in it."""
    newer = st.dictionaries(st.sampled_from(["newer", "more"]), anything)
    kinds = kind.__annotations__.values()
    return st.tuples(*(MEMBERS.get(annotation, newer) for annotation in kinds)).map(kind._make)


def state_of(members: dict[str, Any]) -> State:
    return State(**members)


arbitrary_states = st.fixed_dictionaries(
    {},
    optional={
        "spread": times,
        "identity_format": texts,
        "owner": texts,
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
        "gates": st.dictionaries(texts, arbitrary(Gate), max_size=3),
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
    members = FULL._asdict()
    assert all(members[name] != State._field_defaults[name] for name in members if name != "damaged")


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
}
DAMAGED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "NaN": ({"checked_at": float("nan")}, ["checked_at"]),
    "Infinity": ({"checked_at": float("inf")}, ["checked_at"]),
    "-Infinity": (
        {"pauses": [{"step": "s", "host": "h", "at": -float("inf"), "seconds": 1}]},
        ["pauses.at", "pauses"],
    ),
    "beyond all time": ({"checked_at": 1e15}, ["checked_at"]),
    "time is text": ({"checked_at": "5"}, ["checked_at"]),
    "time is true": ({"checked_at": True}, ["checked_at"]),
    "time is null": ({"checked_at": None}, ["checked_at"]),
    "form is a number": ({"form": 2}, ["form"]),
    "form is null": ({"form": None}, ["form"]),
    "identity format is a list": ({"identity_format": []}, ["identity_format"]),
    "pauses are null": ({"pauses": None}, ["pauses"]),
    "token is null": ({"token": None}, ["token"]),
    "token is text": ({"token": "a.b.c"}, ["token"]),
    "token is empty": ({"token": {}}, ["token"]),
    "token without a server": ({"token": {"jwt": "a", "at": 1}}, ["token"]),
    "token of a number": ({"token": {"jwt": 5, "server": "s", "at": 1}}, ["token.jwt", "token"]),
    "deployment is a list": ({"deployment": ["a"]}, ["deployment"]),
    "deployment without a link": (
        {"deployment": {"id": "d", "artifact_id": "a", "artifact_name": "n"}},
        ["deployment"],
    ),
    "hand-off of a list": ({"handoff": []}, ["handoff"]),
    "hand-off without a deployment": ({"handoff": {"boot": "b"}}, ["handoff"]),
    "results are an object": ({"results": {}}, ["results"]),
    "results of text": ({"results": ["success"]}, ["results"]),
    "last result incomplete": ({"last_result": {"deployment": "d"}}, ["last_result"]),
    "failures are a list": ({"failures": []}, ["failures"]),
    "failure is a number": ({"failures": {"download": 3}}, ["failures"]),
    "failure incomplete": ({"failures": {"download": {"times": 3}}}, ["failures"]),
}


@pytest.mark.parametrize("content", NOT_A_STATE.values(), ids=NOT_A_STATE.keys())
def test_what_is_not_json_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        from_json(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(("members", "named"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_member_that_cannot_be_read_costs_no_other(members: dict[str, Any], named: list[str]) -> None:
    state = from_json(text(**{**json.loads(to_json(FULL)), **members}))
    (name,) = members
    assert state.damaged == tuple(named)
    assert state == FULL._replace(**{name: State._field_defaults[name]}, damaged=tuple(named))


@pytest.mark.parametrize("schema", [None, "1", 1.5, []])
def test_a_schema_that_cannot_be_read_costs_nothing(schema: object) -> None:
    known = json.loads(to_json(FULL)) | {"schema": schema}
    assert from_json(json.dumps(known).encode()) == FULL._replace(damaged=("schema",))
    del known["schema"]
    assert from_json(json.dumps(known).encode()) == FULL._replace(damaged=("schema",))


@pytest.mark.parametrize(
    ("member", "value", "expected", "named"),
    [
        ("handoff", {"deployment": "d", "uptime": None, "boot": 5}, Handoff("d"), ("boot", "uptime")),
        ("last_result", {"deployment": "d", "status": "s", "at": "now"}, Result("d", "s"), ("at",)),
        ("last_result", {"deployment": "d", "status": "s", "sent": 1}, Result("d", "s"), ("sent",)),
        (
            "deployment",
            {"id": "d", "artifact_id": "", "artifact_name": "n", "uri": "u", "size": 1.5, "stalls": True},
            Deployment("d", "", "n", "u"),
            ("size", "stalls"),
        ),
    ],
)
def test_what_a_member_can_do_without_costs_no_member(
    member: str, value: dict[str, Any], expected: object, named: tuple[str, ...]
) -> None:
    state = from_json(text(**{member: value}))
    assert getattr(state, member) == expected
    assert sorted(state.damaged) == [f"{member}.{name}" for name in named]


def test_of_several_results_the_readable_ones_are_kept() -> None:
    good = {"deployment": "d1", "status": "success", "at": 1}
    state = from_json(text(results=[None, good, {"status": "failure"}], past_results=[7, good]))
    assert state.results == state.past_results == (Result("d1", "success", 1),)
    assert state.damaged == ("results", "past_results")


@given(
    st.dictionaries(st.sampled_from([name for name in State._fields if name not in NOT_WRITTEN]), anything)
)
@examples(deadline=None)
def test_whatever_is_damaged_the_rest_is_kept(damage: dict[str, Any]) -> None:
    state = from_json(text(**{**json.loads(to_json(FULL)), **damage}))
    assert not {name.partition(".")[0] for name in state.damaged} - set(damage)
    for name in set(State._fields) - set(damage) - {"damaged"}:
        assert getattr(state, name) == getattr(FULL, name)


def test_what_a_newer_version_wrote_into_a_part_stays_with_it() -> None:
    for name in ("deployment", "handoff", "last_result"):
        known = json.loads(to_json(FULL))
        known[name] |= {"newer": [1], "more": 2}
        state = from_json(json.dumps(known).encode())
        assert state.damaged == ()
        assert json.loads(to_json(state._replace(checked_at=9)))[name] == known[name]
        gone: dict[str, Any] = {name: None}
        assert name not in json.loads(to_json(state._replace(**gone)))


@pytest.mark.parametrize(
    "big",
    [
        {"unknown": {"newer": "é" * 500_000}},
        {"failures": {"x" * 500_000 + str(one): Failure(1, 1) for one in range(3)}},
        {"past_results": tuple(Result("d" * 300_000, "success") for _ in range(4))},
        {"token": Token("t" * 2_000_000, "s", 1)},
    ],
    ids=lambda big: next(iter(big)),
)
def test_no_more_is_written_than_is_read(big: dict[str, Any], tmp_path: Path) -> None:
    store = Store(str(tmp_path / paths.STATE), State())
    store.save(store.state._replace(results=FULL.results, handoff=FULL.handoff, **big))
    assert os.path.getsize(store.path) <= states.LIMIT
    known = state_store.load(store.path)
    assert (known.results, known.handoff, known.damaged) == (FULL.results, FULL.handoff, ())


def test_a_file_that_is_too_large_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / paths.STATE
    path.write_bytes(b" " * states.LIMIT + to_json(FULL))
    with pytest.raises(Unreadable) as caught:
        state_store.load(str(path))
    assert "larger than" in str(caught.value)
    assert caught.value.content == b" " * states.LIMIT


def readable(content: bytes) -> bool:
    """Whether this is a state; if so, it can be written and read again."""
    try:
        state = from_json(content)
    except Unreadable:
        return False
    assert from_json(to_json(state)) == state._replace(damaged=())
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
    path = tmp_path / paths.STATE
    store = Store(str(path), State())
    store.save()
    assert json.loads(path.read_bytes()) == {"schema": 1}
    store.save(store.state._replace(form="v2"))
    first = saves(store)
    store.save()
    store.save(store.state._replace(form="v2"))
    store.state = store.state._replace(form="v1")
    store.state = store.state._replace(form="v2")
    store.save()
    assert saves(store) == first
    store.state = store.state._replace(form="v1")
    assert saves(store) == first
    store.save()
    assert saves(store) != first
    assert state_store.load(str(path)).form == "v1"
    assert os.listdir(tmp_path) == [paths.STATE]


def test_a_state_just_read_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / paths.STATE
    path.write_bytes(to_json(FULL))
    store = Store(str(path), state_store.load(str(path)))
    first = saves(store)
    store.save()
    assert saves(store) == first


def test_the_file_is_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / paths.STATE
    before = os.umask(0)
    try:
        Store(str(path), State()).save(State(token=FULL.token))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_state_that_cannot_be_saved_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    store = Store(str(directory / paths.STATE), State())
    with pytest.raises(errors.DiskError):
        store.save(store.state._replace(form="v1"))
    directory.mkdir()
    store.save()
    assert state_store.load(store.path).form == "v1"


def test_no_file_is_an_empty_state(tmp_path: Path) -> None:
    assert state_store.load(str(tmp_path / paths.STATE)) == State()


def test_an_unreadable_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / paths.STATE
    for content in (b"first", b"second", b""):
        path.write_bytes(content)
        with pytest.raises(Unreadable) as caught:
            state_store.load(str(path))
        assert caught.value.content == content
        aside = state_store.quarantine(str(path), content)
        assert Path(aside).read_bytes() == content
        assert path.read_bytes() == content
    assert len(os.listdir(tmp_path)) == 2


def test_what_a_missing_member_means() -> None:
    """A state of an older version lacks members; so these values are part of the file's format."""
    assert from_json(b'{"schema": 1}') == State(
        spread=-1,
        identity_format="",
        owner="",
        token=None,
        form="",
        deployment=None,
        handoff=None,
        results=(),
        last_result=None,
        past_results=(),
        checked_at=0,
        inventory_at=0,
        inventory_sent_at=0,
        inventory_digest="",
        failures={},
        pauses=(),
        gates={},
        unknown={},
        damaged=(),
    )


@pytest.mark.parametrize(
    ("member", "shortest", "rest"),
    [
        (
            "deployment",
            {"id": "d", "artifact_id": "a", "artifact_name": "r", "uri": "u"},
            (0, "", "", -1, "", 0, 0, 0, "", 0, False, False, False, 0, {}),
        ),
        ("handoff", {"deployment": "d"}, ("", "", 0, False, 0, -1, {})),
        ("last_result", {"deployment": "d", "status": "success"}, (0, False, 0, "", 1, {})),
        ("token", {"jwt": "t", "server": "s", "at": 1}, (0, 0, "")),
    ],
)
def test_what_a_missing_member_of_a_part_means(
    member: str, shortest: dict[str, Any], rest: tuple[Any, ...]
) -> None:
    part = getattr(from_json(text(**{member: shortest})), member)
    assert part == (*shortest.values(), *rest)


def test_what_a_missing_member_of_a_failure_means() -> None:
    assert from_json(text(failures={"auth": {"times": 2, "at": 1}})).failures == {"auth": (2, 1, "", True, 0)}


def test_the_file_can_be_read_by_people() -> None:
    state = State(form="v1", last_result=Result("d1", "success"))
    assert to_json(state).decode().splitlines()[:5] == [
        "{",
        ' "schema": 1,',
        ' "form": "v1",',
        ' "last_result": {',
        '  "deployment": "d1",',
    ]
    assert to_json(state).endswith(b"}\n")


def test_a_text_of_8192_characters_is_kept_and_a_longer_one_is_not() -> None:
    assert states.bounded("x" * 8192) == "x" * 8192
    assert states.bounded("x" * 8193) == ""


D1, D2, D3 = Result("d1", "success", 1), Result("d2", "failure", 2), Result("d3", "success", 3)


def test_an_update_that_has_ended_is_the_newest_result_and_waits_for_delivery() -> None:
    state = State(
        deployment=FULL.deployment, handoff=FULL.handoff, results=(D2,), last_result=D2, past_results=(D1,)
    )
    ended = states.with_final_result(state, D3)
    assert ended == State(results=(D2, D3), last_result=D3, past_results=(D1, D2))


def test_a_result_of_no_known_deployment_is_not_delivered() -> None:
    nameless = Result("", "failure", 3)
    ended = states.with_final_result(State(last_result=nameless, past_results=(nameless,)), nameless)
    assert ended == State(last_result=nameless, past_results=(nameless, nameless))


def test_another_attempt_at_a_deployment_replaces_the_result_of_the_first() -> None:
    first = Result("d2", "failure", 2, attempts=4)
    again = Result("d2", "success", 9)
    for before in (
        State(last_result=first, past_results=(D1,)),
        State(last_result=D1, past_results=(first,)),
    ):
        ended = states.with_final_result(before, again)
        assert ended.last_result == again._replace(attempts=5)
        assert ended.results == (again._replace(attempts=5),)
        assert ended.past_results == (D1,)


def test_the_final_result_of_a_deployment() -> None:
    state = State(last_result=D3, past_results=(D1, D2))
    assert [states.final_result(state, name) for name in ("d1", "d2", "d3", "d4")] == [D1, D2, D3, None]
    assert states.final_result(State(), "d1") is None


def test_a_deployment_that_is_tried_again_has_no_final_result() -> None:
    state = State(last_result=D3, past_results=(D1, D2))
    deployment = Deployment("d2", "a", "r", "u")
    assert states.final_result(state._replace(deployment=deployment), "d2") is None
    assert states.final_result(state._replace(handoff=Handoff("d2")), "d2") is None
    assert states.final_result(state._replace(deployment=deployment), "d1") == D1
    assert states.final_result(state._replace(handoff=Handoff("d2")), "d3") == D3


def test_the_answer_to_a_result_is_noted_and_the_result_leaves_the_queue() -> None:
    state = State(results=(D1, D2), last_result=D2, past_results=(D1,))
    known = states.answered(state, D1, states.DELIVERED)
    assert known == State(results=(D2,), last_result=D2, past_results=(D1._replace(answer="delivered"),))
    assert states.answered(known, D2, states.ABORTED).last_result == D2._replace(answer="aborted")
    assert states.answered(State(results=(D1,)), D1, states.UNKNOWN) == State()


def test_what_was_written_to_be_sure_is_not_written_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path / paths.STATE), State(form="v1"))
    store.ensure_writable()
    first = saves(store)
    store.save()
    assert saves(store) == first
    store.ensure_writable()
    assert saves(store) != first


def test_a_data_directory_that_is_gone_is_named_before_a_step_begins(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "gone" / paths.STATE), State())
    with pytest.raises(errors.DiskError, match=r"gone/mender-oneshot\.json.*No such file or directory"):
        store.ensure_writable()
