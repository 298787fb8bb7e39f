"""A fleet in trouble must not storm its server: days of it, told by the server's record."""

import json
from itertools import pairwise
from typing import Any

import pytest
from helpers.device import Device, Release
from helpers.simulated_days import DAY, HOUR, TICK, Days, contract, keeps_to

from mender_oneshot.devserver import DevServer


def answers(server: DevServer, what: str) -> str:
    """The sentence for an answer such as "500"."""
    return f"{server.url[8:]} answered {what}; the next run will retry."


def test_a_server_in_trouble_all_day(accepted: Device, server: DevServer) -> None:
    server.faults.add(count=None, status=500)
    days = Days(accepted, server).live(DAY)
    assert {done.code for _, done in days.runs} == {75}
    assert days.said() == {answers(server, "500")}
    keeps_to(days.times(), interval=1800)
    assert len(days.asked) <= len(contract(1800, DAY)) == 59
    assert days.busiest_hour() <= 14
    # It has not given up: the server recovers, and the device is back within the interval.
    server.faults.clear()
    days.live(1800)
    assert days.asked[-1].status in (200, 204)


def test_a_device_that_nobody_accepts_all_day(device: Device, server: DevServer) -> None:
    days = Days(device, server).live(DAY)
    assert {done.code for _, done in days.runs} == {77}
    assert len(days.said()) == 1
    assert "accept it under Devices > Pending, and the next run will continue" in days.said().pop()
    assert set(days.times()) == set(days.times("POST auth_requests"))
    keeps_to(days.times(), interval=1800)
    assert len(days.asked) <= 59
    # One device, one key, however often it asked.
    assert len(server.device().auth_sets) == 1


def test_an_update_succeeds_although_the_token_is_revoked_before_every_step(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """Each step costs one rejection and one authorization more, and continues."""
    accepted.sub_updater()
    deployment = release()
    days = Days(accepted, server, "run").live(HOUR, before_each=server.revoke_tokens)
    accepted.ok("report", "--success")
    (accepted.data / "update.lock").unlink()
    days.live(6 * HOUR, before_each=server.revoke_tokens)
    assert {done.code for _, done in days.runs} == {0}
    assert days.said() == set()
    assert server.status_history(deployment) == ["downloading", "installing", "success"]
    refused = [one for one in days.asked if one.status == 401]
    assert len(days.times("POST auth_requests")) <= len(refused) <= len(days.runs) + 2
    # In the busiest hour: the update, and after it two checks.
    assert days.busiest_hour() <= 24
    assert len(days.asked) <= 70


LOOPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "auth says yes": ({}, {"status": 401}),
    "auth is rejected": ({"status": 401}, {"status": 401}),
    "auth is broken": ({"status": 500}, {"status": 401}),
    "forbidden": ({}, {"status": 403}),
}


@pytest.mark.parametrize(("auth", "others"), LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("in_hand", ["nothing", "a deployment", "an artifact", "a result"])
def test_a_token_that_is_never_good(
    accepted: Device,
    server: DevServer,
    release: Release,
    auth: dict[str, Any],
    others: dict[str, Any],
    in_hand: str,
) -> None:
    """The 401 loop: the server gives tokens, or not, and the API takes none, whatever the device is at."""
    accepted.sub_updater()
    has_in_hand(accepted, release, in_hand)
    server.faults.add(match="POST */auth_requests", count=None, **auth)
    server.faults.add(match="*/api/*", count=None, **others)
    days = Days(accepted, server).live(HOUR / 2)
    # The inventory goes its own way meanwhile, so that there are two that fail.
    keeps_to(days.times(), interval=300, steps=2)
    # At most five requests for each attempt: two refusals, two tokens, and a second form of the question.
    assert days.busiest_hour() <= 5 * 2 * 12
    assert len(days.said()) <= 3
    # A 403 without the server's form is a gateway's: it blocks the statuses, not the update.
    goes_on = others["status"] == 403 and in_hand in ("a deployment", "an artifact")
    assert (accepted.data / "update.lock").exists() == goes_on


def test_a_link_that_has_expired_while_nobody_renews_it(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """The download needs a new link, the server has none to give: neither step may come more often for it."""
    release()
    accepted.ok("check-update")
    deployment = accepted.deployment
    accepted.expire_link()
    accepted.make_due("check-update")
    server.faults.add(match="* */next", count=None, status=500)
    days = Days(accepted, server).live(HOUR / 2)
    keeps_to(days.times("GET next"), interval=300)
    assert days.said() == {answers(server, "500")}
    # A new link arrives, and the download resumes.
    server.faults.clear()
    accepted.sub_updater()
    days.live(600)
    assert server.status(deployment) == "installing"


def has_in_hand(device: Device, release: Release, what: str) -> str:
    """Bring a device to some point of an update; returns the deployment."""
    deployment = "" if what == "nothing" else release()
    if what in ("a deployment", "an artifact", "a result"):
        device.ok("check-update")
    if what == "an artifact":
        device.ok("download")
    if what == "a result":
        (device.data / "update.lock").write_text(deployment)
        device.queue_results([(deployment, "failure")], at=1.0)
        (device.data / "update.lock").unlink()
    return deployment


def test_the_same_failing_deployment_offered_for_days(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """Ten attempts with growing pauses, one download and one failure each; then only the result again."""
    accepted.configure(UpdatePollIntervalSeconds=600)
    accepted.sub_updater()
    deployment = release()
    accepted.ok("check-update")
    offer = {
        "id": deployment,
        "artifact": {
            "id": accepted.artifact_id,
            "artifact_name": "release-2",
            "source": {"uri": accepted.link},
        },
    }
    days = Days(accepted, server)

    def fail() -> None:
        if (accepted.data / "update.lock").exists():
            accepted.ok("report", "--failure")
            (accepted.data / "update.lock").unlink()

    days.tick()
    server.faults.add(match="* */next", count=None, status=200, body=json.dumps(offer))
    days.live(2 * DAY, before_each=fail)
    tried = days.times("GET artifact")
    assert len(tried) == 10
    # The pauses double: 1, 2, 4 ... 256 minutes, and the check comes every ten.
    waits = [after - before for before, after in pairwise(tried)]
    assert all(wait >= 60 * 2**number for number, wait in enumerate(waits)), waits
    history = server.status_history(deployment)
    assert history[:30] == ["downloading", "installing", "failure"] * 10
    assert set(history[30:]) == {"failure"}
    assert days.busiest_hour() < 60
    assert accepted.ok("status", "--json").json["failures"] == {}


REFUSED_LOGS: dict[str, dict[str, Any]] = {
    "too large": {"status": 413},
    "server error": {"status": 500},
    "bad request": {"status": 400},
    "cut off": {"drop_before": True, "reset": True},
    "a portal": {"status": 200, "body": "<html>Log in</html>"},
}


@pytest.mark.parametrize("fault", REFUSED_LOGS.values(), ids=REFUSED_LOGS)
def test_a_log_that_the_server_never_takes(
    accepted: Device, server: DevServer, release: Release, fault: dict[str, Any]
) -> None:
    """The result counts: it goes once, and its log holds up the next update for some hours at most."""
    accepted.configure(InstallTimeoutSeconds=0)
    deployment = release()
    server.faults.add(match="PUT */log", count=None, **fault)
    days = Days(accepted, server)
    first = days.tick()  # there is no sub-updater: the update fails at the hand-off
    assert first.code == 69
    accepted.sub_updater()
    following = release("release-3")
    days.live(6 * HOUR)
    assert server.status_history(deployment)[-1] == "failure"
    assert server.status_history(deployment).count("failure") == 1
    keeps_to(days.times("PUT log"), interval=300)
    assert 1 <= len(days.times("PUT log")) <= 60
    assert server.status_history(following) == ["downloading", "installing"]
    assert days.busiest_hour() <= 30


def test_a_hand_off_that_fails_for_ten_deployments(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """A fleet without a module for the payload: each deployment costs seven requests, and a poll interval."""
    days, deployments = Days(accepted, server), []
    for number in range(10):
        deployments.append(release(f"release-{number + 2}"))
        days.live(1800)
    days.live(HOUR)
    assert [server.status_history(one) for one in deployments] == [["downloading", "failure"]] * 10
    assert {done.code for _, done in days.runs} <= {0, 69}
    assert len(days.said()) == 10  # a sentence for each release
    assert all("there is no update module for the payload type 'app'" in sentence for sentence in days.said())
    assert not (accepted.data / "update.lock").exists()
    assert len(days.times("GET artifact")) == 10
    assert len(days.asked) <= 10 * 7 + 10
    assert days.busiest_hour() <= 21


def test_a_status_without_an_answer_ends_each_run_in_time(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """The answer to `downloading` never comes: each run ends in time, and the next keeps its distance."""
    deployment = release()
    server.faults.add(match="PUT */status", count=None, status=200, body="never", stall_after=0)
    days = Days(accepted, server, "--max-runtime", "3", "run", "--all").live(HOUR / 2)
    server.faults.release()
    days.note()
    in_trouble = [(at, done) for at, done in days.runs if done.err]
    assert {done.code for _, done in in_trouble} == {75}
    assert all("time limit of 3 s was reached; the next run will continue" in line for line in days.said())
    keeps_to([at for at, _ in in_trouble], interval=300)
    assert server.status(deployment) == "pending"
    # No attempt to download was made, so none is counted: once the server is back, the update continues.
    server.faults.clear()
    accepted.sub_updater()
    days.words = ("run", "--all")
    days.live(600)
    assert server.status(deployment) == "installing"


def test_a_rejected_device_that_is_accepted_again_gets_the_next_update(
    accepted: Device, server: DevServer, release: Release
) -> None:
    accepted.sub_updater()
    accepted.ok("run", "--all")
    server.reject()
    days = Days(accepted, server).live(DAY / 4)
    assert {done.code for _, done in days.runs} <= {0, 77}
    assert days.asked[0].status == 401
    keeps_to(days.times("POST auth_requests"), interval=1800)
    assert len(days.asked) <= len(contract(1800, DAY / 4)) + 1
    assert len(days.said()) == 1
    server.accept(server.device().id)
    deployment = release()
    days.live(2 * 1800 + TICK)
    assert server.status(deployment) == "installing"


@pytest.mark.parametrize("in_hand", ["nothing", "a deployment", "an artifact", "a result"])
def test_a_decommissioned_device_drops_what_it_had_and_gets_updates_once_accepted(
    accepted: Device, server: DevServer, release: Release, in_hand: str
) -> None:
    """The server forgets the device: it becomes one that waits to be accepted, and what it held is void."""
    accepted.sub_updater()
    has_in_hand(accepted, release, in_hand)
    server.decommission()
    days = Days(accepted, server).live(2 * HOUR)
    assert {done.code for _, done in days.runs} == {77}
    # An artifact that is here is tried again every five minutes; all else waits for the usual interval.
    keeps_to(days.times(), interval=300 if in_hand == "an artifact" else 1800)
    assert server.device().status == "pending"
    # Accepted again, it is a new device: the deployment of the old one is dropped, not installed.
    server.accept()
    days.live(2 * 1800 + TICK)
    assert not (accepted.data / "update.lock").exists()
    assert not accepted.deployment
    assert not accepted.queued_results
    assert not list(accepted.data.glob("artifact.*"))
    following = release("release-3")
    days.live(1800 + TICK)
    assert server.status(following) == "installing"
