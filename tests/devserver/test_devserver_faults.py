"""The development server's artifact links (device-api.md 5), and its faults."""

import json
import threading
import time
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.raw_device import ATTRIBUTES, NEXT, ManualClock, RawDevice, connect, get

from mender_oneshot.devserver import DevServer

SIZE = 300_000


@pytest.fixture
def link(server: DevServer, device: RawDevice, artifact: bytes) -> str:
    server.deploy("release-2")
    return device.link()


@pytest.mark.parametrize(
    ("requested", "status", "part"),
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
def test_one_range_is_served_and_any_other_gets_the_whole_object(
    server: DevServer, link: str, artifact: bytes, requested: str | None, status: int, part: slice
) -> None:
    reply = get(server, link, **({"Range": requested} if requested else {}))
    assert (reply.status, reply.body) == (status, artifact[part])
    assert reply.headers["Content-Length"] == str(len(reply.body))
    if status == 206:
        first, end, _ = part.indices(len(artifact))
        assert reply.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(artifact)}"


def test_a_range_of_a_changed_object_gets_the_whole_object(
    server: DevServer, link: str, artifact: bytes
) -> None:
    whole = get(server, link, "HEAD")
    assert (whole.status, whole.body, int(whole.headers["Content-Length"])) == (200, b"", len(artifact))
    etag, date = whole.headers["ETag"], whole.headers["Last-Modified"]
    for condition, status in ((etag, 206), (date, 206), ('"other"', 200)):
        assert get(server, link, Range="bytes=7-", If_Range=condition).status == status
    beyond = get(server, link, Range=f"bytes={len(artifact)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(artifact)}")


def test_links_that_expired_or_were_changed_are_rejected(
    server: DevServer, link: str, clock: ManualClock
) -> None:
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


def test_a_fault_replaces_the_response_as_often_as_it_counts(server: DevServer, device: RawDevice) -> None:
    server.faults.add("* */next", status=503, headers={"Content-Type": "text/html"}, body=b"<html>")
    server.faults.add("GET */next", retry_after=7, count=2)
    server.faults.add("GET */next", redirect="http://elsewhere{target}")
    replies = [device.next() for _ in range(5)]
    assert [r.status for r in replies] == [503, 429, 429, 302, 204]
    assert (replies[0].body, replies[1].headers["Retry-After"]) == (b"<html>", "7")
    assert replies[3].headers["Location"].startswith(f"http://elsewhere{NEXT}?")
    assert [seen.status for seen in server.requests[-5:]] == [503, 429, 429, 302, 204]


@pytest.mark.parametrize("drop", ["drop_before", "drop_after"])
def test_a_dropped_connection_has_no_response_but_a_log_entry(
    server: DevServer, device: RawDevice, drop: str
) -> None:
    server.faults.add(f"PUT {ATTRIBUTES}", **{drop: True})
    with pytest.raises(RemoteDisconnected):
        device.call("PUT", ATTRIBUTES, [{"name": "n0", "value": 0}])
    assert bool(server.device().attributes) == (drop == "drop_after")
    seen = server.requests[-1]
    assert (seen.status, json.loads(seen.body)) == (0, [{"name": "n0", "value": 0}])


@pytest.mark.parametrize("cut", [0, 1, 70_000, SIZE])
@pytest.mark.parametrize("tls", [False, True])
def test_a_cut_comes_after_exactly_as_many_bytes_as_configured(tmp_path: Path, tls: bool, cut: int) -> None:
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
def test_a_body_can_be_sent_without_its_length(
    server: DevServer, link: str, artifact: bytes, what: str
) -> None:
    server.faults.add("GET /storage/*", count=None, **{what: True})
    reply = get(server, link)
    assert (reply.headers["Content-Length"], reply.body) == (None, artifact)
    server.faults.add("GET /storage/*", cut_after=5, **{what: True})
    server.faults.clear()
    assert get(server, link).headers["Content-Length"] == str(len(artifact))


def test_faults_of_storage_serve_another_range_or_other_bytes(
    server: DevServer, link: str, artifact: bytes
) -> None:
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


def test_a_slow_response_takes_its_time_and_arrives_whole(
    server: DevServer, link: str, artifact: bytes
) -> None:
    server.faults.add("GET /storage/*", slow=1_500_000)
    began = time.monotonic()
    assert get(server, link).body == artifact
    assert 0.15 < time.monotonic() - began < 5


def test_a_client_that_disconnects_ends_a_stall(server: DevServer, link: str) -> None:
    server.faults.add("GET /storage/*", stall_after=10)
    with connect(server, link) as connection:
        connection.request("GET", link.removeprefix(server.storage_url))
        server.faults.wait_for_stall()
        assert server.requests[-1].origin == "api", "logged too early"
    seen = server.wait_for(lambda seen: seen.origin == "storage")
    assert (seen.status, seen.sent) == (200, 10)


def test_waiting_for_a_request_that_never_comes_lists_the_last_ones(
    server: DevServer, device: RawDevice
) -> None:
    with pytest.raises(TimeoutError, match="auth_requests 200"):
        server.wait_for(lambda seen: seen.status == 418, timeout=0.01)
