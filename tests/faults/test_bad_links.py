"""Links as they are in the field: the artifact comes whole, or not at all, and the trying has an end."""

import gzip
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device, Release, one_sentence
from helpers.real_daemon import need
from helpers.seen import fetched

from mender_oneshot.devserver import DevServer

KILOBYTE = 1000
GIBIBYTE = 1 << 30
STORAGE = "GET /storage/*"


@pytest.fixture
def offered(accepted: Device, release: Release) -> Device:
    """A device with a deployment of 300 kB in hand, whose attempts are counted to three."""
    accepted.configure(RetryDownloadCount=3)
    release(size=300 * KILOBYTE)
    accepted.ok("check-update")
    return accepted


def is_whole(device: Device, original: Path) -> bool:
    arrived = device.data / "artifact.mender"
    return arrived.read_bytes() == original.read_bytes() and not (device.data / "artifact.part").exists()


def fails_in_the_end(device: Device, server: DevServer, *words: str, attempts: int = 3) -> list[int]:
    """Attempt after attempt brings nothing; then the deployment has failed, and its log tells why."""
    deployment, codes = device.deployment, []
    while device.deployment:
        codes.append(device.run("download").code)
        assert len(codes) <= attempts, f"no end after {codes}"
    assert not list(device.data.glob("artifact.*")), "what was downloaded lies around"
    device.ok("run", "--force")
    assert server.status_history(deployment)[-1] == "failure"
    assert server.status_history(deployment).count("failure") == 1
    story = " ".join(entry["message"] for entry in server.log(deployment) or [])
    for word in words:
        assert word in story
    return codes


def test_an_artifact_of_more_than_4_gib_is_resumed_near_its_end(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """5 GiB, sparse on both sides; only the last megabyte goes over the wire."""
    size, have = 5 * GIBIBYTE + 12_345, 5 * GIBIBYTE - 1_000_000
    artifact = server.artifacts[0]
    tail = os.urandom(size - have)
    with open(tmp_path / "huge", "wb") as file:
        file.seek(have)
        file.write(tail)
    server.serve_file(artifact.id, tmp_path / "huge", size)
    (offered.data / "artifact.part").touch()
    os.truncate(offered.data / "artifact.part", have)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    offered.change_deployment(size=size, etag=artifact.etag, boot=boot)
    answer = offered.ok("download", "--json").json
    assert answer["bytes"] == size
    (seen,) = fetched(server)
    assert (seen.status, seen.sent) == (206, size - have)
    assert seen.headers["Range"] == f"bytes={have}-"
    with open(offered.data / "artifact.mender", "rb") as arrived:
        arrived.seek(have)
        assert arrived.read() == tail
        assert os.fstat(arrived.fileno()).st_size == size


@pytest.mark.parametrize("size", [100, 200, 400])
def test_an_object_that_shrinks_or_grows_between_attempts(
    offered: Device, server: DevServer, tmp_path: Path, size: int
) -> None:
    """200 kB of 300 kB are here when the object becomes another one: what comes is the new one, unmixed."""
    server.faults.add(match=STORAGE, cut_after=200 * KILOBYTE)
    assert offered.run("download").code == 75
    changed = make_artifact(
        tmp_path / "changed.mender", payload={"app": os.urandom(size * KILOBYTE)}, compression="none"
    )
    server.change(offered.artifact_id, changed.read_bytes())
    offered.ok("download")
    assert is_whole(offered, changed)


def test_an_object_cut_short_in_place_is_found_out(offered: Device, server: DevServer) -> None:
    """Same ETag, fewer bytes than are here already: storage that lost the end of a file."""
    server.faults.add(match=STORAGE, cut_after=200 * KILOBYTE)
    assert offered.run("download").code == 75
    artifact = server.artifacts[0]
    os.truncate(artifact.path, 150 * KILOBYTE)
    server.serve_file(artifact.id, artifact.path, 150 * KILOBYTE)
    wanted = offered.deployment
    offered.sub_updater('touch "$MENDER_DATASTORE_DIR/called"\n')
    offered.ok("download")
    done = offered.run("install")
    one_sentence(done, 65)
    offered.ok("run", "--force")
    assert server.status(wanted) == "failure"
    assert not (offered.data / "called").exists()


def test_a_body_that_never_ends_fails_the_update_after_three_attempts(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """Without a length or an end: the time limit ends each attempt, and the number of attempts is limited."""
    offered.sub_updater()
    endless = tmp_path / "endless"
    endless.write_bytes((tmp_path / "release-2.mender").read_bytes())
    os.truncate(endless, 64 * GIBIBYTE)
    artifact = server.artifacts[0]
    server.serve_file(artifact.id, endless, 64 * GIBIBYTE)
    server.faults.add(match=STORAGE, count=None, no_length=True, ignore_range=True, slow=20e6)
    done = offered.run("--max-runtime", "3", "download")
    one_sentence(done, 75, "of an unknown size", "time limit")
    deployment = offered.deployment
    codes = []
    while offered.deployment:
        codes.append(offered.run("--max-runtime", "3", "download").code)
        assert len(codes) <= 3, f"no end after {codes}"
    server.faults.clear()
    offered.ok("run", "--force")
    assert server.status(deployment) == "failure"
    assert not list(offered.data.glob("artifact.*"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_a_body_that_never_ends_on_a_small_disk(offered: Device, server: DevServer, tmp_path: Path) -> None:
    """Then the reserve for the state ends it, and the disk is not left full for want of a length."""
    need("unshare")
    artifact = server.artifacts[0]
    offered.sub_updater()
    (tmp_path / "endless").write_bytes((tmp_path / "release-2.mender").read_bytes())
    os.truncate(tmp_path / "endless", GIBIBYTE)
    server.serve_file(artifact.id, tmp_path / "endless", GIBIBYTE)
    server.faults.add(match=STORAGE, count=None, no_length=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'disk=$0; mount -t tmpfs -o size=8m none "$disk" && cp -a "$MENDER_DATASTORE_DIR/." "$disk" && '
        'export MENDER_DATASTORE_DIR="$disk" && { "$@"; code=$?; } && '
        'stat -f -c %f "$disk" >&2 && umount "$disk" && exit $code'
    )
    done = offered.run("download", wrapper=("unshare", "-m", "sh", "-c", script, str(disk)))
    said, free = done.err.splitlines()
    assert done.code == 73
    assert "Not enough space for the artifact" in said
    assert int(free) * 4096 > 6 << 20, "bytes that cannot be resumed still fill the disk"


def test_an_empty_object_fails_the_update(offered: Device, server: DevServer) -> None:
    server.change(server.artifacts[0].id, b"")
    assert fails_in_the_end(offered, server, "not an artifact") == [76, 76, 69]


def test_a_length_that_is_too_small_is_found_out_by_verifying(offered: Device, server: DevServer) -> None:
    server.faults.add(match=STORAGE, extra_headers={"Content-Length": "100000"})
    wanted = offered.deployment
    offered.sub_updater('touch "$MENDER_DATASTORE_DIR/called"\n')
    offered.ok("download")
    one_sentence(offered.run("install"), 65)
    offered.ok("run", "--force")
    assert server.status(wanted) == "failure"
    assert not (offered.data / "called").exists()


def too_large_by_far(directory: Path) -> dict[str, Any]:
    """The fault that promises a megabyte and closes after what there is."""
    size = (directory / "release-2.mender").stat().st_size
    return {"extra_headers": {"Content-Length": "1000000"}, "cut_after": size}


def test_a_length_that_is_too_large_has_an_end(offered: Device, server: DevServer, tmp_path: Path) -> None:
    """More is announced than arrives, each time: the connection breaks, then the range is rejected."""
    server.faults.add(match=STORAGE, count=None, **too_large_by_far(tmp_path))
    codes = fails_in_the_end(offered, server, "no progress in", attempts=8)
    assert codes[-1] == 69
    assert set(codes[:-1]) == {75}


def test_a_length_that_was_once_too_large_does_no_harm(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match=STORAGE, **too_large_by_far(tmp_path))
    assert offered.run("download").code == 75
    offered.ok("download")
    assert is_whole(offered, tmp_path / "release-2.mender")


def test_an_artifact_that_a_proxy_compresses_is_rejected_by_name(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """A proxy that compresses although the request forbids it: rejected by name, and counted."""
    packed = gzip.compress((tmp_path / "release-2.mender").read_bytes())
    fault: dict[str, Any] = {"status": 200, "body": packed, "headers": {"Content-Encoding": "gzip"}}
    server.faults.add(match=STORAGE, **fault)
    done = offered.run("download")
    one_sentence(done, 76, "compresses the artifact (Content-Encoding); disable that")
    # The proxy is fixed: the download succeeds.
    offered.ok("download")
    assert is_whole(offered, tmp_path / "release-2.mender")
    assert {seen.headers["Accept-Encoding"] for seen in fetched(server)} == {"identity"}


def test_an_artifact_that_a_proxy_always_compresses_fails_in_the_end(
    offered: Device, server: DevServer
) -> None:
    server.faults.add(match=STORAGE, count=None, extra_headers={"Content-Encoding": "gzip"})
    assert fails_in_the_end(offered, server, "compresses the artifact") == [76, 76, 69]


def test_compressed_only_from_the_middle_on(offered: Device, server: DevServer, tmp_path: Path) -> None:
    server.faults.add(match=STORAGE, cut_after=100 * KILOBYTE)
    assert offered.run("download").code == 75
    server.faults.add(match=STORAGE, extra_headers={"Content-Encoding": "gzip"})
    assert offered.run("download").code == 76
    assert (offered.data / "artifact.part").stat().st_size == 100 * KILOBYTE
    offered.ok("download")
    assert is_whole(offered, tmp_path / "release-2.mender")


@contextmanager
def old_server(*answers: bytes) -> Iterator[str]:
    """A plain server that reads a request, gives the next answer as it stands and closes; yields its URL.

    An answer that is empty is none: the connection stays open and silent.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            if answer:
                connection.recv(65536)
                connection.sendall(answer)
                if not answer.endswith(b"..."):
                    connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/artifact?X-Amz-Signature=topsecret"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in kept:
            connection.close()


def test_a_server_of_http_1_0_can_serve_the_artifact(offered: Device, tmp_path: Path) -> None:
    """No length, no keep-alive, no ranges: the end of the connection is the end of the artifact."""
    content = (tmp_path / "release-2.mender").read_bytes()
    offered.sub_updater()
    with old_server(b"HTTP/1.0 200 OK\r\n\r\n" + content) as url:
        offered.change_link(url)
        offered.ok("download")
    assert is_whole(offered, tmp_path / "release-2.mender")


def test_without_a_length_a_cut_is_found_out_by_verifying(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    content = (tmp_path / "release-2.mender").read_bytes()
    wanted = offered.deployment
    offered.sub_updater('touch "$MENDER_DATASTORE_DIR/called"\n')
    with old_server(b"HTTP/1.0 200 OK\r\n\r\n" + content[: 150 * KILOBYTE]) as url:
        offered.change_link(url)
        offered.ok("download")
    one_sentence(offered.run("install"), 65)
    offered.ok("run", "--force")
    assert server.status_history(wanted)[-1] == "failure"
    assert server.log(wanted)
    assert not (offered.data / "called").exists()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le...",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nversion...",
    ],
    ids=["answer", "headers", "body"],
)
def test_a_storage_that_stops_sending_ends_at_the_time_limit_and_costs_nothing(
    offered: Device, tmp_path: Path, answer: bytes
) -> None:
    good = offered.link
    with old_server(answer) as url:
        offered.change_link(url)
        done = offered.run("--max-runtime", "1", "download")
    one_sentence(done, 75, "time limit of 1 s was reached")
    assert "topsecret" not in done.err
    offered.change_link(good)
    offered.ok("download")
    assert is_whole(offered, tmp_path / "release-2.mender")


def test_a_storage_that_accepts_no_connection_ends_at_the_time_limit(offered: Device) -> None:
    """Its queue is full, so that even the first packet goes unanswered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            uri = f"https://127.0.0.1:{address[1]}/artifact?X-Amz-Signature=topsecret"
            offered.change_link(uri)
            done = offered.run("--max-runtime", "1", "download")
    one_sentence(done, 75, "time limit of 1 s was reached")
    # The same for a handshake without an answer.
    with old_server(b"") as url:
        uri = url.replace("http:", "https:")
        offered.change_link(uri)
        one_sentence(offered.run("--max-runtime", "1", "download"), 75, "time limit of 1 s was reached")


def test_a_chain_of_redirects_with_secrets_in_them(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """Each hop has its own signature; none appears in the output, nor in the next request."""
    target = f"{server.storage_url}{{target}}&hop-secret=s3cr3t"
    server.faults.add(match=STORAGE, count=4, redirect=target)
    log = tmp_path / "log"
    done = offered.run("-l", "debug", "-L", str(log), "download")
    assert done.code == 0, done
    assert is_whole(offered, tmp_path / "release-2.mender")
    assert len(fetched(server)) == 5
    said = done.out + done.err + log.read_text() + (offered.data / "deployment.log").read_text()
    for secret in ("s3cr3t", "Signature", fetched(server)[0].query["X-Amz-Signature"]):
        assert secret not in said
    assert not [seen for seen in fetched(server) if {"Authorization", "Referer"} & set(seen.headers)]


@pytest.mark.parametrize("status", [403, 410, 404])
def test_a_link_that_is_always_rejected_fails_the_update_without_a_storm(
    offered: Device, server: DevServer, status: int
) -> None:
    """The link at hand and a fresh one each time; `next` is asked no more often than links are tried."""
    server.faults.add(match=STORAGE, count=None, status=status)
    assert fails_in_the_end(offered, server, f"rejected the artifact's link ({status})")[-1] == 69
    nexts = [seen for seen in server.requests if seen.path.endswith("/next") and seen.status == 200]
    assert len(nexts) <= len(fetched(server)) + 1 <= 2 * 3 + 1


@pytest.mark.parametrize("status", [403, 410])
def test_a_link_that_expires_in_each_attempt_but_brings_something(
    offered: Device, server: DevServer, tmp_path: Path, status: int
) -> None:
    for _ in range(5):
        server.faults.add(match=STORAGE, cut_after=50 * KILOBYTE)
        assert offered.run("download").code == 75
        server.faults.add(match=STORAGE, status=status)
    offered.ok("download")
    assert is_whole(offered, tmp_path / "release-2.mender")
    size = (tmp_path / "release-2.mender").stat().st_size
    assert sum(seen.sent for seen in fetched(server) if seen.status != status) == size


def test_a_renewed_link_to_another_artifact_starts_over(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """The artifact was replaced under the same deployment: not a byte of the first may remain."""
    server.faults.add(match=STORAGE, cut_after=200 * KILOBYTE)
    assert offered.run("download").code == 75
    other = make_artifact(tmp_path / "other.mender", payload={"app": b"other" * 50_000}, compression="none")
    before = offered.artifact_id
    after = server.replace_artifact(offered.deployment, other)
    offered.ok("download")
    assert offered.artifact_id == after != before
    assert is_whole(offered, other)
    assert "Range" not in fetched(server)[-1].headers


def test_a_configuration_is_never_joined(accepted: Device, server: DevServer, tmp_path: Path) -> None:
    """It is generated for each request: the second half of another one would not match."""
    content = make_artifact(
        tmp_path / "configuration.mender", name="configuration", payload={"c": b"x" * 200_000}
    ).read_bytes()
    deployment = server.deploy("configuration", configuration=content)
    accepted.ok("check-update")
    links = "GET */download/configuration/*"
    for _ in range(2):
        server.faults.add(match=links, cut_after=300)
        assert accepted.run("download").code == 75
    # Even where something on the way gives it a name and a date.
    named = {"ETag": '"same"', "Last-Modified": "Mon, 16 Nov 2026 10:00:00 GMT", "Accept-Ranges": "bytes"}
    server.faults.add(match=links, cut_after=300, extra_headers=named)
    assert accepted.run("download").code == 75
    server.faults.add(match=links, extra_headers=named)
    accepted.ok("download")
    assert (accepted.data / "artifact.mender").read_bytes() == content
    asked = [seen for seen in server.requests if "/download/configuration/" in seen.path]
    assert {seen.status for seen in asked} == {200}
    assert not [seen for seen in asked if "Authorization" in seen.headers]
    assert server.status(deployment) == "downloading"


def test_a_slow_link_loses_nothing_to_the_time_limit(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """A trickle, cut by the deadline again and again: every byte that came is kept, none comes twice."""
    server.faults.add(match=STORAGE, count=None, slow=80 * KILOBYTE)
    sizes, runs = [0], 0
    part = offered.data / "artifact.part"
    while not (offered.data / "artifact.mender").exists():
        done = offered.run("--max-runtime", "4", "download")
        runs += 1
        assert done.code in (0, 75), done
        # On a busy machine the time can be over before the first byte.
        if part.exists() and part.stat().st_size != sizes[-1]:
            sizes.append(part.stat().st_size)
        assert runs < 30
    assert len(sizes) > 2
    assert sizes == sorted(sizes), "an attempt has lost bytes"
    assert is_whole(offered, tmp_path / "release-2.mender")
    starts = {seen.headers.get("Range", "bytes=0-") for seen in fetched(server)}
    assert starts <= {f"bytes={size}-" for size in sizes}


def test_starting_over_has_an_end(offered: Device, server: DevServer) -> None:
    """A link that breaks and an object that cannot be resumed: each attempt throws away the one before.

    Sometimes a little more comes than the last time, but it is the same bytes again.
    """
    for number in range(40):
        more = 100 * KILOBYTE * (number % 2)
        server.faults.add(match=STORAGE, cut_after=50 * KILOBYTE + more, ignore_range=True)
    codes = fails_in_the_end(offered, server, "Giving up on release-2", attempts=8)
    assert codes[-1] == 69
    size = 300 * KILOBYTE
    assert sum(seen.sent for seen in fetched(server)) <= 3 * size
