"""Devices whose terminal connects to the test itself, for tests of the remote terminal."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.confinement import make_tree
from helpers.device import Device
from helpers.terminal_peer import Conversation, Served, serving


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Served]:
    """A device with the newest libraries."""
    with serving(Device(tmp_path / "device", sys.executable)) as served:
        yield served


@pytest.fixture
def either(tmp_path: Path, python: str) -> Iterator[Served]:
    """A device with the newest libraries, and one with Debian's."""
    with serving(Device(tmp_path / "device", python)) as served:
        yield served


@pytest.fixture
def line(terminal: Served) -> Iterator[Conversation]:
    """The first connection of `terminal`."""
    with terminal.connect() as conversation:
        yield conversation


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory "jail" with files and links, and around it files that must not be reached."""
    return make_tree(tmp_path)
