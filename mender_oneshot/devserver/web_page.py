"""The web page: its files, and a summary of the server that the page polls."""

from collections.abc import Callable, Collection
from itertools import groupby
from pathlib import Path
from typing import Any

from . import gateway
from .artifact_store import Artifact
from .deployments import Deployment, DeviceDeployment
from .management_api import ManagementApi
from .model import Device, Model
from .routing import Request, Response, Route, json_response

OVERVIEW = f"{gateway.PAGE}overview"
LOGIN = f"{gateway.PAGE}login"
DEPLOYMENT_LIMIT = 20
_DIRECTORY = Path(__file__).parent / "web"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class WebPage:
    """The handlers of `/` and of `/devserver/page/`; all actions of the page use the management API.

    `connected` returns the ids of the devices that are connected for a terminal.
    """

    def __init__(
        self, model: Model, management_api: ManagementApi, connected: Callable[[], Collection[str]]
    ) -> None:
        self._model = model
        self._management_api = management_api
        self._connected = connected
        self._files = {
            f"{gateway.PAGE}{path.name}": path for path in _DIRECTORY.iterdir() if path.suffix in _TYPES
        }
        self._files["/"] = _DIRECTORY / "index.html"

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        files = [Route("GET", path, self.file) for path in self._files]
        return [*files, Route("GET", LOGIN, self.login), Route("GET", OVERVIEW, self.overview)]

    def gate(self, request: Request) -> Response | None:
        """Require a user's token for the overview; the files contain nothing secret."""
        return self._management_api.gate(request) if request.path == OVERVIEW else None

    def file(self, request: Request) -> Response:
        """Return a file of the page."""
        path = self._files[request.path]
        return Response(200, {"Content-Type": _TYPES[path.suffix], **_HEADERS}, path.read_bytes())

    def login(self, request: Request) -> Response:
        """Return whether a password is needed to log in."""
        return json_response(200, {"password": not self._management_api.admits_everyone})

    def overview(self, request: Request) -> Response:
        """Return all devices and artifacts, and the last deployments, newest first; times are Unix times."""
        connected = self._connected()
        deployments = list(self._model.deployments.all.values())
        shown = {
            "now": self._model.clock(),
            "devices": [_device(device, device.id in connected) for device in self._model.devices.values()],
            "artifacts": [_artifact(artifact) for artifact in self._model.store.artifacts.values()],
            "deployments": [_deployment(found) for found in deployments[: -DEPLOYMENT_LIMIT - 1 : -1]],
            "deployment_count": len(deployments),
        }
        return json_response(200, shown, **{"Cache-Control": "no-store"})


def _device(device: Device, connected: bool) -> dict[str, Any]:
    return {
        "id": device.id,
        "status": device.status,
        "identity": device.identity,
        "keys": [{"id": auth_set.id, "status": auth_set.status} for auth_set in device.auth_sets],
        "release": device.attributes.get("artifact_name"),
        "type": device.attributes.get("device_type"),
        "contact": device.checked_in,
        "inventory": device.reported,
        "connected": connected,
    }


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "name": artifact.name,
        "device_types": list(artifact.header.device_types),
        "payloads": list(artifact.header.payload_types),
        "size": artifact.size,
        "uploaded": artifact.modified,
    }


def _deployment(deployment: Deployment) -> dict[str, Any]:
    waiting = "aborted" if deployment.aborted else "pending"
    on_devices = [
        deployment.devices.get(device_id) or DeviceDeployment(device_id, deployment.created, waiting)
        for device_id in deployment.device_ids
    ]
    return {
        "id": deployment.id,
        "name": deployment.artifact_name,
        "status": deployment.status,
        "created": deployment.created,
        "devices": [_on_device(entry) for entry in on_devices],
    }


def _on_device(entry: DeviceDeployment) -> dict[str, Any]:
    return {
        "id": entry.device_id,
        "status": entry.status,
        "substate": entry.substate,
        "history": [status for status, _ in groupby(entry.history)],
        "started": entry.started,
        "finished": entry.finished,
        "log": None if entry.log is None else len(entry.log),
    }
