"""The routes of deviceconnect; their implementation is imported at the first such request.

It needs wsproto and msgpack, which are an extra: without them, the rest of the server works.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .routing import Handler, Request, Response, Route
from .validation import HTTPError

if TYPE_CHECKING:
    from .deviceconnect import DeviceConnect

CONNECT = "/api/devices/v1/deviceconnect/connect"
DEVICE = "/api/management/v1/deviceconnect/devices/{id}"


class ConnectApi:
    """The endpoints of deviceconnect; `make_service` returns their handlers, or raises ImportError."""

    def __init__(self, make_service: Callable[[], "DeviceConnect"]) -> None:
        self._make_service = make_service
        self._lock = threading.Lock()
        self._service: DeviceConnect | None = None

    @property
    def routes(self) -> list[Route]:
        """The endpoints. Those that wait for a device take the model's lock themselves, briefly."""
        return [
            Route("GET", CONNECT, self._handler("connect_device")),
            Route("GET", DEVICE, self._handler("status")),
            Route("GET", f"{DEVICE}/connect", self._handler("connect_user")),
            Route("GET", f"{DEVICE}/download", self._handler("download"), streams=True),
            Route("PUT", f"{DEVICE}/upload", self._handler("upload"), streams=True),
            Route("POST", f"{DEVICE}/check-update", self._handler("command"), streams=True),
            Route("POST", f"{DEVICE}/send-inventory", self._handler("command"), streams=True),
        ]

    @property
    def service(self) -> "DeviceConnect":
        """The handlers and the relay; raises ImportError if their libraries are not installed."""
        with self._lock:
            if self._service is None:
                self._service = self._make_service()
            return self._service

    def connected(self) -> list[str]:
        """Return the ids of the connected devices; the libraries are not needed for that."""
        with self._lock:
            return self._service.relay.connected() if self._service else []

    def stop(self) -> None:
        """Cut the connection of every device."""
        with self._lock:
            if self._service:
                self._service.stop()

    def _handler(self, name: str) -> Handler:
        def handle(request: Request) -> Response:
            try:
                service = self.service
            except ImportError as error:
                text = (
                    "the remote terminal needs wsproto and msgpack (Debian: python3-wsproto python3-msgpack)"
                )
                raise HTTPError(501, f"{text}: {error}") from None
            response: Response = getattr(service, name)(request)
            return response

        return handle
