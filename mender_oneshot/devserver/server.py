"""`DevServer`: puts model, endpoints and sockets together, and is what tests hold in their hands."""

import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from mender_oneshot.devserver import certificates
from mender_oneshot.devserver.control_api import PREFIX as CONTROL
from mender_oneshot.devserver.control_api import ControlApi
from mender_oneshot.devserver.deployments import DeviceDeployment
from mender_oneshot.devserver.device_api import DeviceApi
from mender_oneshot.devserver.faults import Faults
from mender_oneshot.devserver.http import Listener
from mender_oneshot.devserver.management_api import PREFIX as MANAGEMENT
from mender_oneshot.devserver.management_api import ManagementApi
from mender_oneshot.devserver.messages import Answer, Request, Site
from mender_oneshot.devserver.record import Record, Seen
from mender_oneshot.devserver.storage import Storage
from mender_oneshot.devserver.store import Store
from mender_oneshot.devserver.world import Device, World


class DevServer(AbstractContextManager["DevServer"]):
    """A Mender server in this process; `with DevServer(directory) as server:`.

    `directory` keeps artifacts and certificates; devices and deployments live as long as the object.
    `clock` is the server's idea of the time, for tokens, links and deployments. `names` go into the
    certificate beside the local ones. `v2` makes it answer the v2 `next` as newer servers may.
    Errors of its methods are `LookupError` (no such device or deployment), `rules.Refusal` (what the
    management API would refuse) and `artifact.BadArtifact`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tls: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        accept_all: bool = False,
        link_lifetime: float = 86400.0,
        clock: Callable[[], float] = time.time,
        jwt_lifetime: float = 604800.0,
        v2: bool = False,
        user: tuple[str, str] | None = None,
        names: Sequence[str] = (),
        certificate_validity: tuple[datetime, datetime] = certificates.ALWAYS,
        on_seen: Callable[[Seen], None] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        any_host = host in ("0.0.0.0", "::", "")  # noqa: S104  # compared, not bound
        if not any_host:
            names = (*names, host)
        self.ca, certificate = certificates.make(directory, names, certificate_validity)
        self._tls = tls
        self._host = "127.0.0.1" if any_host else host
        self._any_host = any_host
        self.faults = Faults()
        self.record = Record(on_seen)
        self.world = World(
            Store(directory / "artifacts"), clock, accept_all=accept_all, jwt_lifetime=jwt_lifetime
        )
        self.storage = Storage(self.world, link_lifetime)
        self._device_api = DeviceApi(self.world, self.storage, self._base_url, v2=v2)
        self._management_api = ManagementApi(self.world, user)
        self._control_api = ControlApi(self.faults, self.record)
        apis = (self._device_api, self._management_api, self._control_api)
        api_site = Site([route for api in apis for route in api.routes], self._gate, self.world.lock)
        storage_site = Site(self.storage.routes, None, self.world.lock)
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        self._api = Listener("api", (host, port), api_site, context, self.faults, self.record)
        try:
            self._storage = Listener(
                "storage", (host, storage_port), storage_site, context, self.faults, self.record
            )
        except OSError:
            self._api.stop()
            raise

    def __enter__(self) -> "DevServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Accept connections; the ports are bound already."""
        self._api.start()
        self._storage.start()

    def stop(self) -> None:
        """End every connection, stalled ones included, and leave no thread."""
        self.faults.stop()
        self._api.stop()
        self._storage.stop()

    def _gate(self, request: Request) -> Answer | None:
        if request.path.startswith("/api/devices/"):
            return self._device_api.gate(request)
        if request.path.startswith(MANAGEMENT):
            return self._management_api.gate(request)
        return self._control_api.gate(request) if request.path.startswith(CONTROL) else None

    def _base_url(self, origin: str, host: str) -> str:
        """An origin's URL under the name the client reached us by; bound to one address, that address."""
        host = host if self._any_host else self._host
        listener = self._api if origin == "api" else self._storage
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{listener.port}"

    @property
    def url(self) -> str:
        """What goes into `ServerURL`."""
        return self._base_url("api", self._host)

    @property
    def storage_url(self) -> str:
        """The origin of the artifact links."""
        return self._base_url("storage", self._host)

    @property
    def link_lifetime(self) -> float:
        """How long a link handed out from now on is good, in seconds."""
        return self.storage.link_lifetime

    @link_lifetime.setter
    def link_lifetime(self, seconds: float) -> None:
        self.storage.link_lifetime = seconds

    @property
    def devices(self) -> list[Device]:
        """The devices known, in the order they came."""
        with self.world.lock:
            return list(self.world.devices.values())

    def device(self, device_id: str | None = None) -> Device:
        """One device, or the only one; LookupError otherwise."""
        found = [device for device in self.devices if device_id in (None, device.id)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} devices fit {device_id or '(the only one)'}")
        return found[0]

    def accept(self, device_id: str | None = None) -> list[Device]:
        """Accept the newest key of a device, or of all that are pending; LookupError when there is none."""
        with self.world.lock:
            chosen = self._chosen(device_id, lambda device: device.status == "pending")
            for device in chosen:
                pending = [s for s in device.auth_sets if s.status == "pending"] or device.auth_sets
                self.world.set_status(device.id, pending[-1].id, "accepted")
        return chosen

    def reject(self, device_id: str | None = None) -> None:
        """Reject all keys of a device, or of all devices."""
        with self.world.lock:
            for device in self._chosen(device_id):
                for auth_set in device.auth_sets:
                    self.world.set_status(device.id, auth_set.id, "rejected")

    def decommission(self, device_id: str | None = None) -> None:
        """Forget a device, or all."""
        with self.world.lock:
            for device in self._chosen(device_id):
                self.world.decommission(device.id)

    def revoke_tokens(self, device_id: str | None = None) -> None:
        """Make the tokens of a device, or of all, void; it may ask for a new one at once."""
        with self.world.lock:
            for device in self._chosen(device_id):
                self.world.revoke_tokens(device)

    def _chosen(
        self, device_id: str | None, fits: Callable[[Device], bool] = lambda device: True
    ) -> list[Device]:
        found = [d for d in self.devices if d.id == device_id or (device_id is None and fits(d))]
        if not found:
            raise LookupError("no such device")
        return found

    def upload(self, artifact: Path | str | bytes) -> str:
        """Take in a `.mender` file and return its artifact id."""
        store = self.world.store
        if isinstance(artifact, bytes):
            received = store.receive([artifact])
        else:
            with open(artifact, "rb") as file:
                received = store.receive(iter(lambda: file.read(1024 * 1024), b""))
        try:
            with self.world.lock:
                return store.add(received).id
        finally:
            received.unlink(missing_ok=True)

    def change(self, artifact_id: str, content: bytes | None = None) -> None:
        """Put other bytes (None: every bit flipped) into an artifact's place, under the same links."""
        with self.world.lock:
            self.world.store.replace_bytes(artifact_id, content)

    def deploy(
        self,
        artifact_name: str,
        devices: Iterable[str] | None = None,
        *,
        name: str = "test",
        force_installation: bool = False,
        configuration: bytes | None = None,
    ) -> str:
        """Create a deployment for these devices, or for all that are accepted, and return its id.

        `configuration` makes it a configuration deployment that serves these bytes, whatever they are.
        """
        with self.world.lock:
            chosen = [device.id for device in self.world.accepted()] if devices is None else list(devices)
            return self.world.deployments.create(
                name,
                artifact_name,
                chosen,
                force_installation=force_installation,
                configuration=configuration,
            ).id

    def abort(self, deployment_id: str) -> None:
        """Abort a deployment."""
        with self.world.lock:
            self.world.deployments.abort(deployment_id)

    def _on_device(self, deployment_id: str, device_id: str | None) -> DeviceDeployment:
        deployment = self.world.deployments.all[deployment_id]
        chosen = device_id or next(iter(deployment.device_ids), None)
        if device_id is None and len(deployment.device_ids) != 1:
            raise LookupError(f"the deployment has {len(deployment.device_ids)} devices: say which")
        if chosen not in deployment.device_ids:
            raise LookupError("the deployment is not for this device")
        unasked = DeviceDeployment(chosen, deployment.created, "aborted" if deployment.aborted else "pending")
        return deployment.devices.get(chosen, unasked)

    def status(self, deployment_id: str, device_id: str | None = None) -> str:
        """How a deployment stands on a device, or on its only one."""
        with self.world.lock:
            return self._on_device(deployment_id, device_id).status

    def status_history(self, deployment_id: str, device_id: str | None = None) -> list[str]:
        """Every status taken from the device, repeated ones too, and those the server set, in order."""
        with self.world.lock:
            return list(self._on_device(deployment_id, device_id).history)

    def log(self, deployment_id: str, device_id: str | None = None) -> list[dict[str, Any]] | None:
        """The log the device uploaded, None when there is none."""
        with self.world.lock:
            return self._on_device(deployment_id, device_id).log

    @property
    def requests(self) -> list[Seen]:
        """Every request whose answer has ended, one way or another."""
        return self.record.all()

    def wait_for(self, predicate: Callable[[Seen], bool], timeout: float = 30) -> Seen:
        """The first request that fits, past or to come; TimeoutError when none does in time."""
        return self.record.wait_for(predicate, timeout)
