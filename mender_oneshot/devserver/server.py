"""`DevServer`: the model, the endpoints and the sockets put together, with the methods that tests use."""

import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from . import certificates, gateway, same_origin
from .artifact_store import ArtifactStore
from .connect_api import ConnectApi
from .control_api import ControlApi
from .device_api import DeviceApi
from .deviceconfig_api import DeviceConfigApi
from .faults import Faults
from .http import Listener
from .management_api import ManagementApi
from .management_deployments import ManagementDeployments
from .model import Model
from .operations import Operations
from .request_log import RequestLog, Seen
from .routing import Request, Response, Site, not_found_page
from .storage_api import StorageApi
from .web_page import WebPage

if TYPE_CHECKING:
    from .deviceconnect import DeviceConnect
    from .messages import Message
    from .relay import Connections
    from .user_session import UserSession


class DevServer(Operations, AbstractContextManager["DevServer"]):
    """A Mender server in this process; `with DevServer(directory) as server:`.

    `directory` keeps artifacts and certificates; devices and deployments are lost with the object. `clock`
    returns the server's time, for tokens, links and deployments. `names` are added to the certificate. With
    `v2`, there is a v2 `next`, as newer servers may have.

    A user's session ends after `session_bytes` of terminal output (None: no limit). A connected device is
    pinged every `ping_seconds` and disconnected if it is silent for twice as long. A file transfer waits
    `transfer_seconds` for the device. The defaults are those of the real server.
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
        self._host = {"::": "::1", "0.0.0.0": "127.0.0.1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # compared
        self._any_host = any_host
        self._names = {name.lower() for name in (*names, *certificates.LOCAL_NAMES)}
        self.faults = Faults()
        self.request_log = RequestLog(on_seen)
        store = ArtifactStore(directory / "artifacts")
        super().__init__(Model(store, clock, accept_all=accept_all, jwt_lifetime=jwt_lifetime))
        self._storage_api = StorageApi(self.model, link_lifetime)
        self._device_api = DeviceApi(self.model, self._storage_api, self._base_url, v2=v2)
        self._management_api = ManagementApi(self.model, user)
        self._control_api = ControlApi(self.faults, self.request_log)
        self._connect_api = ConnectApi(self._device_connect)
        self._web_page = WebPage(self.model, self._management_api, self._connect_api.connected)
        self._limits = (session_bytes, ping_seconds, transfer_seconds)
        apis = (
            self._device_api,
            self._management_api,
            ManagementDeployments(self.model),
            DeviceConfigApi(self.model),
            self._connect_api,
            self._control_api,
            self._web_page,
        )
        api_site = Site([route for api in apis for route in api.routes], self._gate, self.model.lock)
        storage_site = Site(self._storage_api.routes, None, self.model.lock)
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        self._api = Listener("api", (host, port), api_site, context, self.faults, self.request_log)
        try:
            self._storage = Listener(
                "storage", (host, storage_port), storage_site, context, self.faults, self.request_log
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
        """Accept connections on the ports, which are bound already."""
        self._api.start()
        self._storage.start()

    def stop(self) -> None:
        """End every connection, stalled ones included, and wait for all threads to end."""
        self.faults.stop()
        self._connect_api.stop()
        self._api.stop()
        self._storage.stop()

    def _device_connect(self) -> "DeviceConnect":
        from .deviceconnect import DeviceConnect, Limits

        return DeviceConnect(self.model, self.faults, Limits(*self._limits))

    def _gate(self, request: Request) -> Response | None:
        if request.path.startswith(gateway.DEVICES) and gateway.has_service(request.path):
            return self._device_api.gate(request)
        same_origin.check(request, self._names, tls=self._tls)
        if request.path == "/" or request.path.startswith(gateway.PAGE):
            return self._web_page.gate(request)
        if request.path.startswith(gateway.CONTROL):
            return self._control_api.gate(request)
        return self._management_api.gate(request) if gateway.has_service(request.path) else not_found_page()

    def _base_url(self, origin: str, host: str) -> str:
        """Return the URL of an origin: under the name that the client used, or under the bound address."""
        host = host if self._any_host else self._host
        listener = self._api if origin == "api" else self._storage
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{listener.port}"

    @property
    def url(self) -> str:
        """The value of `ServerURL`."""
        return self._base_url("api", self._host)

    @property
    def storage_url(self) -> str:
        """The origin of the artifact links."""
        return self._base_url("storage", self._host)

    @property
    def link_lifetime(self) -> float:
        """How long a link issued from now on is valid, in seconds."""
        return self._storage_api.link_lifetime

    @link_lifetime.setter
    def link_lifetime(self, seconds: float) -> None:
        self._storage_api.link_lifetime = seconds

    def terminal(
        self, device_id: str | None = None, *, user: str = "user", timeout: float = 20
    ) -> "UserSession":
        """Return a user's session with a connected device, for use in a `with` statement.

        `timeout` (seconds) applies to every wait of the session. Raise LookupError if the device is not
        connected. Like all methods below, raise ImportError if wsproto or msgpack is not installed.
        """
        from .relay import DeviceDisconnected
        from .user_session import UserSession

        try:
            session = self._connect_api.service.relay.session(self.device(device_id).id, user)
        except DeviceDisconnected:
            raise LookupError("the device is not connected") from None
        return UserSession(session, timeout)

    def connected(self, device_id: str | None = None) -> bool:
        """Return whether a device is connected for the remote terminal."""
        return self._connections(device_id).current is not None

    def connection_count(self, device_id: str | None = None) -> int:
        """Return how many times a device has connected."""
        return self._connections(device_id).count

    def close_codes(self, device_id: str | None = None) -> list[int]:
        """Return the close codes of a device's former connections, oldest first; 1006 if there was none."""
        return self._connections(device_id).close_codes

    def wait_connected(self, device_id: str | None = None, *, times: int = 1, timeout: float = 30) -> None:
        """Block until a device is connected, for at least the `times`th time.

        Raise TimeoutError after `timeout` seconds.
        """
        self._wait(device_id, lambda known: known.current is not None and known.count >= times, timeout)

    def wait_disconnected(self, device_id: str | None = None, *, times: int = 1, timeout: float = 30) -> int:
        """Block until at least `times` connections have ended and none is left; return the last close code.

        Raise TimeoutError after `timeout` seconds.
        """
        known = self._wait(device_id, lambda known: len(known.close_codes) == known.count >= times, timeout)
        return known.close_codes[-1]

    def disconnect(
        self, device_id: str | None = None, *, code: int | None = None, reset: bool = False
    ) -> None:
        """Close a device's connection with a close code, or end it abruptly, with `reset` by RST.

        Raise LookupError if the device is not connected.
        """
        self._connect_api.service.relay.end(self.device(device_id).id, code, reset=reset)

    def wait_for_dropped(self, predicate: "Callable[[Message], bool]", timeout: float = 30) -> "Message":
        """Return the first matching message, past or to come, that belonged to no session.

        The real server drops these messages, such as the replies to check-update and send-inventory. Raise
        TimeoutError after `timeout` seconds.
        """
        return self._connect_api.service.relay.wait_for_dropped(predicate, timeout)

    def _connections(self, device_id: str | None) -> "Connections":
        return self._connect_api.service.relay.connections(self.device(device_id).id)

    def _wait(
        self, device_id: str | None, condition: "Callable[[Connections], bool]", timeout: float
    ) -> "Connections":
        return self._connect_api.service.relay.wait(self.device(device_id).id, condition, timeout)

    @property
    def requests(self) -> list[Seen]:
        """Every request so far whose response has ended, completely or not."""
        return self.request_log.all()

    def wait_for(self, predicate: Callable[[Seen], bool], timeout: float = 30) -> Seen:
        """Return the first matching request, past or to come; raise TimeoutError after `timeout` seconds."""
        return self.request_log.wait_for(predicate, timeout)
