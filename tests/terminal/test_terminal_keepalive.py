"""Signs of life: who asks for them, how long they may stay out, and what happens then."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from helpers.device import Device
from helpers.terminal_peer import Heard, Served, serving

from mender_oneshot.terminal.control import Control
from mender_oneshot.terminal.loop import Loop
from mender_oneshot.terminal.messages import CONTROL, SHELL, Message
from mender_oneshot.terminal.outbox import Outbox
from mender_oneshot.terminal.rate import Rate
from mender_oneshot.terminal.settings import TerminalSettings
from mender_oneshot.terminal.shell import Shells


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Wire:
    """A connection of which the test sees the one end."""

    pending = 0

    def __init__(self) -> None:
        self.said: list[Heard] = []
        self._ends = os.pipe()

    def fileno(self) -> int:
        return self._ends[0]

    def send(self, data: bytes) -> None:
        self.said.append(Heard(data))

    def abort(self) -> None:
        for end in self._ends:
            os.close(end)

    def take(self) -> list[Heard]:
        said, self.said = [heard for heard in self.said if heard.kind != "shell"], []
        return said


class Model:
    """The parts that keep sessions alive, with a clock of their own."""

    def __init__(self) -> None:
        self.time = Time()
        self.loop = Loop(self.time)
        self.wire = Wire()
        self.host = Outbox(self.loop, TerminalSettings(on=True))
        self.host.attach(self.wire, lambda: None)  # type: ignore[arg-type]  # all that the host asks of a link
        self.shells = Shells(self.host)
        self.closed: list[str] = []
        self.control = Control(self.host, self.closed.append)

    def after(self, seconds: float) -> list[Heard]:
        self.time.now += seconds
        self.shells.tick()
        return self.wire.take()


@pytest.fixture
def world() -> Iterator[Model]:
    made = Model()
    yield made
    made.shells.drop_all()
    while made.shells.terminating:
        made.time.now += 0.05
        made.loop.turn()
    made.host.detach()
    made.loop.close()


def test_a_shell_asks_every_minute_and_ends_without_an_answer(world: Model) -> None:
    world.shells.handle(Message(SHELL, "new", "s1", {"user_id": "u"}))
    assert [heard.kind for heard in world.wire.take()] == ["new"]
    assert world.after(59) == []
    (ping,) = world.after(1)
    assert (ping.kind, ping.props) == ("ping", {"timeout": 65, "status": 3})
    assert b"\xa7timeout\xd3" in ping.data  # mender-cli takes it for int64
    world.shells.handle(Message(SHELL, "pong", "s1"))
    assert [heard.kind for heard in world.after(60)] == ["ping"]
    assert [heard.kind for heard in world.after(64)] == ["ping"]
    (stop,) = world.after(1)
    assert (stop.kind, stop.props["status"]) == ("stop", 2)
    assert b"the peer does not respond" in stop.body
    assert len(world.shells) == 0


@pytest.mark.parametrize("kind", ["pong", "shell", "resize"])
def test_whatever_is_heard_is_a_sign_of_life(world: Model, kind: str) -> None:
    world.shells.handle(Message(SHELL, "new", "s1"))
    for _ in range(10):
        world.after(60)
        world.shells.handle(Message(SHELL, kind, "s1"))
    assert len(world.shells) == 1


def test_a_session_without_a_shell_is_asked_and_then_given_up(world: Model) -> None:
    control, time = world.control, world.time
    control.on_activity("p1")
    control.tick({"p1"})
    time.now += 47
    control.tick({"p1"})
    assert world.wire.take() == []
    time.now += 1
    control.tick({"p1"})
    control.tick({"p1"})
    assert [(heard.proto, heard.kind, heard.sid) for heard in world.wire.take()] == [(CONTROL, "ping", "p1")]
    control.on_activity("p1")  # it answers
    time.now += 59
    control.tick({"p1"})
    assert [heard.kind for heard in world.wire.take()] == ["ping"]
    time.now += 1
    control.tick({"p1"})
    (error,) = world.wire.take()
    assert msgpack.unpackb(error.body) == {"err": "session timeout", "close": True}
    assert world.closed == ["p1"]


def test_a_session_that_has_nothing_open_is_not_asked(world: Model) -> None:
    world.control.on_activity("p1")
    world.time.now += 100
    world.control.tick(set())
    assert world.wire.take() == []
    world.control.tick({"p1"})  # it has something now: its time begins
    assert world.wire.take() == []


def test_a_rate_fades() -> None:
    rate = Rate(1000)
    assert not rate.exceeded(0, 1000)
    assert rate.exceeded(0, 1)
    assert rate.exceeded(0)
    assert not rate.exceeded(60)
    assert rate.exceeded(60, 999)
    assert not Rate(0).exceeded(0, 10**12)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Served]:
    with serving(Device(tmp_path / "device", sys.executable), patience=100) as served:
        yield served


@pytest.mark.long
def test_a_quiet_connection_is_kept_alive_by_pings(terminal: Served) -> None:
    with terminal.connect("--wait", "0") as line:
        while line.pings < 2:
            line.read()
        # The answers are enough: it is the first connection still.
        line.round_trip()


@pytest.mark.long
def test_a_dead_connection_is_given_up(terminal: Served) -> None:
    """Nobody reads the first one, so nobody answers a ping."""
    with terminal.connect("--wait", "0"), terminal.peer.accept() as line:
        line.round_trip()
    assert terminal.process.poll() is None
