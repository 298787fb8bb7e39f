"""An artifact that the device cannot install is rejected by its header, before the rest is downloaded."""

import os

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from helpers.device import Device, Release
from helpers.seen import fetched

from mender_oneshot.devserver import DevServer

SIZE = 40_000_000
FEW = 12_000_000
"""What sockets may buffer beyond the header, and far less than the artifact."""


def sent(server: DevServer) -> int:
    return sum(seen.sent for seen in fetched(server))


UNFIT = {
    "no module": ({"payload_type": "app"}, "there is no update module for the payload type 'app'"),
    "unmet dependency": (
        {"payload_type": "single-file", "depends": {"bootloader": ["2"]}},
        "needs bootloader to be 2, but this device has none",
    ),
    "a header of a megabyte": (
        {"payload_type": "app", "scripts": {"ArtifactInstall_Enter_00": os.urandom(500_000).hex()}},
        "there is no update module",
    ),
}


@pytest.mark.parametrize(("options", "why"), UNFIT.values(), ids=UNFIT)
def test_an_artifact_that_cannot_be_installed_is_not_downloaded_to_its_end(
    accepted: Device, server: DevServer, release: Release, options: dict[str, object], why: str
) -> None:
    deployment = release(size=SIZE, **options)
    accepted.ok("check-update")
    done = accepted.run("download")
    assert done.code in (65, 69)
    assert why in done.err
    assert sent(server) < FEW
    assert not (accepted.data / "artifact.part").exists()
    accepted.ok("run")
    assert server.status(deployment) == "failure"


def test_a_wrong_signature_is_found_before_the_payload_is_downloaded(
    accepted: Device, server: DevServer, release: Release
) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path = accepted.root / "verify.pem"
    path.write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    accepted.configure(ArtifactVerifyKey=str(path))
    release(size=SIZE, payload_type="single-file")
    accepted.ok("check-update")
    done = accepted.run("download")
    assert done.code == 65
    assert "not signed" in done.err
    assert sent(server) < FEW


def test_a_sub_updater_takes_any_payload_type(accepted: Device, server: DevServer, release: Release) -> None:
    accepted.sub_updater()
    release(size=SIZE, payload_type="app")
    accepted.ok("check-update")
    accepted.ok("download")
    assert sent(server) > SIZE


def test_a_verify_key_that_is_missing_does_not_fail_the_update(
    accepted: Device, server: DevServer, release: Release
) -> None:
    release(size=SIZE, payload_type="single-file")
    accepted.configure(ArtifactVerifyKey=str(accepted.root / "missing.pem"))
    accepted.ok("check-update")
    accepted.ok("download")
    assert accepted.run("install").code == 78
    assert (accepted.data / "artifact.mender").exists()
