"""The management API for users and devices: log in, accept devices, list inventories, as in mender-server."""

import base64
import binascii
import re
import secrets
from collections.abc import Iterable
from typing import Any

from . import gateway, tokens, validation
from .model import Device, Model
from .routing import Request, Response, Route, json_response
from .validation import HTTPError, rfc3339

PREFIX = gateway.MANAGEMENT
LOGIN = f"{PREFIX}v1/useradm/auth/login"
DEVICES = f"{PREFIX}v2/devauth/devices"
INVENTORY = f"{PREFIX}v1/inventory/devices"
PER_PAGE_LIMIT = 500
_DEVICE_STATUSES = ("pending", "accepted", "rejected", "preauthorized", "noauth")


class ManagementApi:
    """The handlers of these endpoints.

    They raise HTTPError with the status and the message of the real server. `user` (name, password) is the
    only one who can log in; without it, any e-mail address can, with any password.
    """

    def __init__(self, model: Model, user: tuple[str, str] | None) -> None:
        self._model = model
        self._user = user
        self._tokens: set[str] = set()

    @property
    def admits_everyone(self) -> bool:
        """Whether any user can log in, with any password."""
        return self._user is None

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

    def gate(self, request: Request) -> Response | None:
        """Check the token from `login`, which every other endpoint requires; raise HTTPError 401."""
        if request.path == LOGIN:
            return None
        token = gateway.bearer_token(request.headers)
        gateway.check_format(token)
        if token not in self._tokens:
            raise HTTPError(401, "invalid jwt")
        return None

    def login(self, request: Request) -> Response:
        """Return a token for a user name, which is an e-mail address, and a password."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            user = colon = password = ""
        if scheme.lower() != "basic" or not colon:
            raise HTTPError(401, "invalid or missing auth header")
        if (user, password) != self._user if self._user else "@" not in user or not password:
            raise HTTPError(401, "unauthorized")
        claims = {"jti": secrets.token_hex(16), "sub": user, "iss": "Mender", "mender.user": True}
        token = self._model.signer.jwt(claims)
        self._tokens.add(token)
        return Response(200, {"Content-Type": "application/jwt"}, token.encode())

    def devices(self, request: Request) -> Response:
        """List the devices and their auth sets, optionally those of one status."""
        wanted = request.query.get("status")
        if wanted is not None and wanted not in _DEVICE_STATUSES:
            names = "accepted, pending, rejected, preauthorized or noauth"
            raise HTTPError(400, f"filter status must be one of: {names}")
        devices = [d for d in self._model.devices.values() if wanted in (None, d.status)]
        return page(request, [_device_json(d) for d in devices])

    def count(self, request: Request) -> Response:
        """Count the devices, optionally those of one status."""
        wanted = request.query.get("status", "")
        if wanted and wanted not in _DEVICE_STATUSES:
            raise HTTPError(400, f"status must be one of: {', '.join(_DEVICE_STATUSES)}")
        devices = [d for d in self._model.devices.values() if wanted in ("", d.status)]
        return json_response(200, {"count": len(devices)})

    def preauthorize(self, request: Request) -> Response:
        """Add a device that is accepted at its first request with this key."""
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
        except HTTPError as error:
            raise HTTPError(400, f"{prefix}{error.text}") from None
        existing = self._model.find(identity or {})
        if existing and body.get("force") is not True:
            return json_response(409, _device_json(existing))
        device = self._model.preauthorize(identity or {}, pem)
        return Response(201, {"Location": f"devices/{device.id}"})

    def device(self, request: Request) -> Response:
        """Return one device and its auth sets."""
        return json_response(200, _device_json(self._model.device(request.params["id"])))

    def decommission(self, request: Request) -> Response:
        """Remove a device."""
        if request.params["id"] not in self._model.devices:
            raise HTTPError(404)
        self._model.decommission(request.params["id"])
        return Response(204)

    def status(self, request: Request) -> Response:
        """Return the status of an auth set."""
        auth_set = self._model.auth_set(request.params["id"], request.params["aid"])
        return json_response(200, {"status": auth_set.status})

    def set_status(self, request: Request) -> Response:
        """Accept, reject or reset an auth set."""
        request.check_json_type()
        status = request.object("http.DevAuthApiStatus", "failed to decode status data: ").get("status")
        if status not in ("accepted", "rejected", "pending"):
            raise HTTPError(400, "incorrect device status")
        self._model.set_status(request.params["id"], request.params["aid"], status)
        return Response(204)

    def revoke(self, request: Request) -> Response:
        """Invalidate the tokens of an auth set, whose id they have."""
        for device in self._model.devices.values():
            for auth_set in device.auth_sets:
                if auth_set.id == request.params["id"] and auth_set.has_token:
                    auth_set.has_token = False
                    return Response(204)
        raise HTTPError(404)

    def inventories(self, request: Request) -> Response:
        """List the attributes of all devices."""
        return page(request, [_inventory_json(d) for d in self._model.devices.values()])

    def inventory(self, request: Request) -> Response:
        """Return the attributes of one device, each with its scope."""
        device = self._model.devices.get(request.params["id"])
        if device is None:
            raise HTTPError(404, "Device not found")
        return json_response(200, _inventory_json(device))


def page(request: Request, items: Iterable[Any]) -> Response:
    """Return one page of a list, with the total count in a header; raise HTTPError 400 for a bad query."""
    number, size = _positive(request, "page", 1), _positive(request, "per_page", 20)
    if size > PER_PAGE_LIMIT:
        raise HTTPError(400, f'parameter "per_page" above limit (max: {PER_PAGE_LIMIT})')
    items = list(items)
    return json_response(
        200, items[(number - 1) * size : number * size], **{"X-Total-Count": str(len(items))}
    )


def _positive(request: Request, name: str, default: int) -> int:
    text = request.query.get(name) or str(default)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise HTTPError(400, f'invalid {name} query: "{text}"')
    if int(text) < 1:
        raise HTTPError(400, f"invalid {name} query: value must be a non-zero positive integer")
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
