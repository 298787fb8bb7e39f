"""A device with a remote terminal, mender-oneshot's or Debian's mender-connect, and its user."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.device import Device
from helpers.raw_device import RawDevice, Reply, fetch
from helpers.real_connect import SHELL, Cli, mender_connect
from helpers.waiting import until
from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.user_session import UserSession

OURS = "mender-oneshot"
THEIRS = "mender-connect"
ROUTE = "/api/management/v1/deviceconnect/devices"


@dataclass
class Stage:
    """A connected device and its server."""

    server: DevServer
    place: Path
    """An empty directory of the test, on the file system of the device."""
    terminate: Callable[[], None]
    """Send SIGTERM to the device's program."""

    def __post_init__(self) -> None:
        self.id = self.server.device().id
        self._token = ""

    def terminal(self, user: str = "someone@example.com") -> UserSession:
        """Return a session with the device, a context manager."""
        return self.server.terminal(user=user)

    def cli(self) -> Cli:
        """Return a `mender-cli` that is logged in."""
        return Cli(self.place / "home", self.server)

    def ask(self, method: str, more: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send a user's request about the device."""
        if not self._token:
            basic = {"Authorization": "Basic " + base64.b64encode(b"someone@example.com:secret").decode()}
            login = f"{self.server.url}/api/management/v1/useradm/auth/login"
            self._token = fetch(self.server, "POST", login, None, basic).body.decode()
        sent = {"Authorization": f"Bearer {self._token}", **headers}
        return fetch(self.server, method, f"{self.server.url}{ROUTE}/{self.id}{more}", body, sent)

    def put(self, path: str, content: bytes = b"new", **fields: str) -> Reply:
        """Upload a file; after a success wait until it exists, because mender-connect answers too early."""
        head = "--B\r\nContent-Disposition: form-data; name="
        parts = [f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in {"path": path, **fields}.items()]
        start = "".join([*parts, f'{head}"file"; filename="sent"\r\n\r\n'])
        form = os.fsencode(start) + content + b"\r\n--B--\r\n"
        reply = self.ask("PUT", "/upload", form, **{"Content-Type": "multipart/form-data; boundary=B"})
        target = Path(path, "sent") if Path(path).is_dir() else Path(path)
        if reply.status == 201 and content:
            until(lambda: target.is_file() and target.read_bytes() == content, f"{target} is there")
        return reply


@contextlib.contextmanager
def stage(name: str, root: Path, **settings: Any) -> Iterator[Stage]:
    """Provide a stage with one of the two programs; `settings` go into its mender-connect.conf."""
    place = root / "place"
    place.mkdir(parents=True)
    if "Limits" in settings:
        (place / "root").mkdir()  # the Chroot, which must exist at the start
    with DevServer(root / "server", session_bytes=None, transfer_seconds=10) as server:
        starts = {OURS: _ours, THEIRS: _theirs}
        with starts[name](root / "device", server, **settings) as terminate:
            server.wait_connected()
            yield Stage(server, place, terminate)


@contextlib.contextmanager
def _theirs(root: Path, server: DevServer, **settings: Any) -> Iterator[Callable[[], None]]:
    token = RawDevice(server).accepted().token
    with mender_connect(root, server, token, **settings) as terminate:
        yield terminate


@contextlib.contextmanager
def _ours(root: Path, server: DevServer, **settings: Any) -> Iterator[Callable[[], None]]:
    device = Device(root, sys.executable)
    device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
    (device.conf / "mender-connect.conf").write_text(json.dumps({"RemoteTerminal": True} | SHELL | settings))
    assert device.run("auth").code == 77
    server.accept()
    device.ok("auth")
    environment = {name: value for name, value in device.env().items() if name not in ("LC_ALL", "TZ")}
    with (root / "terminal.log").open("wb") as log:
        process = subprocess.Popen(
            [device.python, "-m", "mender_oneshot", "-l", "debug", "terminal", "--wait", "0"],
            env=environment | {"LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
        )
    try:
        yield lambda: process.send_signal(signal.SIGTERM)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
        output = (root / "terminal.log").read_text(errors="replace")
        print(output[-5000:])  # pytest shows it if the test fails
    assert "Traceback" not in output
