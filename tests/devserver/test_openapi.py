"""The development server's device endpoints respond as the real server's OpenAPI descriptions specify.

`DEVIATIONS` lists where the real server is known to respond otherwise, and why.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
from helpers import openapi
from helpers.artifacts import make_artifact
from helpers.raw_device import (
    ATTRIBUTES,
    AUTH,
    DEPLOYMENTS,
    ED25519,
    NEXT,
    RawDevice,
    Reply,
    fetch,
    public_pem,
    sign,
)

from mender_oneshot.devserver import DevServer, validation

FILES = ("deviceauth/devices_v1.yaml", "inventory/devices_v1.yaml", "deployments/devices_v1.yaml")
STATUS = f"{DEPLOYMENTS}/{{id}}/status"
LOG = f"{DEPLOYMENTS}/{{id}}/log"
CONFIGURATION = "/api/devices/v1/deployments/download/configuration/{deployment_id}/{device_type}/{device_id}"
UNDESCRIBED = "the service checks this before the endpoint does, and no description has it"
EMPTY = "a token that is no longer valid is rejected with an empty body"

# (method, path, status) -> why the response is not as described.
DEVIATIONS = {
    ("POST", AUTH, 200): "the token is plain text of type application/jwt, not JSON",
    ("POST", AUTH, 413): UNDESCRIBED,
    ("POST", AUTH, 415): UNDESCRIBED,
    ("PUT", ATTRIBUTES, 401): EMPTY,
    ("PATCH", ATTRIBUTES, 401): EMPTY,
    ("GET", NEXT, 401): EMPTY,
    ("PUT", STATUS, 401): EMPTY,
    ("PUT", LOG, 401): EMPTY,
    ("PUT", ATTRIBUTES, 413): UNDESCRIBED,
    ("PUT", ATTRIBUTES, 415): UNDESCRIBED,
    ("PUT", STATUS, 415): UNDESCRIBED,
    ("PUT", LOG, 413): UNDESCRIBED,
    ("GET", CONFIGURATION, 200): "an artifact, which is described as application/json, has another type",
}


@dataclass
class Exchange:
    """One request and its reply, with the path as in the description."""

    method: str
    path: str
    body: Any
    reply: Reply

    @property
    def key(self) -> tuple[str, str, int]:
        return self.method, self.path, self.reply.status


@pytest.fixture(scope="module")
def operations() -> dict[tuple[str, str], Any]:
    found = {}
    for name in FILES:
        for path, methods in openapi.load(name)["paths"].items():
            for method, operation in methods.items():
                found[method.upper(), path] = operation
    return found


class Driver:
    """Sends requests until every endpoint has responded with every status."""

    def __init__(self, server: DevServer, clock: list[float]) -> None:
        self.server = server
        self.clock = clock
        self.exchanges: list[Exchange] = []
        self.device = RawDevice(server)

    def auth(self, body: Any = None, **headers: str) -> None:
        if body is None:
            body = {"id_data": json.dumps(self.device.identity), "pubkey": public_pem(ED25519)}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"X-MEN-Signature": sign(ED25519, raw), **headers}
        reply = fetch(self.server, "POST", self.server.url + AUTH, raw, headers)
        self.exchanges.append(Exchange("POST", AUTH, None if isinstance(body, bytes) else body, reply))

    def call(self, method: str, path: str, body: Any = None, /, query: str = "", **headers: str) -> Reply:
        where = path.replace("{id}", self.deployment) if "{id}" in path else path
        reply = self.device.call(method, where + query, body, **headers)
        self.exchanges.append(Exchange(method, path, None if isinstance(body, bytes) else body, reply))
        return reply

    deployment = "6f9c3a0c-6a0c-4c5b-8a3e-0d3c5d2b1a00"

    def drive(self) -> list[Exchange]:
        self.authorization()
        self.inventory()
        self.deployments()
        self.configuration()
        return self.exchanges

    def authorization(self) -> None:
        self.auth()
        self.server.accept()
        self.auth()
        self.auth(**{"X-MEN-Signature": "bm8="})
        self.auth(**{"X-MEN-Signature": ""})
        self.auth({"id_data": "[]", "pubkey": ""})
        self.auth(**{"Content-Type": "text/plain"})
        self.auth(b" " * (validation.BODY_LIMIT + 1))
        self.device.authorize()
        self.server.revoke_tokens()
        for method, path in (("PUT", ATTRIBUTES), ("PATCH", ATTRIBUTES), ("PUT", STATUS), ("PUT", LOG)):
            self.call(method, path, [])
        self.call("GET", NEXT)
        self.device.authorize()

    def inventory(self) -> None:
        values = [{"name": str(n), "value": v} for n, v in enumerate(("a", 1, 2.5, ["a"], [1, 2]))]
        for method in ("PUT", "PATCH"):
            self.call(method, ATTRIBUTES, values)
            self.call(method, ATTRIBUTES, [{"name": "a", "value": None}])
        self.call("PUT", ATTRIBUTES, [{"name": "a", "value": "a" * validation.BODY_LIMIT}])
        self.call("PUT", ATTRIBUTES, b"a=b", **{"Content-Type": "text/plain"})

    def deployments(self) -> None:
        query = "?artifact_name=release-1&device_type=board"
        self.call("GET", NEXT)
        self.call("GET", NEXT, query=query)
        messages = [{"timestamp": "2026-11-23T12:00:00Z", "level": "info", "message": "m"}]
        self.call("PUT", STATUS, {"status": "success"})
        self.call("PUT", LOG, {"messages": messages})
        self.deployment = self.server.deploy("release-2")
        self.call("GET", NEXT, query=query)
        for status in sorted(validation.FROM_DEVICE):
            self.call("PUT", STATUS, {"status": status, "substate": "some"})
        self.call("PUT", STATUS, {"status": "aborted"})
        self.call("PUT", STATUS, {})
        self.call("PUT", STATUS, b"success", **{"Content-Type": "text/plain"})
        self.call("PUT", LOG, {"messages": messages})
        self.call("PUT", LOG, {"messages": []})
        self.call("PUT", LOG, {"messages": messages * (validation.BODY_LIMIT // 60)})
        self.device.status(self.deployment, "downloading")
        self.call("GET", NEXT, query=query.replace("release-1", "release-2"))
        deployment = self.server.deploy("release-2")
        self.device.next()
        self.server.abort(deployment)
        self.deployment = deployment
        self.call("PUT", STATUS, {"status": "installing"})
        self.deployment = "nonsense"
        self.call("PUT", LOG, {"messages": messages})

    def configuration(self) -> None:
        self.server.deploy("", configuration={"key": "value"})
        link = self.device.link()
        bad = link.replace("x-men-signature=", "x-men-signature=0")
        for late, url in ((0, link), (0, bad), (0, link.partition("?")[0]), (900, link)):
            self.clock[0] += late
            self.exchanges.append(Exchange("GET", CONFIGURATION, None, fetch(self.server, "GET", url)))


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    directory, clock = tmp_path_factory.mktemp("openapi"), [1e9]
    with DevServer(directory / "server", tls=False, clock=lambda: clock[0]) as server:
        server.upload(make_artifact(directory / "a.mender"))
        yield Driver(server, clock).drive()


def check(value: Any, schema: Any) -> None:
    """Validate a value, including its date-times."""
    formats = jsonschema.FormatChecker(formats=())
    formats.checks("date-time")(lambda text: not isinstance(text, str) or validation.is_rfc3339(text))
    jsonschema.Draft202012Validator(schema, format_checker=formats).validate(value)


def test_accepted_requests_are_as_described(
    operations: dict[tuple[str, str], Any], exchanges: list[Exchange]
) -> None:
    checked = 0
    for exchange in exchanges:
        if exchange.reply.status < 300 and exchange.body is not None:
            content = operations[exchange.method, exchange.path]["requestBody"]["content"]
            check(exchange.body, content["application/json"]["schema"])
            checked += 1
    assert checked > 10


def test_replies_are_as_described(operations: dict[tuple[str, str], Any], exchanges: list[Exchange]) -> None:
    for exchange in exchanges:
        if exchange.key in DEVIATIONS:
            continue
        described = operations[exchange.method, exchange.path]["responses"].get(str(exchange.reply.status))
        assert described, f"{exchange.key} is not described"
        content = described.get("content")
        if not content:
            continue  # Not described.
        kind = exchange.reply.headers["Content-Type"]
        check(exchange.reply.json, content[kind]["schema"])
        if exchange.reply.status >= 400:
            assert exchange.reply.json["request_id"] == exchange.reply.headers["X-MEN-RequestID"]


def test_every_described_reply_is_tested(
    operations: dict[tuple[str, str], Any], exchanges: list[Exchange]
) -> None:
    described = {
        (*key, int(code)) for key, operation in operations.items() for code in operation["responses"]
    }
    missing = described - {exchange.key for exchange in exchanges}
    # 5xx needs a broken server, and no released route responds with the 404 of `next`.
    assert {key for key in missing if key[2] < 500} == {("GET", NEXT, 404)}


def test_every_deviation_still_exists(exchanges: list[Exchange]) -> None:
    assert DEVIATIONS.keys() <= {exchange.key for exchange in exchanges}
