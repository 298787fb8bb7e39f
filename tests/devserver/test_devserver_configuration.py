"""The development server's configurations: set by a user and deployed to a device."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_device import RawDevice, fetch
from helpers.raw_user import CONFIGURATION as VALUES
from helpers.raw_user import RawUser

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.deviceconfig_api import CONFIGURATION, CONFIGURATIONS
from mender_oneshot.devserver.management_deployments import DEPLOYMENTS

MENDER_ARTIFACT = shutil.which("mender-artifact") or ""
NO_SUCH_ID = "00000000-0000-4000-8000-000000000000"
NOT_AN_OBJECT = "json: cannot unmarshal array into Go value of type map[string]interface {}"


def test_a_device_sees_what_was_set_and_a_user_what_was_reported(server: DevServer) -> None:
    device, user = RawDevice(server).accepted(), RawUser(server)
    path = f"{CONFIGURATIONS}/{server.device().id}"
    values = {**VALUES, "password": {"value": "secret", "hidden": True}}
    deployment = RawUser(server).deploy_configuration(server.device().id, values)
    assert device.call("GET", CONFIGURATION).json == {**VALUES, "password": {"hidden": True}}
    assert device.call("PUT", CONFIGURATION, {"timezone": "UTC"}).status == 204
    shown = user("GET", path).json
    assert (shown["configured"], shown["reported"]) == (VALUES, {"timezone": "UTC"})
    assert shown["deployment_id"] == deployment


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"a": 1}, "invalid request body: value: invalid type: float64."),
        ({"a": None}, "invalid request body: value: invalid type: <nil>."),
        ({"a": "b" * 4097}, "invalid request body: value: the length must be no more than 4096."),
        ({"": "b"}, "invalid request body: key: cannot be blank."),
        (
            [],
            f"malformed request body: {NOT_AN_OBJECT}",
        ),
        (b"{", "malformed request body: unexpected EOF"),
    ],
)
def test_a_bad_configuration_is_rejected_from_devices_and_users(
    server: DevServer, body: Any, error: str
) -> None:
    device, user = RawDevice(server).accepted(), RawUser(server)
    for reply in (
        device.call("PUT", CONFIGURATION, body),
        user("PUT", f"{CONFIGURATIONS}/{server.device().id}", body),
    ):
        assert (reply.status, reply.json["error"]) == (400, error)


def test_a_device_that_is_not_accepted_has_no_configuration(server: DevServer) -> None:
    RawDevice(server).authorize()
    user = RawUser(server)
    for device_id in (NO_SUCH_ID, server.device().id):
        for method, path in (("GET", device_id), ("POST", f"{device_id}/deploy")):
            reply = user(method, f"{CONFIGURATIONS}/{path}", None if method == "GET" else {})
            assert (reply.status, reply.json["error"]) == (404, "device does not exist")


def test_a_decommissioned_device_leaves_no_configuration(server: DevServer) -> None:
    device = RawDevice(server).accepted()
    device_id = server.device().id
    deployment = RawUser(server).deploy_configuration(device_id)
    server.decommission()
    assert RawUser(server)("GET", f"{CONFIGURATIONS}/{device_id}").status == 404
    assert server.status(deployment) == "decommissioned"
    assert device.call("GET", CONFIGURATION).status == 401


def test_a_configuration_is_deployed_like_an_artifact(server: DevServer) -> None:
    device, user = RawDevice(server).accepted(), RawUser(server)
    device_id = server.device().id
    deployment = RawUser(server).deploy_configuration(device_id)
    offered = device.next().json
    assert offered["id"] == deployment
    artifact = offered["artifact"]
    assert artifact["id"] == deployment + device_id
    assert artifact["artifact_name"] == f"configuration-{deployment}"
    assert artifact["device_types_compatible"] == ["board"]
    assert artifact["source"].keys() == {"uri", "expire"}
    link = artifact["source"]["uri"]
    assert link.startswith(f"{server.url}/api/devices/v1/deployments/download/configuration/{deployment}/")
    assert "x-men-expire=" in link
    assert "x-men-signature=" in link
    reply = fetch(server, "GET", link, None, {"Range": "bytes=5-"})
    assert (reply.status, reply.headers["Accept-Ranges"]) == (200, None)
    assert len(reply.body) == int(reply.headers["Content-Length"])
    shown = user("GET", f"{DEPLOYMENTS}/{deployment}").json
    assert (shown["type"], shown["name"], "filter" in shown) == (
        "configuration",
        artifact["artifact_name"],
        False,
    )
    assert json.loads(base64.b64decode(shown["configuration"])) == {"timezone": "Eur...<omitted>", "key": "v"}
    assert device.status(deployment, "success") == 204
    assert device.next(f"configuration-{deployment}").status == 204


@pytest.mark.real
@pytest.mark.skipif(not MENDER_ARTIFACT, reason="mender-artifact is not installed")
def test_mender_artifact_reads_the_artifact_of_a_configuration(server: DevServer, tmp_path: Path) -> None:
    device = RawDevice(server).accepted()
    RawUser(server).deploy_configuration(server.device().id)
    path = tmp_path / "c.mender"
    path.write_bytes(fetch(server, "GET", device.link()).body)
    done = subprocess.run([MENDER_ARTIFACT, "read", path], check=True, capture_output=True, text=True)
    for text in ("mender-configure", "data-partition.mender-configure.version", '"timezone": "Europe/Oslo"'):
        assert text in done.stdout
