"""A new system is committed only if it reaches its server and its health checks pass, in time."""

import json
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.update_module import Recorder
from helpers.waiting import until

from mender_oneshot.devserver import DevServer


@pytest.fixture
def module(accepted: Device) -> Recorder:
    return Recorder(accepted)


@pytest.fixture
def deployment(accepted: Device, server: DevServer, module: Recorder) -> str:
    server.upload(make_artifact(accepted.root / "release-2.mender", payload_type=module.name))
    return server.deploy("release-2")


def check(device: Device, name: str, text: str) -> Path:
    directory = device.conf / "checks.d"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)
    return directory / name


def last_line(device: Device, server: DevServer, deployment: str) -> str:
    """Return the last line of the log of an update that has failed."""
    until(lambda: server.log(deployment) is not None, "the log is uploaded", seconds=90)
    assert server.status(deployment) == "failure"
    assert device.ok("show-artifact").out == "release-1\n"
    message: str = (server.log(deployment) or [])[-1]["message"]
    return message


@pytest.mark.parametrize("request_", ["POST */auth_requests", "PUT */status"])
def test_a_system_that_cannot_reach_its_server_is_rolled_back(
    accepted: Device, server: DevServer, module: Recorder, deployment: str, request_: str
) -> None:
    accepted.configure(CommitTimeoutSeconds=1)
    go = accepted.root / "go"
    module.at("ArtifactInstall", f"while [ ! -e {go} ]; do sleep 0.1; done")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactInstall" in module.calls, "it installs")
    server.faults.add(match=request_, drop_before=True)
    go.touch()
    what = "log in" if "auth" in request_ else "report installing"
    assert f"The new system could not {what} within 1 s" in last_line(accepted, server, deployment)
    assert "ArtifactRollback" in module.calls
    assert "ArtifactCommit" not in module.calls


def test_a_server_that_is_away_for_a_moment_delays_the_commit(
    accepted: Device, server: DevServer, module: Recorder, deployment: str
) -> None:
    accepted.configure(CommitTimeoutSeconds=120)
    module.at(
        "ArtifactInstall",
        f"touch {accepted.root}/installs; while [ ! -e {accepted.root}/go ]; do sleep 0.1; done",
    )
    accepted.ok("run", "--all")
    until((accepted.root / "installs").exists, "it installs")
    server.faults.add(match="POST */auth_requests", status=500)
    (accepted.root / "go").touch()
    until(lambda: server.status(deployment) == "success", "the second login is made", seconds=90)
    assert module.calls.count("ArtifactCommit") == 1


def test_checks_run_in_the_order_of_their_names_and_only_executables(
    accepted: Device, server: DevServer, deployment: str
) -> None:
    log = accepted.root / "checks"
    for name in ("20-b", "10-a"):
        check(accepted, name, f"#!/bin/sh\necho {name} >>{log}\n")
    check(accepted, "15-readme", "not a program").chmod(0o644)
    check(accepted, ".hidden", f"#!/bin/sh\necho hidden >>{log}\n")
    accepted.ok("run", "--all")
    until(lambda: server.status(deployment) == "success", "it is committed", seconds=60)
    assert log.read_text().split() == ["10-a", "20-b"]


def test_a_check_that_hangs_is_ended_and_the_update_rolled_back(
    accepted: Device, server: DevServer, module: Recorder, deployment: str
) -> None:
    accepted.configure(CommitTimeoutSeconds=2)
    path = check(accepted, "10-hangs", "#!/bin/sh\nexec sleep 300\n")
    accepted.ok("run", "--all")
    line = last_line(accepted, server, deployment)
    assert str(path) in line
    assert "going back to the old system" in line
    assert "ArtifactRollback" in module.calls


@pytest.mark.parametrize("stream", [1, 2])
def test_the_log_ends_with_what_a_failed_check_printed(
    accepted: Device, server: DevServer, module: Recorder, deployment: str, stream: int
) -> None:
    check(accepted, "10-web", f"#!/bin/sh\necho no answer from port 80 >&{stream}\nexit 1\n")
    accepted.ok("run", "--all")
    assert "no answer from port 80" in last_line(accepted, server, deployment)


def test_a_check_that_cannot_be_executed_rolls_back(
    accepted: Device, server: DevServer, module: Recorder, deployment: str
) -> None:
    path = check(accepted, "10-odd", "#!/no/such/interpreter\n")
    accepted.ok("run", "--all")
    assert f"The health check {path} failed" in last_line(accepted, server, deployment)
    assert "ArtifactRollback" in module.calls


def test_a_record_of_a_newer_release_is_resumed(
    accepted: Device, server: DevServer, module: Recorder, deployment: str
) -> None:
    """The other slot may hold a newer release, which started the update before it was rolled back."""
    module.at("ArtifactCommit_Enter", "true")
    module.at("ArtifactInstall", "kill -9 $PPID; sleep 60")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactInstall" in module.calls, "the installer is killed")
    path = accepted.data / "installer.json"
    record = json.loads(path.read_text())
    record["schema"] += 1
    record["novelty"] = {"a": [1]}
    record["progress"]["novelty"] = True
    path.write_text(json.dumps(record))
    until(lambda: "resum" in accepted.run("run").out.lower(), "the run resumes it", seconds=60)
    until(lambda: server.status(deployment) == "failure", "it is rolled back", seconds=60)
    assert "ArtifactRollback" in module.calls
