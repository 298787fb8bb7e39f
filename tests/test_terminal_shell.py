"""Shells: what a person at the other end can rely on."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Device
from terminalpeer import Served, children, descriptors, eventually, resident, serving

from mender_oneshot.terminal.process import members
from mender_oneshot.terminal.wire import CONTROL, SHELL


@pytest.fixture
def terminal(tmp_path: Path, python: str) -> Iterator[Served]:
    with serving(Device(tmp_path / "device", python), python) as served:
        yield served


def test_a_shell_from_beginning_to_end(terminal: Served) -> None:
    with terminal.connect() as line:
        assert line.target == "/api/devices/v1/deviceconnect/connect"
        assert line.headers["authorization"] == "Bearer aaaa.bbbb.cccc"
        line.shell(width=100, height=30)
        line.type("stty size; echo $((6*7))\n")
        assert b"30 100\r\n" in line.see(b"42\r\n")
        line.send(SHELL, "resize", terminal_width=120, terminal_height=50)
        line.type("stty size\n")
        line.see(b"50 120\r\n")
        line.type("exit\n")
        *_, stop = line.until(lambda heard: heard.kind == "stop")
        assert (stop.sid, stop.props["status"]) == ("s1", 1)
        assert not children(terminal.process.pid)
        terminal.process.terminate()
        assert line.end() == 1000
    code, out, err = terminal.finish()
    assert code == 0
    assert re.fullmatch(r"Served 1 session in \d+ s\.\n", out)
