"""Installing an artifact file without a server: install, commit, rollback, resume."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.real_daemon import need
from helpers.update_module import Recorder, device_script
from helpers.waiting import is_running

GOOD = [
    *("ProvidePayloadFileSizes", "Download", "ArtifactInstall_Enter", "ArtifactInstall"),
    "ArtifactInstall_Leave",
]
COMMIT = ["ArtifactCommit_Enter", "ArtifactCommit", "ArtifactCommit_Leave", "Cleanup"]
ROLLBACK = [
    *("ArtifactRollback_Enter", "ArtifactRollback", "ArtifactRollback_Leave", "ArtifactFailure_Enter"),
    *("ArtifactFailure", "ArtifactFailure_Leave", "Cleanup"),
]


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


@pytest.fixture
def artifact(tmp_path: Path, module: Recorder) -> str:
    path = make_artifact(
        tmp_path / "a.mender",
        payload_type="fake",
        scripts=module.scripts(),
        provides={"rootfs-image.fake.version": "release-2"},
        clears=["rootfs-image.fake.*"],
    )
    return str(path)


def left(device: Device) -> set[str]:
    """What an installation has left in the data directory."""
    return {entry.name for entry in device.data.iterdir()} - {
        *("device_type", "installer.lock", "module.pid", "modules", "provides.json", "mender-oneshot.lock")
    }


def test_an_artifact_is_installed_and_committed(device: Device, module: Recorder, artifact: str) -> None:
    done = device.ok("install", artifact)
    assert done.out == "Installed release-2; run mender-oneshot commit to keep it, or rollback to go back.\n"
    assert module.calls == GOOD
    assert device.ok("show-artifact").out == "release-1\n"
    assert device.ok("commit").out == "Installed release-2.\n"
    assert module.calls == GOOD + COMMIT
    assert device.ok("show-provides").out == "artifact_name=release-2\nrootfs-image.fake.version=release-2\n"
    assert (device.conf / "artifact_info").read_text() == device.ok("show-provides").out
    assert left(device) == set()


def test_a_rollback_leaves_what_was_installed_before(device: Device, module: Recorder, artifact: str) -> None:
    device.ok("install", artifact)
    assert device.ok("rollback").out == "Rolled back release-2.\n"
    assert module.calls == GOOD + ROLLBACK
    assert device.ok("show-provides").out == "artifact_name=release-1\n"
    assert left(device) == set()


@pytest.mark.parametrize("answer", ["Yes", "Automatic"])
def test_a_reboot_that_is_needed_is_exit_code_4(
    device: Device, module: Recorder, artifact: str, answer: str
) -> None:
    module.write(answer, "Yes")
    done = device.run("install", artifact)
    assert done.code == 4
    assert "reboot" in done.out
    assert module.calls == GOOD
    device.ok("commit")
    assert module.calls == GOOD + COMMIT


def test_what_cannot_be_rolled_back_is_committed_at_once(
    device: Device, module: Recorder, artifact: str
) -> None:
    module.write("No", "No")
    assert device.ok("install", artifact).out == "Installed release-2.\n"
    assert module.calls == GOOD + COMMIT
    assert device.run("commit").code == 2
    assert device.run("rollback").code == 2
    assert device.run("resume").code == 2


@pytest.mark.parametrize("place", ["ArtifactInstall_Enter", "ArtifactInstall", "ArtifactInstall_Leave"])
def test_a_failure_is_rolled_back(device: Device, module: Recorder, artifact: str, place: str) -> None:
    module.at(place, "exit 3")
    done = device.run("install", artifact)
    assert done.code == 70
    assert f"{place}" in done.err
    assert "was undone" in done.err
    begun = GOOD[: GOOD.index(place) + 1]
    assert module.calls == [*begun, "ArtifactInstall_Error", *ROLLBACK]
    assert device.ok("show-provides").out == "artifact_name=release-1\n"
    assert left(device) == set()


def test_a_failure_that_cannot_be_undone_is_inconsistent(
    device: Device, module: Recorder, artifact: str
) -> None:
    module.write("No", "No")
    module.at("ArtifactInstall", "exit 1")
    done = device.run("install", artifact)
    assert done.code == 70
    assert "inconsistent" in done.err
    assert device.ok("show-artifact").out == "release-2_INCONSISTENT\n"


@pytest.mark.parametrize("place", ["Download", "ArtifactInstall", "ArtifactInstall_Enter", "ArtifactCommit"])
def test_a_kill_is_resumed(device: Device, module: Recorder, artifact: str, place: str) -> None:
    """Killed in Download it begins again, in the commit it is finished, between them it is rolled back."""
    if place == "ArtifactCommit":
        device.ok("install", artifact)
    module.at(place, "kill -9 $PPID")
    command = ("commit",) if place == "ArtifactCommit" else ("install", artifact)
    assert device.run(*command).code == -signal.SIGKILL
    done = device.run("resume")
    calls = module.calls
    if place == "Download":
        assert done.code == 0, done
        assert calls == [*GOOD[:2], *GOOD]
    elif place == "ArtifactCommit":
        assert done.code == 0, done
        assert calls == [*GOOD, *COMMIT[:2], "ArtifactVerifyReboot", "ArtifactCommit", *COMMIT[2:]]
        assert device.ok("show-artifact").out == "release-2\n"
    else:
        assert done.code == 70
        assert calls == [*GOOD[: GOOD.index(place) + 1], *ROLLBACK]
        assert device.ok("show-artifact").out == "release-1\n"


def test_a_module_that_outlived_the_installer_is_stopped_first(
    device: Device, module: Recorder, artifact: str, tmp_path: Path
) -> None:
    number = tmp_path / "number"
    module.at("Download", f"echo $$ >{number}; kill -9 $PPID; exec sleep 100 >/dev/null 2>&1")
    assert device.run("install", artifact).code == -signal.SIGKILL
    process = int(number.read_text())
    assert is_running(process)
    device.ok("resume")
    assert not is_running(process)


def test_a_second_installation_waits_for_the_first(device: Device, module: Recorder, artifact: str) -> None:
    device.ok("install", artifact)
    again = device.run("install", artifact)
    assert again.code == 75
    assert "run mender-oneshot commit" in again.err
    device.ok("commit")


def test_a_script_that_pauses_is_asked_again(device: Device, module: Recorder, artifact: str) -> None:
    module.at("ArtifactInstall_Enter", "exit 21")
    done = device.run("install", artifact)
    assert done.code == 75
    assert "ArtifactInstall_Enter_00" in done.err
    device.ok("resume")
    assert module.calls == [*GOOD[:3], *GOOD[2:]]


@pytest.mark.parametrize(
    "state", ["ArtifactInstall_Enter", "ArtifactCommit_Enter", "ArtifactCommit_Leave", "Cleanup"]
)
def test_an_installation_stops_before_a_state(
    device: Device, module: Recorder, artifact: str, state: str
) -> None:
    module.write("No", "No")
    device.ok("install", "--stop-before", state, artifact)
    whole = GOOD + COMMIT
    assert module.calls == whole[: whole.index(state)]
    device.ok("resume")
    assert module.calls == whole


def test_scripts_of_the_device_frame_the_download(device: Device, module: Recorder, artifact: str) -> None:
    device_script(device, "Download_Leave_00", f"#!/bin/sh\necho leave >>{module.log}\n")
    device.ok("install", artifact)
    assert module.calls == [*GOOD[:2], "leave", *GOOD[2:]]


def test_a_payload_without_a_module_is_named(device: Device, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "a.mender", payload_type="unheard-of")
    done = device.run("install", str(path))
    assert done.code == 78
    assert "unheard-of" in done.err
    assert str(device.scripts / "modules" / "v3" / "unheard-of") in done.err


@pytest.mark.real
@pytest.mark.parametrize("kind", ["single-file", "directory", "script"])
def test_an_unmodified_module_of_debian_installs(device: Device, tmp_path: Path, kind: str) -> None:
    theirs = Path("/usr/share/mender/modules/v3") / kind
    need("mender-artifact", str(theirs))
    ours = device.scripts / "modules" / "v3"
    ours.mkdir(parents=True)
    (ours / kind).symlink_to(theirs)
    target = tmp_path / "target"
    target.mkdir()
    (target / "new").write_text("old content")
    files = {
        "single-file": {
            "dest_dir": str(target),
            "filename": "new",
            "permissions": "600",
            "new": "new content",
        },
        "directory": {"dest_dir": str(target)},
        "script": {"run": f"#!/bin/sh\necho ran >{target}/new\n"},
    }[kind]
    source = tmp_path / "source"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_text(content)
    if kind == "directory":
        (source / "tree").mkdir()
        (source / "tree" / "new").write_text("new content")
        subprocess.run(["tar", "-cf", source / "update.tar", "-C", source / "tree", "new"], check=True)
    names = [str(entry) for entry in source.iterdir() if entry.is_file()]
    artifact = tmp_path / "a.mender"
    command = [
        "mender-artifact",
        "write",
        "module-image",
        "-T",
        kind,
        "-t",
        "board",
        "-n",
        "release-2",
        "-o",
        str(artifact),
    ]
    subprocess.run(
        [*command, *(part for name in names for part in ("-f", name))], check=True, capture_output=True
    )
    device.ok("install", str(artifact))
    assert (target / "new").read_text() != "old content"
    if kind != "script":
        device.ok("rollback")
        assert (target / "new").read_text() == "old content"
        device.ok("install", str(artifact))
        device.ok("commit")
        assert (target / "new").read_text() == "new content"
    assert json.loads(device.ok("show-provides", "--json").out)["provides"]["artifact_name"] == "release-2"


def test_an_artifact_without_a_payload_only_changes_the_provides(device: Device, tmp_path: Path) -> None:
    path = make_artifact(
        tmp_path / "a.mender", payload_type=None, payload={}, provides={"fleet": "blue"}, clears=["fleet"]
    )
    assert device.ok("install", str(path)).out == "Installed release-2.\n"
    assert device.ok("show-provides").out == "artifact_name=release-2\nfleet=blue\n"
    assert device.run("commit").code == 2


@pytest.mark.parametrize("content", [b"", b"\0" * 60, b'{"provides": {"a": 1}}', b"[]"])
def test_corrupt_provides_do_not_stop_updates(device: Device, artifact: str, content: bytes) -> None:
    (device.data / "provides.json").write_bytes(content)
    (device.data / "provides.json").chmod(0o644)
    (device.conf / "artifact_info").write_text("artifact_name=release-1\n")
    done = device.ok("show-artifact")
    assert done.out == "release-1\n"
    assert "provides.json is corrupt" in done.err
    device.ok("install", artifact)
    device.ok("commit")
    assert device.ok("show-artifact").out == "release-2\n"
