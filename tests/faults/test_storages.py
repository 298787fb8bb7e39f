"""Storages whose validators do not last: a device on a link that breaks finishes all the same."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.device import Device, Release

from mender_oneshot.devserver import DevServer

DATE = "Fri, 11 Mar 2016 13:03:17 GMT"
OTHER_DATE = "Fri, 11 Mar 2016 13:03:18 GMT"


Told = tuple[int, dict[str, str], bytes]


class Storage:
    """A host of one object that breaks each answer off after `most` bytes."""

    def __init__(self, content: bytes, most: int) -> None:
        self.content = content
        self.most = most
        self.asked: list[tuple[str, str]] = []  # Range and If-Range
        self.sent: list[int] = []
        self.etag: Callable[[int], str] = lambda number: '"e"'
        self.date: Callable[[int], str] = lambda number: DATE
        self.honours: Callable[[str, int], bool] = lambda condition, number: True
        self.answer: Callable[[int, int], Told | None] = lambda number, first: None


def standing_for(storage: Storage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

        def do_GET(self) -> None:
            number = len(storage.asked)
            wanted, condition = self.headers.get("Range", ""), self.headers.get("If-Range", "")
            storage.asked.append((wanted, condition))
            first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            size = len(storage.content)
            told = storage.answer(number, first)
            if told is None:
                ranged = bool(wanted) and storage.honours(condition, number)
                headers = {"ETag": storage.etag(number), "Last-Modified": storage.date(number)}
                body = storage.content[first:] if ranged else storage.content
                if ranged:
                    headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
                told = (206 if ranged else 200, headers | {"Content-Length": str(len(body))}, body)
            status, headers, body = told
            self.send_response_only(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body[: storage.most])
                storage.sent.append(min(len(body), storage.most))
            self.close_connection = True

    return Handler


@contextlib.contextmanager
def serving(storage: Storage, device: Device) -> Iterator[None]:
    """Point the deployment in hand at the storage."""
    with ThreadingHTTPServer(("127.0.0.1", 0), standing_for(storage)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        uri = f"http://127.0.0.1:{server.server_address[1]}/a?X-Amz-Signature=topsecret"
        device.change_link(uri)
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def offered(accepted: Device, release: Release) -> Device:
    """A device with a deployment of 300 kB in hand, whose attempts are counted to three."""
    accepted.sub_updater()
    accepted.configure(RetryDownloadCount=3)
    release(size=300_000)
    accepted.ok("check-update")
    return accepted


@pytest.fixture
def storage(offered: Device, tmp_path: Path) -> Storage:
    """A storage of that artifact, on a link that breaks after 50 kB."""
    return Storage((tmp_path / "release-2.mender").read_bytes(), 50_000)


def attempts(device: Device) -> int:
    """Attempts until the artifact is whole; each that fails may be repeated."""
    for number in range(1, 40):
        if device.run("download").code == 0:
            return number
        assert device.deployment, "the update has failed"
    raise AssertionError("it does not come to an end")


VALIDATORS: dict[str, dict[str, Any]] = {
    "lasting": {},
    "a new ETag each time": {"etag": lambda n: f'"e{n}"', "honours": lambda c, n: c != f'"e{n - 1}"'},
    "two nodes, ETags of their own": {
        "etag": lambda n: f'"e{n % 2}"', "honours": lambda c, n: not c.startswith('"') or c == f'"e{n % 2}"',
    },
    "two nodes, all of their own": {
        "etag": lambda n: f'"e{n % 2}"', "date": lambda n: (DATE, OTHER_DATE)[n % 2],
        "honours": lambda c, n: c in ("", f'"e{n % 2}"', (DATE, OTHER_DATE)[n % 2]),
    },
    "ignores If-Range": {"etag": lambda n: f'"e{n}"', "date": lambda n: ""},
    "200 to each ETag": {"honours": lambda c, n: not c.startswith('"')},
    "200 to each condition": {"honours": lambda c, n: not c},
    "neither": {"etag": lambda n: "", "date": lambda n: ""},
    "a weak ETag": {"etag": lambda n: 'W/"e"', "date": lambda n: ""},
    "a date alone": {"etag": lambda n: ""},
    "an ETag too long to keep": {"etag": lambda n: '"' + "e" * 600 + '"', "date": lambda n: ""},
}  # fmt: skip


@pytest.mark.parametrize("kind", VALIDATORS.values(), ids=VALIDATORS)
def test_a_link_that_breaks_costs_nothing_twice(offered: Device, storage: Storage, kind: Any) -> None:
    for name, value in kind.items():
        setattr(storage, name, value)
    with serving(storage, offered):
        assert attempts(offered) == 7
    assert (offered.data / "artifact.mender").read_bytes() == storage.content
    firsts = [wanted for wanted, _ in storage.asked]
    assert firsts[0] == ""
    assert "" not in firsts[1:]
    assert len(storage.asked) <= 7 + 2, "each condition is tried once"
    offered.ok("install")


def rest(storage: Storage, first: int, length: int, content_range: str) -> Told:
    body = storage.content[first : first + length]
    return 206, {"ETag": '"e"', "Content-Range": content_range, "Content-Length": str(len(body))}, body


CHUNKS = {"ETag": '"e"', "Transfer-Encoding": "chunked"}
LEGAL: dict[str, Callable[[Storage, int, int], Told | None]] = {
    "size of the whole not said": lambda s, n, first: (
        rest(s, first, len(s.content), f"bytes {first}-{len(s.content) - 1}/*") if n else None
    ),
    "parts of 20 kB": lambda s, n, first: (
        rest(s, first, 20_000, f"bytes {first}-{min(first + 20_000, len(s.content)) - 1}/{len(s.content)}")
        if n
        else None
    ),
    "from the block before": lambda s, n, first: (
        rest(s, first - 5_000, len(s.content), f"bytes {first - 5_000}-{len(s.content) - 1}/{len(s.content)}")
        if n
        else None
    ),
    "odd spelling": lambda s, n, first: (
        rest(s, first, len(s.content), f"  Bytes={first}-{len(s.content) - 1}/{len(s.content)}")
        if n
        else None
    ),
    "206 although not asked": lambda s, n, first: (
        None if n else rest(s, 0, len(s.content), f"bytes 0-{len(s.content) - 1}/{len(s.content)}")
    ),
    "chunks and a wrong length": lambda s, n, first: (
        None if n else (200, CHUNKS | {"Content-Length": "5"}, b"%x\r\n%s" % (len(s.content), s.content))
    ),
    "203": lambda s, n, first: (
        None if n else (203, {"ETag": '"e"', "Content-Length": str(len(s.content))}, s.content)
    ),
}


@pytest.mark.parametrize("answer", LEGAL.values(), ids=LEGAL)
def test_what_is_legal_and_rare_is_read_as_it_is_meant(
    offered: Device, storage: Storage, answer: Callable[..., Any]
) -> None:
    storage.answer = lambda number, first: answer(storage, number, first)
    with serving(storage, offered):
        attempts(offered)
    assert (offered.data / "artifact.mender").read_bytes() == storage.content
    assert [wanted for wanted, _ in storage.asked].count("") == 1
    offered.ok("install")


def test_an_object_without_a_length_is_resumed_by_its_etag(offered: Device, storage: Storage) -> None:
    """In chunks at first; the size comes with the range."""
    half = storage.content[:40_000]

    def chunks(number: int, first: int) -> Told | None:
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (half[:20_000], half[20_000:]))
        return None if number else (200, {"ETag": '"e"', "Transfer-Encoding": "chunked"}, body)

    storage.answer = chunks
    storage.most = 1_000_000
    with serving(storage, offered):
        assert attempts(offered) == 2
    assert storage.asked[1] == ("bytes=40000-", '"e"')
    assert (offered.data / "artifact.mender").read_bytes() == storage.content


UNCERTAIN: dict[str, Callable[[int], str]] = {
    "no ETag": lambda number: "",
    "ETags that the rest lacks": lambda number: "" if number else '"e"',
}


@pytest.mark.parametrize("etag", UNCERTAIN.values(), ids=UNCERTAIN)
def test_a_splice_that_fails_is_fetched_anew_once(
    offered: Device, server: DevServer, storage: Storage, etag: Callable[[int], str]
) -> None:
    """Two objects of the same length, and a storage that ignores conditions: the checksums decide."""
    storage.etag = etag
    storage.date = lambda number: ""
    good, deployment = storage.content, offered.deployment
    with serving(storage, offered):
        offered.run("download")
        storage.content = b"\0" * len(good)
        storage.most = 1_000_000
        offered.ok("download")
        storage.content = good
        done = offered.run("install")
        assert done.code == 75
        assert "the next run downloads it again" in done.err
        assert not list(offered.data.glob("artifact.*"))
        steps = offered.ok("run", "--all", "--force", "--json").json["steps"]
        assert [step["step"] for step in steps][-2:] == ["download", "install"]
    assert "failure" not in server.status_history(deployment)


def test_a_splice_that_fails_twice_is_a_failure(offered: Device, server: DevServer, storage: Storage) -> None:
    storage.etag = storage.date = lambda number: ""
    good, deployment = storage.content, offered.deployment
    with serving(storage, offered):
        for code in (75, 65):
            storage.content, storage.most = good, 50_000
            offered.run("download")
            storage.content, storage.most = b"\0" * len(good), 1_000_000
            offered.ok("download")
            assert offered.run("install").code == code
    offered.ok("run", "--force")
    assert server.status_history(deployment)[-1] == "failure"


def test_no_splice_when_the_length_has_changed(offered: Device, storage: Storage) -> None:
    storage.etag = storage.date = lambda number: ""
    with serving(storage, offered):
        offered.run("download")
        storage.content += b"\0" * 10_240
        storage.most = 1_000_000
        offered.ok("download")
    assert (offered.data / "artifact.mender").read_bytes() == storage.content


def test_a_byte_at_a_time_is_no_progress(offered: Device, server: DevServer, storage: Storage) -> None:
    deployment = offered.deployment
    with serving(storage, offered):
        offered.run("download")
        storage.most = 1
        codes = [offered.run("download").code for _ in range(3)]
    assert codes == [75, 75, 69]
    offered.ok("run", "--force")
    assert server.status_history(deployment)[-1] == "failure"


def test_parts_of_a_byte_end_the_attempt(offered: Device, storage: Storage) -> None:
    """As the answer announces them, so that they could be asked for without a pause."""
    size = len(storage.content)
    with serving(storage, offered):
        offered.run("download")
        storage.answer = lambda number, first: rest(storage, first, 1, f"bytes {first}-{first}/{size}")
        before = len(storage.asked)
        assert offered.run("download").code == 75
    assert len(storage.asked) == before + 1


PAGES: dict[str, tuple[dict[str, str], bytes]] = {
    "empty": ({}, b""),
    "html": ({"Content-Type": "text/html"}, b"<html>Log in</html>"),
    "text": ({"Content-Type": "text/plain"}, b"Log in, please."),
    "list": ({"Content-Type": "application/json"}, b'["error"]'),
    "json": ({"Content-Type": "application/json"}, b'{"error": "no"}'),
    "Mender's form": ({"Content-Type": "application/json"}, b'{"error": "no", "request_id": "1"}'),
    "with a range": ({"Content-Range": "bytes 50000-50004/50005"}, b"login"),
    "a new object": ({"ETag": '"e"', "Last-Modified": DATE}, b"login"),
}


@pytest.mark.parametrize(
    "status", [200, 203, 206, 302, 400, 401, 403, 404, 407, 409, 410, 416, 418, 451, 500]
)
def test_no_stranger_costs_what_is_on_disk(
    offered: Device, server: DevServer, storage: Storage, status: int
) -> None:
    offered.configure(RetryDownloadCount=100)
    with serving(storage, offered):
        offered.run("download")
        uri = offered.link
        for name, (headers, body) in PAGES.items():
            told = (status, headers | {"Content-Length": str(len(body))}, body)
            storage.answer = lambda number, first, told=told: told  # type: ignore[misc]
            before = len(storage.asked)
            server.faults.add(match="* */next", status=503)  # an expired link would lead elsewhere
            done = offered.run("download")
            server.faults.clear()
            assert done.code in (75, 76), (name, done)
            assert len(done.err.splitlines()) == 1, (name, done)
            assert len(storage.asked) - before <= 3, name
            assert (offered.data / "artifact.part").read_bytes() == storage.content[:50_000], name
            offered.forget_failures()
        assert offered.link == uri
        storage.answer = lambda number, first: None
        storage.most = 1_000_000
        offered.ok("download")
    assert (offered.data / "artifact.mender").read_bytes() == storage.content
    assert storage.asked[-1][0] == "bytes=50000-"
