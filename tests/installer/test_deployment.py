"""A deployment installed by the built-in installer: the device has update modules and no sub-updater."""

from collections.abc import Callable

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.update_module import Recorder, device_script
from helpers.waiting import until

from mender_oneshot.devserver import DevServer, Seen

Release = Callable[..., str]

GOOD = [
    *("ProvidePayloadFileSizes", "Download", "ArtifactInstall_Enter", "ArtifactInstall"),
    *("ArtifactInstall_Leave", "ArtifactCommit_Enter", "ArtifactCommit", "ArtifactCommit_Leave", "Cleanup"),
]


@pytest.fixture
def module(accepted: Device) -> Recorder:
    return Recorder(accepted)


def deploy(server: DevServer, module: Recorder, device: Device, **options: object) -> str:
    """Deploy an artifact for the module."""
    path = device.root / "release-2.mender"
    make_artifact(path, payload_type=module.name, scripts=module.scripts(), **options)  # type: ignore[arg-type]
    server.upload(path)
    return server.deploy("release-2")


def is_final(seen: Seen) -> bool:
    return seen.method == "PUT" and seen.path.endswith("/status") and b"ing" not in seen.body


def test_an_update_without_reboot_is_installed_and_reported(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    deployment = deploy(server, module, accepted)
    done = accepted.ok("run", "--all")
    assert "Handed release-2 to the built-in installer." in done.out
    server.wait_for(is_final)
    assert server.status_history(deployment) == ["downloading", "installing", "installing", "success"]
    assert module.calls == GOOD


def test_the_installer_is_started_again_after_a_kill(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    deployment = deploy(server, module, accepted)
    module.at("ArtifactCommit_Leave", "kill -9 $PPID")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactCommit_Leave" in module.calls, "the installer was killed")
    until(lambda: accepted.run("run").out != "", "the run starts it again")
    server.wait_for(is_final)
    assert server.status(deployment) == "success"
    calls = module.calls
    assert calls == [*GOOD[:-1], *GOOD[-2:]]


def test_a_failure_is_rolled_back_and_reported_with_its_reason(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    deployment = deploy(server, module, accepted)
    module.at("ArtifactInstall", "echo no room for it >&2; exit 1")
    accepted.ok("run", "--all")
    server.wait_for(is_final)
    until(lambda: server.log(deployment) is not None, "the log is uploaded")
    messages = [line["message"] for line in server.log(deployment) or []]
    assert any("no room for it" in message for message in messages)
    assert "The update module fake failed in ArtifactInstall" in messages[-1]
    assert "ArtifactRollback" in module.calls


def test_a_payload_without_a_module_fails_before_anything_is_started(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    module.program.unlink()
    deployment = deploy(server, module, accepted)
    done = accepted.run("run", "--all")
    assert done.code == 69
    assert "there is no update module for the payload type 'fake'" in done.err
    accepted.run("run")
    assert server.status(deployment) == "failure"


def test_the_commit_needs_health_checks(accepted: Device, server: DevServer, module: Recorder) -> None:
    checks = accepted.conf / "checks.d"
    checks.mkdir()
    check = checks / "10-web"
    check.write_text("#!/bin/sh\necho the web server does not answer >&2\nexit 1\n")
    check.chmod(0o755)
    deployment = deploy(server, module, accepted)
    accepted.ok("run", "--all")
    server.wait_for(is_final)
    until(lambda: server.log(deployment) is not None, "the log is uploaded")
    assert "the web server does not answer" in (server.log(deployment) or [])[-1]["message"]
    assert "ArtifactCommit" not in module.calls
    assert "ArtifactRollback" in module.calls


def test_an_abort_before_the_commit_rolls_back(accepted: Device, server: DevServer, module: Recorder) -> None:
    deployment = deploy(server, module, accepted)
    module.at("ArtifactInstall", f"while [ ! -e {accepted.root}/go ]; do sleep 0.1; done")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactInstall" in module.calls, "it installs")
    server.abort(deployment)
    (accepted.root / "go").touch()
    until(lambda: "Cleanup" in module.calls, "it is rolled back")
    assert "ArtifactRollback" in module.calls
    assert "ArtifactCommit" not in module.calls
    until(lambda: not (accepted.data / "installer.json").exists(), "it has ended")
    assert accepted.ok("show-artifact").out == "release-1\n"


def test_a_script_may_hold_up_the_download(accepted: Device, server: DevServer, module: Recorder) -> None:
    gate = device_script(accepted, "Download_Enter_00", "#!/bin/sh\nexit 21\n")
    accepted.configure(StateScriptRetryIntervalSeconds=3600)
    deployment = deploy(server, module, accepted)
    done = accepted.run("run", "--all")
    assert done.code == 75
    assert "Download_Enter_00" in done.err
    assert accepted.run("run").code == 0
    assert "downloading" not in server.status_history(deployment)
    gate.write_text("#!/bin/sh\nexit 0\n")
    accepted.configure(StateScriptRetryIntervalSeconds=1)
    until(lambda: "Handed" in accepted.ok("run", "--all").out, "the script is asked again")
    server.wait_for(is_final)
    assert server.status(deployment) == "success"


def test_a_script_that_fails_before_the_download_fails_the_update(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    device_script(accepted, "Download_Enter_00", "#!/bin/sh\nexit 1\n")
    device_script(accepted, "Download_Error_00", f"#!/bin/sh\necho Download_Error >>{module.log}\n")
    deployment = deploy(server, module, accepted)
    assert accepted.run("run", "--all").code == 69
    accepted.run("run")
    assert server.status(deployment) == "failure"
    assert module.calls == ["Download_Error"]


def test_sync_scripts_frame_the_check(accepted: Device, server: DevServer, module: Recorder) -> None:
    for name in ("Idle_Enter_00", "Idle_Leave_00", "Sync_Enter_00", "Sync_Leave_00"):
        device_script(accepted, name, f"#!/bin/sh\necho {name} >>{module.log}\n")
    accepted.ok("check-update")
    assert module.calls == ["Idle_Enter_00", "Idle_Leave_00", "Sync_Enter_00", "Sync_Leave_00"]


def test_a_corrupt_record_fails_the_update_and_blocks_nothing(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    deployment = deploy(server, module, accepted)
    module.at("ArtifactInstall", "kill -9 $PPID")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactInstall" in module.calls, "the installer was killed")
    (accepted.data / "installer.json").write_text("{")
    until(lambda: accepted.run("run").out != "", "the run starts it again")
    server.wait_for(is_final)
    assert server.status(deployment) == "failure"
    until(lambda: not (accepted.data / "update.lock").exists(), "the lock is removed")
    assert (accepted.data / "installer.json.unreadable").read_text() == "{"
    assert accepted.run("resume").code == 2


def test_a_module_that_has_vanished_is_named(accepted: Device, server: DevServer, module: Recorder) -> None:
    deployment = deploy(server, module, accepted)
    module.at("ArtifactInstall", f"rm {module.program}")
    accepted.ok("run", "--all")
    server.wait_for(is_final)
    assert server.status(deployment) == "failure"
    until(lambda: server.log(deployment) is not None, "the log is uploaded")
    assert "fake cannot be started: it does not exist" in str(server.log(deployment))


def test_a_pause_is_reported_and_ends_by_itself(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    accepted.configure(StateScriptRetryIntervalSeconds=1)
    deployment = deploy(server, module, accepted)
    module.at("ArtifactInstall_Enter", "exit 21")
    accepted.ok("run", "--all")
    server.wait_for(lambda seen: b"pause_before_installing" in seen.body)
    until(lambda: "Resumed" in accepted.run("run").out, "the script is asked again")
    server.wait_for(is_final)
    assert server.status(deployment) == "success"
    assert module.calls == [*GOOD[:3], *GOOD[2:]]


def test_the_artifact_is_removed_before_the_module_installs(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    seen = accepted.root / "seen"
    module.at("ArtifactInstall", f"ls {accepted.data} >{seen}")
    deploy(server, module, accepted)
    accepted.ok("run", "--all")
    server.wait_for(is_final)
    assert "installer.json" in seen.read_text()
    assert "artifact.mender" not in seen.read_text()


def test_a_deployment_waits_for_the_end_of_an_installation_by_hand(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    by_hand = make_artifact(accepted.root / "by-hand.mender", name="by-hand", payload_type=module.name)
    accepted.ok("install", str(by_hand))
    deployment = deploy(server, module, accepted)
    done = accepted.run("run", "--all")
    assert done.code == 75
    assert "by-hand was installed by hand and is neither committed nor rolled back" in done.err
    accepted.ok("commit")
    assert accepted.ok("show-artifact").out == "by-hand\n"
    accepted.ok("run", "--all", "--force")
    until(lambda: server.status(deployment) == "success", "it is installed")
    assert accepted.ok("show-artifact").out == "release-2\n"
