"""The development server's configurations: set by a user, deployed to a device, taken by the client."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.device import Device
from helpers.raw_device import RawDevice, fetch
from test_devserver_management import Person

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.artifact import read_header
from mender_oneshot.devserver.deviceconfig_api import CONFIGURATION, CONFIGURATIONS
from mender_oneshot.devserver.management_deployments import DEPLOYMENTS

MENDER_ARTIFACT = shutil.which("mender-artifact") or ""
NOBODY = "00000000-0000-4000-8000-000000000000"
NO_OBJECT = "json: cannot unmarshal array into Go value of type map[string]interface {}"
VALUES = {"timezone": "Europe/Oslo", "key": "v"}


def configured(server: DevServer, device_id: str, values: Any = VALUES) -> str:
    """Set and deploy a configuration as a user does; return the deployment's id."""
    person, path = Person(server), f"{CONFIGURATIONS}/{device_id}"
    assert person("PUT", path, values).status == 204
    reply = person("POST", f"{path}/deploy", {"retries": 0})
    assert reply.status == 200
    deployment: str = reply.json["deployment_id"]
    return deployment


def test_a_device_sees_what_was_set_and_a_user_what_was_reported(server: DevServer) -> None:
    device, person = RawDevice(server).accepted(), Person(server)
    path = f"{CONFIGURATIONS}/{server.device().id}"
    values = {**VALUES, "password": {"value": "secret", "hidden": True}}
    deployment = configured(server, server.device().id, values)
    assert device.call("GET", CONFIGURATION).json == {**VALUES, "password": {"hidden": True}}
    assert device.call("PUT", CONFIGURATION, {"timezone": "UTC"}).status == 204
    shown = person("GET", path).json
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
            f"malformed request body: {NO_OBJECT}",
        ),
        (b"{", "malformed request body: unexpected EOF"),
    ],
)
def test_bad_configurations(server: DevServer, body: Any, error: str) -> None:
    device, person = RawDevice(server).accepted(), Person(server)
    for reply in (
        device.call("PUT", CONFIGURATION, body),
        person("PUT", f"{CONFIGURATIONS}/{server.device().id}", body),
    ):
        assert (reply.status, reply.json["error"]) == (400, error)


def test_devices_without_a_configuration(server: DevServer) -> None:
    RawDevice(server).authorize()
    person = Person(server)
    for device_id in (NOBODY, server.device().id):
        for method, path in (("GET", device_id), ("POST", f"{device_id}/deploy")):
            reply = person(method, f"{CONFIGURATIONS}/{path}", None if method == "GET" else {})
            assert (reply.status, reply.json["error"]) == (404, "device does not exist")


def test_a_decommissioned_device_leaves_no_configuration(server: DevServer) -> None:
    device = RawDevice(server).accepted()
    device_id = server.device().id
    deployment = configured(server, device_id)
    server.decommission()
    assert Person(server)("GET", f"{CONFIGURATIONS}/{device_id}").status == 404
    assert server.status(deployment) == "decommissioned"
    assert device.call("GET", CONFIGURATION).status == 401


def test_a_configuration_is_deployed_like_an_artifact(server: DevServer) -> None:
    device, person = RawDevice(server).accepted(), Person(server)
    device_id = server.device().id
    deployment = configured(server, device_id)
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
    shown = person("GET", f"{DEPLOYMENTS}/{deployment}").json
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
def test_the_artifact_of_a_configuration_is_a_real_one(server: DevServer, tmp_path: Path) -> None:
    device = RawDevice(server).accepted()
    configured(server, server.device().id)
    path = tmp_path / "c.mender"
    path.write_bytes(fetch(server, "GET", device.link()).body)
    done = subprocess.run([MENDER_ARTIFACT, "read", path], check=True, capture_output=True, text=True)
    for words in ("mender-configure", "data-partition.mender-configure.version", '"timezone": "Europe/Oslo"'):
        assert words in done.stdout


def test_the_client_hands_a_configuration_to_the_sub_updater(accepted: Device, server: DevServer) -> None:
    accepted.sub_updater('cp "$1" "$MENDER_DATASTORE_DIR/taken"; $ONESHOT report --success\n')
    deployment = configured(server, server.device().id)
    accepted.ok("run", "--all")
    server.wait_for(lambda seen: b'"success"' in seen.body)
    assert server.status_history(deployment)[-1] == "success"
    assert read_header(accepted.data / "taken").name == f"configuration-{deployment}"
