"""`Retry-After`: a pause is kept by the step that got it, towards the host that asked for it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.device import Device, Release, Run

from mender_oneshot.devserver import DevServer

ENDPOINTS = {
    "auth": ("POST */auth_requests", ("auth", "--fresh")),
    "send-inventory": ("PUT */attributes", ("send-inventory",)),
    "check-update": ("* */next", ("check-update",)),
    "download": ("GET /storage/*", ("download",)),
}


@pytest.fixture
def offered(accepted: Device, release: Release) -> Device:
    """A device with a deployment in hand."""
    release()
    accepted.ok("check-update")
    return accepted


def asked(server: DevServer, before: int) -> list[str]:
    """The requests since a count of them, by the last parts of their paths; "artifact" for the storage."""
    return [
        "artifact" if seen.origin == "storage" else seen.path.rpartition("/")[2]
        for seen in server.requests[before:]
    ]


def is_paused(done: Run, step: str) -> None:
    assert done.code == 75, done
    assert f"asked for a pause in answer to {step}; " in done.err
    assert " min " in done.err
    assert " UTC) are left" in done.err


@pytest.mark.parametrize("step", ENDPOINTS)
def test_a_step_keeps_its_own_pause(offered: Device, server: DevServer, step: str) -> None:
    match, words = ENDPOINTS[step]
    server.faults.add(match=match, status=503, headers={"Retry-After": "3600"})
    first = offered.run(*words)
    assert first.code == 75
    assert "asked to wait 60 min 0 s (until " in first.err
    before = len(server.requests)
    is_paused(offered.run(*words), step)
    assert "artifact" not in asked(server, before)
    assert ENDPOINTS[step][0].rpartition("/")[2] not in asked(server, before)
    # Bounded, and over when it is over.
    offered.let_time_pass(3601, expire=False)
    offered.ok(*words)
    assert offered.pauses  # dropped with the next one that comes


@pytest.mark.parametrize("step", ["send-inventory", "check-update"])
def test_no_other_step_is_held_back(offered: Device, server: DevServer, step: str) -> None:
    match, words = ENDPOINTS[step]
    server.faults.add(match=match, count=None, retry_after=28000)
    assert offered.run(*words).code == 75
    offered.sub_updater()
    for other in ("auth", "send-inventory", "check-update", "download", "install"):
        if other != step:
            offered.ok(other)
    assert offered.ok("report", "--success", "--json").json["outcome"] == "delivered"


def test_run_goes_on_with_the_other_steps(accepted: Device, server: DevServer, release: Release) -> None:
    """The whole update, while the inventory is rejected for eight hours."""
    accepted.sub_updater()
    server.faults.add(match="PUT */attributes", count=None, retry_after=28000)
    deployment = release()
    accepted.run("send-inventory")
    steps = accepted.ok("run", "--all", "--json").json["steps"]
    assert [step["step"] for step in steps] == ["check-update", "download", "install"]
    accepted.ok("report", "--success")
    assert server.status_history(deployment) == ["downloading", "installing", "success"]


def test_a_result_that_has_to_wait_holds_back_no_inventory(offered: Device, server: DevServer) -> None:
    offered.sub_updater()
    offered.ok("run", "--all")
    server.faults.add(match="PUT */status", retry_after=3600)
    assert offered.ok("report", "--success", "--json").json["outcome"] == "queued"
    offered.ok("send-inventory")
    before = len(server.requests)
    assert offered.run("run", "--force").err == ""
    assert asked(server, before) == [], "force lifts our own pacing only"
    assert offered.queued_results[0].status == "success"


def test_the_storage_never_silences_the_server(offered: Device, server: DevServer) -> None:
    server.faults.add(match="GET /storage/*", status=503, headers={"Retry-After": "864000"})
    done = offered.run("download")
    assert done.code == 75
    assert "24 h 0 min" in done.err, "a wish is bounded to a day, and the sentence says so"
    for words in (("auth", "--fresh"), ("send-inventory",), ("check-update",)):
        offered.ok(*words)
    before = len(server.requests)
    is_paused_for_a_day = offered.run("download")
    assert (is_paused_for_a_day.code, asked(server, before)) == (75, [])
    # A link to another storage is free.
    uri = offered.link.replace("127.0.0.1", "localhost")
    offered.change_link(uri)
    offered.ok("download")


def test_a_refused_authorization_holds_back_what_needs_a_token(offered: Device, server: DevServer) -> None:
    server.faults.add(match="POST */auth_requests", count=None, retry_after=600)
    offered.forget_token()
    assert offered.run("check-update").code == 75
    before = len(server.requests)
    for words in (("check-update",), ("send-inventory",), ("download",), ("auth",), ("run", "--force")):
        done = offered.run(*words)
        assert done.code == 75 or words[0] == "run"
    assert asked(server, before) == []


def test_a_status_in_between_that_has_to_wait_stops_no_update(offered: Device, server: DevServer) -> None:
    """The pause is kept: the status is left out, not the download."""
    offered.sub_updater()
    server.faults.add(match="PUT */status", count=2, retry_after=600)
    server.faults.add(match="GET /storage/*", cut_after=300)
    assert offered.run("download").code == 75
    before = len(server.requests)
    offered.ok("download")
    assert asked(server, before) == ["artifact"]
    offered.ok("install")
    assert asked(server, before) == ["artifact", "status"]


@pytest.fixture
def second(tmp_path: Path) -> Iterator[DevServer]:
    with DevServer(tmp_path / "second") as running:
        yield running


def test_another_server_is_not_held_by_the_first(
    tmp_path: Path, server: DevServer, second: DevServer, python: str
) -> None:
    both = tmp_path / "both.pem"
    both.write_text(server.ca.read_text() + second.ca.read_text())
    device = Device(tmp_path / "device", python)
    device.configure(
        Servers=[{"ServerURL": server.url}, {"ServerURL": second.url}], ServerCertificate=str(both)
    )
    server.faults.add(match="POST */auth_requests", count=None, retry_after=600)
    assert device.run("auth").code == 77
    second.accept()
    before = len(server.requests)
    device.ok("auth")
    device.ok("check-update")
    assert len(server.requests) == before


def test_a_pause_of_an_older_release_does_no_harm(offered: Device) -> None:
    """Its member is kept as it is, so that after a rollback the older release finds it."""
    hold = {"at": 1.0, "seconds": 600}
    result = {"deployment": "d0", "status": "success", "at": 1.0}
    offered.alter_state(hold=hold, past_results=[result])
    offered.ok("check-update")
    known = json.loads((offered.data / "mender-oneshot.json").read_text())
    assert known["hold"] == hold
    assert known["past_results"][0]["deployment"] == "d0"
