"""The management API for artifacts and deployments, as in mender-server."""

import base64
import json
from pathlib import Path
from typing import Any

from . import go_json, multipart, validation
from .artifact import InvalidArtifact
from .artifact_store import Artifact
from .deployments import NO_DEPLOYMENT, NOT_FOUND, Deployment, DeviceDeployment
from .management_api import PREFIX, page
from .model import Model
from .routing import Request, Response, Route, json_response
from .validation import STATUSES, HTTPError, rfc3339

ARTIFACTS = f"{PREFIX}v1/deployments/artifacts"
DEPLOYMENTS = f"{PREFIX}v1/deployments/deployments"
_INVALID_BODY = "Validating request body: "
_INVALID_DEFINITION = "Invalid deployments definition: "


class ManagementDeployments:
    """The handlers of these endpoints.

    They raise HTTPError with the status and the message of the real server.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        return [
            Route("POST", ARTIFACTS, self.upload, streams=True),
            Route("GET", ARTIFACTS, self.artifacts),
            Route("GET", f"{ARTIFACTS}/{{id}}", self.artifact),
            Route("DELETE", f"{ARTIFACTS}/{{id}}", self.delete_artifact),
            Route("POST", DEPLOYMENTS, self.deploy),
            Route("GET", DEPLOYMENTS, self.deployments),
            Route("GET", f"{DEPLOYMENTS}/{{id}}", self.deployment),
            Route("GET", f"{DEPLOYMENTS}/{{id}}/statistics", self.statistics),
            Route("PUT", f"{DEPLOYMENTS}/{{id}}/status", self.abort),
            Route("GET", f"{DEPLOYMENTS}/{{id}}/devices", self.deployment_devices),
            Route("GET", f"{DEPLOYMENTS}/{{id}}/devices/{{device_id}}/log", self.log),
        ]

    def upload(self, request: Request) -> Response:
        """Store an artifact from a form, directly on disk."""
        store = self._model.store
        kind = request.headers.get("Content-Type", "")
        received: list[Path] = []
        try:
            fields = multipart.parse(
                kind, request.chunks, "artifact", lambda part: received.append(store.receive(part.pieces))
            )
            if not received:
                raise HTTPError(400, "request does not contain the artifact file")
            with self._model.lock:
                artifact = store.add(received[0], fields.get("description", ""))
        except InvalidArtifact as error:
            raise HTTPError(400, str(error)) from None
        finally:
            for path in received:
                path.unlink(missing_ok=True)
        return Response(201, {"Location": f"{ARTIFACTS}/{artifact.id}"})

    def artifacts(self, request: Request) -> Response:
        """List all artifacts."""
        return json_response(200, [_artifact_json(a) for a in self._model.store.artifacts.values()])

    def artifact(self, request: Request) -> Response:
        """Return one artifact."""
        artifact = self._model.store.artifacts.get(_id(request))
        if artifact is None:
            raise HTTPError(404, NOT_FOUND)
        return json_response(200, _artifact_json(artifact))

    def delete_artifact(self, request: Request) -> Response:
        """Delete an artifact that no active deployment uses."""
        artifact_id = _id(request)
        if self._model.deployments.uses(artifact_id):
            raise HTTPError(409, "Artifact is used in active deployment")
        self._model.store.remove(artifact_id)
        return Response(204)

    def deploy(self, request: Request) -> Response:
        """Create a deployment for devices given by id, or for all accepted devices (`all_devices`)."""
        request.check_json_type()
        body = request.object("model.DeploymentConstructor", _INVALID_BODY)
        try:
            name, artifact_name, devices = _constructor(body)
        except (HTTPError, ValueError) as error:
            raise HTTPError(400, f"{_INVALID_BODY}{error}") from None
        forced = body.get("force_installation") is True
        if not devices:
            devices = [device.id for device in self._model.accepted()]
            if not devices:
                raise HTTPError(400, "No devices for the deployment")
        deployment = self._model.deployments.create(name, artifact_name, devices, force_installation=forced)
        return Response(201, {"Location": f"{DEPLOYMENTS}/{deployment.id}"})

    def deployments(self, request: Request) -> Response:
        """List the deployments, newest first, optionally those of one status."""
        wanted = request.query.get("status", "")
        if wanted not in ("", "pending", "inprogress", "finished", "aborted"):
            raise HTTPError(400, f"unknown status {wanted}")
        deployments = [d for d in self._model.deployments.all.values() if _has_status(d, wanted)]
        return page(request, [_deployment_json(d) for d in reversed(deployments)])

    def deployment(self, request: Request) -> Response:
        """Return one deployment."""
        return json_response(200, _deployment_json(self._model.deployments.get(_id(request))))

    def statistics(self, request: Request) -> Response:
        """Return the number of devices in each status."""
        return json_response(200, _counts(self._model.deployments.get(_id(request))))

    def abort(self, request: Request) -> Response:
        """Abort a deployment."""
        request.check_json_type()
        deployment_id = _id(request)
        try:
            status = go_json.text(request.object("struct"), "status", "", "model.DeviceDeploymentStatus")
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        validation.check_known_status(status)
        if status != "aborted":
            raise HTTPError(400, "Unexpected deployment status")
        self._model.deployments.abort(deployment_id)
        return Response(204)

    def deployment_devices(self, request: Request) -> Response:
        """List the devices to which a deployment was offered, with its status."""
        deployment = self._model.deployments.all.get(_id(request))
        if deployment is None:
            raise HTTPError(404, NO_DEPLOYMENT)
        return json_response(200, [_device_deployment_json(d) for d in deployment.devices.values()])

    def log(self, request: Request) -> Response:
        """Return the log that a device uploaded, as lines of text."""
        params = request.params
        messages = self._model.deployments.on_device(params["id"], params["device_id"]).log
        if messages is None:
            raise HTTPError(404, NOT_FOUND)
        lines = [f"{_go_time(m['timestamp'])} {m['level']}: {m['message']}\n" for m in messages]
        return Response(200, {"Content-Type": "text/plain"}, "".join(lines).encode("utf-8", "replace"))


def _id(request: Request) -> str:
    """Return the id in a path; raise HTTPError 400 unless it is a UUID."""
    if not validation.is_uuid(request.params["id"]):
        raise HTTPError(400, "ID is not a valid UUID")
    return request.params["id"]


def _constructor(body: dict[str, Any]) -> tuple[str, str, list[str]]:
    """Return a deployment's name, artifact name and devices; raise HTTPError or ValueError if invalid."""
    names = ("name", "artifact_name")
    name, artifact_name = (go_json.text(body, member, "DeploymentConstructor") for member in names)
    devices = go_json.fit(body.get("devices"), list, "[]string")
    blank = "cannot be blank"
    validation.check(
        name=None if name else blank,
        artifact_name=None if artifact_name else blank,
        devices=None if all(device and isinstance(device, str) for device in devices) else f"0: {blank}",
    )
    everywhere = body.get("all_devices") is True
    if not devices and not everywhere:
        raise ValueError(f"{_INVALID_DEFINITION}provide list of devices or set all_devices flag")
    if devices and everywhere:
        raise ValueError(
            f"{_INVALID_DEFINITION}list of devices provided togheter with all_devices flag"
        )  # the server's spelling
    return name, artifact_name, devices


def _go_time(stamp: str) -> str:
    """Return an RFC 3339 time as Go prints a time in UTC."""
    parsed = validation.parsed_time(stamp)
    if parsed is None:
        return stamp
    timestamp, fraction = parsed
    shown = fraction.replace(",", ".")[:10].rstrip("0").rstrip(".")
    return f"{timestamp:%Y-%m-%d %H:%M:%S}{shown} +0000 UTC"


def _counts(deployment: Deployment) -> dict[str, int]:
    counts = dict.fromkeys(sorted(STATUSES), 0)
    for on_device in deployment.devices.values():
        counts[on_device.status] += 1
    if not deployment.aborted:  # Once aborted, only devices count to which it was offered.
        counts["pending"] += len(set(deployment.device_ids) - set(deployment.devices))
    return counts


def _has_status(deployment: Deployment, wanted: str) -> bool:
    """Return whether a deployment has the requested status; an empty one matches any."""
    if wanted == "aborted":
        return any(d.status == "aborted" for d in deployment.devices.values())
    return wanted in ("", deployment.status)


def _deployment_json(deployment: Deployment) -> dict[str, Any]:
    ended = [d.finished for d in deployment.devices.values() if d.finished is not None]
    finished = rfc3339(max(ended, default=deployment.created)) if deployment.status == "finished" else None
    sizes = [d.artifact.size for d in deployment.devices.values() if d.artifact]
    term = {"scope": "identity", "attribute": "id", "type": "$in", "value": list(deployment.device_ids)}
    shown = {
        "id": deployment.id,
        "name": deployment.name,
        "artifact_name": deployment.artifact_name,
        "created": rfc3339(deployment.created),
        "finished": finished,
        "status": deployment.status,
        "device_count": len(deployment.devices),
        "max_devices": len(deployment.device_ids),
        "artifacts": list(deployment.artifact_ids),
        "force_installation": deployment.force_installation or None,
        "statistics": {"status": _counts(deployment), "total_size": sum(sizes)},
    }
    if deployment.configuration is None:
        shown |= {"type": "software", "filter": {"id": "", "name": "", "terms": [term]}}
    else:
        shown |= {"type": "configuration", "artifacts": None}
        shown["configuration"] = _abridged(deployment.configuration)
    return _present(shown)


def _abridged(configuration: bytes | dict[str, Any]) -> str:
    """Return a configuration as the server shows it: in base64, with truncated values."""
    if isinstance(configuration, dict):
        values = {
            name: f"{value[:3]}...<omitted>" if isinstance(value, str) and len(value) > 3 else value
            for name, value in configuration.items()
        }
        configuration = json.dumps(values, separators=(",", ":")).encode()
    return base64.b64encode(configuration).decode()


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return artifact.to_json() | {"modified": rfc3339(artifact.modified)}


def _device_deployment_json(on_device: DeviceDeployment) -> dict[str, Any]:
    times = {"created": on_device.created, "started": on_device.started, "finished": on_device.finished}
    shown = {name: None if timestamp is None else rfc3339(timestamp) for name, timestamp in times.items()}
    kind = (on_device.provides or {}).get("device_type")
    image = None
    if on_device.artifact:
        image = {
            "id": on_device.artifact.id,
            "name": on_device.artifact.name,
            "size": on_device.artifact.size,
        }
    return _present(
        {
            "id": on_device.device_id,
            "status": on_device.status,
            "substate": on_device.substate,
            "device_type": kind,
            "image": image,
            "log": on_device.log is not None,
            **shown,
        }
    )
