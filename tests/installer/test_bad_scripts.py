"""State scripts that fail, hang, flood, or cannot be started: each is named, and the update is undone."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.clock_and_disk import small_disk
from helpers.device import Device, newest_only
from helpers.update_module import Recorder, device_script, failed_install, next_install

pytestmark = newest_only
ENTER = "ArtifactInstall_Enter_00"


@pytest.fixture
def device(tmp_path: Path, python: str) -> Device:
    """A device without a server; its state scripts have a second."""
    made = Device(tmp_path / "device", python)
    made.configure(StateScriptTimeoutSeconds=1)
    return made


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


def artifact(device: Device, module: Recorder, text: str, name: str = ENTER) -> str:
    return module.artifact(device, scripts=module.scripts() | {name: text})


SCRIPTS = {
    "hangs": ("#!/bin/sh\nsleep 60\n", "within 1 s"),
    "ignores SIGTERM": ("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 60; done\n", "within 1 s"),
    "hangs with a child": ("#!/bin/sh\nsetsid sleep 61 &\nsleep 61 & sleep 60\n", "within 1 s"),
    "fails with a child": ("#!/bin/sh\nsleep 61 &\nexit 2\n", "exit code 2"),
    "lacks its interpreter": ("#!/no/such/interpreter\n", "names the interpreter /no/such/interpreter"),
    "lacks its name": ("#!\n", "names no interpreter"),
    "has CRLF line ends": ("#!/bin/sh\r\nexit 0\r\n", "Windows line endings"),
    "is no program": ("just words\n", "does not begin with #!"),
    "is empty": ("", "it is empty"),
    "fails": ("#!/bin/sh\nexit 7\n", "exit code 7"),
    "is killed": ("#!/bin/sh\nkill -SEGV $$\n", "signal 11"),
    "is not found by env": ("#!/usr/bin/env no-such-program\n", "exit code 127"),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_script_that_goes_wrong_is_named(device: Device, module: Recorder, case: str) -> None:
    text, words = SCRIPTS[case]
    failed_install(device, module, ENTER, words, artifact=artifact(device, module, text))
    assert "ArtifactInstall" not in module.calls
    assert "ArtifactRollback" in module.calls


def test_after_a_bad_script_the_next_update_succeeds(device: Device, module: Recorder) -> None:
    failed_install(device, module, ENTER, artifact=artifact(device, module, "#!/bin/sh\nexit 1\n"))
    next_install(device, module)


@pytest.mark.parametrize(
    "interpreter",
    ["/usr/bin/env python3", "/usr/bin/python3 -I", "\t/bin/sh -e ", f"{shutil.which('busybox')} sh"],
)
def test_a_script_may_have_any_interpreter(device: Device, module: Recorder, interpreter: str) -> None:
    if interpreter.startswith("None"):
        pytest.skip("not installed: busybox-static")
    python = "open('{}', 'a').write('here\\n')" if "python" in interpreter else "echo here >>{}"
    text = f"#!{interpreter}\n{python.format(module.log)}\n"
    device.ok("install", artifact(device, module, text))
    assert "here" in module.calls


def test_a_script_that_floods_leaves_a_short_log(device: Device, module: Recorder) -> None:
    log = device.data / "sub-updater.log"
    path = artifact(device, module, "#!/bin/sh\nhead -c 9000000 /dev/zero\nexit 3\n")
    append = ("sh", "-c", 'exec "$@" 2>>"$0"', str(log))
    assert device.run("install", path, wrapper=append).code == 70
    assert len(log.read_bytes()) < 2 << 20
    assert log.read_text().endswith(f"{ENTER} failed (exit code 3); its output is in the log.\n")


def test_error_scripts_run_to_the_end(device: Device, module: Recorder) -> None:
    scripts = module.scripts() | {
        "ArtifactInstall_Error_01": f"#!/bin/sh\necho first >>{module.log}\nexit 1\n",
        "ArtifactInstall_Error_02": "#!/bin/sh\nsleep 60\n",
        "ArtifactInstall_Error_03": f"#!/bin/sh\necho last >>{module.log}\n",
    }
    module.at("ArtifactInstall", "exit 5")
    failed_install(device, module, "exit code 5", artifact=module.artifact(device, scripts=scripts))
    assert [call for call in module.calls if call in ("first", "last")] == ["first", "last"]


# --- pauses


def test_a_script_that_keeps_asking_for_a_pause_fails_in_time(device: Device, module: Recorder) -> None:
    device.configure(StateScriptRetryTimeoutSeconds=1)
    module.at("ArtifactInstall_Enter", "exit 21", once=False)
    done = device.run("install", module.artifact(device))
    resumed = 0
    while done.code == 75:
        assert ENTER in done.err
        assert "run mender-oneshot resume" in done.err
        done = device.run("resume")
        resumed += 1
    assert done.code == 70
    assert resumed > 1
    assert f"The state script {ENTER} has asked" in done.err
    assert "StateScriptRetryTimeoutSeconds" in done.err
    assert "ArtifactInstall" not in module.calls
    assert module.calls[-1] == "Cleanup"
    next_install(device, module)


def test_a_script_that_fails_after_a_pause_fails_the_update(device: Device, module: Recorder) -> None:
    module.at("ArtifactCommit_Enter", "exit 21")
    device.ok("install", module.artifact(device))
    assert device.run("commit").code == 75
    module.at("ArtifactCommit_Enter", "exit 3")
    done = device.run("resume")
    assert done.code == 70
    assert "ArtifactCommit_Enter_00 failed (exit code 3)" in done.err
    assert "ArtifactCommit" not in module.calls
    assert device.ok("show-artifact").out == "release-1\n"


def test_what_a_pausing_script_leaves_running_is_left(device: Device, module: Recorder) -> None:
    """It may show a question to the user, which the next run of the script finds answered."""
    number = device.root / "number"
    module.at("ArtifactInstall_Enter", f"sleep 61 >/dev/null 2>&1 & echo $! >{number}; exit 21")
    assert device.run("install", module.artifact(device)).code == 75
    device.ok("resume")
    subprocess.run(["kill", number.read_text().strip()], check=True)


# --- the device's own


def test_scripts_that_are_not_executable_are_skipped(device: Device, module: Recorder) -> None:
    device_script(device, "Download_Leave_00", "#!/bin/sh\nexit 1\n").chmod(0o644)
    device.ok("install", module.artifact(device))


@pytest.mark.parametrize(
    "name", ["Download_Leave", "Download_Leave_0", "download_Leave_00", "Download_Leave_00 a"]
)
def test_scripts_with_other_names_are_ignored(device: Device, module: Recorder, name: str) -> None:
    device_script(device, name, "#!/bin/sh\nexit 1\n")
    device.ok("install", module.artifact(device))


def test_a_script_that_is_a_link_to_nothing_is_no_gate_left_open(device: Device, module: Recorder) -> None:
    device_script(device, "Download_Leave_00", "").unlink()
    (device.conf / "scripts" / "Download_Leave_00").symlink_to("nothing")
    failed_install(device, module, "Download_Leave_00", "it is a link to nothing, which does not exist")


@pytest.mark.parametrize("version", ["4", "", "three", "3\n3"])
def test_scripts_of_another_version_are_rejected(device: Device, module: Recorder, version: str) -> None:
    device_script(device, "Download_Leave_00", "#!/bin/sh\n")
    (device.conf / "scripts" / "version").write_text(version)
    failed_install(device, module, "only 2 and 3 are supported", str(device.conf / "scripts/version"))
    assert "ArtifactInstall" not in module.calls


def test_a_new_system_with_scripts_of_another_version_is_rolled_back(
    device: Device, module: Recorder
) -> None:
    device.ok("install", module.artifact(device))
    device_script(device, "version", "4\n")
    done = device.run("commit")
    assert done.code == 70
    assert "only 2 and 3 are supported" in done.err
    assert "ArtifactCommit" not in module.calls
    assert "ArtifactRollback" in module.calls
    assert device.ok("show-artifact").out == "release-1\n"


# --- noexec


@pytest.fixture
def noexec(device: Device) -> Iterator[None]:
    """Mount the data directory noexec."""
    with small_disk(device.data, "size=8m,noexec"):
        (device.data / "device_type").write_text("device_type=board\n")
        yield


@pytest.mark.usefixtures("noexec")
def test_on_a_noexec_file_system_an_artifact_with_scripts_fails_before_it_changes_anything(
    device: Device, module: Recorder
) -> None:
    failed_install(device, module, "is mounted noexec; mount it without that option", "state scripts")
    assert module.calls == []
    device.ok("install", module.artifact(device, "release-3", scripts={}))
    device.ok("commit")
