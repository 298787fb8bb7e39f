"""A link that leads nowhere is a partition that is not mounted, not a file that was never there."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers.device import Device, Release, Run

from mender_oneshot.devserver import DevServer


@pytest.fixture
def python() -> str:
    """Only the newest libraries: Debian's make the same system calls."""
    return sys.executable


def unmount(device: Device, path: Path) -> Path:
    """Move a file or directory to another partition, which is then not mounted; return its place there."""
    partition = device.root / "partition"
    partition.mkdir(exist_ok=True)
    if path.exists():
        shutil.move(path, device.root / "unmounted")
    path.symlink_to(partition / path.name)
    return partition / path.name


def mount(device: Device, place: Path) -> None:
    shutil.move(device.root / "unmounted", place)


def tells(done: Run, code: int, link: Path, target: Path) -> None:
    """One sentence names the link, its target and the remedy, besides a warning about the identity."""
    assert done.code == code, done
    said = [line for line in done.err.splitlines() if not line.startswith("warning: Cannot check whether")]
    assert len(said) == 1, done.err
    assert f"{link} is a link to {target}, which does not exist; mount its partition" in done.err


# What lies on the partition, by its place on the device, and the commands that need it.
NEEDED: list[tuple[str, list[str]]] = [
    ("etc/mender.conf", ["auth", "run", "check-update", "status", "report --success", "terminal"]),
    ("etc", ["auth", "run", "status"]),
    ("etc/mender-connect.conf", ["terminal"]),
    ("lib/mender.conf", ["auth", "run", "status"]),
    ("lib/mender-connect.conf", ["terminal"]),
    ("lib/device_type", ["auth --fresh", "check-update", "send-inventory"]),
    ("lib/mender-agent.pem", ["auth --fresh", "bootstrap", "bootstrap --force"]),
    ("etc/artifact_info", ["check-update", "send-inventory"]),
    ("share", ["auth --fresh"]),
    ("share/identity", ["auth --fresh"]),
    ("share/identity/mender-device-identity", ["auth --fresh"]),
    ("share/inventory", ["send-inventory"]),
]


@pytest.mark.parametrize(("name", "commands"), NEEDED, ids=[name for name, _ in NEEDED])
def test_what_lies_on_a_partition_that_is_not_mounted_is_not_missing(
    accepted: Device, server: DevServer, name: str, commands: list[str]
) -> None:
    path = accepted.root / name
    key = (accepted.data / "mender-agent.pem").read_bytes()
    if not path.exists():
        path.write_text("{}")
    place = unmount(accepted, path)
    asked = len(server.requests)
    for command in commands:
        tells(accepted.run(*command.split()), 78, path, place)
    assert len(server.requests) == asked
    if "connect" not in name:  # the terminal is not examined
        doctor = accepted.run("doctor")
        assert doctor.code == 78
        assert f"{path} is a link to {place}" in doctor.out
    assert os.listdir(place.parent) == []
    mount(accepted, place)
    accepted.ok("auth", "--fresh")
    assert (accepted.data / "mender-agent.pem").read_bytes() == key


# The keys of mender.conf that name a file, and the command that needs it.
CONFIGURED = [
    ("DeviceTypeFile", "check-update"),
    ("Security", "auth --fresh"),
    ("ArtifactVerifyKey", "install"),
]


@pytest.mark.parametrize(("key", "command"), CONFIGURED)
def test_a_file_that_the_configuration_names_is_not_missing(
    accepted: Device, release: Release, key: str, command: str
) -> None:
    release()
    accepted.sub_updater()
    accepted.ok("check-update")
    accepted.ok("download")
    path = accepted.root / "named"
    target = unmount(accepted, path)
    accepted.configure(**{key: {"AuthPrivateKey": str(path)} if key == "Security" else str(path)})
    tells(accepted.run(*command.split()), 78, path, target)
    assert accepted.state["deployment"]["artifact_name"] == "release-2"
    assert not target.exists()


@pytest.mark.parametrize("name", ["share", "share/install"])
def test_a_sub_updater_that_is_not_mounted_fails_no_update(
    accepted: Device, server: DevServer, release: Release, name: str
) -> None:
    deployment = release()
    accepted.sub_updater()
    accepted.ok("check-update")
    accepted.ok("download")
    path = accepted.root / name
    place = unmount(accepted, path)
    tells(accepted.run("install"), 78, path, place)
    assert server.status(deployment) == "downloading"
    mount(accepted, place)
    accepted.ok("install")


def test_a_log_directory_that_is_not_mounted_is_told_and_holds_up_nothing(
    accepted: Device, server: DevServer, release: Release
) -> None:
    logs = accepted.root / "logs"
    place = unmount(accepted, logs)
    accepted.configure(UpdateLogPath=str(logs))
    release()
    accepted.sub_updater()
    done = accepted.run("run", "--all")
    assert done.code == 0
    assert f"{logs} is a link to {place}, which does not exist; mount its partition" in done.err


@pytest.mark.parametrize("name", ["lib", "lib/mender"])
def test_a_data_directory_that_is_not_mounted(device: Device, server: DevServer, name: str) -> None:
    """Also if the link is above it; the run and `doctor` say the same."""
    (device.data / "mender").mkdir()
    path = device.root / name
    place = unmount(device, path)
    device.environment["MENDER_DATASTORE_DIR"] = str(device.root / "lib/mender")
    for words in (["bootstrap"], ["auth"], ["run"], ["run", "--all"]):
        tells(device.run(*words), 74, path, place)
    doctor = device.run("doctor")
    assert f"There is no data directory {device.root}/lib/mender: {path} is a link to {place}" in doctor.out
    assert "the first run creates it" not in doctor.out
    assert device.ok("show-artifact").out == "release-1\n"
    assert server.devices == []
    assert os.listdir(place.parent) == []


@pytest.mark.parametrize("words", [["auth"], ["run"], ["run", "--all"], ["check-update"], ["send-inventory"]])
def test_in_an_empty_data_directory_no_key_is_made(
    accepted: Device, server: DevServer, words: list[str]
) -> None:
    """Its partition may not be mounted: without a device type it is not this device's."""
    for path in accepted.data.iterdir():
        path.unlink()
    asked = len(server.requests)
    done = accepted.run(*words)
    assert done.code == 78
    assert "There is no device type: put a line device_type=" in done.err
    assert not (accepted.data / "mender-agent.pem").exists()
    assert len(server.requests) == asked


def test_links_that_lead_somewhere_are_followed(accepted: Device) -> None:
    for name in ("etc", "share", "lib/device_type", "lib/mender-agent.pem"):
        path = accepted.root / name
        target = accepted.root / "partition" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
        path.symlink_to(target)
    accepted.ok("auth", "--fresh")
    accepted.ok("run", "--all")
