"""The model: devices and their auth sets, artifacts, deployments. No sockets, no HTTP, no threads.

Callers hold `Model.lock` around every call; the methods themselves take the world as it is.
"""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import validation
from .artifact_store import Store
from .deployments import Deployments
from .tokens import Signer
from .validation import Attribute, Refusal

NEVER = -62135596800
"""Go's zero time, the year 1: what the real server's tokens have for `nbf`."""
ADDONS = ("configure", "troubleshoot", "monitor")


@dataclass
class AuthSet:
    """One key of one device, and the user's decision: pending, preauthorized, accepted or rejected."""

    id: str
    pubkey: str
    created: float
    status: str = "pending"
    has_token: bool = False
    """Whether there is a token record; one serves all tokens of the set (device-api.md 1.5)."""


@dataclass
class Device:
    """One identity, told apart by the SHA-256 of its canonical JSON (device-api.md 1.2)."""

    id: str
    identity: dict[str, Any]
    created: float
    updated: float
    auth_sets: list[AuthSet] = field(default_factory=list)
    inventory: dict[str, Attribute] | None = None
    """None until the first PUT or PATCH: until then PATCH knows no limit (device-api.md 2)."""
    reported: float | None = None
    """When the inventory was last reported."""
    checked_in: float | None = None
    """When the device last used a token."""

    @property
    def status(self) -> str:
        """What the auth sets amount to."""
        found = {auth_set.status for auth_set in self.auth_sets}
        ranked = ("accepted", "preauthorized", "pending", "rejected")
        return next((status for status in ranked if status in found), "noauth")

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
    """The configuration of one device, as wanted and as reported."""

    configured: dict[str, Any] = field(default_factory=dict)
    reported: dict[str, Any] = field(default_factory=dict)
    deployment_id: str | None = None
    reported_at: float | None = None
    updated_at: float | None = None


class Model:
    """Everything the server knows."""

    def __init__(
        self, store: Store, clock: Callable[[], float], *, accept_all: bool, jwt_lifetime: float
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
        """A token for an accepted key; 401 for any other, remembered as pending (device-api.md 1.4)."""
        device = self._device(identity)
        known = next((s for s in device.auth_sets if s.pubkey == pubkey), None)
        if known is None:
            known = AuthSet(str(uuid.uuid4()), pubkey, self.clock())
            device.auth_sets.append(known)
            if self.accept_all:
                self.set_status(device.id, known.id, "accepted")
        if known.status == "preauthorized":
            self.set_status(device.id, known.id, "accepted")
        if known.status != "accepted":
            raise Refusal(401, "dev auth: unauthorized")
        known.has_token = True
        now = int(self.clock())
        return self.signer.jwt(
            {
                "jti": known.id,
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
        known = self.find(identity)
        if known:
            return known
        now = self.clock()
        device = Device(str(uuid.uuid4()), identity, now, now)
        self.devices[device.id] = device
        return device

    def find(self, identity: dict[str, Any]) -> Device | None:
        """Return the device of an identity, None if there is none."""
        wanted = fingerprint(identity)
        return next((d for d in self.devices.values() if fingerprint(d.identity) == wanted), None)

    def preauthorize(self, identity: dict[str, Any], pubkey: str) -> Device:
        """Add a device that will be accepted as soon as it asks with this key."""
        device = self._device(identity)
        device.auth_sets.append(AuthSet(str(uuid.uuid4()), pubkey, self.clock(), "preauthorized"))
        return device

    def device_of(self, token: str) -> Device | None:
        """The device a token speaks for, None when the token is no longer good (device-api.md 1.5)."""
        claims = self.signer.claims(token)
        if not claims or not claims.get("mender.device") or self.clock() >= claims["exp"]:
            return None
        device = self.devices.get(claims["sub"])
        for auth_set in device.auth_sets if device else ():
            if auth_set.id == claims["jti"] and auth_set.status == "accepted" and auth_set.has_token:
                return device
        return None

    def has_expired(self, token: str) -> bool:
        """Tell whether all that is wrong with a token may be its age."""
        claims = self.signer.claims(token)
        return bool(claims and claims.get("mender.device") and self.clock() >= claims["exp"])

    def set_status(self, device_id: str, auth_set_id: str, status: str) -> None:
        """Accept, reject or reset one auth set; accepting one takes the place of the one accepted before."""
        chosen = self.auth_set(device_id, auth_set_id)
        device = self.device(device_id)
        for other in device.auth_sets if status == "accepted" else ():
            if other is not chosen and other.status == "accepted":
                other.status, other.has_token = "rejected", False
        chosen.status = status
        chosen.has_token = chosen.has_token and status == "accepted"
        device.updated = self.clock()

    def auth_set(self, device_id: str, auth_set_id: str) -> AuthSet:
        """Return an auth set of a device, or 404."""
        device = self.devices.get(device_id)
        for auth_set in device.auth_sets if device else ():
            if auth_set.id == auth_set_id:
                return auth_set
        raise Refusal(404, "authorization set not found")

    def device(self, device_id: str) -> Device:
        """The device of this id, or 404."""
        if device_id not in self.devices:
            raise Refusal(404, "device not found")
        return self.devices[device_id]

    def decommission(self, device_id: str) -> None:
        """Forget a device: its tokens are void, its deployments end as `decommissioned`."""
        self.device(device_id)
        self.deployments.decommission(device_id)
        del self.devices[device_id]
        self.configurations.pop(device_id, None)

    def revoke_tokens(self, device: Device) -> None:
        """Delete the token records of a device; it stays accepted and may ask for a new token."""
        for auth_set in device.auth_sets:
            auth_set.has_token = False

    def put_inventory(self, device: Device, sent: dict[str, Attribute], *, keep: bool) -> None:
        """Replace (PUT) or extend (PATCH, `keep`) the inventory, within its limit (device-api.md 2)."""
        after = {**(device.inventory or {}), **sent} if keep else sent
        if len(after) > validation.ATTRIBUTE_LIMIT and not (keep and device.inventory is None):
            raise Refusal(400, "the number of attributes in the scope is above the limit")
        device.inventory = after
        device.updated = device.reported = self.clock()

    def accepted(self) -> Iterable[Device]:
        """The devices that may take part in a deployment."""
        return [device for device in self.devices.values() if device.status == "accepted"]


def fingerprint(identity: dict[str, Any]) -> str:
    """What the server tells devices apart by; value types count: "a" and ["a"] differ (device-api.md 1.2)."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
