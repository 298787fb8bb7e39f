"""Our modules in a whole installation by hand: an artifact in, its files on the device, and back again."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.real_daemon import need


@pytest.fixture
def device(tmp_path: Path, python: str) -> Device:
    """A device without a server and without update modules of its own."""
    return Device(tmp_path / "device", python)


def single_file(tmp_path: Path) -> str:
    payload = {
        "app": b"new\n",
        "dest_dir": f"{tmp_path}/opt\n".encode(),
        "filename": b"app\n",
        "permissions": b"755\n",
    }
    return str(make_artifact(tmp_path / "a.mender", payload=payload, payload_type="single-file"))


def test_a_single_file_is_installed_and_committed(device: Device, tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "app").write_text("old\n")
    device.ok("install", single_file(tmp_path))
    assert (tmp_path / "opt" / "app").read_text() == "new\n"
    device.ok("commit")
    assert (tmp_path / "opt" / "app").read_text() == "new\n"
    assert os.listdir(tmp_path / "opt") == ["app"]
    assert device.ok("show-artifact").out == "release-2\n"


@pytest.mark.parametrize("old", [True, False])
def test_a_single_file_is_rolled_back(device: Device, tmp_path: Path, old: bool) -> None:
    (tmp_path / "opt").mkdir()
    if old:
        (tmp_path / "opt" / "app").write_text("old\n")
    device.ok("install", single_file(tmp_path))
    device.ok("rollback")
    assert os.listdir(tmp_path / "opt") == (["app"] if old else [])
    assert not old or (tmp_path / "opt" / "app").read_text() == "old\n"
    assert device.ok("show-artifact").out == "release-1\n"


@pytest.mark.parametrize("decision", ["commit", "rollback"])
def test_a_directory_is_replaced(device: Device, tmp_path: Path, decision: str) -> None:
    for name, file in (("source", "new"), ("opt", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(file)
    subprocess.run(["tar", "-cf", "update.tar", "-C", "source", "."], cwd=tmp_path, check=True)
    payload = {
        "update.tar": (tmp_path / "update.tar").read_bytes(),
        "dest_dir": f"{tmp_path}/opt\n".encode(),
    }
    device.ok("install", str(make_artifact(tmp_path / "a.mender", payload=payload, payload_type="directory")))
    assert os.listdir(tmp_path / "opt") == ["new"]
    device.ok(decision)
    assert os.listdir(tmp_path / "opt") == (["new"] if decision == "commit" else ["old"])
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


@pytest.mark.real
@pytest.mark.parametrize("code", [0, 3])
def test_a_script_of_mender_artifact_runs_and_is_committed_at_once(
    device: Device, tmp_path: Path, code: int
) -> None:
    need("mender-artifact")
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran\nexit {code}\n")
    words = ["write", "module-image", "-t", "board", "-n", "release-2", "-T", "script", "-f", str(script)]
    path = str(tmp_path / "a.mender")
    subprocess.run(["mender-artifact", *words, "-o", path], check=True, capture_output=True)
    done = device.run("install", path)
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert (done.code == 0) == (code == 0)
    name = "release-2" if code == 0 else "release-2_INCONSISTENT"
    assert device.ok("show-artifact").out == f"{name}\n"
