"""Send some 250 fixed requests to a Mender server and print its answers, one per line, ready for diff.

usage: tests/probe.py URL ARTIFACT [EMAIL:PASSWORD]

ARTIFACT is an artifact of release `probe-1` for device type `probe-type`:
    mender-artifact write rootfs-image -t probe-type -n probe-1 -f FILE -o ARTIFACT
It is uploaded if the server does not have it. The devices and deployments that the requests need are not
removed afterwards. docs/reference/answers.tsv has the answers of the real server; a line consists of the
request, the status, the content type, and the error message or else the body. `<uuid>` and `<time>` replace
what differs between runs.
"""

import base64
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from helpers.raw_device import ATTRIBUTES, AUTH, DEPLOYMENTS, NEXT, NEXT_V2, Key, public_pem, sign

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NO_SUCH_ID = "00000000-0000-4000-8000-000000000000"
JSON = {"Content-Type": "application/json"}
OCTETS = "application/octet-stream"
LOGIN = "/api/management/v1/useradm/auth/login"
ARTIFACTS = "/v1/deployments/artifacts"
MANAGED = "/v1/deployments/deployments"
DEVICES = "/v2/devauth/devices"
CONFIGURATION = "/api/devices/v1/deviceconfig/configuration"
CONNECT = "/api/devices/v1/deviceconnect/connect"
TERMINALS = "/v1/deviceconnect/devices"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
QUERY = "?artifact_name=release-0&device_type=probe-type"
PROVIDES = {"artifact_name": "release-0", "device_type": "probe-type"}
STAMP = "2026-11-26T09:00:00Z"


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def message(**members: str) -> dict[str, Any]:
    """Return a deployment log of one message."""
    return {"messages": [members]}


def attribute(name: str, value: Any, **more: str) -> list[dict[str, Any]]:
    """Return an inventory of one attribute."""
    return [{"name": name, "value": value, **more}]


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Yield the names in an object with the types of their values; lists are not searched."""
    if isinstance(value, dict):
        for name in sorted(value):
            yield from keys(value[name], f"{path}.{name}")
    else:
        yield f"{path}:{type(value).__name__}"


def normalized(body: bytes) -> str:
    text = UUID.sub("<uuid>", body.decode("utf-8", "replace"))
    text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC ", "<time> ", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text).strip()[:400]


def described(body: bytes) -> str:
    """Return the message of an error, or the body."""
    try:
        found = json.loads(body)
    except ValueError:
        return normalized(body)
    if isinstance(found, dict) and "error" in found:
        return UUID.sub("<uuid>", found["error"]) + ("" if "request_id" in found else "   (no request_id)")
    if isinstance(found, dict) and "artifact" in found:
        return "<instructions>"
    return normalized(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode())


def decoded(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=="))


class Probe:
    """The requests, in an order in which each finds what it needs.

    `settle` is how many seconds a server takes until a rejected or decommissioned device has lost its token.
    """

    def __init__(
        self, url: str, artifact: Path, login: str, write: Callable[[str], object], settle: float
    ) -> None:
        urllib3.disable_warnings()
        self.url = url
        self.artifact = artifact.read_bytes()
        self.write = write
        self.settle = settle
        self.pool = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False)
        reply = self.ask("POST", LOGIN, b"", urllib3.make_headers(basic_auth=login))
        if reply.status != 200:
            raise SystemExit(f"Cannot log in: {reply.status} {described(reply.data)}")
        self.user = {"Authorization": f"Bearer {reply.data.decode().strip()}"}
        run = int(time.time())
        self.mac = f"a-{run}"
        self.names = (f"p{run}-{number}" for number in itertools.count())
        self.rsa: Key = rsa.generate_private_key(65537, 2048)
        self.keys: dict[str, Key] = {
            "rsa 3072": rsa.generate_private_key(65537, 3072),
            "p-256": ec.generate_private_key(ec.SECP256R1()),
            "p-384": ec.generate_private_key(ec.SECP384R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate(),
        }
        self.device = ""
        self.token = ""

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        return self.pool.request(
            method, self.url + path, body=body, headers=dict(headers or {}), redirect=False, retries=False
        )

    def manage(self, method: str, path: str, value: Any = None) -> Any:
        """Send a request to the management API."""
        if value is None:
            return self.ask(method, f"/api/management{path}", None, self.user)
        return self.ask(method, f"/api/management{path}", encoded(value), self.user | JSON)

    def show(self, question: str, reply: Any, header: str = "") -> Any:
        """Write the line of an answer; with `header`, that header too if it is present."""
        kind = (reply.headers.get("content-type") or "-").split(";")[0]
        text = described(reply.data).replace("\t", " ").replace("\n", " ")
        if header and header in reply.headers:
            text += f"   {header}: {reply.headers[header]}"
        self.write("\t".join((question, str(reply.status), kind, text)))
        return reply

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def both(self) -> dict[str, str]:
        """The headers with the token, and with the type of a JSON body."""
        return self.bearer | JSON

    def next(self, query: str = QUERY) -> Any:
        return self.ask("GET", NEXT + query, headers=self.bearer)

    def auth(
        self,
        question: str,
        key: Key,
        identity: Any = None,
        *,
        body: bytes | None = None,
        signature: str | None = None,
        more: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Request a token; the default identity is that of the first device, a string is sent as it is."""
        if body is None:
            id_data = identity if isinstance(identity, str) else json.dumps(identity or {"mac": self.mac})
            body = encoded({"id_data": id_data, "pubkey": public_pem(key), **(more or {})})
        signature = sign(key, body) if signature is None else signature
        sent = JSON | ({"X-MEN-Signature": signature} if signature else {}) | dict(headers or {})
        reply = self.ask("POST", AUTH, body, sent)
        if reply.status != 200:
            return self.show(question, reply)
        dots = reply.data.count(b".")
        self.write(f"{question}\t200\t{reply.headers.get('content-type', '-')}\t<token, {dots} dots>")
        return reply

    def found(self, mac: str) -> Any:
        """Return the device with an identity, as the management API shows it."""
        devices = json.loads(self.manage("GET", f"{DEVICES}?per_page=500").data)
        return next((d for d in devices if (d.get("identity_data") or {}).get("mac") == mac), None)

    def decide(self, mac: str, status: str = "accepted") -> tuple[str, int]:
        """Accept or reject a device; return its id, and the status of the answer."""
        device = self.found(mac)
        sets = device["auth_sets"]
        ranked = [[s for s in sets if s["status"] == wanted] for wanted in ("accepted", "pending")]
        chosen = next(filter(None, ranked), sets)[0]
        path = f"{DEVICES}/{device['id']}/auth/{chosen['id']}/status"
        return device["id"], self.manage("PUT", path, {"status": status}).status

    def deploy(self, device: str = "", **more: Any) -> str:
        time.sleep(min(self.settle, 0.01))  # The real server orders deployments by milliseconds.
        wanted = {"name": next(self.names), "artifact_name": "probe-1", "devices": [device or self.device]}
        reply = self.manage("POST", MANAGED, wanted | more)
        return str(reply.headers["location"]).rsplit("/", 1)[1]

    def offered(self, **more: Any) -> str:
        """Create a deployment, have the device request it, and return its id."""
        deployment = self.deploy(**more)
        self.next()
        return deployment

    def status(self, deployment: str, status: Any, /, headers: Any = None, **more: Any) -> Any:
        body = encoded({"status": status, **more})
        return self.ask("PUT", f"{DEPLOYMENTS}/{deployment}/status", body, headers or self.both)

    def log(self, deployment: str, value: Any) -> Any:
        body = value if isinstance(value, bytes) else encoded(value)
        return self.ask("PUT", f"{DEPLOYMENTS}/{deployment}/log", body, self.both)

    def abort(self, deployment: str) -> int:
        return int(self.manage("PUT", f"{MANAGED}/{deployment}/status", {"status": "aborted"}).status)

    def state(self, deployment: str) -> Any:
        """Return the status, the substate, and whether there is a log, of a deployment on the device."""
        reply = self.manage("GET", f"{MANAGED}/{deployment}/devices")
        try:
            found = json.loads(reply.data)[0]
            return found["status"], found.get("substate"), found.get("log")
        except (ValueError, LookupError):
            return normalized(reply.data)

    def write_state(self, deployment: str, indent: str = "") -> None:
        self.write(f"{indent}state {self.state(deployment)}")

    def run(self) -> None:
        self.authentication()
        self.tokens()
        self.asking_for_deployments()
        self.instructions()
        self.statuses()
        self.aborted()
        self.several_deployments()
        self.logs()
        self.inventory()
        self.unwelcome()
        device = self.configuration()
        self.terminal(device)
        self.artifacts()
        self.deployments(device)
        self.objects(device)
        self.devices(device)

    def authentication(self) -> None:
        self.write("# authentication")
        key, other = self.rsa, self.keys["rsa 3072"]
        self.auth("new device", key)
        self.auth("again while pending", key)
        self.auth("no signature", key, signature="")
        self.auth("signature is not base64", key, signature="%%%")
        self.auth("signature of something else", key, signature=sign(key, b"x"))
        self.auth("signed by another key", key, signature=sign(other, b"x"))
        identity, pem = json.dumps({"mac": self.mac}), public_pem(key)
        bodies = {
            "not json": b"{",
            "empty body": b"",
            "array": b"[]",
            "no pubkey": encoded({"id_data": identity}),
            "no id_data": encoded({"pubkey": pem}),
            "pubkey is not PEM": encoded({"pubkey": "x", "id_data": identity}),
            "id_data is an object": encoded({"pubkey": pem, "id_data": {"mac": self.mac}}),
        }
        for question, body in bodies.items():
            self.auth(f"body: {question}", key, body=body)
        self.auth("id_data is not json", key, "mac=1")
        self.auth("id_data is an array", key, "[1]")
        self.auth("id_data is empty object", key, "{}")
        self.auth("id_data with a number", key, {"mac": 1})
        self.auth("id_data with a list", key, {"mac": [self.mac]})
        self.auth("id_data nested", key, {"mac": {"x": self.mac}})
        self.auth("id_data with status", key, {"mac": f"{self.mac}s", "status": "x"})
        self.auth("tenant token garbage", key, more={"tenant_token": "x"})
        looks_real = "eyJhbGciOiJSUzI1NiJ9.eyJtZW5kZXIudGVuYW50IjoiNWFiY2I2ZGU3YTY3M2E"
        self.auth("tenant token looks real", key, more={"tenant_token": looks_real})
        self.auth("text/plain", key, headers={"Content-Type": "text/plain"})
        self.auth("no content type", key, headers={"Content-Type": ""})
        self.show("GET auth_requests", self.ask("GET", AUTH))
        self.show("PUT auth_requests", self.ask("PUT", AUTH, b"{}", JSON))
        for name, each in self.keys.items():
            self.auth(f"new device, {name}", each, {"mac": f"{self.mac}-{name}"})
        self.device, code = self.decide(self.mac)
        self.write(f"accept {code}")
        self.token = self.auth("accepted", key).data.decode().strip()
        for name, each in self.keys.items():
            self.decide(f"{self.mac}-{name}")
            self.auth(f"accepted, {name}", each, {"mac": f"{self.mac}-{name}"})
        self.auth("accepted device, another key", other)
        head, payload, _ = self.token.split(".")
        claims = decoded(payload)
        shown = {
            name: "<uuid>"
            if UUID.fullmatch(str(value))
            else type(value).__name__
            if name in ("exp", "iat", "nbf")
            else value
            for name, value in claims.items()
        }
        self.write(f"token header {decoded(head)}")
        self.write(f"token claims {shown}")
        self.write(f"token lifetime {claims['exp'] - claims['iat']}")

    def tokens(self) -> None:
        self.write("# tokens")
        head, payload, signature = self.token.split(".")
        forged = f"Bearer {head}.{payload}.{signature[:-8]}AAAAAAAA"

        def ask(question: str, authorization: str | None, header: str = "www-authenticate") -> None:
            headers = {} if authorization is None else {"Authorization": authorization}
            self.show(question, self.ask("GET", NEXT + QUERY, headers=headers), header)

        ask("no token", None)
        ask("garbage token", "Bearer x")
        ask("basic", "Basic eDp5")
        ask("token with a wrong signature", forged)
        ask("no bearer word", self.token, "")
        ask("a person's token on the device api", self.user["Authorization"], "")
        reply = self.ask("GET", f"/api/management{ARTIFACTS}", headers=self.bearer)
        self.show("the device's token on the management api", reply)
        self.show("unknown path", self.ask("GET", "/api/devices/v1/nonsense", headers=self.bearer))
        reply = self.ask("GET", "/api/devices/v1/deployments/nonsense", headers=self.bearer)
        self.show("unknown path under deployments", reply)
        self.show("root", self.ask("GET", "/"))

    def asking_for_deployments(self) -> None:
        self.write("# next")
        self.show("none", self.next())
        self.show("no artifact_name", self.next("?device_type=probe-type"))
        self.show("no device_type", self.next("?artifact_name=r"))
        self.show("nothing said", self.next(""))
        self.show("empty artifact_name", self.next("?artifact_name=&device_type=probe-type"))
        nested = encoded({"device_provides": PROVIDES})
        self.show("POST v1, none", self.ask("POST", NEXT, nested, self.both))
        self.show("POST v1 flat body", self.ask("POST", NEXT, encoded(PROVIDES), self.both))
        self.show("POST v1 no body", self.ask("POST", NEXT, b"", self.both))
        plain = self.bearer | {"Content-Type": "text/plain"}
        self.show("POST v1 text/plain", self.ask("POST", NEXT, b'{"device_provides": {}}', plain))
        self.show("POST v2, none", self.ask("POST", NEXT_V2, nested, self.both))
        self.show("GET v2", self.ask("GET", NEXT_V2 + QUERY, headers=self.bearer))
        self.show("PUT v1", self.ask("PUT", NEXT + QUERY, b"{}", self.both))

    def instructions(self) -> None:
        self.write("# instructions")
        deployment = self.deploy()
        found = json.loads(self.show("next: an update", self.next()).data)
        self.write(f"keys {list(keys(found))}")
        self.write(f"device types {found['artifact']['device_types_compatible']}")
        self.write_state(deployment)
        self.show("next again", self.next())
        nested = encoded({"device_provides": PROVIDES})
        self.show("next in the other form (POST v1)", self.ask("POST", NEXT, nested, self.both))
        self.write_state(deployment)
        other, installed = (f"?artifact_name={name}&device_type=probe-type" for name in ("other", "probe-1"))
        self.show("next, another artifact name", self.next(other))
        self.write_state(deployment)
        self.show("next after that", self.next())
        deployment = self.deploy()
        self.show("next, another device type", self.next("?artifact_name=release-0&device_type=zzz"))
        self.write_state(deployment)
        deployment = self.deploy()
        self.show("next, already installed", self.next(installed))
        self.write_state(deployment)
        deployment = self.deploy(force_installation=True)
        self.show("next, already installed, forced", self.next(installed))
        self.write_state(deployment)
        self.status(deployment, "failure")
        wanted = {"name": "x", "artifact_name": "none-such", "devices": [self.device]}
        self.show("deploy unknown artifact", self.manage("POST", MANAGED, wanted))

    def statuses(self) -> None:
        self.write("# status")
        deployment = self.offered()
        path = f"{DEPLOYMENTS}/{deployment}/status"
        first = ("downloading", "downloading", "pause_before_installing", "installing", "downloading")
        second = ("pause_before_rebooting", "rebooting", "pause_before_committing")
        refused = ("pending", "aborted", "noartifact", "decommissioned", "nonsense", "", None, 5)
        for status in (*first, *second, *refused):
            self.show(f"status {status!r}", self.status(deployment, status))
            self.write_state(deployment, "   ")
        self.show("status with substate", self.status(deployment, "installing", substate="x" * 50))
        self.write_state(deployment, "   ")
        self.show("status with substate too long", self.status(deployment, "installing", substate="x" * 300))
        self.write(f"   state {self.state(deployment)[0]}")
        self.show("status with other members", self.status(deployment, "installing", foo=1))
        installing = encoded({"status": "installing"})
        self.show("status, bad json", self.ask("PUT", path, b"{", self.both))
        self.show("status, no body", self.ask("PUT", path, b"", self.both))
        self.show("status, no content type", self.ask("PUT", path, installing, self.bearer))
        self.show("status, POST", self.ask("POST", path, installing, self.both))
        self.show("status success", self.status(deployment, "success"))
        self.write_state(deployment, "   ")
        self.show("status success again", self.status(deployment, "success"))
        for status in ("failure", "installing"):
            self.show(f"{status} after success", self.status(deployment, status))
            self.write_state(deployment, "   ")
        self.write("next then " + ("gives it again" if self.gets(deployment) else "does not give it"))
        self.status(deployment, "success")
        self.show("status unknown deployment", self.status(NO_SUCH_ID, "installing"))
        self.show("status id is no uuid", self.status("abc", "installing"))
        self.show("status id has dots", self.status("..%2f..", "installing"))
        self.show("status no token", self.status(deployment, "installing", JSON))

    def gets(self, deployment: str) -> bool:
        """Return whether the device is offered this deployment now."""
        reply = self.next()
        return bool(reply.status == 200 and json.loads(reply.data)["id"] == deployment)

    def aborted(self) -> None:
        deployment = self.offered()
        self.status(deployment, "downloading")
        self.abort(deployment)
        self.write_state(deployment, "   ")
        for status in ("downloading", "success", "failure"):
            self.show(f"{status} after abort", self.status(deployment, status))
        self.write_state(deployment, "   ")
        self.show("next after abort", self.next())

    def several_deployments(self) -> None:
        deployment = self.offered()
        self.show("already-installed from the device", self.status(deployment, "already-installed"))
        self.write_state(deployment, "   ")
        deployment = self.deploy()
        self.show("status of one never asked for", self.status(deployment, "downloading"))
        self.write_state(deployment, "   ")
        self.show("failure of one never asked for", self.status(deployment, "failure"))
        self.write_state(deployment, "   ")
        self.abort(deployment)
        older, newer = self.deploy(), self.deploy()
        self.write(f"two waiting: the older first {self.gets(older)}")
        self.status(older, "failure")
        self.abort(newer)
        running = self.offered()
        self.status(running, "installing")
        new = self.deploy()
        given = "the running" if self.gets(running) else "another"
        self.write(f"one installing, one new: next gives {given}")
        reply = self.next("?artifact_name=probe-1&device_type=probe-type")
        self.show("running one, now with the new software", reply)
        self.write(f"   state {self.state(running)} {self.state(new)}")
        self.abort(running)
        self.abort(new)

    def logs(self) -> None:
        self.write("# logs")
        deployment = self.offered()
        self.status(deployment, "installing")
        read = f"{MANAGED}/{deployment}/devices/{self.device}/log"

        def one(text: str, stamp: str = STAMP, level: str = "info") -> dict[str, Any]:
            return message(timestamp=stamp, level=level, message=text)

        self.show("log", self.log(deployment, one("one")))
        self.write_state(deployment, "   ")
        self.show("log replaced", self.log(deployment, one("two")))
        self.show("log read", self.manage("GET", read))
        cases: dict[str, Any] = {
            "no messages": {},
            "empty messages": {"messages": []},
            "no level": message(timestamp=STAMP, message="x"),
            "no timestamp": message(level="info", message="x"),
            "no message": message(level="info", timestamp=STAMP),
            "empty message": one(""),
            "strange level": one("x", level="zzz"),
            "bad timestamp": one("x", "yesterday"),
            "time with offset": one("x", "2026-11-26T09:00:00+02:00"),
            "nanoseconds": one("x", "2026-11-26T09:00:00.123456789Z"),
            "nul in message": one("a\0b"),
            "array": [],
        }
        for question, value in cases.items():
            self.show(f"log: {question}", self.log(deployment, value))
        for size in (900_000, 1_000_000, 1_048_000, 1_048_576 - 66, 1_100_000, 3_000_000):
            body = encoded(one("x" * size))
            self.show(f"log of {len(body)} bytes", self.log(deployment, body))
        self.show("log of an unknown deployment", self.log(NO_SUCH_ID, one("x")))
        self.status(deployment, "failure")
        self.show("log after failure", self.log(deployment, one("late")))
        self.show("log read", self.manage("GET", read))
        deployment = self.offered()
        self.abort(deployment)
        self.show("log after abort", self.log(deployment, one("late")))
        deployment = self.offered()
        self.status(deployment, "success")
        self.show("log after success", self.log(deployment, one("late")))

    def push(self, question: str, value: Any, method: str = "PUT", headers: Any = None) -> None:
        """Send an inventory."""
        body = value if isinstance(value, bytes) else encoded(value)
        self.show(f"inventory {question}", self.ask(method, ATTRIBUTES, body, headers or self.both))

    def inventory(self) -> None:
        self.write("# inventory")
        self.push("one", attribute("a", "1"))
        self.push("one, PATCH", attribute("b", "2"), "PATCH")
        self.push("one, POST", attribute("b", "2"), "POST")
        self.write(f"    {self.attributes()}")
        self.push("replaces", attribute("c", "3"))
        self.write(f"    {self.attributes()}")
        cases: dict[str, Any] = {
            "empty list": [],
            "object": {},
            "null": None,
            "number": attribute("n", 5),
            "float": attribute("f", 1.5),
            "bool": attribute("t", True),
            "null value": attribute("x", None),
            "object value": attribute("o", {"a": 1}),
            "list": attribute("l", ["a", "b"]),
            "list of numbers": attribute("l", [1, 2]),
            "mixed list": attribute("l", ["a", 1]),
            "empty list value": attribute("l", []),
            "nested list": attribute("l", [["a"]]),
            "empty string": attribute("e", ""),
            "empty name": attribute("", "x"),
            "no name": [{"value": "x"}],
            "no value": [{"name": "x"}],
            "same name twice": attribute("a", "1") + attribute("a", "2"),
            "with scope": attribute("s", "1", scope="system"),
            "with scope identity": attribute("s", "1", scope="identity"),
            "with description": attribute("d", "1", description="x"),
            "dot in name": attribute("a.b", "1"),
            "dollar in name": attribute("$a", "1"),
            "nul in name": attribute("a\0b", "1"),
            "space": attribute("a b", "1"),
            "non-ascii": attribute("ä", "ö"),
            "long name": attribute("n" * 2000, "1"),
            "long value": attribute("v", "x" * 5000),
        }
        for count, name in ((100, "a hundred"), (101, "a hundred and one"), (200, "two hundred")):
            cases[name] = [{"name": f"n{number}", "value": "1"} for number in range(count)]
        for question, value in cases.items():
            self.push(question, value)
        self.push("bad json", b"[")
        self.push("text/plain", attribute("a", "1"), headers=self.bearer | {"Content-Type": "text/plain"})
        self.push("no content type", attribute("a", "1"), headers=self.bearer)
        self.push("1.2 MB", attribute("v", "x" * 1_200_000))
        self.show("inventory GET", self.ask("GET", ATTRIBUTES, headers=self.bearer))

    def attributes(self) -> Any:
        """Return what the management API shows of the inventory that the device has sent."""
        found = json.loads(self.manage("GET", f"/v1/inventory/devices/{self.device}").data)["attributes"]
        return sorted((a["name"], json.dumps(a["value"])) for a in found if a["scope"] == "inventory")

    def unwelcome(self) -> None:
        self.write("# a device that is not welcome any more")
        deployment = self.offered()
        self.write(f"reject {self.decide(self.mac, 'rejected')[1]}")
        time.sleep(self.settle)
        self.show("next, rejected", self.next())
        self.show("status, rejected", self.status(deployment, "installing"))
        self.show("inventory, rejected", self.ask("PUT", ATTRIBUTES, b"[]", self.both))
        self.auth("auth, rejected", self.rsa)
        self.write_state(deployment, "   ")
        self.write(f"decommission {self.manage('DELETE', f'{DEVICES}/{self.device}').status}")
        time.sleep(self.settle)
        self.show("next, decommissioned", self.next())
        self.write_state(deployment, "   ")
        self.auth("auth, decommissioned", self.rsa)
        self.write(f"back as {self.found(self.mac)['status']}")

    def configuration(self) -> str:
        """Send requests as another device, and return its id."""
        self.write("# configuration")
        mac = f"{self.mac}-p-256"
        device, _ = self.decide(mac)
        self.token = self.auth("token", self.keys["p-256"], {"mac": mac}).data.decode()
        self.show("configuration", self.ask("GET", CONFIGURATION, headers=self.bearer))
        self.show("configuration reported", self.ask("PUT", CONFIGURATION, b'{"a":"1"}', self.both))
        self.show("configuration, bad", self.ask("PUT", CONFIGURATION, b'{"a":1}', self.both))
        self.show("configuration after", self.ask("GET", CONFIGURATION, headers=self.bearer))
        return device

    def terminal(self, device: str) -> None:
        self.write("# terminal, no device connected")
        one, unknown = (f"/api/management{TERMINALS}/{name}/connect" for name in (device, NO_SUCH_ID))
        upgrade = self.user | UPGRADE
        self.show("connect without upgrade", self.ask("GET", CONNECT, headers=self.bearer))
        self.show("connect without token", self.ask("GET", CONNECT, headers=UPGRADE))
        self.show("a person connects", self.ask("GET", one, headers=upgrade))
        self.show("a person connects, no upgrade", self.ask("GET", one, headers=self.user))
        self.show("a person connects to an unknown device", self.ask("GET", unknown, headers=upgrade))
        path = f"{TERMINALS}/{device}"
        self.show("the device's connection", self.manage("GET", path))
        self.show("the connection of an unknown device", self.manage("GET", f"{TERMINALS}/{NO_SUCH_ID}"))
        self.show("check-update button", self.manage("POST", f"{path}/check-update"))
        self.show("send-inventory button", self.manage("POST", f"{path}/send-inventory"))
        self.show("file download", self.manage("GET", f"{path}/download?path=/etc/hostname"))
        self.show("file download, no path", self.manage("GET", f"{path}/download"))
        self.show("file download, relative path", self.manage("GET", f"{path}/download?path=etc/hostname"))

    def upload(self, fields: Any) -> Any:
        body, kind = urllib3.encode_multipart_formdata(fields)
        headers = self.user | {"Content-Type": kind}
        return self.ask("POST", f"/api/management{ARTIFACTS}", body, headers)

    def upload_artifact(self) -> Any:
        size = str(len(self.artifact))
        return self.upload([("size", size), ("artifact", ("x.mender", self.artifact, OCTETS))])

    def artifacts(self) -> None:
        self.write("# management")
        garbage = [("size", "7"), ("artifact", ("x.mender", b"garbage", OCTETS))]
        self.show("upload garbage", self.upload(garbage))
        self.show("upload, no artifact", self.upload([("description", "x")]))
        reply = self.ask("POST", f"/api/management{ARTIFACTS}", b"x", self.user | JSON)
        self.show("upload, not a form", reply)
        self.show("upload the same again", self.upload_artifact())
        self.show("artifact unknown", self.manage("GET", f"{ARTIFACTS}/{NO_SUCH_ID}"))
        self.show("artifact, no uuid", self.manage("GET", f"{ARTIFACTS}/x"))
        self.show("artifact delete unknown", self.manage("DELETE", f"{ARTIFACTS}/{NO_SUCH_ID}"))

    def deployments(self, device: str) -> None:
        artifact = {"artifact_name": "probe-1"}
        cases: dict[str, Any] = {
            "no name": artifact | {"devices": [device]},
            "no artifact": {"name": "x", "devices": [device]},
            "no devices": artifact | {"name": "x"},
            "empty devices": artifact | {"name": "x", "devices": []},
            "empty name": artifact | {"name": "", "devices": [device]},
            "device is no uuid": artifact | {"name": next(self.names), "devices": ["x"]},
            "all devices": {"name": next(self.names), "artifact_name": "none", "all_devices": True},
            "array": [],
        }
        for question, wanted in cases.items():
            self.show(f"deploy: {question}", self.manage("POST", MANAGED, wanted))
        reply = self.ask("POST", f"/api/management{MANAGED}", b"{", self.user | JSON)
        self.show("deploy: bad json", reply)
        self.show("deployment unknown", self.manage("GET", f"{MANAGED}/{NO_SUCH_ID}"))
        self.show("deployment, no uuid", self.manage("GET", f"{MANAGED}/x"))
        self.show("deployment's devices, unknown", self.manage("GET", f"{MANAGED}/{NO_SUCH_ID}/devices"))
        path = f"{MANAGED}/{NO_SUCH_ID}/devices/{device}/log"
        self.show("deployment's log, unknown", self.manage("GET", path))

    def objects(self, device: str) -> None:
        deployment = self.deploy(device)
        status = f"{MANAGED}/{deployment}/status"
        self.show("abort", self.manage("PUT", status, {"status": "aborted"}))
        self.show("abort again", self.manage("PUT", status, {"status": "aborted"}))
        self.show(
            "abort unknown", self.manage("PUT", f"{MANAGED}/{NO_SUCH_ID}/status", {"status": "aborted"})
        )
        self.show("another status", self.manage("PUT", status, {"status": "finished"}))
        artifacts = json.loads(self.manage("GET", ARTIFACTS).data)
        objects = {
            "deployment": json.loads(self.manage("GET", f"{MANAGED}/{deployment}").data),
            "artifact": next(a for a in artifacts if a["name"] == "probe-1"),
            "device": json.loads(self.manage("GET", f"{DEVICES}/{device}").data),
            "inventory": json.loads(self.manage("GET", f"/v1/inventory/devices/{device}").data),
        }
        for name, found in objects.items():
            self.write(f"{name}'s keys {list(keys(found))}")

    def devices(self, device: str) -> None:
        accept = {"status": "accepted"}
        self.show("device unknown", self.manage("GET", f"{DEVICES}/{NO_SUCH_ID}"))
        path = f"{DEVICES}/{NO_SUCH_ID}/auth/{NO_SUCH_ID}/status"
        self.show("accept unknown device", self.manage("PUT", path, accept))
        found = json.loads(self.manage("GET", f"{DEVICES}/{device}").data)
        path = f"{DEVICES}/{device}/auth/{found['auth_sets'][0]['id']}/status"
        self.show("status of an auth set", self.manage("GET", path))
        self.show("status nonsense", self.manage("PUT", path, {"status": "nonsense"}))
        self.show("status pending", self.manage("PUT", path, {"status": "pending"}))
        self.show("decommission unknown", self.manage("DELETE", f"{DEVICES}/{NO_SUCH_ID}"))
        self.show("count", self.manage("GET", f"{DEVICES}/count?status=nonsense"))
        key = ec.generate_private_key(ec.SECP256R1())
        identity = {"mac": f"pre-{self.mac}"}
        wanted = {"identity_data": identity, "pubkey": public_pem(key)}
        self.show("preauthorize", self.manage("POST", DEVICES, wanted))
        again = self.manage("POST", DEVICES, wanted)
        kind = (again.headers.get("content-type") or "-").split(";")[0]
        self.write(f"preauthorize again\t{again.status}\t{kind}")
        self.auth("preauthorized device asks", key, identity)
        self.show("preauthorize, no key", self.manage("POST", DEVICES, {"identity_data": {"mac": "x"}}))
        self.show("revoke a token unknown", self.manage("DELETE", f"/v1/devauth/tokens/{NO_SUCH_ID}"))
        self.show("login wrong", self.ask("POST", LOGIN, b"", {"Authorization": "Basic eDp5"}))
        self.show("login nothing", self.ask("POST", LOGIN, b""))
        self.show("inventory of an unknown device", self.manage("GET", f"/v1/inventory/devices/{NO_SUCH_ID}"))


def probe(url: str, artifact: Path, login: str, write: Callable[[str], object], *, settle: float = 0) -> None:
    """Send all requests to a server."""
    one = Probe(url, artifact, login, write, settle)
    with one.pool:
        one.upload_artifact()
        one.run()


def main(url: str, artifact: str, login: str = "admin@example.com:mysecretpassword") -> None:
    """Print the answers of a server."""
    probe(url, Path(artifact), login, lambda line: print(line, flush=True), settle=3)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
