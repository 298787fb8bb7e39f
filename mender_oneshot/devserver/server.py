"""`DevServer`: puts model, endpoints and sockets together, and is what tests hold in their hands."""

import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import certificates, gateway
from .artifact_store import Store
from .connect_api import ConnectApi
from .control_api import PREFIX as CONTROL
from .control_api import ControlApi
from .device_api import DeviceApi
from .deviceconfig_api import DeviceConfigApi
from .faults import Faults
from .http import Listener
from .management_api import ManagementApi
from .management_deployments import ManagementDeployments
from .model import Device, Model
from .request_log import RequestLog, Seen
from .routing import Answer, Request, Site, no_such_page
from .storage_api import Storage

if TYPE_CHECKING:
    from .deviceconnect import DeviceConnect
    from .messages import Message
    from .relay import Life
    from .user_session import UserSession


class DevServer(AbstractContextManager["DevServer"]):
    """A Mender server in this process; `with DevServer(directory) as server:`.

    `directory` keeps artifacts and certificates; devices and deployments live as long as the object.
    `clock` is the server's idea of the time, for tokens, links and deployments. `names` go into the
    certificate beside the local ones. `v2` makes it answer the v2 `next` as newer servers may.
    `session_bytes` (None for no limit) of a terminal's output end a user's session; a connected device is
    pinged every `ping_seconds` and given up after twice as long; a file transfer waits `transfer_seconds` for
    the device. Their defaults are the real server's.
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
        session_bytes: int | None = 8 * 1024 * 1024,
        ping_seconds: float = 30.0,
        transfer_seconds: float = 60.0,
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
        self.record = RequestLog(on_seen)
        self.world = Model(
            Store(directory / "artifacts"), clock, accept_all=accept_all, jwt_lifetime=jwt_lifetime
        )
        self.storage = Storage(self.world, link_lifetime)
        self._device_api = DeviceApi(self.world, self.storage, self._base_url, v2=v2)
        self._management_api = ManagementApi(self.world, user)
        self._control_api = ControlApi(self.faults, self.record)
        self._connect_api = ConnectApi(self._device_connect)
        self._limits = (session_bytes, ping_seconds, transfer_seconds)
        apis = (
            self._device_api,
            self._management_api,
            ManagementDeployments(self.world),
            DeviceConfigApi(self.world),
            self._connect_api,
            self._control_api,
        )
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
        self._connect_api.stop()
        self._api.stop()
        self._storage.stop()

    def _device_connect(self) -> "DeviceConnect":
        from .deviceconnect import DeviceConnect, Limits

        return DeviceConnect(self.world, self.faults, Limits(*self._limits))

    def _gate(self, request: Request) -> Answer | None:
        if request.path.startswith(CONTROL):
            return self._control_api.gate(request)
        if not gateway.has_service(request.path):
            return no_such_page()
        api = self._device_api if request.path.startswith(gateway.DEVICES) else self._management_api
        return api.gate(request)

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
        configuration: bytes | dict[str, Any] | None = None,
    ) -> str:
        """Create a deployment for these devices, or for all that are accepted, and return its id.

        `configuration` makes it a configuration deployment: of these values, with a name made by the server,
        or one that serves these bytes, whatever they are.
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

    def status(self, deployment_id: str, device_id: str | None = None) -> str:
        """How a deployment stands on a device, or on its only one."""
        with self.world.lock:
            return self.world.deployments.standing(deployment_id, device_id).status

    def status_history(self, deployment_id: str, device_id: str | None = None) -> list[str]:
        """Every status taken from the device, repeated ones too, and those the server set, in order."""
        with self.world.lock:
            return list(self.world.deployments.standing(deployment_id, device_id).history)

    def log(self, deployment_id: str, device_id: str | None = None) -> list[dict[str, Any]] | None:
        """The log the device uploaded, None when there is none."""
        with self.world.lock:
            return self.world.deployments.standing(deployment_id, device_id).log

    def terminal(
        self, device_id: str | None = None, *, user: str = "user", timeout: float = 20
    ) -> "UserSession":
        """A user's session with a connected device, or with the only one, for use in a `with` statement.

        `timeout` is for every wait of the session. LookupError when the device is not connected, ImportError
        where wsproto or msgpack are not installed; the latter goes for all that follows here.
        """
        from .relay import DeviceDisconnected
        from .user_session import UserSession

        try:
            session = self._connect_api.service.relay.session(self.device(device_id).id, user)
        except DeviceDisconnected:
            raise LookupError("the device is not connected") from None
        return UserSession(session, timeout)

    def connected(self, device_id: str | None = None) -> bool:
        """Whether a device, or the only one, has a connection for the remote terminal."""
        return self._life(device_id).line is not None

    def connects(self, device_id: str | None = None) -> int:
        """How often it has connected."""
        return self._life(device_id).connects

    def closes(self, device_id: str | None = None) -> list[int]:
        """How its connections ended, oldest first: the close code, 1006 where there was none."""
        return self._life(device_id).codes

    def wait_connected(self, device_id: str | None = None, *, times: int = 1, timeout: float = 30) -> None:
        """Block until it is connected, for the `times`th time at least; TimeoutError when it is not."""
        self._wait(device_id, lambda life: life.line is not None and life.connects >= times, timeout)

    def wait_disconnected(self, device_id: str | None = None, *, times: int = 1, timeout: float = 30) -> int:
        """Block until its `times`th connection and all before it have ended; return the last close code."""
        life = self._wait(device_id, lambda life: len(life.codes) == life.connects >= times, timeout)
        return life.codes[-1]

    def disconnect(
        self, device_id: str | None = None, *, code: int | None = None, reset: bool = False
    ) -> None:
        """End its connection, abruptly (`reset`: by RST) or with a close code; LookupError without one."""
        self._connect_api.service.relay.end(self.device(device_id).id, code, reset=reset)

    def wait_for_dropped(self, predicate: "Callable[[Message], bool]", timeout: float = 30) -> "Message":
        """The first message of a device, past or to come, that fits and belonged to no session.

        The real server throws those away, such as the answers to check-update and send-inventory.
        """
        return self._connect_api.service.relay.wait_for_dropped(predicate, timeout)

    def _life(self, device_id: str | None) -> "Life":
        return self._connect_api.service.relay.life(self.device(device_id).id)

    def _wait(self, device_id: str | None, true: "Callable[[Life], bool]", timeout: float) -> "Life":
        return self._connect_api.service.relay.wait(self.device(device_id).id, true, timeout)

    @property
    def requests(self) -> list[Seen]:
        """Every request whose answer has ended, one way or another."""
        return self.record.all()

    def wait_for(self, predicate: Callable[[Seen], bool], timeout: float = 30) -> Seen:
        """The first request that fits, past or to come; TimeoutError when none does in time."""
        return self.record.wait_for(predicate, timeout)
