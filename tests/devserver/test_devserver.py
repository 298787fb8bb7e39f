"""The development server behaves as `reference/device-api.md` says the real one does."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from helpers.artifacts import make_artifact
from helpers.raw_device import (
    ATTRIBUTES,
    AUTH,
    DEPLOYMENTS,
    NEXT,
    NEXT_V2,
    RawDevice,
    Reply,
    fetch,
    public_pem,
    sign,
)

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.validation import HTTPError

SIZE = 300_000


class Clock:
    """A time that moves when told to."""

    now = 1_000_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[DevServer]:
    before = threading.active_count()
    with DevServer(tmp_path / "server", tls=False, clock=clock) as server:
        yield server
    assert threading.active_count() == before


@pytest.fixture
def device(server: DevServer) -> RawDevice:
    return RawDevice(server).accepted()


@pytest.fixture
def artifact(server: DevServer, tmp_path: Path) -> bytes:
    path = make_artifact(tmp_path / "a.mender", payload={"big": bytes(SIZE)}, compression="none")
    server.upload(path)
    return path.read_bytes()


def get(server: DevServer, url: str, method: str = "GET", /, **headers: str) -> Reply:
    return fetch(
        server, method, url, None, {name.replace("_", "-"): value for name, value in headers.items()}
    )


# --- Authorization -----------------------------------------------------------------------------------------


def test_tls_with_its_own_certificate(tmp_path: Path) -> None:
    with DevServer(tmp_path, accept_all=True) as server:
        ca = server.ca.read_bytes()
        for name in ("127.0.0.1", "localhost"):
            url = server.url.replace("127.0.0.1", name) + "/nothing"
            assert fetch(server, "GET", url).body == b"404 page not found\n"
        assert RawDevice(server).authorize().status == 200
    with DevServer(tmp_path) as again:
        assert again.ca.read_bytes() == ca, "devices were told to trust it"


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa", "p256", "p384", "ed25519"],
)
def test_every_kind_of_key(server: DevServer, key: Any) -> None:
    device = RawDevice(server, key=key)
    first = device.authorize()
    assert (first.status, first.json["error"]) == (401, "dev auth: unauthorized")
    assert first.json["request_id"] == first.headers["X-MEN-RequestID"]
    server.accept()
    second = device.authorize()
    assert (second.status, second.headers["Content-Type"]) == (200, "application/jwt")
    claims = json.loads(base64.urlsafe_b64decode(second.body.split(b".")[1] + b"=="))
    found = server.device()
    assert (claims["sub"], claims["jti"]) == (found.id, found.auth_sets[0].id)
    assert claims["exp"] - claims["iat"] == 604800
    assert claims["mender.device"] is True


def auth_body(**changed: Any) -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return json.dumps({"id_data": '{"mac":"a"}', "pubkey": public_pem(key)} | changed).encode()


PKCS1 = (
    rsa.generate_private_key(65537, 2048)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    .decode()
)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, auth_body(), {"X-MEN-Signature": ""}),
        (401, auth_body(), {"X-MEN-Signature": "bm8="}),
        (401, auth_body(), {"X-MEN-Signature": "not base64"}),
        (400, auth_body(id_data={"mac": "a"}), {}),
        (400, auth_body(id_data='["a"]'), {}),
        (400, auth_body(id_data=""), {}),
        (400, auth_body(pubkey=PKCS1), {}),
        (400, auth_body(pubkey="nonsense"), {}),
        (400, b"{", {}),
        (400, b"[]", {}),
        (415, auth_body(), {"Content-Type": "text/plain"}),
        (400, auth_body(), {"Content-Type": ""}),
        (413, b" " * (1024 * 1024 + 1), {}),
    ],
)
def test_bad_auth_requests(server: DevServer, status: int, body: bytes, headers: dict[str, str]) -> None:
    reply = fetch(server, "POST", server.url + AUTH, body, {"X-MEN-Signature": "bm8=", **headers})
    assert (reply.status, server.devices) == (status, [])
    assert reply.json["error"]


def test_the_signature_covers_the_exact_bytes(server: DevServer) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    body = json.dumps({"id_data": "{}", "pubkey": public_pem(key)}, indent=1).encode()
    for sent, error in ((body, "dev auth: unauthorized"), (body + b" ", "signature verification failed")):
        reply = fetch(server, "POST", server.url + AUTH, sent, {"X-MEN-Signature": sign(key, body)})
        assert (reply.status, reply.json["error"]) == (401, error)


def test_identities_differ_by_type_not_by_order(server: DevServer) -> None:
    for identity in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": ["1"], "b": "2"}):
        RawDevice(server, identity).authorize()
    assert [d.identity["a"] for d in server.devices] == ["1", ["1"]]


def test_accepting_another_key_replaces_the_first(server: DevServer, device: RawDevice) -> None:
    other = RawDevice(server, key=ed25519.Ed25519PrivateKey.generate())
    assert other.authorize().status == 401
    server.accept(server.device().id)
    assert (other.authorize().status, device.next().status) == (200, 401)
    assert [s.status for s in server.device().auth_sets] == ["rejected", "accepted"]


def test_what_ends_a_token(server: DevServer, device: RawDevice, clock: Clock) -> None:
    older = device.token
    clock.now += 1
    device.authorize()
    assert device.token != older
    assert [device.next().status, RawDevice(server).next().status] == [204, 401]
    device.token, newer = older, device.token
    assert device.next().status == 204, "a new token does not end the old one"
    device.token = newer
    for end in (server.revoke_tokens, server.reject, server.decommission):
        end()
        assert device.next().status == 401
        device.accepted() if end == server.revoke_tokens else server.devices and server.accept(
            server.device().id
        )
        device.authorize()
    device.accepted()
    clock.now += 604799
    assert device.next().status == 204
    clock.now += 1
    assert device.next().status == 401


# --- Inventory ---------------------------------------------------------------------------------------------


NO_VALUES: list[Any] = [None, True, {}, [1, "x"], [True], [[]], float("nan")]


def named(count: int, prefix: str = "n") -> list[dict[str, Any]]:
    return [{"name": f"{prefix}{number}", "value": number} for number in range(count)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, [{"name": "a", "value": value} for value in ("", 1, 1.5, [], ["x"], [1, 2])]),
        (200, [{"name": "n" * 1024, "value": "v", "description": "d", "scope": "tags"}]),
        (200, named(100)),
        (400, named(101)),
        *((400, [{"name": "fine", "value": "v"}, {"name": "a", "value": v}]) for v in NO_VALUES),
        (400, [{"name": "", "value": "v"}]),
        (400, [{"name": "n" * 1025, "value": "v"}]),
        (400, [{"value": "v"}]),
        (400, {"a": "b"}),
        (413, [{"name": "a", "value": "v" * 1024 * 1024}]),
    ],
)
def test_inventory_rules(server: DevServer, device: RawDevice, status: int, body: Any) -> None:
    reply = device.call("PUT", ATTRIBUTES, body)
    assert reply.status == status
    assert (reply.body == b"") == (status == 200)
    assert bool(server.device().attributes) == (status == 200)


def test_put_replaces_and_patch_adds(server: DevServer, device: RawDevice) -> None:
    device.call("PUT", ATTRIBUTES, named(2))
    device.call("PATCH", ATTRIBUTES, [{"name": "n1", "value": "new"}, {"name": "n2", "value": 2}])
    assert server.device().attributes == {"n0": 0, "n1": "new", "n2": 2}
    device.call("PUT", ATTRIBUTES, named(1, "p"))
    assert server.device().attributes == {"p0": 0}
    assert device.call("PATCH", ATTRIBUTES, named(100)).status == 400
    scopes = {a.name: a.scope for a in server.device().all_attributes}
    assert scopes == {"mac": "identity", "status": "identity", "p0": "inventory"}
    assert device.call("GET", ATTRIBUTES).status == 405


# --- Deployments -------------------------------------------------------------------------------------------


def test_instructions_come_with_a_fresh_link(
    server: DevServer, device: RawDevice, artifact: bytes, clock: Clock
) -> None:
    assert (device.next().status, device.call("POST", NEXT_V2, {}).json["error"]) == (204, "not found")
    deployment = server.deploy("release-2")
    first = device.next().json
    assert first["id"] == deployment
    assert first["artifact"]["artifact_name"] == "release-2"
    assert first["artifact"]["device_types_compatible"] == ["board"]
    assert first["artifact"]["source"]["expire"] == "2001-09-10T01:46:40.250000Z"
    clock.now += 60
    second = device.next().json
    assert second["artifact"]["id"] == first["artifact"]["id"]
    assert second["artifact"]["source"] != first["artifact"]["source"]
    assert server.status(deployment) == "pending"


@pytest.mark.parametrize("query", ["", "artifact_name=a", "artifact_name=a&device_type=", "device_type=b"])
def test_next_needs_both_parameters(device: RawDevice, query: str) -> None:
    assert device.call("GET", f"{NEXT}?{query}").status == 400
    assert device.call("GET", f"{NEXT}?artifact_name={'a' * 4097}&device_type=b").status == 400


def test_the_forms_of_next(tmp_path: Path, artifact: bytes, server: DevServer, device: RawDevice) -> None:
    server.deploy("release-2")
    provides = {"artifact_name": "release-1", "device_type": "board", "rootfs-image.version": "1"}
    assert device.call("POST", NEXT, provides).status == 200
    assert device.call("POST", NEXT, {"artifact_name": "release-1"}).status == 400
    assert device.next().status == 200, "of a flat body the server reads only what GET gives too"
    with DevServer(tmp_path / "v2", tls=False, accept_all=True, v2=True) as newer:
        reply = RawDevice(newer).accepted().call("POST", NEXT_V2, {"device_provides": provides})
    assert reply.status == 204


def test_trap_changed_data_fail_the_deployment(server: DevServer, device: RawDevice, artifact: bytes) -> None:
    deployment = server.deploy("release-2")
    assert [device.next().status, device.next("release-2").status, device.next().status] == [200, 409, 204]
    assert server.status_history(deployment) == ["failure"]


def test_trap_already_installed(server: DevServer, device: RawDevice, artifact: bytes) -> None:
    deployment, forced = server.deploy("release-2"), server.deploy("release-2", force_installation=True)
    assert (device.next("release-2").status, server.status(deployment)) == (204, "already-installed")
    assert device.next("release-2").json["id"] == forced


def test_trap_no_artifact(server: DevServer, device: RawDevice, artifact: bytes) -> None:
    deployment = server.deploy("release-2")
    assert (device.next(device_type="toaster").status, server.status(deployment)) == (204, "noartifact")
    with pytest.raises(HTTPError, match="No artifact"):
        server.deploy("release-3")


def test_oldest_active_first_and_never_older_ones(
    server: DevServer, device: RawDevice, artifact: bytes
) -> None:
    first, second = server.deploy("release-2"), server.deploy("release-2")
    assert device.next().json["id"] == first
    assert device.status(second, "downloading") == 404, "not asked for yet"
    device.status(first, "success")
    assert device.next().json["id"] == second
    device.status(second, "failure")
    assert device.next().status == 204
    assert device.status(first, "downloading") == 204, "no order is enforced"
    assert device.next().json["id"] == first
    assert server.status_history(first) == ["success", "downloading"]


def test_abort_shows_as_409(server: DevServer, device: RawDevice, artifact: bytes) -> None:
    deployment = server.deploy("release-2")
    device.next()
    assert device.status(deployment, "downloading") == 204
    server.abort(deployment)
    assert [device.status(deployment, "installing"), device.next().status] == [409, 204]
    assert server.status_history(deployment) == ["downloading", "aborted"]


@pytest.mark.parametrize(
    ("code", "body"),
    [
        *(
            (204, {"status": s})
            for s in ("downloading", "installing", "rebooting", "pause_before_installing")
        ),
        *((204, {"status": s}) for s in ("success", "failure", "already-installed")),
        (204, {"status": "installing", "substate": "s" * 200}),
        (400, {"status": "installing", "substate": "s" * 201}),
        *(
            (400, {"status": s})
            for s in ("pending", "aborted", "noartifact", "decommissioned", "", "Success")
        ),
        (500, {}),
        (400, []),
    ],
)
def test_status_rules(server: DevServer, device: RawDevice, artifact: bytes, code: int, body: Any) -> None:
    deployment = server.deploy("release-2")
    device.next()
    assert device.call("PUT", f"{DEPLOYMENTS}/{deployment}/status", body).status == code
    assert server.status(deployment) == (body["status"] if code == 204 else "pending")


GOOD = {"timestamp": "2026-11-23T12:00:00.123456789+01:00", "level": "info", "message": "m"}


@pytest.mark.parametrize(
    ("code", "messages"),
    [
        (204, [GOOD, GOOD | {"timestamp": "2026-11-23T12:00:00Z", "level": "any word"}]),
        (400, []),
        (400, [GOOD, GOOD | {"message": ""}]),
        (400, [GOOD | {"level": ""}]),
        (400, [{"level": "info", "message": "m"}]),
        *(
            (400, [GOOD | {"timestamp": t}])
            for t in ("", "today", "2026-11-23 12:00:00Z", "2026-13-23T12:00:00Z")
        ),
        (400, [GOOD | {"timestamp": "2026-11-23T12:00:00"}]),
        (400, ["m"]),
        (413, [GOOD | {"message": "m" * 1024 * 1024}]),
    ],
)
def test_log_rules(server: DevServer, device: RawDevice, artifact: bytes, code: int, messages: Any) -> None:
    deployment = server.deploy("release-2")
    device.next()
    reply = device.call("PUT", f"{DEPLOYMENTS}/{deployment}/log", {"messages": messages})
    assert (reply.status, server.log(deployment)) == (code, messages if code == 204 else None)


def test_logs_of_unknown_deployments(server: DevServer, device: RawDevice) -> None:
    codes = [
        device.call("PUT", f"{DEPLOYMENTS}/{name}/log", {"messages": [GOOD]}).status
        for name in ("nonsense", "6f9c3a0c-6a0c-4c5b-8a3e-0d3c5d2b1a00")
    ]
    assert codes == [500, 404]


def test_configuration_deployments(server: DevServer, device: RawDevice, clock: Clock) -> None:
    server.deploy("configuration-1", configuration=b"0123456789")
    link = device.link()
    assert link.startswith(f"{server.url}/api/devices/v1/deployments/download/configuration/")
    reply = get(server, link, Range="bytes=5-")
    assert (reply.status, reply.body, reply.headers["Accept-Ranges"]) == (200, b"0123456789", None)
    assert get(server, link[:-1] + ("0" if link[-1] != "0" else "1")).status == 403
    assert get(server, link.partition("?")[0]).status == 400
    clock.now += 900
    assert get(server, link).status == 403
