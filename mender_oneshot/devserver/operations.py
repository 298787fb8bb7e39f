"""What tests do to the model: accept devices, upload artifacts, create and inspect deployments."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from .artifact_store import Artifact
from .deployments import Deployment, DeviceDeployment
from .model import Device, Model

CHUNK = 1024 * 1024


class Snapshot(NamedTuple):
    """The devices and the deployments of a server at one time."""

    devices: dict[str, Device]
    deployments: dict[str, Deployment]


class Operations:
    """Operations on a model, each of them atomic; `DevServer` inherits them.

    They raise LookupError if there is no such device or deployment, `validation.HTTPError` where the
    management API would answer with an error, and `artifact.InvalidArtifact`. A `device_id` of None stands
    for the only device of the server or of the deployment, or for all devices if the method says so.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def accept_all(self) -> bool:
        """Whether every new device is accepted at its first authentication request."""
        return self.model.accept_all

    @accept_all.setter
    def accept_all(self, accept: bool) -> None:
        self.model.accept_all = accept

    @property
    def jwt_lifetime(self) -> float:
        """How long a token issued from now on is valid, in seconds."""
        return self.model.jwt_lifetime

    @jwt_lifetime.setter
    def jwt_lifetime(self, seconds: float) -> None:
        self.model.jwt_lifetime = seconds

    @property
    def devices(self) -> list[Device]:
        """All devices, oldest first."""
        with self.model.lock:
            return list(self.model.devices.values())

    @property
    def deployments(self) -> list[Deployment]:
        """All deployments, oldest first."""
        with self.model.lock:
            return list(self.model.deployments.all.values())

    @property
    def artifacts(self) -> list[Artifact]:
        """All artifacts, oldest first."""
        with self.model.lock:
            return list(self.model.store.artifacts.values())

    def device(self, device_id: str | None = None) -> Device:
        """Return a device; raise LookupError unless there is exactly one."""
        found = [device for device in self.devices if device_id in (None, device.id)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} devices fit {device_id or '(the only one)'}")
        return found[0]

    def accept(self, device_id: str | None = None) -> list[Device]:
        """Accept the newest pending key of a device, or of all pending devices, and return the devices."""
        with self.model.lock:
            chosen = self._chosen(device_id, lambda device: device.status == "pending")
            for device in chosen:
                pending = [s for s in device.auth_sets if s.status == "pending"] or device.auth_sets
                self.model.set_status(device.id, pending[-1].id, "accepted")
        return chosen

    def reject(self, device_id: str | None = None) -> None:
        """Reject all keys of a device, or of all devices."""
        with self.model.lock:
            for device in self._chosen(device_id):
                for auth_set in device.auth_sets:
                    self.model.set_status(device.id, auth_set.id, "rejected")

    def decommission(self, device_id: str | None = None) -> None:
        """Remove a device, or all devices."""
        with self.model.lock:
            for device in self._chosen(device_id):
                self.model.decommission(device.id)

    def revoke_tokens(self, device_id: str | None = None) -> None:
        """Invalidate the tokens of a device, or of all devices, which may request new ones at once."""
        with self.model.lock:
            for device in self._chosen(device_id):
                self.model.revoke_tokens(device)

    def _chosen(
        self, device_id: str | None, fits: Callable[[Device], bool] = lambda device: True
    ) -> list[Device]:
        found = [d for d in self.devices if d.id == device_id or (device_id is None and fits(d))]
        if not found:
            raise LookupError("no such device")
        return found

    def upload(self, artifact: Path | str | bytes) -> str:
        """Store an artifact, given by its path or its bytes, and return its id."""
        store = self.model.store
        if isinstance(artifact, bytes):
            received = store.receive([artifact])
        else:
            with open(artifact, "rb") as file:
                received = store.receive(iter(lambda: file.read(CHUNK), b""))
        try:
            with self.model.lock:
                return store.add(received).id
        finally:
            received.unlink(missing_ok=True)

    def change(self, artifact_id: str, content: bytes | None = None) -> None:
        """Replace the bytes of an artifact (None: invert every bit); its links then serve the new ones."""
        with self.model.lock:
            self.model.store.replace_bytes(artifact_id, content)

    def serve_file(self, artifact_id: str, path: Path, size: int) -> None:
        """Serve the first `size` bytes of a file under the links of an artifact; the ETag stays the same."""
        with self.model.lock:
            artifacts = self.model.store.artifacts
            artifacts[artifact_id] = replace(artifacts[artifact_id], path=path, size=size)

    def replace_artifact(self, deployment_id: str, artifact: Path | str | bytes) -> str:
        """Give a deployment on its only device another artifact, delete the former one, return the new id."""
        with self.model.lock:
            on_device = self.model.deployments.lookup(deployment_id, None)
            if on_device.artifact is None:
                raise LookupError("the deployment has not been offered to its device")
            self.model.store.remove(on_device.artifact.id)
            artifact_id = self.upload(artifact)
            on_device.artifact = self.model.store.artifacts[artifact_id]
        return artifact_id

    def deploy(
        self,
        artifact_name: str,
        devices: Iterable[str] | None = None,
        *,
        name: str = "test",
        force_installation: bool = False,
        configuration: bytes | dict[str, Any] | None = None,
    ) -> str:
        """Create a deployment for these devices (None: all accepted devices) and return its id.

        With `configuration`, it is a configuration deployment: of these values, with a name made by the
        server; or its artifact consists of these bytes, which need not be valid.
        """
        with self.model.lock:
            chosen = [device.id for device in self.model.accepted()] if devices is None else list(devices)
            return self.model.deployments.create(
                name,
                artifact_name,
                chosen,
                force_installation=force_installation,
                configuration=configuration,
            ).id

    def mark_offered(self, deployment_id: str) -> None:
        """Make every device of a deployment appear to have received it from `next`."""
        with self.model.lock:
            deployment = self.model.deployments.get(deployment_id)
            for device_id in deployment.device_ids:
                deployment.devices.setdefault(device_id, DeviceDeployment(device_id, deployment.created))

    def abort(self, deployment_id: str) -> None:
        """Abort a deployment."""
        with self.model.lock:
            self.model.deployments.abort(deployment_id)

    def status(self, deployment_id: str, device_id: str | None = None) -> str:
        """Return the status of a deployment on a device."""
        with self.model.lock:
            return self.model.deployments.lookup(deployment_id, device_id).status

    def status_history(self, deployment_id: str, device_id: str | None = None) -> list[str]:
        """Return all statuses that the device reported (with repetitions) or the server set, oldest first."""
        with self.model.lock:
            return list(self.model.deployments.lookup(deployment_id, device_id).history)

    def log(self, deployment_id: str, device_id: str | None = None) -> list[dict[str, Any]] | None:
        """Return the messages of the deployment log that the device uploaded, None if there is none."""
        with self.model.lock:
            return self.model.deployments.lookup(deployment_id, device_id).log

    def snapshot(self) -> Snapshot:
        """Return a copy of the devices and deployments."""
        with self.model.lock:
            return copy.deepcopy(Snapshot(self.model.devices, self.model.deployments.all))

    def restore(self, snapshot: Snapshot) -> None:
        """Return to the devices and deployments of a snapshot, which can be used again."""
        with self.model.lock:
            self.model.devices, self.model.deployments.all = copy.deepcopy(snapshot)
