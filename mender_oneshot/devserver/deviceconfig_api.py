"""Configurations of devices: set by users, reported by devices, and deployed."""

from typing import Any

from . import validation
from .model import Configuration, Model
from .routing import Request, Response, Route, json_response
from .validation import HTTPError, rfc3339

CONFIGURATION = "/api/devices/v1/deviceconfig/configuration"
CONFIGURATIONS = "/api/management/v1/deviceconfig/configurations/device"


class DeviceConfigApi:
    """The endpoints of deviceconfig, for devices and for users.

    The handlers raise HTTPError with the status and the message of the real server.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._configurations = model.configurations

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        one = f"{CONFIGURATIONS}/{{id}}"
        return [
            Route("GET", CONFIGURATION, self.get),
            Route("PUT", CONFIGURATION, self.report),
            Route("GET", one, self.show),
            Route("PUT", one, self.set),
            Route("POST", f"{one}/deploy", self.deploy),
        ]

    def get(self, request: Request) -> Response:
        """Return to a device its configuration as a user has set it, without what the device has reported."""
        return json_response(200, _shown(self._get(self._caller(request)).configured))

    def report(self, request: Request) -> Response:
        """Record the configuration that a device has applied."""
        values = self._values(request)
        configuration = self._configurations.setdefault(self._caller(request), Configuration())
        configuration.reported, configuration.reported_at = values, self._model.clock()
        return Response(204)

    def show(self, request: Request) -> Response:
        """Return the configuration of a device to a user, as set and as reported."""
        device_id = request.params["id"]
        configuration = self._get(device_id)
        flat = {name: value for name, value in configuration.configured.items() if isinstance(value, str)}
        shown = {
            "id": device_id,
            "configured": flat,
            "reported": _shown(configuration.reported),
            "deployment_id": configuration.deployment_id,
            "reported_ts": configuration.reported_at and rfc3339(configuration.reported_at),
            "updated_ts": configuration.updated_at and rfc3339(configuration.updated_at),
        }
        return json_response(200, {name: value for name, value in shown.items() if value})

    def set(self, request: Request) -> Response:
        """Replace the configuration of a device; it takes effect only when it is deployed."""
        values = self._values(request)
        configuration = self._configurations.setdefault(request.params["id"], Configuration())
        configuration.configured, configuration.updated_at = values, self._model.clock()
        return Response(204)

    def deploy(self, request: Request) -> Response:
        """Create a deployment of a device's configuration."""
        device_id = request.params["id"]
        configuration = self._get(device_id)
        request.object("model.DeployConfigurationRequest", "malformed request body: ")
        values = _shown(configuration.configured)
        deployment = self._model.deployments.create("", "", [device_id], configuration=values)
        configuration.deployment_id = deployment.id
        return json_response(200, {"deployment_id": deployment.id})

    def _get(self, device_id: str) -> Configuration:
        """Return the configuration of a device, which exists once the device is accepted; HTTPError 404."""
        device = self._model.devices.get(device_id)
        if device_id not in self._configurations and (device is None or device.status != "accepted"):
            raise HTTPError(404, "device does not exist")
        return self._configurations.setdefault(device_id, Configuration(updated_at=self._model.clock()))

    def _caller(self, request: Request) -> str:
        device = self._model.device_of(request.bearer)
        if device is None:
            raise HTTPError(401)
        return device.id

    def _values(self, request: Request) -> dict[str, Any]:
        into = "map[string]interface {}"
        return validation.configuration(request.object(into, "malformed request body: "))


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as the service returns them: a hidden one without its content."""
    shown: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str):
            shown[name] = value
        elif value.keys() == {"value", "hidden"}:
            shown[name] = {"hidden": True} if value["hidden"] is True else value
    return shown
