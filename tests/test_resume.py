"""What to do with each answer of an artifact's host."""

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot import resume
from mender_oneshot.resume import (
    MAX_SIZE,
    Action,
    Answer,
    Decision,
    OnDisk,
    can_resume,
    condition,
    conditions,
    content_length,
    content_range,
    decide,
    is_progress,
    unsatisfied_range,
)

ETAG, DATE = '"e1"', "Fri, 11 Mar 2016 13:03:17 GMT"
HALF = OnDisk(offset=40, size=100, etag=ETAG, last_modified=DATE)
NOTHING = OnDisk()
REST = Answer(206, length="60", content_range="bytes 40-99/100", etag=ETAG, last_modified=DATE)


def rest(**changes: Any) -> Answer:
    return REST._replace(**changes)


def half(**changes: Any) -> OnDisk:
    return HALF._replace(**changes)


APPEND, AGAIN, WEAKER = Decision(Action.APPEND, 100, 40, 100), Decision(Action.AGAIN), Decision(Action.WEAKER)
NO_CONDITION = half(refused=2)


def fresh(size: int) -> Decision:
    return Decision(Action.FRESH, size, 0, size)


def append(first: int, end: int = 100) -> Decision:
    return Decision(Action.APPEND, 100, first, end)


# fmt: off
TABLE: list[tuple[str, Answer, OnDisk, Decision]] = [
    # The whole object.
    ("200 to nothing", Answer(200, "100", etag=ETAG), NOTHING, fresh(100)),
    ("203 to nothing", Answer(203, "100", etag=ETAG), NOTHING, fresh(100)),
    ("200 instead of the rest, ETag asked", Answer(200, "100", etag=ETAG), HALF, WEAKER),
    ("200 instead of the rest, another ETag", Answer(200, "100", etag='"e2"'), HALF, WEAKER),
    ("200 instead of the rest, date asked", Answer(200, "100"), half(refused=1), WEAKER),
    ("200 instead of the rest, nothing asked", Answer(200, "100"), NO_CONDITION, fresh(100)),
    ("200 instead of the rest, no validator", Answer(200, "100"), half(etag="", last_modified=""),
     fresh(100)),
    ("200 instead of the rest, no date", Answer(200, "100"), half(last_modified=""), WEAKER),
    ("200 instead of the rest, size not known", Answer(200, "100"), half(size=-1), fresh(100)),
    ("200 of another object", Answer(200, "7", etag='"e2"'), HALF, fresh(7)),
    ("200, empty, more is here", Answer(200, "0"), half(size=0), WEAKER),
    ("200 without a length", Answer(200), NOTHING, fresh(-1)),
    ("200 without a length, to half", Answer(200), HALF, fresh(-1)),
    ("200 with nonsense for a length", Answer(200, "many"), NOTHING, fresh(-1)),
    ("200 with its length twice", Answer(200, "100, 100"), NOTHING, fresh(100)),
    ("200 with two lengths", Answer(200, "100, 99"), NOTHING, fresh(-1)),
    ("200 with less than nothing", Answer(200, "-1"), NOTHING, fresh(-1)),
    ("200 with more than there is", Answer(200, str(MAX_SIZE + 1)), NOTHING, fresh(-1)),
    ("200, empty", Answer(200, "0"), NOTHING, fresh(0)),
    ("200, identity", Answer(200, "100", encoding="Identity"), NOTHING, fresh(100)),
    ("200, a Content-Range on top", Answer(200, "100", "bytes 40-99/100"), NO_CONDITION, fresh(100)),

    # The rest.
    ("206", REST, HALF, APPEND),
    ("206, unit in capitals", rest(content_range="Bytes 40-99/100"), HALF, APPEND),
    ("206 without a length", rest(length=""), HALF, APPEND),
    ("206, ETag alone", rest(last_modified=""), half(last_modified=""), APPEND),
    ("206, date alone", rest(etag=""), half(etag=""), APPEND),
    ("206, identity", rest(encoding="identity"), HALF, APPEND),
    ("206, the last byte", rest(length="1", content_range="bytes 99-99/100"), half(offset=99), append(99)),
    ("206, spelled bytes=", rest(content_range="bytes=40-99/100"), HALF, APPEND),
    ("206, spelled bytes:", rest(content_range="bytes: 40-99/100"), HALF, APPEND),
    ("206 without a unit", rest(content_range="40-99/100"), HALF, APPEND),
    ("206 with blanks", rest(content_range=" bytes  40 - 99 / 100 "), HALF, APPEND),
    ("206 to a date", REST, half(refused=1), APPEND),
    ("206 to a date, another ETag", rest(etag='"e2"'), half(refused=1), APPEND),
    ("206 to a date, another date", rest(last_modified="yesterday"), half(refused=1), WEAKER),
    ("206 without a condition, all differs", rest(etag='"e2"', last_modified="yesterday"), NO_CONDITION,
     APPEND),
    ("206, no validator at all", rest(etag="", last_modified=""), half(etag="", last_modified=""),
     APPEND),
    ("206 without a range", rest(content_range=""), HALF, AGAIN),
    ("206 from the beginning", rest(length="100", content_range="bytes 0-99/100"), HALF, append(0)),
    ("206 too early", rest(length="61", content_range="bytes 39-99/100"), HALF, append(39)),
    ("206 too late", rest(length="59", content_range="bytes 41-99/100"), HALF, AGAIN),
    ("206 not to the end", rest(length="50", content_range="bytes 40-89/100"), HALF, append(40, 90)),
    ("206 not to the end, no length", rest(length="", content_range="bytes 40-89/100"), HALF,
     append(40, 90)),
    ("206 too early, ends too early", rest(length="10", content_range="bytes 30-39/100"), HALF, AGAIN),
    ("206 of a larger object", rest(length="61", content_range="bytes 40-100/101"), HALF, AGAIN),
    ("206 of a smaller object", rest(length="59", content_range="bytes 40-98/99"), HALF, AGAIN),
    ("206 of an object of unknown size", rest(content_range="bytes 40-99/*"), HALF, APPEND),
    ("206 without a size", rest(content_range="bytes 40-99"), HALF, AGAIN),
    ("206 of several ranges", rest(content_range="bytes 40-49/100, bytes 50-99/100"), HALF, AGAIN),
    ("206 in another unit", rest(content_range="items 40-99/100"), HALF, AGAIN),
    ("206 backwards", rest(content_range="bytes 99-40/100"), HALF, AGAIN),
    ("206 that lies about its length", rest(length="100"), HALF, AGAIN),
    ("206 with nonsense for a length", rest(length="many"), HALF, AGAIN),
    ("206, another ETag", rest(etag='"e2"'), HALF, WEAKER),
    ("206, the ETag has become weak", rest(etag='W/"e1"'), HALF, WEAKER),
    ("206, ETag in other letters", rest(etag='"E1"'), HALF, WEAKER),
    ("206, another date", rest(etag="", last_modified="yesterday"), half(etag=""), WEAKER),
    ("206, size not known", REST, half(size=-1), APPEND),
    ("206, size not known and not said", rest(content_range="bytes 40-99/*"), half(size=-1), AGAIN),
    ("206 that was not asked for", rest(length="100", content_range="bytes 0-99/100"), NOTHING,
     fresh(100)),
    ("206 that was not asked for, a part", rest(length="50", content_range="bytes 0-49/100"), NOTHING,
     Decision(Action.FRESH, 100, 0, 50)),
    ("206 that was not asked for, the end", REST, NOTHING, Decision(Action.REFUSED)),
    ("206 that was not asked for, no range", rest(content_range=""), NOTHING, Decision(Action.REFUSED)),
    ("206 compressed", rest(encoding="gzip"), HALF, Decision(Action.ENCODED)),
    ("200 compressed", Answer(200, "60", encoding="br"), NOTHING, Decision(Action.ENCODED)),
    ("200 compressed, to half", Answer(200, "60", encoding="GZIP, identity"), HALF, Decision(Action.ENCODED)),

    # Nothing left to send.
    ("416, all is here", Answer(416, content_range="bytes */100"), half(offset=100),
     Decision(Action.COMPLETE)),
    ("416, more is here than there is", Answer(416, content_range="bytes */30"), HALF, AGAIN),
    ("416, the size differs", Answer(416, content_range="bytes */100"), half(offset=100, size=99),
     AGAIN),
    ("416 without a size", Answer(416), half(offset=100), AGAIN),
    ("416 with a range", Answer(416, content_range="bytes 0-99/100"), half(offset=100), AGAIN),
    ("416 without reason", Answer(416, content_range="bytes */100"), HALF, AGAIN),
    ("416 to the whole object", Answer(416, content_range="bytes */0"), NOTHING, Decision(Action.REFUSED)),

    # The link.
    *((f"{status} to {what}", Answer(status, "100"), known, Decision(Action.EXPIRED))
      for status in (400, 401, 403, 404, 410) for what, known in (("nothing", NOTHING), ("half", HALF))),
    *((f"{status} to {what}", Answer(status, "100"), known, Decision(Action.REFUSED))
      for status in (201, 204, 300, 301, 302, 304, 307, 405, 408, 412, 418, 429, 500, 502, 503, 599)
      for what, known in (("nothing", NOTHING), ("half", HALF))),
]
# fmt: on


@pytest.mark.parametrize(
    ("answer", "known", "decision"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_to_do_with_an_answer(answer: Answer, known: OnDisk, decision: Decision) -> None:
    assert decide(answer, known) == decision


WEAK = 'W/"e1"'


@pytest.mark.parametrize(
    ("known", "in_turn"),
    [
        pytest.param(HALF, [ETAG, DATE, ""], id="all there is"),
        pytest.param(half(etag=""), [DATE, ""], id="date"),
        pytest.param(half(etag=WEAK), [DATE, ""], id="weak ETag"),
        pytest.param(half(etag=WEAK, last_modified=""), [""], id="weak ETag alone"),
        pytest.param(half(etag="e1", last_modified=""), [""], id="ETag without quotes"),
        pytest.param(half(etag='"', last_modified=""), [""], id="half an ETag"),
        pytest.param(half(etag='""', last_modified=""), ['""', ""], id="empty ETag"),
        pytest.param(half(etag="", last_modified=""), [""], id="nothing"),
        pytest.param(half(size=0), [ETAG, DATE, ""], id="an empty object"),
        pytest.param(half(size=-1), [ETAG, DATE], id="size not known"),
        pytest.param(half(size=-1, etag="", last_modified=""), [], id="nothing known"),
    ],
)
def test_each_condition_has_its_turn(known: OnDisk, in_turn: list[str]) -> None:
    assert conditions(known) == in_turn
    for refused, expected in enumerate([*in_turn, None]):
        assert condition(known._replace(refused=refused)) == expected
        assert can_resume(known._replace(refused=refused)) == (expected is not None)


@pytest.mark.parametrize("known", [NOTHING, half(offset=0), half(size=-1, etag="", last_modified="")])
def test_nothing_to_resume(known: OnDisk) -> None:
    assert not can_resume(known)


@pytest.mark.parametrize(
    ("brought", "size", "counts"),
    [
        (0, 0, False), (1, 0, True), (1, 50, True), (1, 1000, False), (10, 1000, True), (3000, 300_000, True),
        (1, 10**9, False), (32_767, 10**9, False), (32_768, 10**9, True), (900_000, 10**9, True),
        (1, -1, False), (32_768, -1, False), (-5, 100, False),
    ],
)  # fmt: skip
def test_what_counts_as_progress(brought: int, size: int, counts: bool) -> None:
    assert is_progress(brought, size) == counts


def test_the_headers_that_matter() -> None:
    headers = {"content-length": "1", "content-range": "2", "etag": "3", "last-modified": "4"}
    assert resume.answer(206, headers | {"x": "y"}) == Answer(206, "1", "2", "3", "4", "")
    assert resume.answer(200, {"content-encoding": "gzip"}) == Answer(200, encoding="gzip")


def test_a_length_counts_only_without_a_transfer_encoding() -> None:
    headers = {"content-length": "100", "transfer-encoding": "chunked"}
    assert resume.answer(200, headers) == Answer(200)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (" \t" + ETAG + " \t", ETAG),
        ("e" * 512, "e" * 512),
        ("e" * 513, ""),
        ('"a\n b"', ""),
        ("\x85" + ETAG, ""),
    ],
    ids=["blanks around", "512 characters", "513 characters", "folded", "a control character"],
)
def test_only_a_short_printable_line_is_a_header(sent: str, kept: str) -> None:
    assert resume.answer(200, {"etag": sent}).etag == kept


@pytest.mark.parametrize(
    ("known", "size", "answer", "refused"),
    [
        (HALF, 100, REST, 2),
        (HALF, 100, rest(etag=""), 1),
        (HALF, 100, rest(etag="", last_modified=""), 0),
        (HALF, 101, REST, 0),
        (half(offset=0), 100, REST, 0),
        (half(offset=1), 100, REST, 2),
        (half(size=-1), -1, REST, 1),
        (half(size=-1), -1, rest(etag="", last_modified=""), 0),
    ],
)
def test_conditions_that_a_host_has_ignored_are_not_tried_again(
    known: OnDisk, size: int, answer: Answer, refused: int
) -> None:
    assert resume.still_refused(known, size, answer) == refused


@pytest.mark.parametrize(
    ("answer", "known", "certain"),
    [
        (REST, HALF, True),
        (rest(etag=""), HALF, False),
        (rest(etag='"e2"'), HALF, False),
        (REST, half(refused=1), False),
        (rest(etag=""), half(etag=""), False),
        (rest(etag=""), half(etag="", last_modified=""), False),
        (rest(etag='W/"e1"'), half(etag='W/"e1"'), False),
    ],
)
def test_only_a_strong_etag_makes_a_rest_certain(answer: Answer, known: OnDisk, certain: bool) -> None:
    assert resume.is_certain(answer, known) is certain


# The parsers.

sizes = st.integers(0, 200) | st.integers(0, 2**64)


@given(st.text(max_size=30) | st.from_regex(r"bytes[ =][0-9*-]*/[0-9*]*", fullmatch=True))
@example("")
@example("bytes ٣-٤/٥")
@example("bytes 1-2/3\n")
@example("bytes 1-2/" + "9" * 5000)
@examples(deadline=None)
def test_no_text_breaks_the_parsers(text: str) -> None:
    assert -1 <= content_length(text) <= MAX_SIZE
    assert unsatisfied_range(text) >= -1
    span = content_range(text)
    if span is not None:
        first, last, size = span
        assert 0 <= first <= last < (MAX_SIZE if size < 0 else size) <= MAX_SIZE


@given(sizes, sizes, sizes)
@examples(deadline=None)
def test_a_content_range_is_read_as_it_is_written(first: int, last: int, size: int) -> None:
    sensible = first <= last < size <= MAX_SIZE
    assert content_range(f"bytes {first}-{last}/{size}") == ((first, last, size) if sensible else None)


@given(sizes)
@examples(deadline=None)
def test_a_length_is_read_as_it_is_written(length: int) -> None:
    assert content_length(str(length)) == (length if length <= MAX_SIZE else -1)
    assert content_length(f" {length} ") == content_length(str(length))


def test_the_largest_length_is_a_pebibyte() -> None:
    assert content_length(str(2**50)) == 2**50
    assert content_length(str(2**50 + 1)) == -1
    assert content_range(f"bytes 0-{2**50 - 1}/*") == (0, 2**50 - 1, -1)
    assert content_range(f"bytes 0-{2**50}/*") is None


@pytest.mark.parametrize("text", ["+5", "5.0", "0x5", "5 5", "5,6", "٥", "1_0", "5;", "1e3", "9" * 20])
def test_an_invalid_content_length_counts_as_unknown(text: str) -> None:
    assert content_length(text) == -1


@given(st.integers(0, 10**18))
@examples(deadline=None)
def test_an_unsatisfied_range_is_read_as_it_is_written(size: int) -> None:
    assert unsatisfied_range(f"bytes */{size}") == size
    assert unsatisfied_range(f"bytes 0-1/{size}") == -1


# The promise.

etags = st.sampled_from(["", ETAG, '"e2"', WEAK, 'W/"e2"', "e1"])
dates = st.sampled_from(["", DATE, "Fri, 11 Mar 2016 13:03:18 GMT", "yesterday"])
small = st.integers(-1, 5)
ranges = (
    st.builds("bytes {}-{}/{}".format, small, small, small)
    | st.sampled_from(["", "bytes */4", "bytes 1-2", "items 1-2/3"])
    | st.text(max_size=10)
)
lengths = small.map(str) | st.sampled_from(["", "x"])
answers = st.tuples(
    st.sampled_from([200, 206, 206, 206, 416]),
    lengths,
    ranges,
    etags,
    dates,
    st.sampled_from(["", "", "gzip"]),
).map(Answer._make)
knowns = st.tuples(st.integers(0, 5), st.integers(-1, 5), etags, dates, st.integers(0, 3)).map(OnDisk._make)


@given(answers, knowns)
@examples(deadline=None, max_examples=500)
def test_only_what_fits_is_appended(answer: Answer, known: OnDisk) -> None:
    decision = decide(answer, known)
    if decision.move is not Action.APPEND:
        return
    assert answer.status == 206
    assert answer.encoding == ""
    span = content_range(answer.content_range)
    assert span
    first, last, size = span
    assert 0 <= first <= known.offset <= last < decision.size
    assert {known.size, size} <= {-1, decision.size}
    assert (decision.start, decision.end) == (first, last + 1)
    assert answer.length in ("", str(last + 1 - first))


@given(st.integers(1, 5), st.integers(1, 5), etags, dates, st.integers(0, 2))
@examples(deadline=None)
def test_what_fits_is_appended(offset: int, size: int, etag: str, date: str, refused: int) -> None:
    known = OnDisk(offset, size, etag, date, refused)
    assume(offset < size and can_resume(known))
    answer = Answer(206, str(size - offset), f"bytes {offset}-{size - 1}/{size}", etag, date)
    assert decide(answer, known) == Decision(Action.APPEND, size, offset, size)


@given(answers, knowns)
@examples(deadline=None)
def test_the_conditions_have_an_end(answer: Answer, known: OnDisk) -> None:
    for _ in range(3):
        if decide(answer, known).move is not Action.WEAKER:
            return
        known = known._replace(refused=known.refused + 1)
        assert can_resume(known)
    pytest.fail("never the last condition")


@given(answers, knowns)
@examples(deadline=None)
def test_complete_means_complete(answer: Answer, known: OnDisk) -> None:
    if decide(answer, known).move is Action.COMPLETE:
        assert answer.status == 416
        assert known.offset == known.size == unsatisfied_range(answer.content_range)
