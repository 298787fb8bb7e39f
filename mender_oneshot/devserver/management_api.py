"""As much of the management API as curl, mender-cli and a test need, in the forms of mender-server."""

import base64
import binascii
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mender_oneshot.devserver import multipart
from mender_oneshot.devserver.artifact import BadArtifact
from mender_oneshot.devserver.deployments import Deployment, DeviceDeployment
from mender_oneshot.devserver.device_api import rfc3339
from mender_oneshot.devserver.messages import Answer, Request, Route, error_answer, json_answer
from mender_oneshot.devserver.rules import FINAL, FROM_DEVICE, Refusal
from mender_oneshot.devserver.store import Artifact
from mender_oneshot.devserver.world import Device, World

PREFIX = "/api/management/"
LOGIN = f"{PREFIX}v1/useradm/auth/login"
DEVICES = f"{PREFIX}v2/devauth/devices"
INVENTORY = f"{PREFIX}v1/inventory/devices"
ARTIFACTS = f"{PREFIX}v1/deployments/artifacts"
DEPLOYMENTS = f"{PREFIX}v1/deployments/deployments"


class ManagementApi:
    """The handlers of the management endpoints; any user may log in unless `user` names the one that may."""

    def __init__(self, world: World, user: tuple[str, str] | None) -> None:
        self._world = world
        self._user = user
        self._tokens: set[str] = set()

    @property
    def routes(self) -> list[Route]:
        """The management endpoints."""
        return [
            Route("POST", LOGIN, self.login),
            Route("GET", DEVICES, self.devices),
            Route("GET", f"{DEVICES}/{{id}}", self.device),
            Route("DELETE", f"{DEVICES}/{{id}}", self.decommission),
            Route("PUT", f"{DEVICES}/{{id}}/auth/{{aid}}/status", self.set_status),
            Route("GET", INVENTORY, self.inventories),
            Route("GET", f"{INVENTORY}/{{id}}", self.inventory),
            Route("POST", ARTIFACTS, self.upload, streams=True),
            Route("GET", ARTIFACTS, self.artifacts),
            Route("GET", f"{ARTIFACTS}/{{id}}", self.artifact),
            Route("DELETE", f"{ARTIFACTS}/{{id}}", self.delete_artifact),
            Route("POST", DEPLOYMENTS, self.deploy),
            Route("GET", DEPLOYMENTS, self.deployments),
            Route("GET", f"{DEPLOYMENTS}/{{id}}", self.deployment),
            Route("PUT", f"{DEPLOYMENTS}/{{id}}/status", self.abort),
            Route("GET", f"{DEPLOYMENTS}/{{id}}/devices", self.deployment_devices),
            Route("GET", f"{DEPLOYMENTS}/{{id}}/devices/{{device_id}}/log", self.log),
        ]

    def gate(self, request: Request) -> Answer | None:
        """A token from `login` stands before all but `login` itself."""
        if request.path == LOGIN or request.bearer in self._tokens:
            return None
        return error_answer(Refusal(401, "unauthorized"))

    def login(self, request: Request) -> Answer:
        """Hand out a token for a user name and a password (remote-terminal.md 9)."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            user = colon = password = ""
        wrong = not user or not colon or (self._user is not None and (user, password) != self._user)
        if scheme.lower() != "basic" or wrong:
            raise Refusal(401, "unauthorized")
        claims = {"jti": secrets.token_hex(16), "sub": user, "iss": "Mender", "mender.user": True}
        token = self._world.signer.jwt(claims)
        self._tokens.add(token)
        return Answer(200, {"Content-Type": "application/jwt"}, token.encode())

    def devices(self, request: Request) -> Answer:
        """The devices and their auth sets, of one status if asked for."""
        wanted = request.query.get("status")
        found = [d for d in self._world.devices.values() if wanted in (None, d.status)]
        return _page(request, [_device_json(d) for d in found])

    def device(self, request: Request) -> Answer:
        """One device and its auth sets."""
        return json_answer(200, _device_json(self._world.device(request.params["id"])))

    def decommission(self, request: Request) -> Answer:
        """Forget a device."""
        self._world.decommission(request.params["id"])
        return Answer(204)

    def set_status(self, request: Request) -> Answer:
        """Accept, reject or reset an auth set."""
        status = _object(request).get("status")
        if status not in ("accepted", "rejected", "pending"):
            raise Refusal(400, "incorrect device status")
        self._world.set_status(request.params["id"], request.params["aid"], status)
        return Answer(204)

    def inventories(self, request: Request) -> Answer:
        """The attributes of all devices."""
        return _page(request, [_inventory_json(d) for d in self._world.devices.values()])

    def inventory(self, request: Request) -> Answer:
        """The attributes of one device, each with its scope."""
        return json_answer(200, _inventory_json(self._world.device(request.params["id"])))

    def upload(self, request: Request) -> Answer:
        """Take in an artifact from a form, straight to disk."""
        store = self._world.store
        kind = request.headers.get("Content-Type", "")
        received: list[Path] = []
        try:
            fields = multipart.parse(
                kind, request.chunks, "artifact", lambda part: received.append(store.receive(part.pieces))
            )
            if not received:
                raise Refusal(400, "request does not contain the artifact file")
            with self._world.lock:
                artifact = store.add(received[0], fields.get("description", ""))
        except BadArtifact as error:
            raise Refusal(400, str(error)) from None
        finally:
            for path in received:
                path.unlink(missing_ok=True)
        return Answer(201, {"Location": f"{ARTIFACTS}/{artifact.id}"})

    def artifacts(self, request: Request) -> Answer:
        """All artifacts."""
        return json_answer(200, [_artifact_json(a) for a in self._world.store.artifacts.values()])

    def artifact(self, request: Request) -> Answer:
        """One artifact."""
        found = self._world.store.artifacts.get(request.params["id"])
        if found is None:
            raise Refusal(404, "Resource not found")
        return json_answer(200, _artifact_json(found))

    def delete_artifact(self, request: Request) -> Answer:
        """Delete an artifact no deployment is using."""
        if self._world.deployments.uses(request.params["id"]):
            raise Refusal(409, "Artifact is used in active deployment")
        self._world.store.remove(request.params["id"])
        return Answer(204)

    def deploy(self, request: Request) -> Answer:
        """Create a deployment for devices named by id, or for all that are accepted (`all_devices`)."""
        body = _object(request)
        name, artifact_name, devices = (body.get(key) for key in ("name", "artifact_name", "devices"))
        if body.get("all_devices") is True and not devices:
            devices = [device.id for device in self._world.accepted()]
        if not isinstance(name, str) or not name or not isinstance(artifact_name, str) or not artifact_name:
            raise Refusal(400, "Validating deployment: name and artifact_name: cannot be blank.")
        if not isinstance(devices, list) or not devices or not all(isinstance(d, str) for d in devices):
            raise Refusal(
                400, "Validating deployment: Invalid deployments definition: provide list of devices"
            )
        forced = body.get("force_installation") is True
        made = self._world.deployments.create(name, artifact_name, devices, force_installation=forced)
        return Answer(201, {"Location": f"{DEPLOYMENTS}/{made.id}"})

    def deployments(self, request: Request) -> Answer:
        """The deployments, newest first, of one status if asked for."""
        wanted = request.query.get("status")
        found = [d for d in self._world.deployments.all.values() if wanted in (None, d.status)]
        return _page(request, [self._deployment_json(d) for d in reversed(found)])

    def deployment(self, request: Request) -> Answer:
        """One deployment."""
        return json_answer(200, self._deployment_json(self._world.deployments.get(request.params["id"])))

    def abort(self, request: Request) -> Answer:
        """Abort a deployment."""
        if _object(request).get("status") != "aborted":
            raise Refusal(400, "Unexpected deployment status")
        self._world.deployments.abort(request.params["id"])
        return Answer(204)

    def deployment_devices(self, request: Request) -> Answer:
        """How a deployment stands on the devices that have asked for it."""
        deployment = self._world.deployments.get(request.params["id"])
        return _page(request, [_device_deployment_json(d) for d in deployment.devices.values()])

    def log(self, request: Request) -> Answer:
        """The log a device uploaded, as lines of text."""
        params = request.params
        messages = self._world.deployments.on_device(params["id"], params["device_id"]).log
        if messages is None:
            raise Refusal(404, "Resource not found")
        lines = [f"{m['timestamp']} {m['level']}: {m['message']}\n" for m in messages]
        return Answer(200, {"Content-Type": "text/plain"}, "".join(lines).encode())

    def _deployment_json(self, deployment: Deployment) -> dict[str, Any]:
        names = sorted(FINAL | FROM_DEVICE | {"pending"})
        counts = dict.fromkeys(names, 0)
        for on_device in deployment.devices.values():
            counts[on_device.status] += 1
        counts["pending"] += len(set(deployment.device_ids) - set(deployment.devices))
        ended = [d.finished for d in deployment.devices.values() if d.finished is not None]
        finished = (
            rfc3339(max(ended, default=deployment.created)) if deployment.status == "finished" else None
        )
        sizes = [d.artifact.size for d in deployment.devices.values() if d.artifact]
        return _present(
            {
                "id": deployment.id,
                "name": deployment.name,
                "artifact_name": deployment.artifact_name,
                "created": rfc3339(deployment.created),
                "finished": finished,
                "status": deployment.status,
                "device_count": len(deployment.devices),
                "max_devices": len(deployment.device_ids),
                "initial_device_count": len(deployment.device_ids),
                "artifacts": list(deployment.artifact_ids),
                "type": "software" if deployment.configuration is None else "configuration",
                "force_installation": deployment.force_installation,
                "statistics": {"status": counts, "total_size": sum(sizes)},
            }
        )


def _object(request: Request) -> dict[str, Any]:
    body = request.json()
    if not isinstance(body, dict):
        raise Refusal(400, "failed to decode request body: expected an object")
    return body


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _page(request: Request, items: Iterable[Any]) -> Answer:
    """One page of a list, with the count of all in a header."""
    try:
        page, size = int(request.query.get("page", "1")), int(request.query.get("per_page", "20"))
    except ValueError:
        page = size = 0
    if page < 1 or not 1 <= size <= 500:
        raise Refusal(400, "invalid page or per_page query")
    items = list(items)
    return json_answer(200, items[(page - 1) * size : page * size], **{"X-Total-Count": str(len(items))})


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
    return {
        "id": device.id,
        "identity_data": device.identity,
        "status": device.status,
        "created_ts": rfc3339(device.created),
        "updated_ts": rfc3339(device.updated),
        "auth_sets": auth_sets,
        "decommissioning": False,
    }


def _inventory_json(device: Device) -> dict[str, Any]:
    attributes = [attribute.to_json() for attribute in device.all_attributes]
    return {"id": device.id, "updated_ts": rfc3339(device.updated), "attributes": attributes}


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return artifact.to_json() | {"modified": rfc3339(artifact.modified)}


def _device_deployment_json(found: DeviceDeployment) -> dict[str, Any]:
    times = {"created": found.created, "started": found.started, "finished": found.finished}
    shown = {name: None if moment is None else rfc3339(moment) for name, moment in times.items()}
    kind = (found.request or {}).get("device_type")
    image = None
    if found.artifact:
        image = {"id": found.artifact.id, "name": found.artifact.name, "size": found.artifact.size}
    return _present(
        {
            "id": found.device_id,
            "status": found.status,
            "substate": found.substate,
            "device_type": kind,
            "image": image,
            "log": found.log is not None,
            **shown,
        }
    )
