"""The management API for users and devices: log in, accept devices, see inventories, as in mender-server."""

import base64
import binascii
import re
import secrets
from collections.abc import Iterable
from typing import Any

from . import gateway, tokens, validation
from .model import Device, Model
from .routing import Answer, Request, Route, json_answer
from .validation import Refusal, rfc3339

PREFIX = gateway.MANAGEMENT
LOGIN = f"{PREFIX}v1/useradm/auth/login"
DEVICES = f"{PREFIX}v2/devauth/devices"
INVENTORY = f"{PREFIX}v1/inventory/devices"
PER_PAGE_LIMIT = 500
_DEVICE_STATUSES = ("pending", "accepted", "rejected", "preauthorized", "noauth")


class ManagementApi:
    """The handlers of these endpoints; any e-mail address may log in unless `user` is the one that may."""

    def __init__(self, world: Model, user: tuple[str, str] | None) -> None:
        self._world = world
        self._user = user
        self._tokens: set[str] = set()

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        auth_set = f"{DEVICES}/{{id}}/auth/{{aid}}/status"
        return [
            Route("POST", LOGIN, self.login),
            Route("GET", DEVICES, self.devices),
            Route("POST", DEVICES, self.preauthorize),
            Route("GET", f"{DEVICES}/count", self.count),
            Route("GET", f"{DEVICES}/{{id}}", self.device),
            Route("DELETE", f"{DEVICES}/{{id}}", self.decommission),
            Route("GET", auth_set, self.status),
            Route("PUT", auth_set, self.set_status),
            Route("DELETE", f"{PREFIX}v1/devauth/tokens/{{id}}", self.revoke),
            Route("DELETE", f"{PREFIX}v2/devauth/tokens/{{id}}", self.revoke),
            Route("GET", INVENTORY, self.inventories),
            Route("GET", f"{INVENTORY}/{{id}}", self.inventory),
        ]

    def gate(self, request: Request) -> Answer | None:
        """Check the token from `login`, which all but `login` itself need."""
        if request.path == LOGIN:
            return None
        token = gateway.bearer(request.headers)
        gateway.check_form(token)
        if token not in self._tokens:
            raise Refusal(401, "invalid jwt")
        return None

    def login(self, request: Request) -> Answer:
        """Hand out a token for a user name, which is an e-mail address, and a password."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            user = colon = password = ""
        if scheme.lower() != "basic" or not colon:
            raise Refusal(401, "invalid or missing auth header")
        if (user, password) != self._user if self._user else "@" not in user or not password:
            raise Refusal(401, "unauthorized")
        claims = {"jti": secrets.token_hex(16), "sub": user, "iss": "Mender", "mender.user": True}
        token = self._world.signer.jwt(claims)
        self._tokens.add(token)
        return Answer(200, {"Content-Type": "application/jwt"}, token.encode())

    def devices(self, request: Request) -> Answer:
        """List the devices and their auth sets, of one status if asked for."""
        wanted = request.query.get("status")
        if wanted is not None and wanted not in _DEVICE_STATUSES:
            names = "accepted, pending, rejected, preauthorized or noauth"
            raise Refusal(400, f"filter status must be one of: {names}")
        found = [d for d in self._world.devices.values() if wanted in (None, d.status)]
        return page(request, [_device_json(d) for d in found])

    def count(self, request: Request) -> Answer:
        """Count the devices, of one status if asked for."""
        wanted = request.query.get("status", "")
        if wanted and wanted not in _DEVICE_STATUSES:
            raise Refusal(400, f"status must be one of: {', '.join(_DEVICE_STATUSES)}")
        found = [d for d in self._world.devices.values() if wanted in ("", d.status)]
        return json_answer(200, {"count": len(found)})

    def preauthorize(self, request: Request) -> Answer:
        """Add a device that is accepted as soon as it asks with the key given here."""
        request.check_json_type()
        prefix = "failed to decode preauth request: "
        body = request.object("http.preAuthReq", prefix)
        identity, pubkey = body.get("identity_data"), body.get("pubkey")
        blank = "cannot be blank"
        try:
            validation.check(
                identity_data=None if isinstance(identity, dict) and identity else blank,
                pubkey=None if isinstance(pubkey, str) and pubkey else blank,
            )
            _, pem = tokens.load_public_key(str(pubkey))
        except Refusal as refusal:
            raise Refusal(400, f"{prefix}{refusal.text}") from None
        known = self._world.find(identity or {})
        if known and body.get("force") is not True:
            return json_answer(409, _device_json(known))
        made = self._world.preauthorize(identity or {}, pem)
        return Answer(201, {"Location": f"devices/{made.id}"})

    def device(self, request: Request) -> Answer:
        """Show one device and its auth sets."""
        return json_answer(200, _device_json(self._world.device(request.params["id"])))

    def decommission(self, request: Request) -> Answer:
        """Forget a device."""
        if request.params["id"] not in self._world.devices:
            raise Refusal(404)
        self._world.decommission(request.params["id"])
        return Answer(204)

    def status(self, request: Request) -> Answer:
        """Show the status of an auth set."""
        found = self._world.auth_set(request.params["id"], request.params["aid"])
        return json_answer(200, {"status": found.status})

    def set_status(self, request: Request) -> Answer:
        """Accept, reject or reset an auth set."""
        request.check_json_type()
        status = request.object("http.DevAuthApiStatus", "failed to decode status data: ").get("status")
        if status not in ("accepted", "rejected", "pending"):
            raise Refusal(400, "incorrect device status")
        self._world.set_status(request.params["id"], request.params["aid"], status)
        return Answer(204)

    def revoke(self, request: Request) -> Answer:
        """Make the tokens of an auth set void; their id is that of the auth set."""
        for device in self._world.devices.values():
            for auth_set in device.auth_sets:
                if auth_set.id == request.params["id"] and auth_set.has_token:
                    auth_set.has_token = False
                    return Answer(204)
        raise Refusal(404)

    def inventories(self, request: Request) -> Answer:
        """List the attributes of all devices."""
        return page(request, [_inventory_json(d) for d in self._world.devices.values()])

    def inventory(self, request: Request) -> Answer:
        """Show the attributes of one device, each with its scope."""
        found = self._world.devices.get(request.params["id"])
        if found is None:
            raise Refusal(404, "Device not found")
        return json_answer(200, _inventory_json(found))


def page(request: Request, items: Iterable[Any]) -> Answer:
    """Return one page of a list, with the count of all in a header."""
    number, size = _positive(request, "page", 1), _positive(request, "per_page", 20)
    if size > PER_PAGE_LIMIT:
        raise Refusal(400, f'parameter "per_page" above limit (max: {PER_PAGE_LIMIT})')
    items = list(items)
    return json_answer(200, items[(number - 1) * size : number * size], **{"X-Total-Count": str(len(items))})


def _positive(request: Request, name: str, default: int) -> int:
    text = request.query.get(name) or str(default)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise Refusal(400, f'invalid {name} query: "{text}"')
    if int(text) < 1:
        raise Refusal(400, f"invalid {name} query: value must be a non-zero positive integer")
    return int(text)


def _device_json(device: Device) -> dict[str, Any]:
    auth_sets = [
        {
            "id": auth_set.id,
            "identity_data": device.identity,
            "pubkey": auth_set.pubkey,
            "status": auth_set.status,
            "ts": rfc3339(auth_set.created),
        }
        for auth_set in device.auth_sets
    ]
    shown = {
        "id": device.id,
        "identity_data": device.identity,
        "status": device.status,
        "created_ts": rfc3339(device.created),
        "updated_ts": rfc3339(device.updated),
        "auth_sets": auth_sets,
        "decommissioning": False,
    }
    return shown if device.checked_in is None else shown | {"check_in_time": rfc3339(device.checked_in)}


def _inventory_json(device: Device) -> dict[str, Any]:
    shown = {
        "id": device.id,
        "attributes": [attribute.to_json() for attribute in device.all_attributes],
        "identities": [value for value in device.identity.values() if isinstance(value, str)],
    }
    return shown if device.reported is None else shown | {"updated_ts": rfc3339(device.reported)}
