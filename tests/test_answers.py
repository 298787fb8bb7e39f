"""What the server says, made into values: hostile until checked."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot import state
from mender_oneshot.answers import (
    LONGEST_RETRY_AFTER,
    Answer,
    Unusable,
    content_kind,
    instructions,
    mender_error,
    reason,
    redirect_target,
    rejects_token,
    retry_after,
    scheme,
)
from mender_oneshot.state import Deployment, State
from mender_oneshot.text import is_clean

UUID = "58be8208-dd77-4460-90e3-2a18b7ca1eac"
URI = "https://storage.example.com/artifacts/a?X-Amz-Signature=0123&x=%2F"
WHOLE: dict[str, Any] = {
    "id": UUID,
    "artifact": {
        "id": "60a4a56d-0b52-4f6d-8b5c-f5b7a3f3f4d1",
        "artifact_name": "release-2",
        "source": {"uri": URI, "expire": "2016-03-11T13:03:17.063493443Z"},
        "device_types_compatible": ["board"],
    },
}


def answer(path: str = "", value: Any = None) -> dict[str, Any]:
    """A valid answer with one member changed; the member goes where the value is `...`."""
    changed: dict[str, Any] = json.loads(json.dumps(WHOLE))
    *parents, last = path.split(".")
    inner = changed
    for name in parents:
        inner = inner[name]
    if value is ...:
        del inner[last]
    elif path:
        inner[last] = value
    return changed


def test_a_whole_answer() -> None:
    assert instructions(WHOLE) == Deployment(
        UUID, "60a4a56d-0b52-4f6d-8b5c-f5b7a3f3f4d1", "release-2", URI, expires=1457701397.063493
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("artifact.id", ...),
        ("artifact.id", None),
        ("artifact.source.expire", ...),
        ("artifact.source.expire", None),
        ("artifact.source.expire", "soon"),
        ("artifact.device_types_compatible", ...),
        ("artifact.device_types_compatible", 5),
        ("update_control_map", {"id": "x"}),
        ("artifact.source.method", "GET"),
    ],
)
def test_what_an_answer_may_lack_or_add(path: str, value: Any) -> None:
    found = instructions(answer(path, value))
    assert (found.id, found.artifact_name, found.uri) == (UUID, "release-2", URI)
    assert found.expires in (0, pytest.approx(1457701397.063493))


@pytest.mark.parametrize(
    "name",
    [
        *"\u3000\u00a0\u200b\u00ad\u200d\u2060\ufeff\u202e",
        "リリース\u30002",
        "release 2",
        "a/b:c@1.0",
        "größe-雪",
        "..",
        "x" * 1000,
        "release_INCONSISTENT",
    ],
)
def test_names_that_an_artifact_may_have(name: str) -> None:
    assert instructions(answer("artifact.artifact_name", name)).artifact_name == name


@pytest.mark.parametrize(
    "uri",
    [
        "http://s/a",
        "HTTPS://S/a",
        "https://s:9000/a",
        "https://[::1]/a",
        "https://u:p@s/a",
        "https://s",
        "https://s?a",
    ],
)
def test_links_that_can_be_followed(uri: str) -> None:
    assert instructions(answer("artifact.source.uri", uri)).uri == uri


@pytest.mark.parametrize("identifier", [UUID, "a", "A_b-1", "0" * 128])
def test_ids_that_are_safe(identifier: str) -> None:
    assert instructions(answer("id", identifier)).id == identifier


NOT_TEXT: list[Any] = [5, 1.5, True, None, [], ["a"], {}, {"a": "b"}]
HOSTILE: list[tuple[str, Any]] = [
    *(
        ("id", value)
        for value in (
            *(
                "../../etc/passwd",
                "..",
                ".",
                "a/b",
                "/",
                "a b",
                "a\n",
                "\na",
                "a\0",
                "a\r\nX: y",
                "a?b",
                "a#b",
                "a%2fb",
            ),
            *("", " ", "é", "١", "a.b", "a;b", "$(id)", "x" * 129, "x" * 100_000, ...),
        )
    ),
    *(
        ("artifact.source.uri", value)
        for value in (
            *(
                "file:///etc/shadow",
                "ftp://s/a",
                "https://a\\@s/a",
                "https://s/a\\b",
                "https://a@b@s/a",
                "https://s:0/a",
                "https://s<t/a",
                "https://s..t/a",
                "javascript:alert(1)",
                "data:,a",
                "gopher://s",
                "s/a",
                "/a",
                "//s/a",
            ),
            *(
                "https:",
                "https://",
                "https:///a",
                "https:a",
                "https://[::1",
                " https://s/a",
                "",
                "https://größe/a",
                "https://a\\@b/",
                "https://s:0/a",
                "https://s:99999/a",
            ),
            *("https://s/" + "a" * 8192, ...),
        )
    ),
    *(
        ("artifact.artifact_name", value)
        for value in ("", "a\nb", "a\0", "a\x1b[2J", "a\x85b", "a\u2028b", "x" * 8193, ...)
    ),
    ("artifact.artifact_name", "half a pair \ud83d"),
    ("artifact.id", "x" * 8193),
    ("artifact.source.expire", "x" * 8193),
    *(
        (path, value)
        for path in ("id", "artifact", "artifact.source", "artifact.source.uri", "artifact.artifact_name")
        for value in NOT_TEXT
    ),
    *(
        (path, value)
        for path in ("artifact.id", "artifact.source.expire")
        for value in (5, True, ["a"], {"a": 1})
    ),
    ("artifact", ...),
    ("artifact.source", ...),
    ("artifact", "source"),
    ("artifact.source", "uri"),
]


@pytest.mark.parametrize(
    ("path", "value"), HOSTILE, ids=[f"{path}-{repr(value)[:30]}" for path, value in HOSTILE]
)
def test_a_hostile_answer_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValueError, match="member"):
        instructions(answer(path, value))


@pytest.mark.parametrize(
    "uri", ["https://s/a b", "https://s/a\n", "https://s/\r\nX-Header: y", "https://s\t/a", "https://s/\0"]
)
def test_a_link_with_blanks_or_control_characters_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="member"):
        instructions(answer("artifact.source.uri", uri))


@pytest.mark.parametrize("whole", [*NOT_TEXT, "text", [WHOLE]])
def test_what_is_no_object_is_refused(whole: Any) -> None:
    with pytest.raises(ValueError, match="member"):
        instructions(whole)


names = st.sampled_from(["id", "artifact", "artifact_name", "source", "uri", "expire"])
plain = st.sampled_from([None, True, 5, 1.5, UUID, URI, "release-2", "2016-03-11T13:03:17Z"]) | st.text(
    max_size=9
)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner), max_leaves=12
)
loose = st.fixed_dictionaries(
    {
        "id": st.just(UUID) | anything,
        "artifact": st.fixed_dictionaries(
            {
                "artifact_name": st.text(max_size=9) | anything,
                "source": st.fixed_dictionaries(
                    {"uri": st.just(URI) | anything, "expire": st.text() | anything}
                ),
            }
        ),
    }
)


@given(anything | loose)
@example({})
@examples(deadline=None, max_examples=300)
def test_any_json_is_an_instruction_or_refused(members: Any) -> None:
    try:
        found = instructions(members)
    except ValueError:
        return
    assert all(character not in found.id for character in "/.\\ \n\0%")
    assert found.uri.startswith("http")
    assert is_clean(found.artifact_name)
    remembered = State(deployment=found)
    assert state.from_json(state.to_json(remembered)) == remembered


# Times.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2016-03-11T13:03:17Z", 1457701397),
        ("2016-03-11T13:03:17.063493443Z", 1457701397.063493),
        ("2016-03-11T13:03:17.1Z", 1457701397.1),
        ("2016-03-11T13:03:17.12345678Z", 1457701397.123456),
        ("2016-03-11T14:03:17.063493443+01:00", 1457701397.063493),
        ("2016-03-11T08:03:17-05:00", 1457701397),
        ("1970-01-01T00:00:01Z", 1),
        ("9999-12-31T23:59:59Z", 253402300799),
        ("", 0),
        ("soon", 0),
        ("2016-02-30T00:00:00Z", 0),
        ("2016-03-11T25:00:00Z", 0),
        ("99999-01-01T00:00:00Z", 0),
        ("2016-03-11T13:03:17.063493443Z and more", 0),
        ("\0", 0),
        ("\ud83d", 0),
    ],
)
def test_the_expiry_of_a_link_is_read_with_its_time_zone(text: str, seconds: float) -> None:
    assert instructions(answer("artifact.source.expire", text)).expires == pytest.approx(seconds, abs=1e-5)


@given(
    st.text(max_size=40)
    | st.datetimes().map(str)
    | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.Z+-]{0,20}")
)
@example("0001-01-01T00:00:00")
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59.999999999-14:00")
@examples(deadline=None, max_examples=300)
def test_no_time_breaks_an_answer(text: str) -> None:
    assert -1e12 < instructions(answer("artifact.source.expire", text)).expires < 1e12


SERVERS_NOW = "Wed, 21 Oct 2015 07:28:00 GMT"
NOW = 1445412480.0  # the same


@pytest.mark.parametrize(
    ("value", "date", "now", "seconds"),
    [
        pytest.param("120", "", NOW, 120, id="seconds"),
        pytest.param(" 120 ", "", NOW, 120, id="seconds with blanks"),
        pytest.param("0", "", NOW, 0, id="at once"),
        pytest.param("9999999999", "", NOW, 9999999999, id="for centuries"),
        pytest.param("Wed, 21 Oct 2015 07:38:00 GMT", SERVERS_NOW, NOW, 600, id="date"),
        pytest.param("Wed, 21 Oct 2015 07:38:00 GMT", SERVERS_NOW, 100.0, 600, id="date, our clock in 1970"),
        pytest.param("Wed, 21 Oct 2015 07:38:00 GMT", SERVERS_NOW, 4e9, 600, id="date, our clock ahead"),
        pytest.param("Wed, 21 Oct 2015 07:38:00 GMT", "", NOW, 600, id="date, server without a clock"),
        pytest.param("Wed, 21 Oct 2015 07:38:00 GMT", "today", NOW, 600, id="date, server with a bad clock"),
        pytest.param("Wednesday, 21-Oct-15 07:38:00 GMT", SERVERS_NOW, NOW, 600, id="date as in RFC 850"),
        pytest.param("Wed, 21 Oct 2015 07:18:00 GMT", SERVERS_NOW, NOW, 0, id="date gone by"),
        pytest.param("", SERVERS_NOW, NOW, None, id="nothing"),
        pytest.param("soon", SERVERS_NOW, NOW, None, id="nonsense"),
        pytest.param("-5", SERVERS_NOW, NOW, None, id="negative"),
        pytest.param("1.5", SERVERS_NOW, NOW, None, id="fraction"),
        pytest.param("1e3", SERVERS_NOW, NOW, None, id="exponent"),
        pytest.param("١٢", SERVERS_NOW, NOW, None, id="other digits"),
        pytest.param("120, 60", SERVERS_NOW, NOW, None, id="twice"),
        pytest.param("Wed, 99 Oct 2015 07:38:00 GMT", SERVERS_NOW, NOW, None, id="a day that is none"),
        pytest.param("Wed, 21 Oct 99999 07:38:00 GMT", SERVERS_NOW, NOW, None, id="a year that is none"),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(
    value: str, date: str, now: float, seconds: float | None
) -> None:
    assert retry_after(value, date, now) == seconds


def test_a_date_in_the_oldest_form_is_gmt(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 9110 section 5.6.7: a recipient must understand the form of asctime as well.
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        wait = retry_after("Wed Oct 21 07:38:00 2015", SERVERS_NOW, NOW)
    time.tzset()
    assert wait == 600


@pytest.mark.parametrize("value", ["10000000000", "9" * 100])
def test_a_huge_retry_after_is_no_permission_to_come_back(value: str) -> None:
    assert retry_after(value, SERVERS_NOW, NOW)


@given(
    st.text(max_size=40) | st.integers().map(str),
    st.text(max_size=40) | st.just(SERVERS_NOW),
    st.floats(0, 1e10),
)
@example("Wed, 21 Oct 2015 07:38:00 +9999", "", 0)
@example("Wed, 21 Oct 0000 07:38:00 -0000", "", 0)
@example("Sat, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359", 0)
@example("1 Jan 1 0:0:0 " + "9" * 20, "", 0)
@examples(deadline=None, max_examples=300)
def test_no_retry_after_breaks_us(value: str, date: str, now: float) -> None:
    wait = retry_after(value, date, now)
    assert wait is None or 0 <= wait < 1e15


@pytest.mark.parametrize(("value", "seconds"), [("9" * 10, 9_999_999_999), ("9" * 11, LONGEST_RETRY_AFTER)])
def test_a_retry_after_of_more_than_ten_digits_is_cut(value: str, seconds: float) -> None:
    assert retry_after(value, SERVERS_NOW, NOW) == seconds


# Whose answer it is.


def said(body: object, status: int = 404, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer("GET .../next", status, headers, content)


FORM = {"error": "not found", "request_id": "1"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (FORM, "not found"),
        (FORM | {"more": 1}, "not found"),
        (FORM | {"error": " a\n\tb\x1b "}, "a b"),
        (FORM | {"error": "\x1b"}, "no reason given"),
        (FORM | {"error": "x" * 201}, "x" * 200),
        (FORM | {"error": " " * 4095 + "xy"}, "x"),
        (FORM | {"error": " "}, ""),
        (FORM | {"error": 5}, ""),
        (FORM | {"request_id": " "}, ""),
        (FORM | {"request_id": 5}, ""),
        ({"error": "not found"}, ""),
        ({"request_id": "1"}, ""),
        ([FORM], ""),
        (b"<html>not found</html>", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
        (b"", ""),
    ],
    ids=str,
)
def test_the_form_of_an_error_of_the_server(body: object, words: str) -> None:
    assert mender_error(said(body)) == words


@pytest.mark.parametrize(
    ("body", "words"),
    [(FORM, "not found"), ({"error": "a\nb"}, "a b"), ({"error": 5}, ""), ({}, ""), ([1], ""), (b"x", "")],
    ids=str,
)
def test_the_reason_that_anybody_gives(body: object, words: str) -> None:
    assert reason(said(body)) == words


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        (said(b"", 401), True),
        (said(b"", 401, **{"content-type": "text/plain"}), False),
        (said(b" ", 401), False),
        (said(FORM, 401), True),
        (said(FORM, 401, **{"content-type": "application/json"}), True),
        (said(FORM, 403), True),
        (said(b"", 403), False),
        (said(FORM, 400), False),
        (said(FORM, 404), False),
        (said({"error": "no"}, 401), False),
    ],
    ids=str,
)
def test_only_the_server_itself_rejects_a_token(answer: Answer, refuses: bool) -> None:
    assert rejects_token(answer) is refuses


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("text/html; charset=utf-8", "text/html"),
        ("text/html", "text/html"),
        ("a\nb", "a b"),
        ("x" * 61, "x" * 60),
        ("; charset=utf-8", "no content type"),
    ],
)
def test_the_content_type_in_a_message(header: str, kind: str) -> None:
    assert content_kind(said(b"")._replace(headers={"content-type": header})) == kind
    assert content_kind(said(b"")) == "no content type"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other/a", "https://other/a"),
        (" https://other/a ", "https://other/a"),
        ("/b?c=d", "https://s/b?c=d"),
        ("b", "https://s/dir/b"),
        ("//other/a", "https://other/a"),
        ("", ""),
        (" ", ""),
        ("ftp://other/a", ""),
        ("https://[::1", ""),
        ("https://s/" + "x" * 8182, "https://s/" + "x" * 8182),
        ("https://s/" + "x" * 8183, ""),
    ],
)
def test_where_a_redirect_leads(location: str, target: str) -> None:
    assert redirect_target("https://s/dir/a", location) == target


@pytest.mark.parametrize(
    ("url", "name"), [("https://s:1/a:b", "https"), ("HTTP://s", "http"), ("s", "s"), ("", "")]
)
def test_the_scheme_of_a_url(url: str, name: str) -> None:
    assert scheme(url) == name


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("artifact.artifact_name", ..., "its member artifact.artifact_name is missing or not a string"),
        (
            "artifact.artifact_name",
            "",
            "its member artifact.artifact_name is empty or has control characters",
        ),
        (
            "artifact.artifact_name",
            "a\n",
            "its member artifact.artifact_name is empty or has control characters",
        ),
        ("artifact.artifact_name", "x" * 8193, "its member artifact.artifact_name has 8193 characters"),
        ("artifact.source", "uri", "its member artifact.source.uri is missing or not a string"),
        ("artifact.source.uri", 5, "its member artifact.source.uri is missing or not a string"),
        ("artifact.source.uri", "ftp://s", "its member artifact.source.uri is not an http or https URL"),
        ("artifact.id", 5, "its member artifact.id is missing or not a string"),
        ("artifact.id", "a\n", "its member artifact.id has control characters"),
        ("artifact.source.expire", 5, "its member artifact.source.expire is missing or not a string"),
    ],
)
def test_a_deployment_that_cannot_be_carried_out_is_named_with_the_reason(
    path: str, value: Any, why: str
) -> None:
    with pytest.raises(Unusable) as caught:
        instructions(answer(path, value))
    assert (caught.value.deployment, str(caught.value)) == (UUID, why)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("id", ..., "a member is missing"),
        ("artifact", ..., "a member is missing"),
        ("id", "..", "a member has an invalid value"),
        ("artifact", [], "a member has an invalid value"),
    ],
)
def test_a_deployment_without_a_name_is_none_at_all(path: str, value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        instructions(answer(path, value))
    assert not isinstance(caught.value, Unusable)


def test_a_member_of_8192_characters_is_taken() -> None:
    assert instructions(answer("artifact.id", "x" * 8192)).artifact_id == "x" * 8192
