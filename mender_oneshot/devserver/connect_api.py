"""The routes of deviceconnect; what is behind them is imported when the first such request comes.

Its libraries (wsproto, msgpack) are an extra: without them the rest of the server works.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .routing import Answer, Handler, Request, Route
from .validation import Refusal

if TYPE_CHECKING:
    from .deviceconnect import DeviceConnect

CONNECT = "/api/devices/v1/deviceconnect/connect"
DEVICE = "/api/management/v1/deviceconnect/devices/{id}"


class ConnectApi:
    """The endpoints of deviceconnect; `make` makes the handlers, or raises ImportError."""

    def __init__(self, make: Callable[[], "DeviceConnect"]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: DeviceConnect | None = None

    @property
    def routes(self) -> list[Route]:
        """The endpoints. Those that talk with a device take the world's lock by themselves, and shortly."""
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
        """The handlers and the relay; `ImportError` where their libraries are not installed."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def stop(self) -> None:
        """Cut every device's connection."""
        with self._lock:
            if self._made:
                self._made.stop()

    def _handler(self, name: str) -> Handler:
        def handle(request: Request) -> Answer:
            try:
                service = self.service
            except ImportError as error:
                text = (
                    "the remote terminal needs wsproto and msgpack (Debian: python3-wsproto python3-msgpack)"
                )
                raise Refusal(501, f"{text}: {error}") from None
            answer: Answer = getattr(service, name)(request)
            return answer

        return handle
