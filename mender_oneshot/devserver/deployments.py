"""Deployments and their status on each device, by the rules of device-api.md 3, traps included."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .artifact_store import Artifact, ArtifactStore
from .validation import FINAL, HTTPError

NOT_FOUND = "Resource not found"
NO_DEPLOYMENT = "Deployment not found"


@dataclass
class DeviceDeployment:
    """One deployment on one device; it exists from the device's first `next` on, as on the real server."""

    device_id: str
    created: float
    status: str = "pending"
    substate: str | None = None
    history: list[str] = field(default_factory=list)
    provides: dict[str, Any] | None = None
    artifact: Artifact | None = None
    log: list[dict[str, Any]] | None = None
    started: float | None = None
    finished: float | None = None

    @property
    def active(self) -> bool:
        """Whether `next` still offers it; a late status report can make it active again (3.2)."""
        return self.status not in FINAL


@dataclass
class Deployment:
    """One deployment: a name, the artifacts that have its artifact name, and the devices."""

    id: str
    order: int
    name: str
    artifact_name: str
    artifact_ids: tuple[str, ...]
    device_ids: tuple[str, ...]
    created: float
    force_installation: bool = False
    configuration: bytes | dict[str, Any] | None = None
    aborted: bool = False
    devices: dict[str, DeviceDeployment] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The status in the management API: pending, inprogress or finished."""
        if self.aborted:
            return "finished"
        if not self.devices or all(d.status == "pending" for d in self.devices.values()):
            return "pending"
        done = all(i in self.devices and not self.devices[i].active for i in self.device_ids)
        return "finished" if done else "inprogress"


@dataclass(frozen=True)
class Offer:
    """What `next` returns; without an artifact, it is a configuration deployment."""

    deployment: Deployment
    artifact: Artifact | None


class Deployments:
    """All deployments, oldest first."""

    def __init__(self, store: ArtifactStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self.all: dict[str, Deployment] = {}

    def create(
        self,
        name: str,
        artifact_name: str,
        device_ids: Iterable[str],
        *,
        force_installation: bool = False,
        configuration: bytes | dict[str, Any] | None = None,
    ) -> Deployment:
        """Add a deployment; raise HTTPError 422 if there is no artifact with this name.

        With `configuration`, it is a configuration deployment: of these values, and the artifact has the
        deployment's name, which ends with its id; or of these bytes in place of the artifact.
        """
        artifacts = () if configuration is not None else tuple(a.id for a in self._store.named(artifact_name))
        if configuration is None and not artifacts:
            raise HTTPError(422, "No artifact for the deployment")
        deployment_id = str(uuid.uuid4())
        if isinstance(configuration, dict):
            name = artifact_name = f"configuration-{deployment_id}"
        deployment = Deployment(
            deployment_id,
            len(self.all),
            name,
            artifact_name,
            artifacts,
            tuple(device_ids),
            self._clock(),
            force_installation,
            configuration,
        )
        self.all[deployment.id] = deployment
        return deployment

    def get(self, deployment_id: str) -> Deployment:
        """Return the deployment with this id; raise HTTPError 404 if there is none."""
        if deployment_id not in self.all:
            raise HTTPError(404, NOT_FOUND)
        return self.all[deployment_id]

    def on_device(self, deployment_id: str, device_id: str) -> DeviceDeployment:
        """Return a deployment on one device; raise HTTPError 404 if it was not offered there."""
        deployment = self.all.get(deployment_id)
        if deployment is None or device_id not in deployment.devices:
            raise HTTPError(404, NOT_FOUND)
        return deployment.devices[device_id]

    def lookup(self, deployment_id: str, device_id: str | None) -> DeviceDeployment:
        """Return a deployment on a device (None: its only one), even if it has not been offered there yet.

        Raise LookupError if there is no such deployment, or if it is not for this device.
        """
        deployment = self.all[deployment_id]
        chosen = device_id or next(iter(deployment.device_ids), None)
        if device_id is None and len(deployment.device_ids) != 1:
            raise LookupError(f"the deployment has {len(deployment.device_ids)} devices: name one")
        if chosen not in deployment.device_ids:
            raise LookupError("the deployment is not for this device")
        not_offered = DeviceDeployment(
            chosen, deployment.created, "aborted" if deployment.aborted else "pending"
        )
        return deployment.devices.get(chosen, not_offered)

    def next(self, device_id: str, provides: dict[str, Any]) -> Offer | None:
        """Return what to offer to a device that sent these data, None if nothing.

        This changes the deployment as on the real server (3.1, 3.3). Raise HTTPError 409 if the data differ
        from those of the previous request.
        """
        deployment = self._current(device_id)
        if deployment is None:
            return None
        entry = deployment.devices[device_id]
        if entry.provides is not None and entry.provides != provides:
            # Trap 1: different data during an active deployment fail it; the device only receives 409.
            self._change(entry, "failure")
            raise HTTPError(409, "Device provided conflicting request data")
        entry.provides = provides
        if deployment.configuration is not None:
            return Offer(deployment, None)
        if entry.artifact is None:
            entry.artifact = self._suitable(deployment, provides["device_type"])
        if entry.artifact is None:
            self._change(entry, "noartifact")  # Trap 3
            return None
        installed = entry.artifact.name == provides["artifact_name"]
        if installed and entry.status == "pending" and not deployment.force_installation:
            self._change(entry, "already-installed")  # Trap 2: the device never receives the id
            return None
        if not entry.artifact.path.exists():
            raise HTTPError(500, "internal error")  # 3.1: no link without the object
        return Offer(deployment, self._store.artifacts.get(entry.artifact.id, entry.artifact))

    def _current(self, device_id: str) -> Deployment | None:
        """Return the oldest active deployment, else the first one after those that ended on the device."""
        known = [d for d in self.all.values() if device_id in d.devices]
        for deployment in known:
            if deployment.devices[device_id].active:
                return deployment
        newer = self._newer(device_id, max((d.order for d in known), default=-1))
        if newer:
            newer.devices[device_id] = DeviceDeployment(device_id, newer.created)
        return newer

    def _newer(self, device_id: str, order: int) -> Deployment | None:
        """Return the first deployment for a device that is newer than the one with this order."""
        for deployment in self.all.values():
            if deployment.order > order and device_id in deployment.device_ids and not deployment.aborted:
                return deployment
        return None

    def _suitable(self, deployment: Deployment, device_type: str) -> Artifact | None:
        for artifact_id in deployment.artifact_ids:
            artifact = self._store.artifacts.get(artifact_id)
            if artifact and device_type in artifact.header.device_types:
                return artifact
        return None

    def report(self, deployment_id: str, device_id: str, status: str, substate: str) -> None:
        """Record a status that a device reports; any order is accepted.

        Without a substate the previous one remains. Raise HTTPError 404 if the deployment was not offered to
        the device, and 409 if it was aborted or the device decommissioned.
        """
        entry = self.on_device(deployment_id, device_id)
        if entry.status == "aborted":
            raise HTTPError(409, "Deployment aborted")
        if entry.status == "decommissioned":
            raise HTTPError(409, "Device decommissioned")
        if status == entry.status:
            entry.history.append(status)  # No change on the real server, which answers 204; tests check it.
            return
        entry.substate = substate or entry.substate
        self._change(entry, status)

    def _change(self, entry: DeviceDeployment, status: str) -> None:
        now = self._clock()
        entry.status = status
        entry.history.append(status)
        entry.started = entry.started or now
        entry.finished = None if entry.active else now

    def put_log(self, deployment_id: str, device_id: str, messages: list[dict[str, Any]]) -> None:
        """Store a deployment log in place of the previous one; raise HTTPError 404."""
        deployment = self.all.get(deployment_id)
        if deployment is None or device_id not in deployment.devices:
            raise HTTPError(404, NO_DEPLOYMENT)
        deployment.devices[device_id].log = messages

    def abort(self, deployment_id: str) -> None:
        """Abort a deployment on every device where it is active.

        The next status report of these devices is answered with 409. Raise HTTPError 422 if the deployment is
        finished or unknown.
        """
        deployment = self.all.get(deployment_id)
        if deployment is None or deployment.status == "finished":
            raise HTTPError(422, "Deployment already finished")
        deployment.aborted = True
        for entry in deployment.devices.values():
            if entry.active:
                self._change(entry, "aborted")

    def decommission(self, device_id: str) -> None:
        """End the oldest active deployment of a device, and the next one after it.

        The real server leaves all others unchanged.
        """
        known = [d for d in self.all.values() if device_id in d.devices]
        active = next((d for d in known if d.devices[device_id].active), None)
        if active:
            self._change(active.devices[device_id], "decommissioned")
        order = active.order if active else max((d.order for d in known), default=-1)
        newer = self._newer(device_id, order)
        if newer:
            entry = newer.devices.setdefault(device_id, DeviceDeployment(device_id, newer.created))
            self._change(entry, "decommissioned")

    def uses(self, artifact_id: str) -> bool:
        """Return whether an artifact belongs to a deployment that is not finished."""
        return any(artifact_id in d.artifact_ids and d.status != "finished" for d in self.all.values())
