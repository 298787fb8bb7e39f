"""Deployments and what becomes of them on each device: the rules of device-api.md 3, its traps included."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .artifact_store import Artifact, Store
from .validation import FINAL, Refusal

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
    request: dict[str, Any] | None = None
    artifact: Artifact | None = None
    log: list[dict[str, Any]] | None = None
    started: float | None = None
    finished: float | None = None

    @property
    def active(self) -> bool:
        """Whether `next` still offers it. Nothing keeps a late status from making it so again (3.2)."""
        return self.status not in FINAL


@dataclass
class Deployment:
    """One deployment: a name, the artifacts of one artifact name, the devices meant."""

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
        """What the management API calls it: pending, inprogress or finished."""
        if self.aborted:
            return "finished"
        if not self.devices or all(d.status == "pending" for d in self.devices.values()):
            return "pending"
        done = all(i in self.devices and not self.devices[i].active for i in self.device_ids)
        return "finished" if done else "inprogress"


@dataclass(frozen=True)
class Offer:
    """What `next` hands out; without an artifact it is a configuration deployment."""

    deployment: Deployment
    artifact: Artifact | None


class Deployments:
    """All deployments, oldest first."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
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
        """Add a deployment; 422 if there is no artifact of that name.

        `configuration` makes it one of a configuration: the values, or the bytes to be sent in place of their
        artifact. Its name is then that of the artifact too, and ends with its id.
        """
        artifacts = () if configuration is not None else tuple(a.id for a in self._store.named(artifact_name))
        if configuration is None and not artifacts:
            raise Refusal(422, "No artifact for the deployment")
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
        """The deployment of this id, or 404."""
        if deployment_id not in self.all:
            raise Refusal(404, NOT_FOUND)
        return self.all[deployment_id]

    def on_device(self, deployment_id: str, device_id: str) -> DeviceDeployment:
        """A deployment as it stands on one device, or 404."""
        deployment = self.all.get(deployment_id)
        if deployment is None or device_id not in deployment.devices:
            raise Refusal(404, NOT_FOUND)
        return deployment.devices[device_id]

    def standing(self, deployment_id: str, device_id: str | None) -> DeviceDeployment:
        """Return how a deployment stands on a device, or on its only one, even if that has not asked yet.

        LookupError if there is no such deployment, or it is not for this device.
        """
        deployment = self.all[deployment_id]
        chosen = device_id or next(iter(deployment.device_ids), None)
        if device_id is None and len(deployment.device_ids) != 1:
            raise LookupError(f"the deployment has {len(deployment.device_ids)} devices: name one")
        if chosen not in deployment.device_ids:
            raise LookupError("the deployment is not for this device")
        unasked = DeviceDeployment(chosen, deployment.created, "aborted" if deployment.aborted else "pending")
        return deployment.devices.get(chosen, unasked)

    def next(self, device_id: str, request: dict[str, Any]) -> Offer | None:
        """The deployment to hand out, with all that asking for it changes (3.1, 3.3)."""
        deployment = self._current(device_id)
        if deployment is None:
            return None
        mine = deployment.devices[device_id]
        if mine.request is not None and mine.request != request:
            # Trap 1: different data during an active deployment end it, and the device only sees 409.
            self._change(mine, "failure")
            raise Refusal(409, "Device provided conflicting request data")
        mine.request = request
        if deployment.configuration is not None:
            return Offer(deployment, None)
        if mine.artifact is None:
            mine.artifact = self._suitable(deployment, request["device_type"])
        if mine.artifact is None:
            self._change(mine, "noartifact")  # Trap 3
            return None
        installed = mine.artifact.name == request["artifact_name"]
        if installed and mine.status == "pending" and not deployment.force_installation:
            self._change(mine, "already-installed")  # Trap 2: the device never learns the id
            return None
        if not mine.artifact.path.exists():
            raise Refusal(500, "internal error")  # 3.1: the link is only made after a look at the object
        return Offer(deployment, self._store.artifacts.get(mine.artifact.id, mine.artifact))

    def _current(self, device_id: str) -> Deployment | None:
        """The oldest active one, else a first one that is newer than all that ended on the device."""
        mine = [d for d in self.all.values() if device_id in d.devices]
        for deployment in mine:
            if deployment.devices[device_id].active:
                return deployment
        newer = self._newer(device_id, max((d.order for d in mine), default=-1))
        if newer:
            newer.devices[device_id] = DeviceDeployment(device_id, newer.created)
        return newer

    def _newer(self, device_id: str, order: int) -> Deployment | None:
        """Return the first deployment for a device after the one of this order."""
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
        """Take a device's status in any order; only an aborted deployment refuses it.

        Without a substate the earlier one stays.
        """
        mine = self.on_device(deployment_id, device_id)
        if mine.status == "aborted":
            raise Refusal(409, "Deployment aborted")
        if mine.status == "decommissioned":
            raise Refusal(409, "Device decommissioned")
        if status == mine.status:
            mine.history.append(status)  # A no-op for the server, yet 204: tests want to see it.
            return
        mine.substate = substate or mine.substate
        self._change(mine, status)

    def _change(self, mine: DeviceDeployment, status: str) -> None:
        now = self._clock()
        mine.status = status
        mine.history.append(status)
        mine.started = mine.started or now
        mine.finished = None if mine.active else now

    def put_log(self, deployment_id: str, device_id: str, messages: list[dict[str, Any]]) -> None:
        """Keep a log in place of the one before."""
        deployment = self.all.get(deployment_id)
        if deployment is None or device_id not in deployment.devices:
            raise Refusal(404, NO_DEPLOYMENT)
        deployment.devices[device_id].log = messages

    def abort(self, deployment_id: str) -> None:
        """Abort on every device where it has not ended; those learn of it by a 409 to their next status."""
        deployment = self.all.get(deployment_id)
        if deployment is None or deployment.status == "finished":
            raise Refusal(422, "Deployment already finished")
        deployment.aborted = True
        for mine in deployment.devices.values():
            if mine.active:
                self._change(mine, "aborted")

    def decommission(self, device_id: str) -> None:
        """End the oldest active deployment of a device, and the next one after it.

        The real server leaves all the others as they are.
        """
        mine = [d for d in self.all.values() if device_id in d.devices]
        active = next((d for d in mine if d.devices[device_id].active), None)
        if active:
            self._change(active.devices[device_id], "decommissioned")
        order = active.order if active else max((d.order for d in mine), default=-1)
        newer = self._newer(device_id, order)
        if newer:
            one = newer.devices.setdefault(device_id, DeviceDeployment(device_id, newer.created))
            self._change(one, "decommissioned")

    def uses(self, artifact_id: str) -> bool:
        """Whether an artifact belongs to a deployment that has not ended."""
        return any(artifact_id in d.artifact_ids and d.status != "finished" for d in self.all.values())
