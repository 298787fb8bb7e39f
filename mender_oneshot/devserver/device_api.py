"""The device API: one handler per endpoint, which responds like mender-server."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from . import configuration_artifact, gateway, go_json, tokens, validation
from .connect_api import CONNECT
from .deployments import Offer
from .model import Device, Model
from .routing import Request, Response, Route, json_response
from .storage_api import StorageApi
from .validation import HTTPError, rfc3339

AUTHENTICATION = "/api/devices/v1/authentication/"
AUTH_REQUESTS = f"{AUTHENTICATION}auth_requests"
ATTRIBUTES = "/api/devices/v1/inventory/device/attributes"
DEPLOYMENTS = "/api/devices/v1/deployments"
NEXT = f"{DEPLOYMENTS}/device/deployments/next"
NEXT_V2 = "/api/devices/v2/deployments/device/deployments/next"
CONFIGURATION = f"{DEPLOYMENTS}/download/configuration"
BaseUrl = Callable[[str, str], str]
"""Returns scheme, host and port of an origin, given the host name that the client used."""
CONFIGURATION_LIFETIME = 900.0


class DeviceApi:
    """The handlers of the device endpoints; `v2` adds the route that the open source server lacks.

    They raise HTTPError with the status and the message of the real server.
    """

    def __init__(self, model: Model, storage: StorageApi, base_url: BaseUrl, *, v2: bool) -> None:
        self._model = model
        self._storage = storage
        self._base_url = base_url
        self._v2 = v2

    @property
    def routes(self) -> list[Route]:
        """The device endpoints; v2 `next` is 404 unless enabled, as on the real server."""
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

    def gate(self, request: Request) -> Response | None:
        """Check the token, except for requests that carry a signature of their own.

        Raise HTTPError 401, or 403 for an expired token where the real server may use it.
        """
        if request.path.startswith((AUTHENTICATION, CONFIGURATION)):
            return None
        token = gateway.bearer_token(request.headers)
        gateway.check_format(token)
        device = self._model.device_of(token)
        if device is None:
            # The real server sends no body for an invalid token. For an expired one it sends 403 or 401, so
            # clients have to handle both.
            expired = request.path == CONNECT and self._model.has_expired(token)
            raise HTTPError(403 if expired else 401)
        device.checked_in = self._model.clock()
        return None

    def _device(self, request: Request) -> Device:
        device = self._model.device_of(request.bearer)
        if device is None:
            raise HTTPError(401)
        return device

    def auth_request(self, request: Request) -> Response:
        """Return a token, or add the device as pending and raise HTTPError 401."""
        request.check_json_type()
        try:
            body = go_json.decode(request.body)
        except ValueError as error:
            raise HTTPError(400, f"failed to decode auth request: {error}") from None
        id_data, pubkey = validation.auth_request(body)
        try:
            key, pem = tokens.load_public_key(pubkey)
        except HTTPError as error:
            raise HTTPError(400, f"invalid auth request: {error.text}") from None
        identity = validation.identity(id_data)
        signature = request.headers.get("X-MEN-Signature")
        if not signature:
            raise HTTPError(400, "missing request signature header")
        tokens.check_signature(key, signature, request.body)
        token = self._model.authenticate(identity, pem)
        return Response(200, {"Content-Type": "application/jwt"}, token.encode())

    def inventory(self, request: Request) -> Response:
        """Replace (PUT) or extend (PATCH) the inventory."""
        request.check_json_type()
        sent = validation.attributes(
            request.list("[]model.DeviceAttribute", "failed to decode request body: ")
        )
        self._model.put_inventory(self._device(request), sent, keep=request.method == "PATCH")
        return Response(200)

    def next_get(self, request: Request) -> Response:
        """Return the next deployment; artifact name and device type are in the query."""
        names = ("artifact_name", "device_type")
        return self._next(request, validation.provides({n: request.query.get(n, "") for n in names}))

    def next_post(self, request: Request) -> Response:
        """Return the next deployment; the data are in the body, of which three members are read."""
        body = self._object(request)
        names = ("artifact_name", "device_type", "artifact_provides")
        return self._next(request, validation.provides({n: body[n] for n in names if n in body}))

    def next_v2(self, request: Request) -> Response:
        """Return the next deployment, as servers with v2 do."""
        provides = self._object(request).get("device_provides")
        if not isinstance(provides, dict):
            raise HTTPError(400, "device_provides: cannot be blank.")
        return self._next(request, validation.provides(provides))

    def _object(self, request: Request) -> dict[str, Any]:
        request.check_json_type()
        return request.object("model.InstalledDeviceDeployment", "invalid schema: ")

    def _next(self, request: Request, provides: dict[str, Any]) -> Response:
        device = self._device(request)
        offer = self._model.deployments.next(device.id, provides)
        if offer is None:
            return Response(204)
        return json_response(200, self._instructions(request, offer, device, provides["device_type"]))

    def _instructions(
        self, request: Request, offer: Offer, device: Device, device_type: str
    ) -> dict[str, Any]:
        deployment, artifact = offer.deployment, offer.artifact
        if artifact is None:
            path = "/".join((CONFIGURATION, *(quote(p, "") for p in (deployment.id, device_type, device.id))))
            expire = self._model.clock() + CONFIGURATION_LIFETIME
            stamp = rfc3339(expire)
            signature = self._model.signer.mac(deployment.id, device_type, device.id, stamp)
            query = urlencode({"x-men-expire": stamp, "x-men-signature": signature})
            uri = f"{self._base_url('api', request.host)}{path}?{query}"
            name, types, artifact_id = deployment.artifact_name, [device_type], deployment.id + device.id
            method = {}
        else:
            uri, expire = self._storage.link(self._base_url("storage", request.host), artifact)
            name, types, artifact_id = artifact.name, list(artifact.header.device_types), artifact.id
            method = {"method": "GET"}
        return {
            "id": deployment.id,
            "artifact": {
                "id": artifact_id,
                "artifact_name": name,
                "source": {"uri": uri, "expire": rfc3339(expire)} | method,
                "device_types_compatible": types,
            },
        }

    def status(self, request: Request) -> Response:
        """Record a status report."""
        request.check_json_type()
        status, substate = validation.status(request.object("model.statusReport"))
        device = self._device(request)
        self._model.deployments.report(request.params["deployment_id"], device.id, status, substate)
        return Response(204)

    def log(self, request: Request) -> Response:
        """Store a deployment log."""
        request.check_json_type()
        messages = validation.log_messages(request.object("model.AuxDeploymentLog"))
        deployment_id = request.params["deployment_id"]
        if not validation.is_uuid(deployment_id):
            raise HTTPError(500, "internal error")
        self._model.deployments.put_log(deployment_id, self._device(request).id, messages)
        return Response(204)

    def configuration(self, request: Request) -> Response:
        """Return the artifact of a configuration deployment: no token, no range, always whole."""
        stamp, signature = request.query.get("x-men-expire"), request.query.get("x-men-signature")
        if not stamp or not signature or not validation.is_rfc3339(stamp):
            raise HTTPError(400, "invalid request parameters: required parameters missing")
        end = datetime.fromisoformat(stamp).timestamp()
        if self._model.clock() >= end or (request.fault and request.fault.expired):
            raise HTTPError(403, "URL expired")
        parts = [request.params[name] for name in ("deployment_id", "device_type", "device_id")]
        if not self._model.signer.mac_matches(signature, *parts, stamp):
            raise HTTPError(403, "signature invalid")
        deployment = self._model.deployments.all.get(parts[0])
        if deployment is None or deployment.configuration is None:
            raise HTTPError(404, f"deployment with id '{parts[0]}' not found")
        headers = {
            "Content-Type": "application/vnd.mender-artifact",
            "Content-Disposition": 'attachment; filename="artifact.mender"',
        }
        content = deployment.configuration
        if not isinstance(content, bytes):
            content = configuration_artifact.build(deployment.artifact_name, parts[1], content)
        return Response(200, headers, content)
