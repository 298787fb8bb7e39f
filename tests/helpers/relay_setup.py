"""A development server, one accepted device and one user who is logged in, for tests of deviceconnect."""

import contextlib

from helpers.raw_device import ManualClock, RawDevice, Reply
from helpers.raw_socket import RawSocket, device_socket, user_socket
from helpers.raw_user import RawUser
from mender_oneshot.devserver import DevServer

ROUTE = "/api/management/v1/deviceconnect/devices/{}"
NO_SUCH_ID = "6f9c3a0c-6a0c-4c5b-8a3e-0d3c5d2b1a00"


class RelaySetup:
    """The server, the device and the user; `id` is the device's, and can be replaced."""

    def __init__(self, server: DevServer, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock
        self.device = RawDevice(server).accepted()
        self.id = server.device().id
        self.user = RawUser(server)

    def request(self, method: str, path: str = "", body: bytes | None = None, **headers: str) -> Reply:
        """Send a request of the user about the device; `path` follows that of the device."""
        return self.user(method, ROUTE.format(self.id) + path, body, **headers)

    @property
    def status(self) -> str:
        """The status of the device's connection in the management API."""
        status: str = self.request("GET").json["status"]
        return status

    def device_end(self) -> contextlib.AbstractContextManager[RawSocket]:
        """Connect the device."""
        return device_socket(self.server, self.device.token)

    def user_end(self) -> contextlib.AbstractContextManager[RawSocket]:
        """Connect the user."""
        return user_socket(self.server, self.id, self.user.token)
