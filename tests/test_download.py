"""Downloads over bad links: resumed where they can be, started over where they must, never spliced."""

import signal
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.device import MENDERS, Device, Release
from helpers.memory import PEAK_MEMORY
from helpers.seen import fetched
from helpers.waiting import until, until_size

from mender_oneshot.devserver import DevServer

MEGABYTE = 1_000_000
STORAGE = "GET /storage/*"


@pytest.fixture
def offered(accepted: Device, release: Release) -> Device:
    """A device with a deployment of 3 MB in hand."""
    release(size=3 * MEGABYTE, payload_type="single-file")
    accepted.ok("check-update")
    return accepted


def downloads(device: Device, server: DevServer, tmp_path: Path) -> None:
    """The next download completes, and what it brings is the artifact."""
    device.ok("download")
    assert (device.data / "artifact.mender").read_bytes() == (tmp_path / "release-2.mender").read_bytes()
    assert not (device.data / "artifact.part").exists()


def test_killed_and_resumed(offered: Device, server: DevServer, tmp_path: Path) -> None:
    server.faults.add(match=STORAGE, stall_after=2 * MEGABYTE)
    process = offered.start("download")
    server.faults.wait_for_stall()
    until_size(offered.data / "artifact.part", 2 * MEGABYTE)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: fetched(server), "the server logs the request that was cut")
    downloads(offered, server, tmp_path)
    assert fetched(server)[-1].headers["Range"] == f"bytes={2 * MEGABYTE}-"
    assert fetched(server)[-1].headers["If-Range"].startswith('"')
    size = (tmp_path / "release-2.mender").stat().st_size
    assert sum(seen.sent for seen in fetched(server)[1:]) == size - 2 * MEGABYTE


def test_an_interrupted_download_tells_that_its_bytes_are_kept(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match=STORAGE, stall_after=2 * MEGABYTE)
    process = offered.start("download")
    server.faults.wait_for_stall()
    until_size(offered.data / "artifact.part", 2 * MEGABYTE)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "warning: Interrupted; what was downloaded is kept, and the next run will resume.\n"
    downloads(offered, server, tmp_path)


def test_the_deadline_cuts_in_and_nothing_received_is_lost(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match=STORAGE, stall_after=1_234_567)
    done = offered.run("--max-runtime", "3", "download")
    assert done.code == 75
    assert "1.2 MB of 3.0 MB" in done.err
    assert (offered.data / "artifact.part").stat().st_size == 1_234_567
    downloads(offered, server, tmp_path)


def test_cut_five_times_costs_nothing_twice(offered: Device, server: DevServer, tmp_path: Path) -> None:
    for _ in range(5):
        server.faults.add(match=STORAGE, cut_after=500_000)
        done = offered.run("download")
        assert done.code == 75
        assert "the next attempt will resume" in done.err or "the next run will retry" in done.err
    downloads(offered, server, tmp_path)
    size = (tmp_path / "release-2.mender").stat().st_size
    assert sum(seen.sent for seen in fetched(server)) == size


@pytest.mark.parametrize("status", [404, 409])
def test_what_a_gateway_says_of_the_status_drops_nothing(
    offered: Device, server: DevServer, tmp_path: Path, status: int
) -> None:
    server.faults.add(match=STORAGE, cut_after=MEGABYTE)
    assert offered.run("download").code == 75
    server.faults.add(match="PUT */status", status=status, body="page not found\n")
    done = offered.run("download")
    assert (done.code, len(done.err.splitlines())) == (0, 1)
    assert f"answered {status} to PUT .../status, which is not the answer of a Mender server" in done.err
    assert (offered.data / "artifact.mender").read_bytes() == (tmp_path / "release-2.mender").read_bytes()
    assert fetched(server)[-1].headers["Range"] == f"bytes={MEGABYTE}-"


def test_a_status_that_is_not_taken_is_no_reason_to_stop(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match="PUT */status", status=400, body=MENDERS)
    downloads(offered, server, tmp_path)


def test_a_link_that_has_ended_is_no_attempt(offered: Device, server: DevServer, tmp_path: Path) -> None:
    offered.configure(RetryDownloadCount=1)
    server.faults.add(match=STORAGE, expired=True)
    downloads(offered, server, tmp_path)


def test_a_link_that_has_ended_and_a_deployment_that_has_too(offered: Device, server: DevServer) -> None:
    server.abort(offered.deployment)
    server.faults.add(match="PUT */status", status=204)  # it has not heard of it when that is asked
    server.faults.add(match=STORAGE, expired=True)
    steps = offered.ok("run", "--all", "--force", "--json").json["steps"]
    assert ("download", "withdrawn") in [(step["step"], step["outcome"]) for step in steps]
    assert not offered.deployment


BAD_ANSWERS: dict[str, dict[str, Any]] = {
    "the object has changed": {"change": True},
    "ranges are ignored": {"ignore_range": True},
    "another range than asked for": {"wrong_range": True},
    "a range from the beginning": {"wrong_range": 0},
    "200 without a length": {"ignore_range": True, "no_length": True},
    "in chunks": {"chunked": True},
    "no length": {"no_length": True},
    "no validator": {"no_etag": True},
    "a server error first": {"status": 503},
    "dropped without an answer": {"drop_before": True},
    "reset in the middle": {"cut_after": 1000, "reset": True},
    "range refused": {"status": 416, "headers": {"Content-Range": "bytes */5"}},
    "partial content that says nothing": {"status": 206, "body": b"x" * 1000},
    "a lying range": {
        "status": 206,
        "body": b"x" * 1000,
        "headers": {"Content-Range": "bytes 1000000-1000999/1001000"},
    },
}


@pytest.mark.parametrize("fault", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_whatever_comes_on_resuming_the_content_is_right(
    offered: Device, server: DevServer, tmp_path: Path, fault: dict[str, Any]
) -> None:
    server.faults.add(match=STORAGE, cut_after=MEGABYTE)
    assert offered.run("download").code == 75
    if fault.get("change"):
        changed = make_artifact(tmp_path / "changed.mender", name="release-2", payload={"app": b"new"})
        fault = {"change": changed.read_bytes()}
        (tmp_path / "release-2.mender").write_bytes(changed.read_bytes())
    server.faults.add(match=STORAGE, **fault)
    done = offered.run("download")
    assert done.code in (0, 75), done
    if done.code == 75:
        downloads(offered, server, tmp_path)
    assert (offered.data / "artifact.mender").read_bytes() == (tmp_path / "release-2.mender").read_bytes()


def test_an_answer_longer_than_its_range_costs_one_more_attempt(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match=STORAGE, cut_after=MEGABYTE)
    assert offered.run("download").code == 75
    whole = (tmp_path / "release-2.mender").read_bytes()
    promised = {"Content-Range": f"bytes {MEGABYTE}-{len(whole) - 1}/{len(whole)}"}
    server.faults.add(
        match=STORAGE, status=206, headers=promised, body=whole[MEGABYTE:] + bytes(10), chunked=True
    )
    assert offered.run("download").code == 76
    downloads(offered, server, tmp_path)


def test_an_expired_link_is_renewed_and_the_partial_file_kept(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match=STORAGE, cut_after=MEGABYTE)
    assert offered.run("download").code == 75
    server.faults.add(match=STORAGE, expired=True)
    downloads(offered, server, tmp_path)
    assert [seen.status for seen in fetched(server)] == [200, 403, 206]
    assert fetched(server)[-1].query != fetched(server)[0].query


def test_downloading_is_reported_once_if_the_link_has_expired(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    deployment = offered.deployment
    server.faults.add(match=STORAGE, expired=True)
    downloads(offered, server, tmp_path)
    assert [seen.status for seen in fetched(server)] == [403, 200]
    assert server.status_history(deployment) == ["downloading"]


def test_a_link_near_its_end_is_renewed_before_it_is_used(
    accepted: Device, server: DevServer, release: Release, tmp_path: Path
) -> None:
    server.link_lifetime = 30
    release()
    accepted.ok("check-update")
    server.link_lifetime = 86400
    # What came just now is good for use, whatever our clock says of its end; an hour later it is not.
    accepted.make_due("check-update")
    downloads(accepted, server, tmp_path)
    assert [seen.status for seen in fetched(server)] == [200]


def test_after_a_reboot_the_unsynced_end_is_not_trusted(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """A power cut can leave zeros, or nothing, where the last megabyte was."""
    server.faults.add(match=STORAGE, cut_after=2_500_000)
    assert offered.run("download").code == 75
    part = offered.data / "artifact.part"
    part.write_bytes(part.read_bytes()[:1_500_000] + bytes(1_000_000))
    offered.reboot()
    downloads(offered, server, tmp_path)
    assert fetched(server)[-1].headers["Range"] == f"bytes={2_500_000 - (1 << 20)}-"


def test_the_token_never_goes_to_the_artifacts_host(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    server.faults.add(match=STORAGE, redirect=server.storage_url + "{target}")
    downloads(offered, server, tmp_path)
    assert len(fetched(server)) == 2
    assert not [seen for seen in fetched(server) if "Authorization" in seen.headers]
    assert "downloading" in server.status_history(offered.deployment)


def test_redirects_have_an_end(offered: Device, server: DevServer) -> None:
    server.faults.add(match=STORAGE, count=None, redirect=server.storage_url + "{target}")
    done = offered.run("download")
    assert done.code == 76
    assert "redirects more than 5 times" in done.err
    assert len(fetched(server)) == 6


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/x", "file:///etc/passwd", "https://[::bad"])
def test_redirects_never_leave_https(offered: Device, server: DevServer, target: str) -> None:
    server.faults.add(match=STORAGE, redirect=target)
    done = offered.run("download")
    assert done.code == 76
    assert " redirects " in done.err


def test_attempts_without_a_new_byte_have_an_end(offered: Device, server: DevServer) -> None:
    offered.configure(RetryDownloadCount=3)
    deployment = offered.deployment
    server.faults.add(match=STORAGE, count=None, status=500)
    assert [offered.run("download").code for _ in range(3)] == [75, 75, 69]
    assert offered.run("download").code == 2
    offered.ok("run", "--force")
    assert server.status(deployment) == "failure"
    log = " ".join(entry["message"] for entry in server.log(deployment) or [])
    assert "no progress in 3 attempts" in log
    assert "answered 500" in log


def test_attempts_with_new_bytes_are_not_counted(offered: Device, server: DevServer, tmp_path: Path) -> None:
    offered.configure(RetryDownloadCount=2)
    for _ in range(4):
        server.faults.add(match=STORAGE, cut_after=400_000)
        assert offered.run("download").code == 75
    downloads(offered, server, tmp_path)


def test_a_network_that_is_away_is_no_failed_download(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    offered.configure(RetryDownloadCount=1)
    server.faults.add(match="PUT */status", drop_before=True, count=3)
    assert [offered.run("download").code for _ in range(3)] == [75] * 3
    downloads(offered, server, tmp_path)


def test_an_aborted_deployment_is_dropped(offered: Device, server: DevServer) -> None:
    (offered.data / "artifact.part").write_bytes(b"half")
    server.abort(offered.deployment)
    assert offered.ok("download", "--json").json["outcome"] == "withdrawn"
    assert not offered.deployment
    assert not (offered.data / "artifact.part").exists()
    assert offered.run("download").code == 2


def test_a_link_in_place_of_the_part_file_is_replaced(offered: Device, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (offered.data / "artifact.part").symlink_to(victim)
    offered.ok("download")
    assert victim.read_text() == "precious"
    assert not (offered.data / "artifact.mender").is_symlink()


def test_memory_stays_the_same_whatever_the_size(
    accepted: Device, server: DevServer, release: Release
) -> None:
    peaks = []
    for name, size in (("release-2", MEGABYTE), ("release-3", 64 * MEGABYTE)):
        deployment = release(name, size=size, payload_type="single-file")
        accepted.ok("check-update")
        done = accepted.run("download", wrapper=PEAK_MEMORY)
        assert done.code == 0
        peaks.append(int(done.err))
        server.abort(deployment)
    assert peaks[1] < peaks[0] + 8_000


VALIDATORS = {
    "long": '"' + "e" * 600 + '"',
    "folded": '"' + "\r\n ".join(["e" * 60_000] * 40) + '"',
    "control": '"a\x7fb"',
    "as long as may be": '"' + "e" * 510 + '"',
}


@pytest.mark.parametrize("value", VALIDATORS.values(), ids=VALIDATORS)
@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_no_header_of_the_storage_corrupts_the_state(
    offered: Device, server: DevServer, tmp_path: Path, name: str, value: str
) -> None:
    server.faults.add(match=STORAGE, cut_after=MEGABYTE, extra_headers={name: value})
    assert offered.run("download").code in (75, 76)
    assert (offered.data / "mender-oneshot.json").stat().st_size < 10_000
    kept = offered.validator
    assert (value in kept) == (len(value) == 512)
    downloads(offered, server, tmp_path)


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ({"status": 500}, 75, "answered 500 instead of the artifact; the next run will retry."),
        ({"status": 408}, 75, "answered 408 instead of the artifact; the next run will retry."),
        ({"retry_after": 600}, 75, "answered 429 instead of the artifact; it asked to wait 10 min 0 s"),
        ({"status": 405}, 76, "answered 405 instead of the artifact; check the artifact storage."),
        ({"status": 499}, 76, "answered 499 instead of the artifact; check the artifact storage."),
    ],
)
def test_the_sentence_for_an_answer_without_an_artifact(
    offered: Device, server: DevServer, fault: dict[str, Any], code: int, sentence: str
) -> None:
    server.faults.add(match=STORAGE, **fault)
    done = offered.run("download")
    assert (done.code, sentence in done.err) == (code, True), done.err


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_each_kind_of_redirect_is_followed(
    offered: Device, server: DevServer, tmp_path: Path, status: int
) -> None:
    origin = offered.state["deployment"]["uri"].partition("/storage/")[0]
    server.faults.add(match=STORAGE, status=status, redirect=f"{origin}{{target}}")
    downloads(offered, server, tmp_path)
    assert [seen.status for seen in fetched(server)] == [status, 200]
