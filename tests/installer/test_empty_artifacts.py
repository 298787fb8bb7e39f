"""Artifacts without a payload: they only change what the device provides."""

import subprocess
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.real_daemon import need
from helpers.waiting import until

from mender_oneshot.devserver import DevServer, Seen

AFTER = "artifact_name=release-2\nfleet=blue\n"


def is_final(seen: Seen) -> bool:
    return seen.method == "PUT" and seen.path.endswith("/status") and b"ing" not in seen.body


def written(path: Path, *words: str) -> Path:
    """Write one with mender-artifact."""
    need("mender-artifact")
    command = ["mender-artifact", "write", "bootstrap-artifact", "-t", "board", "-n", "release-2"]
    options = ["--provides", "fleet:blue", "--clears-provides", "fleet", *words]
    subprocess.run([*command, *options, "-o", path], check=True, capture_output=True)
    return path


def test_a_deployment_of_one_succeeds(accepted: Device, server: DevServer, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "a", payload_type=None, payload={}, provides={"fleet": "blue"})
    server.upload(path)
    deployment = server.deploy("release-2")
    accepted.ok("run", "--all")
    server.wait_for(is_final)
    # Nothing is installed, so no `installing` is reported, as by the Mender client.
    assert server.status_history(deployment) == ["downloading", "success"]
    assert accepted.ok("show-provides").out == AFTER
    until(lambda: not (accepted.data / "update.lock").exists(), "the installer has ended")
    assert not (accepted.data / "installer.json").exists()


@pytest.mark.real
def test_one_of_mender_artifact_is_deployed(accepted: Device, server: DevServer, tmp_path: Path) -> None:
    server.upload(written(tmp_path / "a.mender"))
    deployment = server.deploy("release-2")
    accepted.ok("run", "--all")
    server.wait_for(is_final)
    assert server.status(deployment) == "success"
    assert accepted.ok("show-provides").out == AFTER


@pytest.mark.real
def test_one_of_mender_artifact_is_installed_by_hand(device: Device, tmp_path: Path) -> None:
    device.ok("install", str(written(tmp_path / "a.mender")))
    assert device.ok("show-provides").out == AFTER


@pytest.mark.real
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_the_signature_of_one_is_checked(device: Device, tmp_path: Path, signed: bool) -> None:
    key = tmp_path / "key.pem"
    public = tmp_path / "public.pem"
    need("openssl")
    for command in (
        ["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(key)],
        ["ec", "-in", str(key), "-pubout", "-out", str(public)],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    device.configure(ArtifactVerifyKey=str(public))
    path = written(tmp_path / "a.mender", *(("-k", str(key)) if signed else ()))
    done = device.run("install", str(path))
    assert done.code == (0 if signed else 65), done
    assert device.ok("show-artifact").out == ("release-2\n" if signed else "release-1\n")
