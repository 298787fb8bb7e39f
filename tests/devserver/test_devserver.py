"""The development server behaves as `reference/device-api.md` describes the real one."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from helpers.raw_device import (
    ATTRIBUTES,
    AUTH,
    DEPLOYMENTS,
    NEXT,
    NEXT_V2,
    ManualClock,
    RawDevice,
    fetch,
    get,
    public_pem,
    sign,
)

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.validation import HTTPError


def test_clients_that_trust_its_ca_connect_by_name_and_address(tmp_path: Path) -> None:
    with DevServer(tmp_path, accept_all=True) as server:
        ca = server.ca.read_bytes()
        for name in ("127.0.0.1", "localhost"):
            url = server.url.replace("127.0.0.1", name) + "/nothing"
            assert fetch(server, "GET", url).body == b"404 page not found\n"
        assert RawDevice(server).authorize().status == 200
    with DevServer(tmp_path) as again:
        assert again.ca.read_bytes() == ca, "devices trust this CA"


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
def test_a_device_with_any_kind_of_key_gets_a_token_once_accepted(server: DevServer, key: Any) -> None:
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
def test_a_bad_auth_request_is_rejected_and_adds_no_device(
    server: DevServer, status: int, body: bytes, headers: dict[str, str]
) -> None:
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


def test_accepting_another_key_rejects_the_first(server: DevServer, device: RawDevice) -> None:
    other = RawDevice(server, key=ed25519.Ed25519PrivateKey.generate())
    assert other.authorize().status == 401
    server.accept(server.device().id)
    assert (other.authorize().status, device.next().status) == (200, 401)
    assert [s.status for s in server.device().auth_sets] == ["rejected", "accepted"]


def test_a_token_ends_by_revocation_rejection_decommissioning_or_age(
    server: DevServer, device: RawDevice, clock: ManualClock
) -> None:
    older = device.token
    clock.now += 1
    device.authorize()
    assert device.token != older
    assert [device.next().status, RawDevice(server).next().status] == [204, 401]
    device.token, newer = older, device.token
    assert device.next().status == 204, "a new token must not invalidate the old one"
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


BAD_VALUES: list[Any] = [None, True, {}, [1, "x"], [True], [[]], float("nan")]


def named(count: int, prefix: str = "n") -> list[dict[str, Any]]:
    return [{"name": f"{prefix}{number}", "value": number} for number in range(count)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, [{"name": "a", "value": value} for value in ("", 1, 1.5, [], ["x"], [1, 2])]),
        (200, [{"name": "n" * 1024, "value": "v", "description": "d", "scope": "tags"}]),
        (200, named(100)),
        (400, named(101)),
        *((400, [{"name": "fine", "value": "v"}, {"name": "a", "value": v}]) for v in BAD_VALUES),
        (400, [{"name": "", "value": "v"}]),
        (400, [{"name": "n" * 1025, "value": "v"}]),
        (400, [{"value": "v"}]),
        (400, {"a": "b"}),
        (413, [{"name": "a", "value": "v" * 1024 * 1024}]),
    ],
)
def test_one_invalid_attribute_rejects_the_whole_inventory(
    server: DevServer, device: RawDevice, status: int, body: Any
) -> None:
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


def test_every_next_response_has_a_new_link(
    server: DevServer, device: RawDevice, artifact: bytes, clock: ManualClock
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
def test_next_without_both_parameters_is_rejected(device: RawDevice, query: str) -> None:
    assert device.call("GET", f"{NEXT}?{query}").status == 400
    assert device.call("GET", f"{NEXT}?artifact_name={'a' * 4097}&device_type=b").status == 400


def test_next_accepts_get_post_and_v2_if_enabled(
    tmp_path: Path, artifact: bytes, server: DevServer, device: RawDevice
) -> None:
    server.deploy("release-2")
    provides = {"artifact_name": "release-1", "device_type": "board", "rootfs-image.version": "1"}
    assert device.call("POST", NEXT, provides).status == 200
    assert device.call("POST", NEXT, {"artifact_name": "release-1"}).status == 400
    assert device.next().status == 200, (
        "the server must read no more of a flat body than what GET contains too"
    )
    with DevServer(tmp_path / "v2", tls=False, accept_all=True, v2=True) as newer:
        reply = RawDevice(newer).accepted().call("POST", NEXT_V2, {"device_provides": provides})
    assert reply.status == 204


def test_changed_data_fail_the_deployment(server: DevServer, device: RawDevice, artifact: bytes) -> None:
    deployment = server.deploy("release-2")
    assert [device.next().status, device.next("release-2").status, device.next().status] == [200, 409, 204]
    assert server.status_history(deployment) == ["failure"]


def test_an_installed_artifact_ends_the_deployment_unless_forced(
    server: DevServer, device: RawDevice, artifact: bytes
) -> None:
    deployment, forced = server.deploy("release-2"), server.deploy("release-2", force_installation=True)
    assert (device.next("release-2").status, server.status(deployment)) == (204, "already-installed")
    assert device.next("release-2").json["id"] == forced


def test_a_deployment_without_a_suitable_artifact_ends_as_noartifact(
    server: DevServer, device: RawDevice, artifact: bytes
) -> None:
    deployment = server.deploy("release-2")
    assert (device.next(device_type="toaster").status, server.status(deployment)) == (204, "noartifact")
    with pytest.raises(HTTPError, match="No artifact"):
        server.deploy("release-3")


def test_next_offers_the_oldest_active_deployment_and_none_before_it(
    server: DevServer, device: RawDevice, artifact: bytes
) -> None:
    first, second = server.deploy("release-2"), server.deploy("release-2")
    assert device.next().json["id"] == first
    assert device.status(second, "downloading") == 404, "not offered yet"
    device.status(first, "success")
    assert device.next().json["id"] == second
    device.status(second, "failure")
    assert device.next().status == 204
    assert device.status(first, "downloading") == 204, "the order must not matter"
    assert device.next().json["id"] == first
    assert server.status_history(first) == ["success", "downloading"]


def test_a_status_report_after_an_abort_is_answered_with_409(
    server: DevServer, device: RawDevice, artifact: bytes
) -> None:
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
def test_only_statuses_of_devices_are_accepted(
    server: DevServer, device: RawDevice, artifact: bytes, code: int, body: Any
) -> None:
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
def test_one_invalid_log_message_rejects_the_whole_log(
    server: DevServer, device: RawDevice, artifact: bytes, code: int, messages: Any
) -> None:
    deployment = server.deploy("release-2")
    device.next()
    reply = device.call("PUT", f"{DEPLOYMENTS}/{deployment}/log", {"messages": messages})
    assert (reply.status, server.log(deployment)) == (code, messages if code == 204 else None)


def test_logs_of_unknown_deployments_are_rejected(server: DevServer, device: RawDevice) -> None:
    codes = [
        device.call("PUT", f"{DEPLOYMENTS}/{name}/log", {"messages": [GOOD]}).status
        for name in ("nonsense", "6f9c3a0c-6a0c-4c5b-8a3e-0d3c5d2b1a00")
    ]
    assert codes == [500, 404]


def test_a_configuration_link_ignores_ranges_and_expires(
    server: DevServer, device: RawDevice, clock: ManualClock
) -> None:
    server.deploy("configuration-1", configuration=b"0123456789")
    link = device.link()
    assert link.startswith(f"{server.url}/api/devices/v1/deployments/download/configuration/")
    reply = get(server, link, Range="bytes=5-")
    assert (reply.status, reply.body, reply.headers["Accept-Ranges"]) == (200, b"0123456789", None)
    assert get(server, link[:-1] + ("0" if link[-1] != "0" else "1")).status == 403
    assert get(server, link.partition("?")[0]).status == 400
    clock.now += 900
    assert get(server, link).status == 403
