"""The development server's artifact links, and the faults it commits on demand (device-api.md 5)."""

import json
import threading
import time
from collections.abc import Iterator
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.raw_device import ATTRIBUTES, NEXT, RawDevice, Reply, connect, fetch

from mender_oneshot.devserver import DevServer

SIZE = 300_000


class Clock:
    """A time that moves when told to."""

    now = 1_000_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[DevServer]:
    before = threading.active_count()
    with DevServer(tmp_path / "server", tls=False, clock=clock) as server:
        yield server
    assert threading.active_count() == before


@pytest.fixture
def device(server: DevServer) -> RawDevice:
    return RawDevice(server).accepted()


@pytest.fixture
def artifact(server: DevServer, tmp_path: Path) -> bytes:
    path = make_artifact(tmp_path / "a.mender", payload={"big": bytes(SIZE)}, compression="none")
    server.upload(path)
    return path.read_bytes()


@pytest.fixture
def link(server: DevServer, device: RawDevice, artifact: bytes) -> str:
    server.deploy("release-2")
    return device.link()


def get(server: DevServer, url: str, method: str = "GET", /, **headers: str) -> Reply:
    return fetch(
        server, method, url, None, {name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        (None, 200, slice(None)),
        ("bytes=0-", 206, slice(0, None)),
        ("bytes=1000-1999", 206, slice(1000, 2000)),
        ("bytes=299000-99999999", 206, slice(299000, None)),
        ("bytes=-100", 206, slice(-100, None)),
        ("bytes=0-0,5-6", 200, slice(None)),
        ("bytes=9-5", 200, slice(None)),
        ("chapters=1-2", 200, slice(None)),
    ],
)
def test_ranges(
    server: DevServer, link: str, artifact: bytes, asked: str | None, status: int, part: slice
) -> None:
    reply = get(server, link, **({"Range": asked} if asked else {}))
    assert (reply.status, reply.body) == (status, artifact[part])
    assert reply.headers["Content-Length"] == str(len(reply.body))
    if status == 206:
        first, end, _ = part.indices(len(artifact))
        assert reply.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(artifact)}"


def test_conditions_on_ranges(server: DevServer, link: str, artifact: bytes) -> None:
    whole = get(server, link, "HEAD")
    assert (whole.status, whole.body, int(whole.headers["Content-Length"])) == (200, b"", len(artifact))
    etag, date = whole.headers["ETag"], whole.headers["Last-Modified"]
    for condition, status in ((etag, 206), (date, 206), ('"other"', 200)):
        assert get(server, link, Range="bytes=7-", If_Range=condition).status == status
    beyond = get(server, link, Range=f"bytes={len(artifact)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(artifact)}")


def test_links_refused(server: DevServer, link: str, clock: Clock) -> None:
    with_token = get(server, link, Authorization="Bearer x")
    assert (with_token.status, b"InvalidArgument" in with_token.body) == (400, True)
    assert b"SignatureDoesNotMatch" in get(server, link.replace("X-Amz-Expires=8", "X-Amz-Expires=9")).body
    assert get(server, link.partition("?")[0]).status == 403
    clock.now += 86399
    assert get(server, link).status == 200
    clock.now += 1
    late = get(server, link)
    assert (late.status, b"Request has expired" in late.body) == (403, True)
    assert late.headers["Content-Type"] == "application/xml"


# --- Faults ------------------------------------------------------------------------------------------------


def test_faults_in_place_of_an_answer(server: DevServer, device: RawDevice) -> None:
    server.faults.add("* */next", status=503, headers={"Content-Type": "text/html"}, body=b"<html>")
    server.faults.add("GET */next", retry_after=7, count=2)
    server.faults.add("GET */next", redirect="http://elsewhere{target}")
    replies = [device.next() for _ in range(5)]
    assert [r.status for r in replies] == [503, 429, 429, 302, 204]
    assert (replies[0].body, replies[1].headers["Retry-After"]) == (b"<html>", "7")
    assert replies[3].headers["Location"].startswith(f"http://elsewhere{NEXT}?")
    assert [seen.status for seen in server.requests[-5:]] == [503, 429, 429, 302, 204]


@pytest.mark.parametrize("drop", ["drop_before", "drop_after"])
def test_drops(server: DevServer, device: RawDevice, drop: str) -> None:
    server.faults.add(f"PUT {ATTRIBUTES}", **{drop: True})
    with pytest.raises(RemoteDisconnected):
        device.call("PUT", ATTRIBUTES, [{"name": "n0", "value": 0}])
    assert bool(server.device().attributes) == (drop == "drop_after")
    seen = server.requests[-1]
    assert (seen.status, json.loads(seen.body)) == (0, [{"name": "n0", "value": 0}])


@pytest.mark.parametrize("cut", [0, 1, 70_000, SIZE])
@pytest.mark.parametrize("tls", [False, True])
def test_cuts(tmp_path: Path, tls: bool, cut: int) -> None:
    with DevServer(tmp_path / "server", tls=tls, accept_all=True) as server:
        server.upload(make_artifact(tmp_path / "a.mender", payload={"big": bytes(SIZE)}, compression="none"))
        device = RawDevice(server).accepted()
        server.deploy("release-2")
        server.faults.add("GET /storage/*", cut_after=cut)
        with pytest.raises(IncompleteRead) as caught:
            get(server, device.link())
        assert (len(caught.value.partial), server.requests[-1].sent) == (cut, cut)
        server.faults.add("GET /storage/*", cut_after=cut, reset=True)
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            get(server, device.link())


def test_a_stall_ends_by_release_or_by_stop(server: DevServer, link: str, artifact: bytes) -> None:
    server.faults.add("GET /storage/*", stall_after=1000, count=2)
    replies: list[Any] = []

    def download() -> None:
        try:
            replies.append(get(server, link).body)
        except IncompleteRead as error:
            replies.append(error.partial)

    for end, expected in ((server.faults.release, artifact), (server.stop, artifact[:1000])):
        thread = threading.Thread(target=download)
        thread.start()
        server.faults.wait_for_stall()
        began = time.monotonic()
        end()
        thread.join()
        assert time.monotonic() - began < 2
        assert replies.pop() == expected
    assert [seen.sent for seen in server.requests[-2:]] == [len(artifact), 1000]


@pytest.mark.parametrize("what", ["chunked", "no_length"])
def test_bodies_without_a_length(server: DevServer, link: str, artifact: bytes, what: str) -> None:
    server.faults.add("GET /storage/*", count=None, **{what: True})
    reply = get(server, link)
    assert (reply.headers["Content-Length"], reply.body) == (None, artifact)
    server.faults.add("GET /storage/*", cut_after=5, **{what: True})
    server.faults.clear()
    assert get(server, link).headers["Content-Length"] == str(len(artifact))


def test_objects_that_are_not_what_they_were(server: DevServer, link: str, artifact: bytes) -> None:
    etag = get(server, link).headers["ETag"]
    headers = {"Range": "bytes=1000-", "If_Range": etag}
    server.faults.add("GET /storage/*", ignore_range=True)
    assert (get(server, link, **headers).status, get(server, link, **headers).status) == (200, 206)
    server.faults.add("GET /storage/*", wrong_range=10)
    shifted = get(server, link, **headers)
    assert (shifted.status, shifted.body) == (206, artifact[10:])
    assert shifted.headers["Content-Range"].startswith("bytes 10-")
    server.faults.add("GET /storage/*", no_etag=True, extra_headers={"X-Cache": "hit"})
    bare = get(server, link)
    assert (bare.headers["ETag"], bare.headers["X-Cache"]) == (None, "hit")
    server.faults.add("GET /storage/*", expired=True)
    assert get(server, link).status == 403
    server.faults.add("GET /storage/*", change=True)
    changed = get(server, link, **headers)
    assert (changed.status, changed.body[0], len(changed.body)) == (200, 255 - artifact[0], len(artifact))
    assert changed.headers["ETag"] != etag
    assert get(server, link).headers["ETag"] == changed.headers["ETag"]


def test_slow_answers(server: DevServer, link: str, artifact: bytes) -> None:
    server.faults.add("GET /storage/*", slow=1_500_000)
    began = time.monotonic()
    assert get(server, link).body == artifact
    assert 0.15 < time.monotonic() - began < 5


def test_a_client_that_goes_is_noticed(server: DevServer, link: str) -> None:
    server.faults.add("GET /storage/*", stall_after=10)
    with connect(server, link) as connection:
        connection.request("GET", link.removeprefix(server.storage_url))
        server.faults.wait_for_stall()
        assert server.requests[-1].origin == "api", "not yet over"
    seen = server.wait_for(lambda seen: seen.origin == "storage")
    assert (seen.status, seen.sent) == (200, 10)


def test_waiting_for_a_request_that_never_comes(server: DevServer, device: RawDevice) -> None:
    with pytest.raises(TimeoutError, match="auth_requests 200"):
        server.wait_for(lambda seen: seen.status == 418, timeout=0.01)
