"""Devices for the stories of faults: their invocations cost little, because they come from a fork server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.device import Device
from helpers.simulated_days import ForkServer, Prompt, let_in

from mender_oneshot.devserver import DevServer


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """The process that all invocations of these devices are forked from."""
    with ForkServer() as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: DevServer, fork_server: ForkServer) -> Device:
    """A fresh device, configured for the server."""
    return Prompt(tmp_path / "device", server, fork_server)


@pytest.fixture
def accepted(device: Device, server: DevServer) -> Device:
    """A device that the server has accepted, in one invocation."""
    return let_in(device, server)
