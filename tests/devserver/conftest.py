"""A development server without TLS, and a device and a user made of bare HTTP requests."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.raw_device import ManualClock, RawDevice
from helpers.raw_user import RawUser

from mender_oneshot.devserver import DevServer


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the server."""
    return ManualClock()


@pytest.fixture
def server(tmp_path: Path, clock: ManualClock) -> Iterator[DevServer]:
    """A server; when it has stopped, none of its threads is left."""
    before = threading.active_count()
    with DevServer(tmp_path / "server", tls=False, clock=clock) as server:
        yield server
    assert threading.active_count() == before


@pytest.fixture
def device(server: DevServer) -> RawDevice:
    """A device that is accepted."""
    return RawDevice(server).accepted()


@pytest.fixture
def user(server: DevServer) -> RawUser:
    """A user who is logged in."""
    return RawUser(server)


@pytest.fixture
def artifact(server: DevServer, tmp_path: Path) -> bytes:
    """The bytes of `release-2`, which is uploaded: more than 300 kB, uncompressed."""
    path = make_artifact(tmp_path / "a.mender", payload={"big": bytes(300_000)}, compression="none")
    server.upload(path)
    return path.read_bytes()
