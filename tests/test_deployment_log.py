"""Whatever the two logs hold, what is uploaded is what the server takes, and their end is in it."""

import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from helpers.device import Device
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot.deployment_log import BODY_LIMIT, Handler, Message, collect, fit, reset
from mender_oneshot.devserver import DevServer

AT = 1_457_701_397.06
STAMP = "2016-03-11T13:03:17Z"
RFC3339 = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
SERVER_LIMIT = 1 << 20


def body(messages: list[Message]) -> bytes:
    return json.dumps({"messages": messages}).encode()


def accepted(messages: list[Message]) -> list[Message]:
    """What the server's rules let through (device-api.md section 4): all of it, or the test fails."""
    assert messages
    for entry in messages:
        assert set(entry) == {"timestamp", "level", "message"}
        assert re.fullmatch(RFC3339, entry["timestamp"])
        assert datetime.fromisoformat(re.sub(r"\.[0-9]+", "", entry["timestamp"])).tzinfo
        assert entry["level"]
        assert entry["message"]
    assert len(body(messages)) <= BODY_LIMIT < SERVER_LIMIT
    return messages


class Logs:
    """The two files in a directory, and what would be uploaded of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ours = directory / "deployment.log"
        self.theirs = directory / "sub-updater.log"

    def upload(self, ours: bytes = b"", theirs: bytes = b"", at: float = AT) -> list[Message]:
        self.ours.write_bytes(ours)
        self.theirs.write_bytes(theirs)
        return accepted(collect(str(self.directory), str(self.directory), at))

    def said(self, ours: bytes = b"", theirs: bytes = b"") -> list[str]:
        return [entry["message"] for entry in self.upload(ours, theirs)]


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def line(message: Any = "hello", level: Any = "info", timestamp: Any = STAMP, **more: Any) -> bytes:
    return json.dumps({"timestamp": timestamp, "level": level, "message": message, **more}).encode() + b"\n"


def test_ours_then_the_sub_updaters(logs: Logs) -> None:
    assert logs.upload(
        line("one", "warning", "2015-01-01T00:00:00Z") + line("two"), b"three\n\n  four\n"
    ) == [
        {"timestamp": "2015-01-01T00:00:00Z", "level": "warning", "message": "one"},
        {"timestamp": STAMP, "level": "info", "message": "two"},
        {"timestamp": STAMP, "level": "info", "message": "three"},
        {"timestamp": STAMP, "level": "info", "message": "  four"},
    ]


def test_without_any_log_there_is_an_entry_that_says_so(tmp_path: Path) -> None:
    (only,) = accepted(collect(str(tmp_path), str(tmp_path / "nowhere"), AT))
    assert only["level"] == "error"


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \t\n\0\0\0\n", bytes(5000)])
def test_logs_without_content_become_one_entry(logs: Logs, content: bytes) -> None:
    (only,) = logs.upload(content, content)
    assert only["level"] == "error"


def test_what_the_old_client_wrote_is_taken(logs: Logs) -> None:
    (only,) = logs.upload(b'{"timestamp": "2021-06-01T10:11:12.345Z", "level": "INFO", "message": "x"}\n')
    assert only == {"timestamp": "2021-06-01T10:11:12.345Z", "level": "INFO", "message": "x"}


def test_members_that_the_server_does_not_know_are_left_out(logs: Logs) -> None:
    assert logs.upload(line("x", more="y")) == [{"timestamp": STAMP, "level": "info", "message": "x"}]


CORRUPT: dict[str, bytes] = {
    "half a line": line()[:30] + b"\n",
    "no JSON": b"hello\n",
    "a list": b"[1]\n",
    "a text": b'"hello"\n',
    "a number": b"5\n",
    "no message": b'{"timestamp": "2016-03-11T13:03:17Z", "level": "info"}\n',
    "message empty": line(""),
    "message blank": line(" \t "),
    "message a number": line(5),
    "message null": line(None),
    "level empty": line(level=""),
    "level a number": line(level=3),
    "time empty": line(timestamp=""),
    "time a number": line(timestamp=5),
    "time null": line(timestamp=None),
    "time a list": line(timestamp=["2016"]),
    "time an object": line(timestamp={}),
    "time without a zone": line(timestamp="2016-03-11T13:03:17"),
    "time with a blank": line(timestamp="2016-03-11 13:03:17Z"),
    "time in short": line(timestamp="2016-3-11T13:3:17Z"),
    "a day that is none": line(timestamp="2016-02-30T13:03:17Z"),
    "an hour that is none": line(timestamp="2016-02-28T24:03:17Z"),
    "NULs and the rest": bytes(100) + line()[50:],
    "not UTF-8": b'{"timestamp": "2016-03-11T13:03:17Z", "level": "info", "message": \xff\xfe}\n',
    "deep": b"[" * 5000 + b"\n",
}


@pytest.mark.parametrize("corrupt", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_line_that_a_power_cut_corrupted_is_replaced(logs: Logs, corrupt: bytes) -> None:
    before = line("before", timestamp="2015-01-01T00:00:00Z")
    first, second, third = logs.upload(before + corrupt + line("after"))
    assert (first["message"], third["message"]) == ("before", "after")
    assert second["level"] == "warning"
    assert second["message"].startswith("unreadable log line: ")
    assert second["timestamp"] == "2015-01-01T00:00:00Z"
    assert len(second["message"]) < 1000


WRONG_TIMES: dict[str, str] = {
    "more behind the seconds": "2016-03-11T13:03:17 or so Z",
    "a second too many": "2016-03-11T13:03:61Z",
    "a leap second": "2016-12-31T23:59:60Z",
    "other digits": "２０１６-03-11T13:03:17Z",
    "a point without digits": "2016-03-11T13:03:17.Z",
    "two zones": "2016-03-11T13:03:17+01:00Z",
    "endless": "2016-03-11T13:03:17" + "x" * 100_000 + "Z",
}


@pytest.mark.parametrize("timestamp", WRONG_TIMES.values(), ids=WRONG_TIMES.keys())
def test_a_time_that_the_server_cannot_read_is_replaced(logs: Logs, timestamp: str) -> None:
    assert logs.said(line("x", timestamp=timestamp))[0].startswith("unreadable log line: ")


def test_unicode_is_uploaded_and_bytes_that_are_no_utf_8_are_replaced(logs: Logs) -> None:
    text = "Größe 雪 \U0001f600"
    assert logs.said(line(text), text.encode()) == [text, text]
    assert logs.said(line("half a pair \ud83d")) == ["half a pair \ud83d"]
    (only,) = logs.said(theirs="Größe".encode("latin-1"))
    assert only == "Gr\ufffd\ufffde"


def test_long_lines_are_cut(logs: Logs) -> None:
    ours, theirs = logs.said(line("a" * 100_000), b"b" * 100_000)
    assert ours == "a" * 16_384
    assert theirs == "b" * 16_384


def test_the_newest_entries_are_kept(logs: Logs) -> None:
    """Of both logs: the reason of a failure may be the last line of either."""
    ours = b"".join(line(f"ours {number}") for number in range(20_000))
    theirs = b"".join(b"theirs %d\n" % number for number in range(20_000))
    said = logs.said(ours, theirs)
    middle = said.index("ours 19999") + 1
    for name, (first, *rest), share in (("ours", said[:middle], 0.24), ("theirs", said[middle:], 0.74)):
        assert "older entries were left out" in first
        assert rest == [f"{name} {number}" for number in range(20_000 - len(rest), 20_000)]
        assert sum(len(text) + 80 for text in rest) > BODY_LIMIT * share
    assert len(body(logs.upload(ours, theirs))) > BODY_LIMIT * 0.99


@pytest.mark.parametrize("limit", [BODY_LIMIT, BODY_LIMIT // 8])
@pytest.mark.parametrize("ours", [1, 20_000])
@pytest.mark.parametrize("theirs", [1, 20_000])
def test_the_last_line_of_each_log_is_uploaded(logs: Logs, ours: int, theirs: int, limit: int) -> None:
    logs.ours.write_bytes(line("old") * ours + line("the reason"))
    logs.theirs.write_bytes(b"old\n" * theirs + b"another reason\n")
    messages = collect(str(logs.directory), str(logs.directory), AT, limit)
    assert len(body(messages)) <= limit
    said = [entry["message"] for entry in messages]
    assert said[-1] == "another reason"
    assert "the reason" in said


def test_only_the_end_of_a_huge_log_is_read_from_the_start_of_a_line(logs: Logs) -> None:
    theirs = b"".join(b"%09d" % number + b"x" * 4086 + b"\n" for number in range(1000))
    said = logs.said(b"", theirs)
    assert said[-1].startswith("000000999")
    assert all(re.match("[0-9]{9}x", text) for text in said[1:])


@pytest.mark.parametrize("between", [b"", b"\r"], ids=["one line", "a progress bar"])
def test_the_end_of_an_endless_line_is_kept(logs: Logs, between: bytes) -> None:
    assert logs.said(b"", (b"working" + between) * 300_000 + b"and failed")[-1].endswith("and failed")


@pytest.mark.parametrize("lead", [b"\0", b" "], ids=["NULs", "blanks"])
def test_the_words_behind_much_nothing_are_kept(logs: Logs, lead: bytes) -> None:
    assert "disk full" in logs.said(b"", lead * 20_000 + b"disk full\n")[-1]


noise = st.binary(max_size=300)
lines = st.lists(
    st.sampled_from([b"\n", b"\0\n", b"\r\n", *CORRUPT.values()])
    | st.binary(max_size=20)
    | st.builds(line, st.text(), st.text(), st.sampled_from([STAMP, "", "x"]))
    | st.dictionaries(
        st.sampled_from(["timestamp", "level", "message"]), st.text() | st.integers() | st.none()
    ).map(lambda members: json.dumps(members).encode() + b"\n"),
    max_size=8,
).map(b"".join)


@given(noise | lines, noise | lines, st.floats(0, 4e9))
@example(b"\x85\n\xe2\x80\xa8\n", "\x85\n\u2028\n\x0b\n".encode(), 0)
@examples(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_logs_hold_the_server_takes_it(
    logs: Logs, ours: bytes, theirs: bytes, at: float
) -> None:
    logs.upload(ours, theirs, at)


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=50), st.integers(1, 400)), min_size=1, max_size=30),
    st.integers(2_000, 20_000),
)
@examples(deadline=None)
def test_what_is_made_to_fit_fits(parts: list[tuple[str, int]], limit: int) -> None:
    messages = [{"timestamp": STAMP, "level": "info", "message": text * times} for text, times in parts]
    kept = accepted(fit(messages, limit))
    assert len(body(kept)) <= limit
    if kept != messages:
        assert "left out" in kept[0]["message"]
        assert kept[0]["level"] == "warning"
        assert kept[1:] == messages[len(messages) - len(kept) + 1 :]
        assert f"{len(messages) - len(kept) + 1} older" in kept[0]["message"]


def test_what_fits_is_left_alone() -> None:
    messages = [{"timestamp": STAMP, "level": "info", "message": "x"}] * 100
    assert fit(messages) == messages


# What else can lie there.


class Stuck(Exception):
    """It took too long."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Stuck` where the body hangs."""

    def over(number: int, frame: object) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_secret(path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_text("secret")
    path.symlink_to(secret)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def link_without_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


ODD: list[Callable[[Path], None]] = [
    fifo,
    link_to_a_secret,
    link_to_nothing,
    link_without_end,
    link_to_itself,
]


@pytest.mark.parametrize("make", [*ODD, directory])
@pytest.mark.parametrize("which", ["deployment.log", "sub-updater.log"])
def test_what_is_no_file_is_no_log(tmp_path: Path, which: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / which)
    with within(5):
        (only,) = accepted(collect(str(tmp_path), str(tmp_path), AT))
    assert only["message"] == f"{tmp_path}/{which} was left out because it is not a regular file."


def test_a_log_beyond_reach_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(accepted(collect(f"{tmp_path}/file", f"{tmp_path}/nowhere/further", AT))) == 1


# Writing it.


def record(message: str = "said %s", *words: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("mender_oneshot", level, "x.py", 1, message, words or ("much",), None)


def test_what_is_said_is_read_again(tmp_path: Path) -> None:
    handler = Handler(str(tmp_path))
    for words in ("one", "two\nlines", "Größe \U0001f600 \x85 \u2028"):
        handler.handle(record("said %s", words))
    entries = accepted(collect(str(tmp_path), str(tmp_path), AT))
    assert [entry["message"] for entry in entries] == [
        "said one",
        "said two\nlines",
        "said Größe \U0001f600 \x85 \u2028",
    ]
    assert {entry["level"] for entry in entries} == {"warning"}
    assert (tmp_path / "deployment.log").stat().st_mode & 0o777 == 0o600


def test_the_log_does_not_grow_for_ever_and_keeps_its_newest_lines(tmp_path: Path) -> None:
    handler = Handler(str(tmp_path))
    for number in range(70):
        handler.handle(record("%d %s", number, "x" * 100_000))
        assert (tmp_path / "deployment.log").stat().st_size < (2 << 20) + 110_000
    handler.handle(record("%s", "the reason"))
    kept = [json.loads(text)["message"] for text in (tmp_path / "deployment.log").read_text().splitlines()]
    assert kept.pop() == "the reason"
    numbers = [int(text.split()[0]) for text in kept]
    assert len(numbers) >= 10
    assert numbers == list(range(70 - len(numbers), 70))
    assert os.listdir(tmp_path) == ["deployment.log"]


@pytest.mark.parametrize("make", [*ODD, directory])
def test_writing_where_there_is_no_file_is_given_up(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "deployment.log")
    with within(1):
        Handler(str(tmp_path)).handle(record())
    assert not (tmp_path / "nowhere").exists()
    if make is link_to_a_secret:
        assert (tmp_path / "secret").read_text() == "secret"


def test_writing_into_no_directory_is_given_up(tmp_path: Path) -> None:
    Handler(f"{tmp_path}/nowhere").handle(record())


def test_a_new_deployment_begins_a_new_log(logs: Logs) -> None:
    logs.upload(line(), b"x")
    reset(str(logs.directory), str(logs.directory))
    assert os.listdir(logs.directory) == []
    reset(str(logs.directory), str(logs.directory))


def test_nothing_is_logged_without_a_deployment(
    device: Device, server: DevServer, release: Callable[..., str]
) -> None:
    server.accept_all = True
    device.ok("auth")
    server.revoke_tokens()
    asked = len(server.requests)
    device.ok("check-update")
    assert server.requests[asked].status == 401
    assert not (device.data / "deployment.log").exists()
    release()
    device.ok("check-update")
    assert "offers release-2" in (device.data / "deployment.log").read_text()
