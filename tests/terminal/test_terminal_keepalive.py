"""Pings of shells, of other sessions and of the connection, and what happens without an answer."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from helpers.device import Device
from helpers.terminal_peer import Received, Served, serving

from mender_oneshot.terminal.control import Control
from mender_oneshot.terminal.keepalive import Keepalive
from mender_oneshot.terminal.loop import Loop
from mender_oneshot.terminal.messages import CONTROL, SHELL, Message
from mender_oneshot.terminal.outbox import Outbox
from mender_oneshot.terminal.rate import Rate
from mender_oneshot.terminal.settings import TerminalSettings
from mender_oneshot.terminal.shell import Shells


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeConnection:
    """A fake connection that records the messages."""

    pending = 0

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self._ends = os.pipe()

    def fileno(self) -> int:
        return self._ends[0]

    def send(self, data: bytes) -> None:
        self.messages.append(Received(data))

    def abort(self) -> None:
        for end in self._ends:
            os.close(end)

    def take(self) -> list[Received]:
        messages, self.messages = self.messages, []
        return [received for received in messages if received.kind != "shell"]


class Model:
    """The parts that ping sessions, with a clock that the test sets."""

    def __init__(self) -> None:
        self.time = Time()
        self.loop = Loop(self.time)
        self.connection = FakeConnection()
        self.outbox = Outbox(self.loop, TerminalSettings(on=True))
        self.outbox.attach(self.connection, lambda: None)  # type: ignore[arg-type]  # all that the outbox uses
        self.shells = Shells(self.outbox)
        self.closed: list[str] = []
        self.control = Control(self.outbox, self.closed.append)

    def after(self, seconds: float) -> list[Received]:
        self.time.now += seconds
        self.shells.tick()
        return self.connection.take()


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.shells.drop_all()
    while made.shells.terminating:
        made.time.now += 0.05
        made.loop.turn()
    made.outbox.detach()
    made.loop.close()


def test_a_shell_pings_every_minute_and_ends_without_an_answer(model: Model) -> None:
    model.shells.handle(Message(SHELL, "new", "s1", {"user_id": "u"}))
    assert [received.kind for received in model.connection.take()] == ["new"]
    assert model.after(59) == []
    (ping,) = model.after(1)
    assert (ping.kind, ping.props) == ("ping", {"timeout": 65, "status": 3})
    assert b"\xa7timeout\xd3" in ping.data  # mender-cli accepts int64 only
    model.shells.handle(Message(SHELL, "pong", "s1"))
    assert [received.kind for received in model.after(60)] == ["ping"]
    assert [received.kind for received in model.after(64)] == ["ping"]
    (stop,) = model.after(1)
    assert (stop.kind, stop.props["status"]) == ("stop", 2)
    assert b"the peer does not respond" in stop.body
    assert len(model.shells) == 0


@pytest.mark.parametrize("kind", ["pong", "shell", "resize"])
def test_any_message_keeps_a_shell_alive(model: Model, kind: str) -> None:
    model.shells.handle(Message(SHELL, "new", "s1"))
    for _ in range(10):
        model.after(60)
        model.shells.handle(Message(SHELL, kind, "s1"))
    assert len(model.shells) == 1


def test_a_session_without_a_shell_is_pinged_and_then_closed(model: Model) -> None:
    control, time = model.control, model.time
    control.on_activity("p1")
    control.tick({"p1"})
    time.now += 47
    control.tick({"p1"})
    assert model.connection.take() == []
    time.now += 1
    control.tick({"p1"})
    control.tick({"p1"})
    assert [(received.proto, received.kind, received.sid) for received in model.connection.take()] == [
        (CONTROL, "ping", "p1")
    ]
    control.on_activity("p1")  # it answers
    time.now += 59
    control.tick({"p1"})
    assert [received.kind for received in model.connection.take()] == ["ping"]
    time.now += 1
    control.tick({"p1"})
    (error,) = model.connection.take()
    assert msgpack.unpackb(error.body) == {"err": "session timeout", "close": True}
    assert model.closed == ["p1"]


def test_a_session_with_nothing_open_is_not_pinged(model: Model) -> None:
    model.control.on_activity("p1")
    model.time.now += 100
    model.control.tick(set())
    assert model.connection.take() == []
    model.control.tick({"p1"})  # now it has something open: its time begins
    assert model.connection.take() == []


def test_a_rate_decays_within_a_minute() -> None:
    rate = Rate(1000)
    assert not rate.exceeded(0, 1000)
    assert rate.exceeded(0, 1)
    assert rate.exceeded(0)
    assert not rate.exceeded(60)
    assert rate.exceeded(60, 999)
    assert not Rate(0).exceeded(0, 10**12)


def test_a_server_that_sends_nothing_for_a_minute_is_lost() -> None:
    keepalive = Keepalive(1000)
    assert keepalive.problem(1059.9, pending=0, sent=0, paused=False) == ""
    assert keepalive.problem(1060, pending=0, sent=0, paused=False) == "the server does not respond"
    keepalive.last_received = 1060
    assert keepalive.problem(1061, pending=0, sent=0, paused=False) == ""


def test_a_server_that_is_not_read_from_is_not_expected_to_send() -> None:
    keepalive = Keepalive(1000)
    for now in range(1000, 2000, 50):
        assert keepalive.problem(now, pending=0, sent=0, paused=True) == ""


def test_a_server_that_reads_nothing_for_a_minute_is_lost() -> None:
    keepalive = Keepalive(1000)
    for seconds in range(0, 300, 50):  # it reads slowly
        assert keepalive.problem(1000 + seconds, pending=9, sent=seconds, paused=True) == ""
    assert keepalive.problem(1310, pending=9, sent=250, paused=True) == "the server does not read"


def test_a_ping_is_due_every_54_seconds() -> None:
    keepalive = Keepalive(1000)
    assert [now for now in range(1000, 1200) if keepalive.ping_due(now)] == [1054, 1108, 1162]


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Served]:
    """A device whose server waits longer than the client's timeouts."""
    with serving(Device(tmp_path / "device", sys.executable), patience=100) as served:
        yield served


@pytest.mark.long
def test_an_idle_connection_is_kept_alive_by_pings(patient: Served) -> None:
    with patient.connect("--wait", "0") as line:
        while line.pings < 2:
            line.read()
        # The pongs are enough: this is still the first connection.
        line.round_trip()


@pytest.mark.long
def test_a_connection_without_pongs_is_replaced(patient: Served) -> None:
    """The test does not read from the first one, so no ping is answered."""
    with patient.connect("--wait", "0"), patient.peer.accept() as line:
        line.round_trip()
    assert patient.process.poll() is None
