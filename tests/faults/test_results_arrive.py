"""A reported result reaches the server: one value, for the right deployment, before anything is asked."""

import json
import signal
import time
from email.utils import formatdate
from typing import Any

import pytest
from helpers.device import MENDERS, Device, Release
from helpers.simulated_days import DAY, HOUR, TICK, Days, keeps_to
from helpers.waiting import until

from mender_oneshot.devserver import DevServer, Seen
from mender_oneshot.devserver.validation import BODY_LIMIT

STATUS = "PUT */status"


@pytest.fixture
def installing(accepted: Device, release: Release) -> Device:
    """A device that runs the new software already; its sub-updater is about to report."""
    release()
    accepted.sub_updater()
    accepted.ok("run", "--all")
    (accepted.conf / "artifact_info").write_text("artifact_name=release-2\n")
    return accepted


def reports(device: Device, result: str = "success") -> str:
    """The sub-updater reports and removes its lock; returns what became of the result."""
    outcome: str = device.ok("report", f"--{result}", "--json").json["outcome"]
    (device.data / "update.lock").unlink()
    return outcome


def is_next(seen: Seen) -> bool:
    return seen.path.endswith("/next")


def arrived(server: DevServer, deployment: str, result: str, asked_before: int) -> bool:
    """The one value is at the server, it came before any question, and nothing else was said of an end."""
    history = server.status_history(deployment)
    since = server.requests[asked_before:]
    first_next = next((number for number, seen in enumerate(since) if is_next(seen)), len(since))
    taken = [
        number
        for number, seen in enumerate(since)
        if seen.path.endswith(f"/{deployment}/status") and seen.status in (0, 204)
    ]
    return (
        history[-1] == result
        and set(history) - {"downloading", "installing"} == {result}
        and bool(taken)
        and max(taken) < first_next
    )


def test_the_server_is_away_for_three_days(installing: Device, server: DevServer) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(count=None, drop_before=True)
    assert reports(installing) == "queued"
    days = Days(installing, server).live(HOUR)
    keeps_to(days.times("PUT status"), interval=300)
    days.sleep(3 * DAY)
    days.live(HOUR)
    assert {done.code for _, done in days.runs if done.err} == {75}
    assert all("the next run will retry" in line for line in days.said())
    assert {one.what for one in days.asked} == {"PUT status"}
    server.faults.clear()
    days.live(TICK * 6)
    assert arrived(server, deployment, "success", asked)
    assert server.status_history(deployment).count("success") == 1
    assert [one.what for one in days.asked if one.status][0] == "PUT status"
    assert not installing.queued_results


def test_a_result_arrives_after_an_hour_of_server_errors(installing: Device, server: DevServer) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(match=STATUS, count=None, status=503)
    assert reports(installing, "failure") == "queued"
    days = Days(installing, server).live(HOUR)
    assert not days.times("GET next")
    # 13 in the first 41 minutes, then every five.
    assert 15 <= len(days.asked) <= 18
    server.faults.clear()
    days.live(TICK * 6)
    assert arrived(server, deployment, "failure", asked)
    assert server.status_history(deployment).count("failure") == 1
    assert server.log(deployment)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_pause_the_server_wants_is_kept(installing: Device, server: DevServer, form: str) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    wish = 900 if form == "seconds" else formatdate(time.time() + 900, usegmt=True)
    server.faults.add(match=STATUS, retry_after=wish)
    assert reports(installing) == "queued"
    days = Days(installing, server)
    days.sleep(800)
    assert days.tick().code == 0
    # A second report, a check by hand: the pause binds them all.
    assert installing.run("check-update").code == 75
    assert len(server.requests) == asked + 1
    days.sleep(160)
    days.tick()
    assert arrived(server, deployment, "success", asked)
    assert server.status_history(deployment).count("success") == 1


@pytest.mark.parametrize("status", [404, 409])
@pytest.mark.parametrize("result", ["success", "failure"])
def test_a_result_that_is_void_ends_there(
    installing: Device, server: DevServer, status: int, result: str
) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(match=STATUS, status=status, body=MENDERS)
    assert reports(installing, result) == ("aborted" if status == 409 else "void")
    Days(installing, server).live(HOUR)
    said = [seen for seen in server.requests[asked:] if deployment in seen.path]
    assert [seen.status for seen in said] == [status], "a void result was sent again, or its log"
    assert any(is_next(seen) for seen in server.requests[asked:])


OTHERS: dict[str, dict[str, Any]] = {
    "a gateway whose server restarts": {"status": 404, "body": "404 page not found\n"},
    "a gateway in conflict": {"status": 409},
    "a maintenance page": {"status": 200, "body": "<html>Back soon</html>"},
    "a portal": {"status": 302, "body": "<html>Log in</html>"},
    "a firewall": {"status": 400, "body": "<html>Blocked</html>"},
}


@pytest.mark.parametrize("fault", OTHERS.values(), ids=OTHERS)
def test_what_others_say_ends_no_result(installing: Device, server: DevServer, fault: dict[str, Any]) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(match=STATUS, count=None, **fault)
    assert reports(installing) == "queued"
    days = Days(installing, server).live(HOUR)
    assert not days.times("GET next")
    server.faults.clear()
    days.live(TICK * 6)
    assert arrived(server, deployment, "success", asked)


def test_a_certificate_that_nobody_vouches_for_ends_no_result(installing: Device, server: DevServer) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    trusted = installing.settings["ServerCertificate"]
    installing.configure(ServerCertificate="")
    assert reports(installing) == "queued"
    days = Days(installing, server).live(2 * HOUR)
    assert len(days.said()) == 1
    assert "is not trusted" in days.said().pop()
    installing.configure(ServerCertificate=trusted)
    days.live(TICK * 6)
    assert arrived(server, deployment, "success", asked)


def test_a_connection_dropped_after_the_request_was_taken(installing: Device, server: DevServer) -> None:
    """The server has it, but the device cannot know: it sends the same value again, without effect."""
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(match=STATUS, count=2, drop_after=True)
    assert reports(installing, "failure") == "queued"
    Days(installing, server).live(10 * TICK)
    assert arrived(server, deployment, "failure", asked)
    assert server.status_history(deployment)[-3:] == ["failure"] * 3
    assert server.log(deployment)


def test_a_log_whose_answer_is_lost(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    server.faults.add(match="PUT */log", drop_after=True)
    assert reports(installing, "failure") == "queued"
    Days(installing, server).live(10 * TICK)
    assert server.status_history(deployment).count("failure") == 1
    assert server.log(deployment)
    assert not installing.queued_results


def test_a_result_is_delivered_although_the_token_was_revoked(installing: Device, server: DevServer) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.revoke_tokens()
    assert reports(installing) == "delivered"
    assert [seen.status for seen in server.requests[asked:]] == [401, 200, 204]
    assert arrived(server, deployment, "success", asked)


def test_rejected_while_it_installed_and_accepted_next_day(installing: Device, server: DevServer) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.reject()
    assert reports(installing) == "queued"
    days = Days(installing, server).live(HOUR)
    days.sleep(DAY)
    server.accept(server.device().id)
    days.live(2 * TICK)
    assert arrived(server, deployment, "success", asked)
    assert server.status_history(deployment).count("success") == 1


def cut_in(device: Device, server: DevServer, *words: str) -> None:
    """The power goes while the server is silent over an answer."""
    process = device.start(*words)
    server.faults.wait_for_stall()
    before = len(server.requests)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: len(server.requests) > before, "the server logs the request that was cut")


@pytest.mark.parametrize("result", ["success", "failure"])
def test_a_power_cut_right_after_the_result_was_taken_down(
    installing: Device, server: DevServer, result: str
) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(match=STATUS, status=200, body="not processed", stall_after=0)
    cut_in(installing, server, "report", f"--{result}")
    assert installing.queued_results[0].deployment == deployment
    # After the boot the sub-updater says it again, or does not; here it does, and removes its lock.
    assert installing.ok("report", f"--{result}", "--json").json["outcome"] == "delivered"
    (installing.data / "update.lock").unlink()
    Days(installing, server).live(HOUR)
    assert server.status_history(deployment) == ["downloading", "installing", result]
    assert arrived(server, deployment, result, asked + 1)
    assert bool(server.log(deployment)) == (result == "failure")


def test_a_power_cut_and_a_sub_updater_that_is_gone(installing: Device, server: DevServer) -> None:
    deployment, asked = installing.handed_off, len(server.requests)
    server.faults.add(match=STATUS, status=200, body="not processed", stall_after=0)
    cut_in(installing, server, "report", "--success")
    # The sub-updater leaves the lock: the client removes it after the result is recorded.
    Days(installing, server).live(HOUR)
    assert server.status_history(deployment) == ["downloading", "installing", "success"]
    assert arrived(server, deployment, "success", asked + 1)
    assert not (installing.data / "update.lock").exists()


def test_a_power_cut_between_the_status_and_its_log(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    server.faults.add(match="PUT */log", status=200, body="not processed", stall_after=0)
    cut_in(installing, server, "report", "--failure")
    (installing.data / "update.lock").unlink()
    Days(installing, server).live(HOUR)
    assert server.status_history(deployment) == ["downloading", "installing", "failure"]
    assert server.log(deployment)


def test_several_results_in_their_order(installing: Device, server: DevServer, release: Release) -> None:
    """Three updates ended during an outage: the oldest result goes first, a failing one delays the rest."""
    first = installing.handed_off
    others = [release(name) for name in ("release-3", "release-4")]
    for other in others:  # the server has offered them to us before
        server.mark_offered(other)
    (installing.data / "update.lock").unlink()
    values = {first: "success", others[0]: "failure", others[1]: "success"}
    installing.queue_results(values.items(), at=time.time())
    asked = len(server.requests)
    server.faults.add(match=f"PUT */{others[0]}/status", status=502)
    Days(installing, server).live(10 * TICK)
    since = [seen for seen in server.requests[asked:] if seen.path.endswith(("/status", "/next", "/log"))]
    told = [
        (seen.path.split("/")[-2], json.loads(seen.body)["status"])
        for seen in since
        if b"status" in seen.body
    ]
    order = list(values.items())
    assert told == [order[0], order[1], order[1], order[2]]
    assert [seen.path.rpartition("/")[2] for seen in since[:5]] == [
        "status",
        "status",
        "status",
        "log",
        "status",
    ]
    assert {name: server.status_history(name)[-1] for name in values} == values


HOSTILE_LOGS: dict[str, bytes] = {
    "control characters": bytes(range(1, 32)) * 50,
    "terminal escapes": b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m\n" * 100,
    "nothing but zeros": b"\0" * 300_000,
    "zeros in the middle": b"before\n" + b"\0" * 100_000 + b"\nafter\n",
    "one huge line": b"x" * 3_000_000,
    "huge lines": (b"y" * 200_000 + b"\n") * 20,
    "not UTF-8": bytes(range(128, 256)) * 400 + b"\n\xff\xfe\n\xc3",
    "newlines": b"\n" * 2_000_000,
    "carriage returns": b"\r" * 500_000 + b"\r\n" * 500_000,
    "every separator there is": "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\u3000\n\u00a0\n".encode()
    * 1000,
    "quotes and backslashes": b'\\"' * 400_000,
    "what looks like JSON": b'{"timestamp": "never", "level": "", "message": null}\n' * 10_000,
    "half a character": b"\xf0\x9f\x92" * 100_000,
    "lone surrogates": b"\xed\xa0\x80\n" * 1000,
}


@pytest.mark.parametrize("which", ["sub-updater.log", "deployment.log"])
@pytest.mark.parametrize("content", HOSTILE_LOGS.values(), ids=HOSTILE_LOGS)
def test_whatever_a_log_holds_the_server_takes_it(
    installing: Device, server: DevServer, content: bytes, which: str
) -> None:
    deployment = installing.handed_off
    with (installing.data / which).open("ab") as log:
        log.write(content + b"\n")
    if which == "sub-updater.log":
        with (installing.data / which).open("ab") as log:
            log.write(b"the final line\n")
    assert reports(installing, "failure") == "delivered"
    (seen,) = [seen for seen in server.requests if seen.path.endswith("/log")]
    assert seen.status == 204
    assert len(seen.body) < BODY_LIMIT
    entries = server.log(deployment) or []
    assert entries
    if which == "sub-updater.log":
        assert entries[-1]["message"] == "the final line"


def test_a_new_deployment_does_not_upload_the_log_of_the_last(
    installing: Device, server: DevServer, release: Release
) -> None:
    (installing.data / "sub-updater.log").write_text("words of the first update\n")
    assert reports(installing) == "delivered"
    second = release("release-3")
    installing.ok("run", "--all", "--force")
    assert reports(installing, "failure") == "delivered"
    assert "first update" not in json.dumps(server.log(second))
