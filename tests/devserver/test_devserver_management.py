"""The development server's management API, its faults over HTTP, and the program."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from helpers.artifacts import make_artifact
from helpers.device import REPO
from helpers.raw_device import DEPLOYMENTS, RawDevice, fetch, public_pem
from helpers.raw_user import RawUser, basic

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.management_api import DEVICES, INVENTORY, LOGIN, PREFIX
from mender_oneshot.devserver.management_deployments import DEPLOYMENTS as MANAGED

MENDER_ARTIFACT = shutil.which("mender-artifact") or ""


def test_only_an_email_address_or_the_given_user_can_log_in(tmp_path: Path, server: DevServer) -> None:
    assert fetch(server, "GET", server.url + DEVICES).status == 401
    for login, status in (("me:secret", 401), ("me@example.com:", 401), ("me@example.com:secret", 200)):
        assert fetch(server, "POST", server.url + LOGIN, b"", basic(login)).status == status
    with DevServer(tmp_path / "strict", tls=False, user=("me", "secret")) as strict:
        for headers, status in ((basic("me:secret"), 200), (basic("me:wrong"), 401), ({}, 401)):
            assert fetch(strict, "POST", strict.url + LOGIN, b"", headers).status == status


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (f"{DEVICES}?page=0", "invalid page query: value must be a non-zero positive integer"),
        (f"{DEVICES}?per_page=x", 'invalid per_page query: "x"'),
        (f"{DEVICES}?per_page=501", 'parameter "per_page" above limit (max: 500)'),
        (
            f"{DEVICES}?status=none",
            "filter status must be one of: accepted, pending, rejected, preauthorized or noauth",
        ),
        (f"{MANAGED}?status=none", "unknown status none"),
    ],
)
def test_a_bad_query_is_rejected_with_the_servers_message(user: RawUser, path: str, error: str) -> None:
    reply = user("GET", path)
    assert (reply.status, reply.json["error"]) == (400, error)


def test_a_deployment_to_all_devices_needs_an_accepted_one(
    tmp_path: Path, server: DevServer, user: RawUser
) -> None:
    server.upload(make_artifact(tmp_path / "a.mender"))
    wanted = {"name": "d", "artifact_name": "release-2", "all_devices": True}
    reply = user("POST", MANAGED, wanted)
    assert (reply.status, reply.json["error"]) == (400, "No devices for the deployment")
    device = RawDevice(server).accepted()
    reply = user("POST", MANAGED, wanted)
    assert (reply.status, device.next().status) == (201, 200)
    reply = user("POST", MANAGED, wanted | {"devices": [server.device().id]})
    assert (reply.status, "togheter with all_devices" in reply.json["error"]) == (400, True)


def test_a_decommissioned_device_ends_two_deployments_at_most(tmp_path: Path, server: DevServer) -> None:
    server.upload(make_artifact(tmp_path / "a.mender"))
    device = RawDevice(server).accepted()
    ids = [server.deploy("release-2") for _ in range(3)]
    device.next()
    server.decommission()
    assert [server.status(deployment) for deployment in ids] == [
        "decommissioned",
        "decommissioned",
        "pending",
    ]


def test_a_preauthorized_device_gets_its_token_at_once(server: DevServer, user: RawUser) -> None:
    device = RawDevice(server)
    wanted = {"identity_data": device.identity, "pubkey": public_pem(device.key)}
    reply = user("POST", DEVICES, wanted)
    assert (reply.status, reply.headers["Location"]) == (201, f"devices/{server.device().id}")
    assert user("GET", f"{DEVICES}/count?status=preauthorized").json == {"count": 1}
    assert user("POST", DEVICES, wanted).json["status"] == "preauthorized"
    other = RawDevice(server, key=ed25519.Ed25519PrivateKey.generate())
    assert [other.authorize().status, device.authorize().status] == [401, 200]
    assert [s.status for s in server.device().auth_sets] == ["accepted", "pending"]
    assert user("GET", f"{DEVICES}/count?status=accepted").json == {"count": 1}


def test_a_user_revokes_the_tokens_of_an_auth_set(server: DevServer, user: RawUser) -> None:
    device = RawDevice(server).accepted()
    assert device.next().status == 204
    path = f"{PREFIX}v2/devauth/tokens/{server.device().auth_sets[0].id}"
    assert [user("DELETE", path).status, user("DELETE", path).status] == [204, 404]
    assert (device.next().status, device.next().body) == (401, b"")
    assert device.authorize().status == 200


TOKENLESS = "Authorization not present in header"


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, TOKENLESS),
        ("", TOKENLESS),
        ("Basic bWU6c2VjcmV0", "unknown Authorization method Basic"),
        ("Bearer", "malformed Authorization header"),
        ("Bearer a b", "malformed Authorization header"),
        ("Bearer x", "identity: incorrect token format"),
        ("Bearer a.b.c.d", "identity: incorrect token format"),
        ("Bearer a.e30.c", 'identity: claim "sub" is required'),
    ],
)
def test_a_text_that_is_not_a_token_is_rejected_by_the_gateway(
    server: DevServer, authorization: str | None, error: str
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in (DEVICES, f"{DEPLOYMENTS}/next"):
        reply = fetch(server, "GET", server.url + path, None, headers)
        assert (reply.status, reply.json["error"]) == (401, error)
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="ManagementJWT"'


def test_a_user_accepts_a_device_sees_its_inventory_and_removes_it(server: DevServer, user: RawUser) -> None:
    device = RawDevice(server)
    device.authorize()
    (found,) = user("GET", f"{DEVICES}?status=pending").json
    assert (found["identity_data"], found["auth_sets"][0]["status"]) == (device.identity, "pending")
    path = f"{DEVICES}/{found['id']}"
    for status in ("accepted", "rejected", "pending", "accepted"):
        assert (
            user("PUT", f"{path}/auth/{found['auth_sets'][0]['id']}/status", {"status": status}).status == 204
        )
        assert device.authorize().status == (200 if status == "accepted" else 401)
    assert user("PUT", f"{path}/auth/none/status", {"status": "accepted"}).status == 404
    device.call("PUT", "/api/devices/v1/inventory/device/attributes", [{"name": "a", "value": "b"}])
    (inventory,) = user("GET", INVENTORY).json
    assert {"name": "a", "value": "b", "scope": "inventory"} in inventory["attributes"]
    assert user("GET", f"{INVENTORY}/{found['id']}").json == inventory
    assert [user("DELETE", path).status, user("DELETE", path).status] == [204, 404]
    assert device.next().status == 401


@pytest.mark.real
@pytest.mark.skipif(not MENDER_ARTIFACT, reason="mender-artifact is not installed")
@pytest.mark.parametrize("compression", ["none", "gz", "xz"])
def test_mender_artifact_validates_our_artifacts(tmp_path: Path, server: DevServer, compression: str) -> None:
    path = make_artifact(tmp_path / "a.mender", device_types=["board", "b2"], compression=compression)
    assert server.upload(path)
    for verb in ("read", "validate"):
        done = subprocess.run([MENDER_ARTIFACT, verb, path], check=True, capture_output=True, text=True)
        assert "release-2" in done.stdout or "validated successfully" in done.stdout


@pytest.mark.parametrize("chunked", [False, True])
def test_an_uploaded_artifact_is_served_as_it_was_and_survives_a_restart(
    tmp_path: Path, server: DevServer, user: RawUser, chunked: bool
) -> None:
    content = make_artifact(tmp_path / "a.mender", payload={"f": os.urandom(400_000)}).read_bytes()
    reply = user.upload(content, chunked=chunked)
    assert reply.status == 201
    found = user("GET", reply.headers["Location"]).json
    assert (found["name"], found["description"], found["size"]) == ("release-2", "ours", len(content))
    assert found["device_types_compatible"] == ["board"]
    device = RawDevice(server).accepted()
    server.deploy("release-2")
    assert fetch(server, "GET", device.link()).body == content
    again, broken = user.upload(content), user.upload(b"not an artifact")
    assert (again.status, broken.status) == (409, 400)
    assert len(list((tmp_path / "server" / "artifacts").iterdir())) == 1
    assert user("DELETE", reply.headers["Location"]).status == 409, "in use"
    with DevServer(tmp_path / "server", tls=False) as restarted:
        assert [a.name for a in restarted.artifacts] == ["release-2"]


def test_a_user_follows_a_deployment_and_aborts_it(tmp_path: Path, server: DevServer, user: RawUser) -> None:
    server.upload(make_artifact(tmp_path / "a.mender"))
    device = RawDevice(server).accepted()
    wanted = {"name": "d", "artifact_name": "release-2", "devices": [server.device().id]}
    path = user("POST", MANAGED, wanted).headers["Location"]
    deployment = path.rpartition("/")[2]
    assert user("GET", path).json["status"] == "pending"
    assert device.next().json["id"] == deployment
    device.status(deployment, "downloading", substate="half")
    (mine,) = user("GET", f"{path}/devices").json
    assert (mine["status"], mine["substate"], mine["log"]) == ("downloading", "half", False)
    assert user("GET", path).json["statistics"]["status"]["downloading"] == 1
    assert user("GET", f"{path}/statistics").json["downloading"] == 1
    log = f"{path}/devices/{mine['id']}/log"
    assert user("GET", log).status == 404
    messages = [{"timestamp": "2026-11-23T12:00:00Z", "level": "info", "message": "m"}]
    device.call("PUT", f"{DEPLOYMENTS}/{deployment}/log", {"messages": messages})
    assert user("GET", log).body == b"2026-11-23 12:00:00 +0000 UTC info: m\n"
    statuses = [user("PUT", f"{path}/status", {"status": s}).status for s in ("done", "aborted", "aborted")]
    assert statuses == [400, 204, 422]
    assert device.status(deployment, "success") == 409
    assert [d["id"] for d in user("GET", f"{MANAGED}?status=finished").json] == [deployment]
    assert user("POST", MANAGED, wanted | {"artifact_name": "none"}).status == 422
    assert user("POST", MANAGED, {"name": "d"}).status == 400


def test_faults_can_be_added_and_cleared_over_http_and_tokens_are_masked(server: DevServer) -> None:
    device, url = RawDevice(server).accepted(), f"{server.url}/devserver"
    assert fetch(server, "POST", f"{url}/faults", {"match": "GET */next", "status": 500}).status == 204
    assert [device.next().status, device.next().status] == [500, 204]
    assert fetch(server, "POST", f"{url}/faults", {"match": "GET */next", "nonsense": 1}).status == 400
    fetch(server, "POST", f"{url}/faults", {"match": "*", "count": None, "status": 500})
    fetch(server, "DELETE", f"{url}/faults")
    assert device.next().status == 204
    seen = fetch(server, "GET", f"{url}/requests").json
    assert [s["status"] for s in seen[-3:]] == [500, 204, 204]
    assert seen[-1]["headers"]["Authorization"] == "***"
    assert device.token not in json.dumps([s["headers"] for s in seen])


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "mender_oneshot.devserver", *options]
    return subprocess.Popen(command, cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_until_a_signal_and_logs_no_query(tmp_path: Path, number: signal.Signals) -> None:
    with start("--http", "--port", "0", "--directory", str(tmp_path / "d")) as program:
        assert program.stdout
        found = re.match(r"Serving (http://127.0.0.1:(\d+)),", program.stdout.readline())
        assert found
        with urllib.request.urlopen(f"{found[1]}/devserver/requests") as reply:
            assert json.load(reply) == []
        with pytest.raises(urllib.error.HTTPError, match="Unauthorized") as caught:
            urllib.request.urlopen(f"{found[1]}/api/devices/v1/deployments/any?secret=1")
        caught.value.close()
        with start("--port", found[2], "--directory", str(tmp_path / "e")) as second:
            _, error = second.communicate()
            assert (second.returncode, error.count("\n")) == (78, 1)
        program.send_signal(number)
        _, error = program.communicate()
    assert program.returncode == 0
    assert re.fullmatch(r"GET /api/devices/v1/deployments/any 401 \d+\n", error)


def test_an_unusable_directory_ends_the_program_with_73(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with start("--directory", str(tmp_path / "file")) as program:
        _, error = program.communicate()
    assert (program.returncode, error.count("\n")) == (73, 1)
