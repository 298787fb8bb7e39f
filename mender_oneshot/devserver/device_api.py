"""The device API: one handler per endpoint, answering as mender-server does (device-api.md 1 to 5)."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from mender_oneshot.devserver import rules, tokens
from mender_oneshot.devserver.connect_api import CONNECT
from mender_oneshot.devserver.deployments import Offer
from mender_oneshot.devserver.messages import Answer, Request, Route, error_answer, json_answer
from mender_oneshot.devserver.rules import Refusal
from mender_oneshot.devserver.storage import Storage
from mender_oneshot.devserver.world import Device, World

AUTH_REQUESTS = "/api/devices/v1/authentication/auth_requests"
ATTRIBUTES = "/api/devices/v1/inventory/device/attributes"
DEPLOYMENTS = "/api/devices/v1/deployments"
NEXT = f"{DEPLOYMENTS}/device/deployments/next"
NEXT_V2 = "/api/devices/v2/deployments/device/deployments/next"
CONFIGURATION = f"{DEPLOYMENTS}/download/configuration"
BaseUrl = Callable[[str, str], str]  # (origin, host name the client used) -> scheme, host and port
CONFIGURATION_LIFETIME = 900.0  # device-api.md 5, `presign.expire_seconds`


class DeviceApi:
    """The handlers of the device endpoints; `v2` adds the one route the open source server has not."""

    def __init__(self, world: World, storage: Storage, base_url: BaseUrl, *, v2: bool) -> None:
        self._world = world
        self._storage = storage
        self._base_url = base_url
        self._v2 = v2

    @property
    def routes(self) -> list[Route]:
        """The device endpoints; v2 `next` is 404 unless asked for, as on the real server (3.1)."""
        deployment = f"{DEPLOYMENTS}/device/deployments/{{deployment_id}}"
        routes = [
            Route("POST", AUTH_REQUESTS, self.auth_request),
            Route("PUT", ATTRIBUTES, self.inventory),
            Route("PATCH", ATTRIBUTES, self.inventory),
            Route("GET", NEXT, self.next_get),
            Route("POST", NEXT, self.next_post),
            Route("PUT", f"{deployment}/status", self.status),
            Route("PUT", f"{deployment}/log", self.log),
            Route(
                "GET", f"{CONFIGURATION}/{{deployment_id}}/{{device_type}}/{{device_id}}", self.configuration
            ),
        ]
        return [*routes, Route("POST", NEXT_V2, self.next_v2)] if self._v2 else routes

    def gate(self, request: Request) -> Answer | None:
        """What stands before every device call but the two that carry their own proof (1.5)."""
        if request.path == AUTH_REQUESTS or request.path.startswith(CONFIGURATION):
            return None
        if request.bearer is None:
            return error_answer(Refusal(401, "Authorization not present in header"))
        if self._world.device_of(request.bearer) is None:
            # The real token check answers a bad token with the bare status:
            # mender-server services/deviceauth/api/http/api_devauth.go, VerifyTokenHandler. An expired one is
            # 403 by remote-terminal.md 8, 401 by device-api.md 1.5: a client has to know both.
            expired = request.path == CONNECT and self._world.has_expired(request.bearer)
            return Answer(403 if expired else 401)
        return None

    def _device(self, request: Request) -> Device:
        device = self._world.device_of(request.bearer or "")
        if device is None:
            raise Refusal(401, "dev auth: unauthorized")
        return device

    def auth_request(self, request: Request) -> Answer:
        """Authorize, or remember the device as pending (1.1 to 1.4)."""
        body = request.json()
        if not isinstance(body, dict):
            raise Refusal(400, "failed to decode auth request: expected an object")
        identity = rules.identity(body.get("id_data"))
        key, pem = tokens.load_public_key(body.get("pubkey"))
        signature = request.headers.get("X-MEN-Signature")
        if not signature:
            raise Refusal(400, "missing request signature header")
        tokens.check_signature(key, signature, request.body)
        token = self._world.authenticate(identity, pem)
        return Answer(200, {"Content-Type": "application/jwt"}, token.encode())

    def inventory(self, request: Request) -> Answer:
        """Replace or extend the inventory (2)."""
        sent = rules.attributes(request.json())
        self._world.put_inventory(self._device(request), sent, keep=request.method == "PATCH")
        return Answer(200)

    def next_get(self, request: Request) -> Answer:
        """`next` with what the device is in the query: only these two are read (3.1)."""
        names = ("artifact_name", "device_type")
        return self._next(request, rules.provides({n: request.query.get(n) for n in names}))

    def next_post(self, request: Request) -> Answer:
        """`next` with what the device is in the body: the open source server reads three members (3.1)."""
        body = self._object(request)
        names = ("artifact_name", "device_type", "artifact_provides")
        return self._next(request, rules.provides({n: body[n] for n in names if n in body}))

    def next_v2(self, request: Request) -> Answer:
        """`next` of servers that have v2."""
        provides = self._object(request).get("device_provides")
        if not isinstance(provides, dict):
            raise Refusal(400, "device_provides: cannot be blank.")
        return self._next(request, rules.provides(provides))

    def _object(self, request: Request) -> dict[str, Any]:
        body = request.json()
        if not isinstance(body, dict):
            raise Refusal(400, "invalid schema: expected an object")
        return body

    def _next(self, request: Request, provides: dict[str, Any]) -> Answer:
        device = self._device(request)
        offer = self._world.deployments.next(device.id, provides)
        if offer is None:
            return Answer(204)
        return json_answer(200, self._instructions(request, offer, device, provides["device_type"]))

    def _instructions(
        self, request: Request, offer: Offer, device: Device, device_type: str
    ) -> dict[str, Any]:
        deployment, artifact = offer.deployment, offer.artifact
        if artifact is None:
            path = "/".join((CONFIGURATION, *(quote(p, "") for p in (deployment.id, device_type, device.id))))
            expire = self._world.clock() + CONFIGURATION_LIFETIME
            stamp = rfc3339(expire)
            signature = self._world.signer.mac(deployment.id, device_type, device.id, stamp)
            query = urlencode({"x-men-expire": stamp, "x-men-signature": signature})
            uri = f"{self._base_url('api', request.host)}{path}?{query}"
            name, types, artifact_id = deployment.artifact_name, [device_type], deployment.id + device.id
        else:
            uri, expire = self._storage.link(self._base_url("storage", request.host), artifact)
            name, types, artifact_id = artifact.name, list(artifact.header.device_types), artifact.id
        return {
            "id": deployment.id,
            "artifact": {
                "id": artifact_id,
                "artifact_name": name,
                "source": {"uri": uri, "expire": rfc3339(expire)},
                "device_types_compatible": types,
            },
        }

    def status(self, request: Request) -> Answer:
        """Take a status report (3.2)."""
        status, substate = rules.status(request.json())
        device = self._device(request)
        self._world.deployments.report(request.params["deployment_id"], device.id, status, substate)
        return Answer(204)

    def log(self, request: Request) -> Answer:
        """Take a deployment log (4)."""
        messages = rules.log_messages(request.json())
        deployment_id = request.params["deployment_id"]
        if not rules.is_uuid(deployment_id):
            raise Refusal(500, "internal error")
        self._world.deployments.put_log(deployment_id, self._device(request).id, messages)
        return Answer(204)

    def configuration(self, request: Request) -> Answer:
        """The artifact of a configuration deployment: no token, no range, always whole (5)."""
        stamp, signature = request.query.get("x-men-expire"), request.query.get("x-men-signature")
        if not stamp or not signature or not rules.is_rfc3339(stamp):
            raise Refusal(400, "invalid request parameters: required parameters missing")
        end = datetime.fromisoformat(stamp).timestamp()
        if self._world.clock() >= end or (request.fault and request.fault.expired):
            raise Refusal(403, "URL expired")
        parts = [request.params[name] for name in ("deployment_id", "device_type", "device_id")]
        if not self._world.signer.mac_matches(signature, *parts, stamp):
            raise Refusal(403, "signature invalid")
        deployment = self._world.deployments.all.get(parts[0])
        if deployment is None or deployment.configuration is None:
            raise Refusal(404, f"deployment with id '{parts[0]}' not found")
        headers = {
            "Content-Type": "application/vnd.mender-artifact",
            "Content-Disposition": 'attachment; filename="artifact.mender"',
        }
        return Answer(200, headers, deployment.configuration)


def rfc3339(moment: float) -> str:
    """A point in time as Go writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
