"""The model: devices and their auth sets, artifacts, deployments. No sockets, no HTTP, no threads.

Callers hold `Model.lock` around every call; the methods do not lock.
"""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import validation
from .artifact_store import ArtifactStore
from .deployments import Deployments
from .tokens import Signer
from .validation import Attribute, HTTPError

NEVER = -62135596800
"""Go's zero time, the year 1; the value of `nbf` in the tokens of the real server."""
ADDONS = ("configure", "troubleshoot", "monitor")


@dataclass
class AuthSet:
    """One key of one device, and the user's decision: pending, preauthorized, accepted or rejected."""

    id: str
    pubkey: str
    created: float
    status: str = "pending"
    has_token: bool = False
    """Whether a token record exists; one serves all tokens of the set (device-api.md 1.5)."""


@dataclass
class Device:
    """One identity; the SHA-256 of its canonical JSON distinguishes devices (device-api.md 1.2)."""

    id: str
    identity: dict[str, Any]
    created: float
    updated: float
    auth_sets: list[AuthSet] = field(default_factory=list)
    inventory: dict[str, Attribute] | None = None
    """None until the first PUT or PATCH; until then PATCH has no limit (device-api.md 2)."""
    reported: float | None = None
    """When the inventory was last reported."""
    checked_in: float | None = None
    """When the device last used a token."""

    @property
    def status(self) -> str:
        """The status that results from those of the auth sets; `noauth` without any."""
        statuses = {auth_set.status for auth_set in self.auth_sets}
        ranked = ("accepted", "preauthorized", "pending", "rejected")
        return next((status for status in ranked if status in statuses), "noauth")

    @property
    def attributes(self) -> dict[str, Any]:
        """The values of scope `inventory` by name."""
        return {attribute.name: attribute.value for attribute in (self.inventory or {}).values()}

    @property
    def all_attributes(self) -> list[Attribute]:
        """The attributes of every scope; an identity value `status` is not copied (device-api.md 1.2)."""
        copied = [Attribute(n, v, "identity") for n, v in self.identity.items() if n != "status"]
        state = Attribute("status", self.status, "identity")
        return [*copied, state, *(self.inventory or {}).values()]


@dataclass
class Configuration:
    """The configuration of one device, as set and as reported."""

    configured: dict[str, Any] = field(default_factory=dict)
    reported: dict[str, Any] = field(default_factory=dict)
    deployment_id: str | None = None
    reported_at: float | None = None
    updated_at: float | None = None


class Model:
    """The entire state of the server."""

    def __init__(
        self, store: ArtifactStore, clock: Callable[[], float], *, accept_all: bool, jwt_lifetime: float
    ) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.accept_all = accept_all
        self.jwt_lifetime = jwt_lifetime
        self.signer = Signer()
        self.store = store
        self.deployments = Deployments(store, clock)
        self.devices: dict[str, Device] = {}
        self.configurations: dict[str, Configuration] = {}

    def authenticate(self, identity: dict[str, Any], pubkey: str) -> str:
        """Return a token for an accepted key; raise HTTPError 401 for any other.

        An unknown key is added as pending (device-api.md 1.4).
        """
        device = self._device(identity)
        auth_set = next((s for s in device.auth_sets if s.pubkey == pubkey), None)
        if auth_set is None:
            auth_set = AuthSet(str(uuid.uuid4()), pubkey, self.clock())
            device.auth_sets.append(auth_set)
            if self.accept_all:
                self.set_status(device.id, auth_set.id, "accepted")
        if auth_set.status == "preauthorized":
            self.set_status(device.id, auth_set.id, "accepted")
        if auth_set.status != "accepted":
            raise HTTPError(401, "dev auth: unauthorized")
        auth_set.has_token = True
        now = int(self.clock())
        return self.signer.jwt(
            {
                "jti": auth_set.id,
                "sub": device.id,
                "iss": "Mender",
                "exp": int(self.clock() + self.jwt_lifetime),
                "iat": now,
                "nbf": NEVER,
                "mender.device": True,
                "mender.plan": "enterprise",
                "mender.trial": False,
                "mender.addons": [{"name": name, "enabled": True} for name in ADDONS],
            }
        )

    def _device(self, identity: dict[str, Any]) -> Device:
        existing = self.find(identity)
        if existing:
            return existing
        now = self.clock()
        device = Device(str(uuid.uuid4()), identity, now, now)
        self.devices[device.id] = device
        return device

    def find(self, identity: dict[str, Any]) -> Device | None:
        """Return the device of an identity, None if there is none."""
        wanted = fingerprint(identity)
        return next((d for d in self.devices.values() if fingerprint(d.identity) == wanted), None)

    def preauthorize(self, identity: dict[str, Any], pubkey: str) -> Device:
        """Add a device that will be accepted at its first request with this key."""
        device = self._device(identity)
        device.auth_sets.append(AuthSet(str(uuid.uuid4()), pubkey, self.clock(), "preauthorized"))
        return device

    def device_of(self, token: str) -> Device | None:
        """Return the device of a token, None if the token is not valid (device-api.md 1.5)."""
        claims = self.signer.claims(token)
        if not claims or not claims.get("mender.device") or self.clock() >= claims["exp"]:
            return None
        device = self.devices.get(claims["sub"])
        for auth_set in device.auth_sets if device else ():
            if auth_set.id == claims["jti"] and auth_set.status == "accepted" and auth_set.has_token:
                return device
        return None

    def has_expired(self, token: str) -> bool:
        """Return whether this server signed the token for a device and it has expired."""
        claims = self.signer.claims(token)
        return bool(claims and claims.get("mender.device") and self.clock() >= claims["exp"])

    def set_status(self, device_id: str, auth_set_id: str, status: str) -> None:
        """Accept, reject or reset one auth set; raise HTTPError 404 if there is none.

        Accepting it rejects the auth set that was accepted before.
        """
        chosen = self.auth_set(device_id, auth_set_id)
        device = self.device(device_id)
        for other in device.auth_sets if status == "accepted" else ():
            if other is not chosen and other.status == "accepted":
                other.status, other.has_token = "rejected", False
        chosen.status = status
        chosen.has_token = chosen.has_token and status == "accepted"
        device.updated = self.clock()

    def auth_set(self, device_id: str, auth_set_id: str) -> AuthSet:
        """Return an auth set of a device; raise HTTPError 404 if there is none."""
        device = self.devices.get(device_id)
        for auth_set in device.auth_sets if device else ():
            if auth_set.id == auth_set_id:
                return auth_set
        raise HTTPError(404, "authorization set not found")

    def device(self, device_id: str) -> Device:
        """Return the device with this id; raise HTTPError 404 if there is none."""
        if device_id not in self.devices:
            raise HTTPError(404, "device not found")
        return self.devices[device_id]

    def decommission(self, device_id: str) -> None:
        """Remove a device; its tokens become invalid and its deployments end as `decommissioned`.

        Raise HTTPError 404 if there is no such device.
        """
        self.device(device_id)
        self.deployments.decommission(device_id)
        del self.devices[device_id]
        self.configurations.pop(device_id, None)

    def revoke_tokens(self, device: Device) -> None:
        """Delete the token records of a device, which stays accepted and may request a new token."""
        for auth_set in device.auth_sets:
            auth_set.has_token = False

    def put_inventory(self, device: Device, sent: dict[str, Attribute], *, keep: bool) -> None:
        """Replace the inventory (PUT) or, with `keep`, extend it (PATCH).

        Raise HTTPError 400 above the limit (device-api.md 2).
        """
        after = {**(device.inventory or {}), **sent} if keep else sent
        if len(after) > validation.ATTRIBUTE_LIMIT and not (keep and device.inventory is None):
            raise HTTPError(400, "the number of attributes in the scope is above the limit")
        device.inventory = after
        device.updated = device.reported = self.clock()

    def accepted(self) -> Iterable[Device]:
        """Return the devices that may take part in a deployment."""
        return [device for device in self.devices.values() if device.status == "accepted"]


def fingerprint(identity: dict[str, Any]) -> str:
    """Return what distinguishes identities; types matter: "a" and ["a"] differ (device-api.md 1.2)."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
