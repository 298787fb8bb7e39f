"""What `status` shows of an installation that is under way."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.update_module import Recorder, device_script
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


@pytest.fixture
def artifact(tmp_path: Path, module: Recorder) -> str:
    return str(make_artifact(tmp_path / "a.mender", payload_type="fake", scripts=module.scripts()))


def facts(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = device.ok("status", "--json").json["installation"]
    return found


def line(device: Device, label: str = "installing") -> str:
    [found] = [line for line in device.ok("status").out.splitlines() if line.startswith(label)]
    return found


def test_nothing_is_shown_of_a_device_that_installs_nothing(device: Device) -> None:
    assert device.ok("status", "--json").json["installation"] is None
    assert "installing" not in device.ok("status").out


def test_an_installation_by_hand_waits_for_the_commit(device: Device, artifact: str) -> None:
    before = time.time()
    device.ok("install", artifact)
    found = facts(device)
    assert (found["state"], found["artifact_name"], found["deployment"]) == ("waiting", "release-2", None)
    assert before - 1 <= found["since"] <= time.time()
    assert line(device).endswith("; run mender-oneshot commit, or rollback to go back")
    device.ok("commit")
    assert device.ok("status", "--json").json["installation"] is None


def test_a_reboot_comes_before_the_commit(device: Device, module: Recorder, artifact: str) -> None:
    module.write("Yes", "Yes")
    assert device.run("install", artifact).code == 4
    assert facts(device)["reboot_needed"] is True
    assert "; reboot, then run mender-oneshot commit" in line(device)


def test_a_pause_names_its_script_and_its_end(device: Device, module: Recorder, artifact: str) -> None:
    device.configure(StateScriptRetryIntervalSeconds=100, StateScriptRetryTimeoutSeconds=1000)
    module.at("ArtifactInstall_Enter", "exit 21")
    assert device.run("install", artifact).code == 75
    found = facts(device)
    assert (found["state"], found["paused_by"]) == ("paused", "ArtifactInstall_Enter_00")
    assert found["asked_again_at"] + 900 == pytest.approx(found["paused_until"])
    assert "by the state script ArtifactInstall_Enter_00; run mender-oneshot resume" in line(device)


def test_what_was_killed_is_interrupted(device: Device, module: Recorder, artifact: str) -> None:
    module.at("ArtifactInstall", "kill -9 $PPID")
    assert device.run("install", artifact).code == -signal.SIGKILL
    assert facts(device)["state"] == "interrupted"
    assert "the update module is installing it" in line(device)
    assert line(device).endswith("; run mender-oneshot resume")


def test_what_was_stopped_before_a_state_says_how_to_continue(device: Device, artifact: str) -> None:
    device.ok("install", "--stop-before", "ArtifactInstall_Enter", artifact)
    assert facts(device)["state"] == "stopped"
    assert "before ArtifactInstall_Enter; run mender-oneshot resume" in line(device)


@pytest.mark.parametrize("content", ["[]", "{}", "", "null", '{"progress": {}, "pause": null, "at": "x"}'])
def test_a_corrupt_record_is_named(device: Device, content: str) -> None:
    (device.data / "installer.json").write_text(content)
    done = device.ok("status", "--json").json
    assert done["installation"] is None
    assert "installer.json" in done["trouble"]


def test_a_deployment_shows_its_phase(
    accepted: Device, server: DevServer, artifact: str, module: Recorder
) -> None:
    go = accepted.root / "go"
    module.at("ArtifactInstall", f"while [ ! -e {go} ]; do sleep 0.1; done")
    server.upload(Path(artifact))
    deployment = server.deploy("release-2")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactInstall" in module.calls, "it installs")
    found = facts(accepted)
    assert (found["state"], found["phase"], found["deployment"]) == ("running", "ArtifactInstall", deployment)
    assert f"release-2 of deployment {deployment}: the update module is installing it since" in line(accepted)
    go.touch()
    until(lambda: server.status(deployment) == "success", "it is installed")


def test_a_pause_of_a_deployment_says_when_it_is_asked_again(
    accepted: Device, server: DevServer, artifact: str, module: Recorder
) -> None:
    module.at("ArtifactInstall_Enter", "exit 21", once=False)
    server.upload(Path(artifact))
    server.deploy("release-2")
    accepted.ok("run", "--all")
    until(lambda: (facts(accepted) or {}).get("state") == "paused", "it pauses")
    assert "by the state script ArtifactInstall_Enter_00; asked again at " in line(accepted)


def test_a_script_that_holds_up_the_download_is_shown(
    accepted: Device, server: DevServer, artifact: str
) -> None:
    device_script(accepted, "Download_Enter_00", "#!/bin/sh\nexit 21\n")
    server.upload(Path(artifact))
    server.deploy("release-2")
    assert accepted.run("run", "--all").code == 75
    [paused] = accepted.ok("status", "--json").json["paused"]
    assert (paused["step"], paused["paused_by"]) == ("download", "Download_Enter_00")
    assert line(accepted, "paused").startswith(
        "paused          download, by the state script Download_Enter_00;"
    )
