"""The two ends of a session on the development server: WebSockets of a device and of a user."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_device import ManualClock
from helpers.raw_socket import RawSocket
from helpers.relay_setup import RelaySetup

from mender_oneshot.devserver import DevServer


@pytest.fixture
def make_relay(tmp_path: Path) -> Iterator[Callable[..., RelaySetup]]:
    """A function that starts a server with some options; when it has stopped, none of its threads is left."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> RelaySetup:
            clock = ManualClock(1_800_000_000)
            options = {"tls": False} | options
            server = stack.enter_context(DevServer(tmp_path / "server", clock=clock, **options))
            return RelaySetup(server, clock)

        yield make
    assert threading.active_count() == before


@pytest.fixture
def relay(make_relay: Callable[..., RelaySetup]) -> RelaySetup:
    """A server, a device and a user, not yet connected."""
    return make_relay()


@pytest.fixture
def device(relay: RelaySetup) -> Iterator[RawSocket]:
    """The device, connected."""
    with relay.device_end() as connected:
        relay.server.wait_connected()
        yield connected


@pytest.fixture
def user(relay: RelaySetup, device: RawSocket) -> Iterator[RawSocket]:
    """The user, connected to the device."""
    with relay.user_end() as connected:
        yield connected
