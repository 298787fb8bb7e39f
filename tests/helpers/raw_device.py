"""A device made of bare `http.client`, so that tests of the development server do not need the client."""

import base64
import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from mender_oneshot.devserver import DevServer

AUTH = "/api/devices/v1/authentication/auth_requests"
ATTRIBUTES = "/api/devices/v1/inventory/device/attributes"
DEPLOYMENTS = "/api/devices/v1/deployments/device/deployments"
NEXT = f"{DEPLOYMENTS}/next"
NEXT_V2 = "/api/devices/v2/deployments/device/deployments/next"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ED25519 = ed25519.Ed25519PrivateKey.generate()


class ManualClock:
    """A clock that only moves when a test sets `now` (Unix time)."""

    def __init__(self, now: float = 1_000_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    """The response of the server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def get(server: DevServer, url: str, method: str = "GET", /, **headers: str) -> Reply:
    """Send a request without a body; "_" in the name of a header stands for "-"."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return fetch(server, method, url, None, sent)


def fetch(
    server: DevServer, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """Send one request on a new connection; a body that is not bytes is sent as JSON."""
    with connect(server, url) as connection:
        return ask(connection, method, url, body, headers)


@contextlib.contextmanager
def connect(server: DevServer, url: str) -> Iterator[http.client.HTTPConnection]:
    """Connect to the origin of a URL."""
    split = urlsplit(url)
    assert split.hostname
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=20)
    if split.scheme == "https":
        context = ssl.create_default_context(cafile=str(server.ca))
        connection = http.client.HTTPSConnection(split.hostname, split.port, timeout=20, context=context)
    with contextlib.closing(connection):
        yield connection


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    url: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send one request on an open connection."""
    split = urlsplit(url)
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    connection.request(method, split.path + (f"?{split.query}" if split.query else ""), body, sent)
    with connection.getresponse() as response:
        return Reply(response.status, response.headers, response.read())


def public_pem(key: Key) -> str:
    """Return the public key as an authentication request needs it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def sign(key: Key, body: bytes) -> str:
    """Return the value of X-MEN-Signature."""
    if isinstance(key, rsa.RSAPrivateKey):
        raw = key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        raw = key.sign(body, ec.ECDSA(hashes.SHA256()))
    else:
        raw = key.sign(body)
    return base64.b64encode(raw).decode()


class RawDevice:
    """One device of a server; it sends what the test calls for and checks nothing."""

    def __init__(self, server: DevServer, identity: Any = None, key: Key = ED25519) -> None:
        self.server = server
        self.identity = {"mac": "02:00:00:00:00:01"} if identity is None else identity
        self.key = key
        self.token = ""

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Send a request with the token."""
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        return fetch(self.server, method, self.server.url + path, body, sent)

    def authorize(self) -> Reply:
        """Request a token, and keep it."""
        body = json.dumps({"id_data": json.dumps(self.identity), "pubkey": public_pem(self.key)}).encode()
        url = self.server.url + AUTH
        reply = fetch(self.server, "POST", url, body, {"X-MEN-Signature": sign(self.key, body)})
        if reply.status == 200:
            self.token = reply.body.decode()
        return reply

    def accepted(self) -> "RawDevice":
        """Request a token, and have the server accept this device if necessary."""
        if self.authorize().status == 401:
            self.server.accept()
            assert self.authorize().status == 200
        return self

    def next(self, artifact_name: str = "release-1", device_type: str = "board") -> Reply:
        """Request the next deployment by GET of v1."""
        return self.call("GET", f"{NEXT}?artifact_name={artifact_name}&device_type={device_type}")

    def status(self, deployment: str, status: str, **more: Any) -> int:
        """Report a status; return the status code."""
        return self.call("PUT", f"{DEPLOYMENTS}/{deployment}/status", {"status": status, **more}).status

    def link(self) -> str:
        """Return the artifact link of the next deployment."""
        uri: str = self.next().json["artifact"]["source"]["uri"]
        return uri
