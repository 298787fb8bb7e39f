"""Configurations of devices: what users set, what devices report, and deployments of the former."""

from typing import Any

from . import validation
from .model import Configuration, Model
from .routing import Answer, Request, Route, json_answer
from .validation import Refusal, rfc3339

CONFIGURATION = "/api/devices/v1/deviceconfig/configuration"
CONFIGURATIONS = "/api/management/v1/deviceconfig/configurations/device"


class DeviceConfigApi:
    """The endpoints of deviceconfig, for devices and for users."""

    def __init__(self, world: Model) -> None:
        self._world = world
        self._known = world.configurations

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        one = f"{CONFIGURATIONS}/{{id}}"
        return [
            Route("GET", CONFIGURATION, self.wanted),
            Route("PUT", CONFIGURATION, self.report),
            Route("GET", one, self.show),
            Route("PUT", one, self.set),
            Route("POST", f"{one}/deploy", self.deploy),
        ]

    def wanted(self, request: Request) -> Answer:
        """Tell a device its configuration as set by a user; nothing that it reported is in there."""
        return json_answer(200, _shown(self._get(self._caller(request)).configured))

    def report(self, request: Request) -> Answer:
        """Take the configuration that a device has applied."""
        values = self._values(request)
        found = self._known.setdefault(self._caller(request), Configuration())
        found.reported, found.reported_at = values, self._world.clock()
        return Answer(204)

    def show(self, request: Request) -> Answer:
        """Show a user the configuration of a device, as wanted and as reported."""
        device_id = request.params["id"]
        found = self._get(device_id)
        flat = {name: value for name, value in found.configured.items() if isinstance(value, str)}
        shown = {
            "id": device_id,
            "configured": flat,
            "reported": _shown(found.reported),
            "deployment_id": found.deployment_id,
            "reported_ts": found.reported_at and rfc3339(found.reported_at),
            "updated_ts": found.updated_at and rfc3339(found.updated_at),
        }
        return json_answer(200, {name: value for name, value in shown.items() if value})

    def set(self, request: Request) -> Answer:
        """Replace the configuration that a device is to have; a deployment has to follow."""
        values = self._values(request)
        found = self._known.setdefault(request.params["id"], Configuration())
        found.configured, found.updated_at = values, self._world.clock()
        return Answer(204)

    def deploy(self, request: Request) -> Answer:
        """Create a deployment of a device's configuration."""
        device_id = request.params["id"]
        found = self._get(device_id)
        request.object("model.DeployConfigurationRequest", "malformed request body: ")
        values = _shown(found.configured)
        made = self._world.deployments.create("", "", [device_id], configuration=values)
        found.deployment_id = made.id
        return json_answer(200, {"deployment_id": made.id})

    def _get(self, device_id: str) -> Configuration:
        """Return the configuration of a device; it has one from its acceptance on."""
        device = self._world.devices.get(device_id)
        if device_id not in self._known and (device is None or device.status != "accepted"):
            raise Refusal(404, "device does not exist")
        return self._known.setdefault(device_id, Configuration(updated_at=self._world.clock()))

    def _caller(self, request: Request) -> str:
        device = self._world.device_of(request.bearer)
        if device is None:
            raise Refusal(401)
        return device.id

    def _values(self, request: Request) -> dict[str, Any]:
        into = "map[string]interface {}"
        return validation.configuration(request.object(into, "malformed request body: "))


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as they leave the service: a hidden one without its content."""
    shown: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str):
            shown[name] = value
        elif value.keys() == {"value", "hidden"}:
            shown[name] = {"hidden": True} if value["hidden"] is True else value
    return shown
