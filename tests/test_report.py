"""The result of an update: taken down first, then sent, once, whatever stands in between."""

import json
from typing import Any

import pytest
from helpers.device import MENDERS, Device, Release

from mender_oneshot import plan
from mender_oneshot.devserver import DevServer


@pytest.fixture
def installing(accepted: Device, release: Release) -> Device:
    """A device whose update is being installed by a sub-updater that does nothing by itself."""
    release()
    accepted.sub_updater()
    accepted.ok("run", "--all")
    return accepted


def test_success(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    answer = installing.ok("report", "--success", "--json").json
    assert (answer["outcome"], answer["deployment"], answer["status"]) == ("delivered", deployment, "success")
    assert server.status(deployment) == "success"
    assert server.log(deployment) is None
    assert (installing.data / "update.lock").exists()


def test_the_server_is_asked_again_before_the_artifact_is_removed(installing: Device) -> None:
    installing.ok("report", "--success")
    (installing.data / "update.lock").unlink()
    assert (installing.data / "artifact.mender").exists()
    assert installing.ok("check-update", "--json").json["outcome"] == "nothing"


def test_failure_brings_both_logs(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    with (installing.data / "sub-updater.log").open("ab") as log:
        log.write(b"writing /dev/b\n\n\xff\xfe broken\0 line\nno space left\n")
    installing.ok("report", "--failure")
    messages = [entry["message"] for entry in server.log(deployment) or []]
    assert server.status(deployment) == "failure"
    assert [m for m in messages if "offers release-2" in m]
    assert messages[-1] == "no space left"
    assert "writing /dev/b" in messages


def test_a_log_beyond_the_servers_limit_keeps_its_tail(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    with (installing.data / "sub-updater.log").open("w") as log:
        log.writelines(f"line {number} {'x' * 100}\n" for number in range(40_000))
    installing.ok("report", "--failure")
    messages = [entry["message"] for entry in server.log(deployment) or []]
    assert messages[-1].startswith("line 39999 ")
    # The client's own lines are few, and stay; of the sub-updater's the oldest are left out.
    assert messages[0].startswith(f"Deployment {deployment} offers ")
    assert len([message for message in messages if "older entries were left out" in message]) == 1
    assert server.requests[-1].status == 204


def test_what_cannot_be_sent_is_queued_and_goes_first(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    server.faults.add(match="PUT */status", status=503, count=2)
    answer = installing.ok("report", "--success", "--json").json
    assert answer["outcome"] == "queued"
    (installing.data / "update.lock").unlink()
    assert installing.ok("status", "--json").json["queued_results"] == [
        {"deployment": deployment, "status": "success"}
    ]
    assert installing.run("run", "--force").code == 75
    answer = installing.ok("run", "--all", "--force", "--json").json
    assert [step["step"] for step in answer["steps"]][:2] == ["deliver", "tidy"]
    assert server.status_history(deployment).count("success") == 1


def test_one_report_sends_all_queued_results(accepted: Device, server: DevServer, release: Release) -> None:
    first = release()
    accepted.ok("check-update")
    server.abort(first)
    second = release("release-3")
    accepted.ok("check-update")
    accepted.queue_results([(first, "success")], at=1.0)
    accepted.hand_off(second)
    answer = accepted.ok("report", "--success", "--json").json
    assert (answer["outcome"], answer["deployment"]) == ("delivered", second)
    assert server.status(second) == "success"
    assert accepted.ok("status", "--json").json["queued_results"] == []


@pytest.mark.parametrize("fault", [{"drop_after": True}, {"status": 401}, {"status": 429, "retry_after": 1}])
def test_one_final_status_whatever_happens_to_the_answer(
    installing: Device, server: DevServer, fault: dict[str, Any]
) -> None:
    deployment = installing.handed_off
    server.faults.add(match="PUT */status", **fault)
    installing.ok("report", "--failure")
    installing.forget_pauses()
    installing.run("run", "--force")
    assert set(server.status_history(deployment)[2:]) == {"failure"}
    assert server.log(deployment)


def test_a_log_that_is_refused_does_not_send_the_status_again(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    server.faults.add(match="PUT */log", status=503)
    assert installing.ok("report", "--failure", "--json").json["outcome"] == "queued"
    installing.ok("run", "--force")
    assert server.status_history(deployment).count("failure") == 1
    assert server.log(deployment)


def test_said_twice_sent_once(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    installing.ok("report", "--success")
    assert installing.ok("report", "--success", "--json").json["outcome"] == "already"
    done = installing.run("report", "--failure")
    assert done.code == 2
    assert "the first result is final" in done.err
    assert server.status_history(deployment).count("success") == 1
    (installing.data / "update.lock").unlink()
    assert installing.run("report", "--success").code == 2


def test_no_update_in_progress(accepted: Device) -> None:
    done = accepted.run("report", "--failure")
    assert done.code == 2
    assert "No update is in progress" in done.err


@pytest.mark.parametrize(
    "progress", ["hand-off and lock", "hand-off", "lock", "lock of one reported", "nothing"]
)
@pytest.mark.parametrize("told", ["never heard of", "reported before", "in progress", ""])
def test_which_deployment_a_report_is_for(
    installing: Device, server: DevServer, progress: str, told: str
) -> None:
    """What an earlier sub-updater left running has its variables, and may report at any time."""
    current, lock = installing.handed_off, installing.data / "update.lock"
    before = {"deployment": "older", "status": "success", "at": 1.0, "answer": "delivered"}
    done = before | {"deployment": current}
    state = {"last_result": before, "handoff": installing.state["handoff"]}
    if progress not in ("hand-off and lock", "hand-off"):
        state["handoff"] = None
    if progress == "lock of one reported":
        state |= {"last_result": done, "past_results": [before]}
    if progress in ("hand-off", "nothing"):
        lock.unlink()
    installing.alter_state(**state)
    ids = {"never heard of": "unknown", "reported before": "older", "in progress": current, "": ""}
    if ids[told]:
        installing.environment["MENDER_DEPLOYMENT_ID"] = ids[told]
    known, asked = installing.state, len(server.requests)
    answer = installing.run("report", "--success", "--json")
    if progress == "nothing":
        expected = (0, "already") if told == "reported before" else (2, None)
    elif told in ("never heard of", "reported before"):
        expected = (2, None)
        assert ids[told] in answer.json["error"]
        assert current in answer.json["error"]
        assert "unset MENDER_DEPLOYMENT_ID" in answer.json["error"]
    else:
        expected = (0, "already" if progress == "lock of one reported" else "delivered")
    assert (answer.code, answer.json.get("outcome")) == expected
    if expected != (0, "delivered"):
        assert installing.state == known
        assert len(server.requests) == asked


@pytest.mark.parametrize(("status", "outcome"), [(404, "void"), (409, "aborted")])
def test_a_void_result_is_dropped(installing: Device, server: DevServer, status: int, outcome: str) -> None:
    server.faults.add(match="PUT */status", status=status, body=MENDERS)
    assert installing.ok("report", "--success", "--json").json["outcome"] == outcome
    (installing.data / "update.lock").unlink()
    installing.ok("run", "--all")


@pytest.mark.parametrize("result", ["success", "failure"])
def test_aborted_while_the_sub_updater_runs(installing: Device, server: DevServer, result: str) -> None:
    deployment = installing.handed_off
    server.abort(deployment)
    answer = installing.ok("report", f"--{result}", "--json").json
    assert (answer["outcome"], answer["deployment"], answer["status"]) == ("aborted", deployment, result)
    assert ("roll the update back" in answer["message"]) == (result == "success")
    # One that asks again, as after a power cut, learns the same.
    assert installing.ok("report", f"--{result}", "--json").json["outcome"] == "aborted"
    assert installing.ok("status", "--json").json["last_result"]["outcome"] == "aborted"
    (installing.data / "update.lock").unlink()
    assert f"deployment {deployment} aborted by the server ({result}" in installing.ok("status").out


def test_an_abort_that_a_later_run_learns_of(installing: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */status", status=503)
    assert installing.ok("report", "--success", "--json").json["outcome"] == "queued"
    server.abort(installing.queued_results[0].deployment)
    assert installing.ok("run", "--force", "--json").json["steps"][0]["outcome"] == "aborted"
    assert installing.ok("report", "--success", "--json").json["outcome"] == "aborted"


def test_a_result_refused_for_ever_has_an_end(installing: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */status", status=400, count=None, body=MENDERS)
    assert installing.ok("report", "--success", "--json").json["outcome"] == "queued"
    codes = [installing.run("run", "--force").code for _ in range(9)]
    assert codes == [69] * 8 + [0]
    assert not installing.queued_results


def test_a_busy_server_gets_the_log_in_the_end(installing: Device, server: DevServer) -> None:
    """An answer with `Retry-After` does not count against the log."""
    deployment = installing.handed_off
    server.faults.add(match="PUT */log", status=503)
    installing.ok("report", "--failure")
    installing.set_refusals(49)
    installing.forget_failures()
    server.faults.add(match="PUT */log", retry_after=600)
    assert installing.run("run").code == 75
    installing.forget_pauses()
    installing.forget_failures()
    installing.ok("run")
    assert server.log(deployment)


def test_the_state_is_lost_but_not_the_update(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    (installing.data / "mender-oneshot.json").write_bytes(b"\0" * 700)
    done = installing.run("run")
    assert "mender-oneshot.json.unreadable" in done.err
    assert (installing.data / "mender-oneshot.json.unreadable").read_bytes() == b"\0" * 700
    assert installing.handed_off == deployment
    assert installing.run("download").code == 2
    installing.ok("report", "--success")
    assert server.status_history(deployment)[-1] == "success"


@pytest.mark.parametrize("lock", ["", "\n", "no/id\n", "\0\0\0\0"])
def test_a_lock_that_says_nothing_still_stops_the_next_update(
    accepted: Device, server: DevServer, lock: str
) -> None:
    (accepted.data / "update.lock").write_text(lock)
    accepted.ok("run", "--all")
    assert not [seen for seen in server.requests if seen.path.endswith("/next")]
    assert accepted.run("report", "--success").code == 2
    # Its sub-updater never speaks: after the time limit the device is free again.
    accepted.age_hand_off(20_000)
    accepted.ok("run", "--all")
    accepted.age_last_result()
    accepted.ok("run", "--all")
    assert [seen for seen in server.requests if seen.path.endswith("/next")]


def test_a_silent_sub_updater_is_given_up(installing: Device, server: DevServer) -> None:
    deployment = installing.handed_off
    installing.configure(InstallTimeoutSeconds=1000)
    installing.age_hand_off(2000)
    answer = installing.ok("run", "--all", "--json").json
    assert [step["outcome"] for step in answer["steps"]][:2] == ["gave-up", "delivered"]
    assert "has not reported" in json.dumps(server.log(deployment))
    assert server.status(deployment) == "failure"
    # Its lock goes after a while, and a late word from it changes nothing.
    assert installing.run("report", "--success").code == 2
    installing.age_last_result()
    installing.ok("run", "--force")
    assert not (installing.data / "update.lock").exists()


def test_the_time_limit_starts_again_with_the_boot_that_followed(installing: Device) -> None:
    installing.configure(InstallTimeoutSeconds=2**31)
    installing.age_hand_off(2.0**32)
    installing.reboot()
    assert installing.ok("status", "--json").json["next_step"] != "tidy"


@pytest.mark.parametrize("command", ["install", "check-update"])
def test_a_step_asked_for_at_the_wrong_moment_has_not_failed(installing: Device, command: str) -> None:
    before = installing.run("status", "--json").json["failures"]
    assert installing.run(command).code == 75
    assert installing.ok("status", "--json").json["failures"] == before == {}
    assert "retrying" not in installing.ok("status").out


def test_a_check_while_a_result_is_queued_has_not_failed(installing: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */status", status=503)
    installing.ok("report", "--success")
    assert installing.run("check-update").code == 75
    assert list(installing.ok("status", "--json").json["failures"]) == ["deliver"]
    shown = installing.ok("status").out
    assert "sending the result, 1 failed attempt since " in shown
    assert "answered 503" in shown


def test_a_lock_that_stands_after_the_report_is_what_is_waited_for(installing: Device) -> None:
    deployment = installing.handed_off
    installing.ok("report", "--success")
    assert f"success of deployment {deployment}; waiting for its sub-updater to remove" in (
        installing.ok("status").out
    )
    assert installing.ok("status", "--json").json["reported"] == "success"
    done = installing.run("check-update")
    assert (done.code, "has not removed update.lock yet" in done.err) == (75, True)


def test_a_reason_is_shortened() -> None:
    assert len(plan.failed_again(None, 1, "x" * 1000).why) == plan.LONGEST_REASON


def test_a_device_type_file_without_its_line_is_not_a_missing_file(device: Device) -> None:
    (device.data / "device_type").write_text("type=board\n")
    assert "has no line device_type=" in device.ok("status").out
    (device.data / "device_type").unlink()
    assert "There is no device type" in device.ok("status").out


@pytest.mark.parametrize(
    "damage", [{"pauses": None}, {"token": 5}, {"form": []}, {"failures": 1}, {"checked_at": "x"}]
)
def test_a_damaged_member_costs_no_result(
    installing: Device, server: DevServer, damage: dict[str, Any]
) -> None:
    deployment = installing.handed_off
    server.faults.add(match="PUT */status", status=503)
    installing.ok("report", "--success")
    path = installing.data / "mender-oneshot.json"
    path.write_text(json.dumps(installing.state | {"failures": {}} | damage))
    assert "unreadable" in installing.ok("status").out
    done = installing.run("run", "--force")
    assert (done.code, "cannot be read" in done.err) == (0, True)
    if "token" in damage:
        installing.ok("run", "--force")
    assert server.status(deployment) == "success"
    assert "unreadable" not in installing.ok("status").out


def test_a_state_that_is_too_large_is_set_aside(installing: Device) -> None:
    deployment = installing.handed_off
    (installing.data / "mender-oneshot.json").write_bytes(b"[" * (1 << 21))
    assert "mender-oneshot.json.unreadable" in installing.run("run").err
    assert installing.handed_off == deployment


def test_an_update_that_the_state_does_not_have_is_adopted_and_named_when_it_times_out(
    accepted: Device,
) -> None:
    accepted.configure(InstallTimeoutSeconds=1000)
    (accepted.data / "update.lock").write_text("deployment-9")
    accepted.ok("run", "--all")
    handoff = accepted.state["handoff"]
    assert (handoff["deployment"], handoff["artifact_name"]) == ("deployment-9", "")
    accepted.alter_state(handoff=handoff | {"uptime": handoff["uptime"] - 2000})
    step = accepted.ok("run", "--json").json["steps"][0]
    assert (step["outcome"], "deployment-9" in step["message"]) == ("gave-up", True), step
