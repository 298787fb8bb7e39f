"""Bad modules, scripts, artifacts and disks in deployments: the status, the reason, and the next update."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers.clock_and_disk import small_disk
from helpers.device import Device, newest_only
from helpers.seen import final_status
from helpers.update_module import TREE, Recorder, left_running
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = newest_only


@pytest.fixture
def disk() -> str:
    """Options of the file system of the data directory; none for that of the tests."""
    return ""


@pytest.fixture
def device(device: Device, disk: str) -> Iterator[Device]:
    device.configure(ModuleTimeoutSeconds=1, StateScriptTimeoutSeconds=1)
    with ExitStack() as mounted:
        if disk:
            mounted.enter_context(small_disk(device.data, disk))
            (device.data / "device_type").write_text("device_type=board\n")
        yield device


@pytest.fixture
def module(accepted: Device) -> Recorder:
    return Recorder(accepted)


def update(device: Device, server: DevServer, module: Recorder, name: str, **options: object) -> str:
    """Deploy an artifact and let the device install it to the end; return the deployment."""
    server.upload(Path(module.artifact(device, name, **options)))
    deployment = server.deploy(name)
    seen = len(server.requests)
    device.run("run", "--all")
    device.run("run")
    until(lambda: any(map(final_status, server.requests[seen:])), f"the result of {name} arrives")
    until(lambda: not (device.data / "update.lock").exists(), "the lock is removed")
    return deployment


def reason(server: DevServer, deployment: str) -> str:
    """Return the last line of the log of a deployment."""
    until(lambda: server.log(deployment) is not None, "the log is uploaded")
    return str((server.log(deployment) or [])[-1]["message"])


def fails(
    device: Device, server: DevServer, module: Recorder, statuses: str, words: str, **options: object
) -> None:
    """Expect an update to fail for a reason, and the next one to succeed."""
    deployment = update(device, server, module, "release-2", **options)
    assert server.status_history(deployment) == statuses.split()
    assert words in reason(server, deployment)
    assert device.ok("show-artifact").out == "release-1\n"
    assert left_running(device) == []
    for name in (TREE, "installer.json", "installer.reserve"):
        assert not (device.data / name).exists()
    for fault in module.faults.iterdir():
        fault.unlink()
    device.make_due("check-update")
    device.forget_failures()  # the back-off after an artifact that was rejected
    following = update(device, server, module, "release-3", scripts={}, payload={"a": b"1"})
    assert server.status(following) == "success"
    assert device.ok("show-artifact").out == "release-3\n"


BEFORE, AFTER = "downloading failure", "downloading installing failure"
FAULTS = {
    "a module that hangs": ("ArtifactInstall", "setsid sleep 61 & sleep 60", AFTER, "did not end"),
    "a module that is killed": ("ArtifactInstall", "kill -9 $$", AFTER, "(signal 9)"),
    "a module that prints why": (
        "ArtifactInstall",
        r"echo one; printf 'the pump\tis off.\n\n' >&2; exit 3",
        AFTER,
        "failed in ArtifactInstall (exit code 3): the pump?is off.",
    ),
    "a module that prints nothing": (
        "ArtifactInstall",
        "exit 3",
        AFTER,
        "failed in ArtifactInstall (exit code 3); its output is in the log.",
    ),
    "a script that prints why": (
        "ArtifactInstall_Enter",
        "echo the user declined; exit 1",
        AFTER,
        "ArtifactInstall_Enter_00 failed (exit code 1): the user declined.",
    ),
    "a child that keeps a stream": (
        "Download",
        "read -r line <stream-next; (exec 3<$line; sleep 60) & exec 3<$line; exit 0",
        BEFORE,
        "stopped reading",
    ),
    "a tree that is removed": ("Download", 'rm -r "$2"; sleep 60', BEFORE, "has removed or replaced"),
    "a script that hangs": (
        "ArtifactInstall_Enter",
        "sleep 60",
        AFTER,
        "ArtifactInstall_Enter_00 did not end",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_reported_with_its_reason_and_the_next_update_succeeds(
    accepted: Device, server: DevServer, module: Recorder, case: str
) -> None:
    where, code, statuses, words = FAULTS[case]
    module.at(where, code)
    fails(accepted, server, module, statuses, words, payload={"a": b"1" * 100_000})


ARTIFACTS: dict[str, tuple[dict[str, Any], str]] = {
    "a payload in a directory": ({"payload": {"a/b": b"1"}}, "build the artifact with plain file names"),
    "an unknown type": (
        {"payload_type": "unknown"},
        "there is no update module for the payload type 'unknown'",
    ),
    "depends that are not met": ({"depends": {"app": ["1"]}}, "needs app to be 1, but this device has none"),
    "a script of no state": (
        {"scripts": {"Install_00": ""}},
        "scripts/Install_00 is not the name of a state",
    ),
}


@pytest.mark.parametrize("case", ARTIFACTS)
def test_a_bad_artifact_is_reported_with_its_reason_and_the_next_update_succeeds(
    accepted: Device, server: DevServer, module: Recorder, case: str
) -> None:
    options, words = ARTIFACTS[case]
    fails(accepted, server, module, BEFORE, words, **options)


@pytest.mark.parametrize("disk", ["size=8m,noexec"])
def test_scripts_on_a_noexec_disk_are_reported(accepted: Device, server: DevServer, module: Recorder) -> None:
    fails(accepted, server, module, BEFORE, "is mounted noexec; mount it without that option")
    assert "ArtifactRollback" not in module.calls


@pytest.mark.parametrize("disk", ["size=8m"])
def test_a_payload_without_room_is_reported(accepted: Device, server: DevServer, module: Recorder) -> None:
    payload = {"a": bytes(4 << 20)}
    words = "the payload needs 4194304 bytes"
    fails(accepted, server, module, BEFORE, words, payload=payload, compression="none")


@pytest.mark.parametrize("disk", ["size=8m"])
def test_a_module_that_fills_the_disk_is_reported(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    module.at("ArtifactInstall", "cat /dev/zero >tmp/filler; exit 1")
    fails(accepted, server, module, AFTER, "failed in ArtifactInstall (exit code 1)")


def test_a_health_check_on_a_noexec_file_system_fails_the_update(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    checks = accepted.conf / "checks.d"
    checks.mkdir()
    with small_disk(checks, "size=1m,noexec"):
        (checks / "10-check").write_text("#!/bin/sh\n")
        (checks / "10-check").chmod(0o755)
        (checks / "README").write_text("not executable, so no check\n")
        deployment = update(accepted, server, module, "release-2")
        assert server.status(deployment) == "failure"
        assert "10-check failed: it cannot be started: its file system is mounted noexec" in reason(
            server, deployment
        )
    assert "ArtifactRollback" in module.calls


def test_a_flood_of_output_leaves_a_log_that_the_server_takes(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    module.at("ArtifactInstall", "timeout 0.5 yes; exit 3")
    fails(accepted, server, module, AFTER, "(exit code 3): y.")
