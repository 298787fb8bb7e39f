"""Installations on a data directory that is full, or becomes full in any phase, or is read-only."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.clock_and_disk import Disk, small_disk
from helpers.device import Device, newest_only
from helpers.update_module import TREE, Recorder, failed_install, next_install

pytestmark = newest_only
SIZE = 6 << 20


@pytest.fixture
def device(tmp_path: Path, python: str) -> Iterator[Device]:
    """A device without a server, whose data directory is a small file system."""
    made = Device(tmp_path / "device", python)
    with small_disk(made.data, f"size={SIZE},nr_inodes=100"):
        (made.data / "device_type").write_text("device_type=board\n")
        yield made


@pytest.fixture
def disk(device: Device) -> Disk:
    return Disk(device.data)


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


FILL = "cat /dev/zero >tmp/filler 2>/dev/null"
"""What a module does that keeps a backup in its tree."""


def test_a_payload_without_room_changes_nothing(device: Device, module: Recorder, disk: Disk) -> None:
    artifact = module.artifact(device, payload={"a": bytes(1 << 20), "b": bytes(5 << 20)})
    free = disk.free
    failed_install(device, module, "needs 5242880 bytes", "free some space", artifact=artifact)
    assert module.calls == ["ProvidePayloadFileSizes", "Download", "Cleanup"]
    assert disk.free >= free - (128 << 10)
    next_install(device, module)


@pytest.mark.parametrize("left", [0, 40 << 10, 120 << 10, 300 << 10])
def test_on_a_full_disk_nothing_begins(device: Device, module: Recorder, disk: Disk, left: int) -> None:
    scripts = module.scripts() | {"ArtifactInstall_Enter_01": "#!/bin/sh\n" + "#" * 200_000}
    disk.leave(left)
    done = device.run("install", module.artifact(device, scripts=scripts))
    assert done.code in (70, 73), done
    assert "No space left on device; free some space" in done.err or "only" in done.err
    assert "Traceback" not in done.err
    assert "Download" not in module.calls or "ArtifactInstall" not in module.calls
    disk.relieve()
    if device.run("resume").code == 2:
        next_install(device, module)


@pytest.mark.parametrize("call", ["Download", "ArtifactInstall", "ArtifactCommit"])
@pytest.mark.parametrize("code", ["exit 1", "exit 0"])
def test_a_module_that_fills_the_disk_does_not_block_the_device(
    device: Device, module: Recorder, call: str, code: str
) -> None:
    artifact = module.artifact(device, payload={"a": b"1"}, provides={"key": "value" * 1000})
    module.at(call, f"{FILL}; {code}")
    done = device.run("install", artifact)
    if call == "ArtifactCommit":
        assert done.code == 0, done
        done = device.run("commit")
    elif done.code == 0:
        done = device.run("commit")
    name = device.ok("show-artifact").out
    if code == "exit 0" and call != "Download":
        assert (done.code, name) == (0, "release-2\n"), done
    else:
        assert (done.code, name) == (70, "release-1\n"), done
        assert (
            f"failed in {call} (exit code 1)" in done.err or "No space left" in done.err or "only" in done.err
        )
    assert not (device.data / TREE).exists()
    assert not (device.data / "installer.json").exists()
    assert not (device.data / "installer.reserve").exists()
    next_install(device, module)


def test_a_device_whose_disk_another_program_has_filled_continues_when_there_is_room(
    device: Device, module: Recorder, disk: Disk
) -> None:
    device.ok("install", module.artifact(device))
    (device.data / "installer.reserve").unlink()
    disk.leave(0)
    for command in ("commit", "rollback", "resume"):
        done = device.run(command)
        assert done.code == 73, done
        assert "No space left on device; free some space" in done.err
    assert "ArtifactCommit" not in module.calls
    disk.relieve()
    device.ok("commit")
    assert device.ok("show-artifact").out == "release-2\n"


def test_a_disk_that_is_full_after_the_commit_loses_no_success(
    device: Device, module: Recorder, disk: Disk
) -> None:
    device.ok("install", module.artifact(device))
    (device.data / "installer.reserve").unlink()
    module.at("ArtifactCommit_Leave", f"cat /dev/zero >{device.data}/filler 2>/dev/null; exit 0")
    assert device.run("commit").code == 73
    assert "ArtifactCommit" in module.calls
    for _ in range(3):
        assert device.run("resume").code == 73
    (device.data / "filler").unlink()
    device.ok("resume")
    assert device.ok("show-artifact").out == "release-2\n"
    assert "ArtifactRollback" not in module.calls


@pytest.mark.parametrize("trouble", ["read-only", "inodes"])
def test_a_disk_that_takes_no_file_delays_the_commit(
    device: Device, module: Recorder, disk: Disk, trouble: str
) -> None:
    device.ok("install", module.artifact(device))
    if trouble == "read-only":
        disk.remount("ro")
    else:
        disk.use_up_inodes()
        (device.data / "installer.reserve").rename(device.data / "another")
    done = device.run("commit")
    assert done.code == 73, done
    assert ("mount it read-write" if trouble == "read-only" else "free inodes") in done.err
    disk.remount("rw")
    disk.relieve()
    device.ok("commit")
    assert device.ok("show-artifact").out == "release-2\n"
