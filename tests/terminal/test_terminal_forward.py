"""Connections to what a device can reach: in order, one message under way, nothing lost and nothing left."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from helpers.device import spoil
from helpers.terminal_peer import (
    Conversation,
    Heard,
    Served,
    children,
    descriptors,
    eventually,
    resident,
    silent_address,
)

from mender_oneshot.terminal.messages import CONTROL, FORWARD, pack


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """What the device connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def ask(
    line: Conversation,
    port: int,
    name: str = "c1",
    sid: str = "p1",
    host: str = "127.0.0.1",
    kind: str = "tcp",
) -> None:
    body = pack({"remote_host": host, "remote_port": port, "protocol": kind})
    line.send(FORWARD, "new", sid, body, connection_id=name)


def of(heard: Heard, kind: str, name: str = "c1") -> Heard:
    assert (heard.proto, heard.kind, heard.props.get("connection_id")) == (FORWARD, kind, name), heard
    return heard


def connect(line: Conversation, target: socket.socket, name: str = "c1") -> socket.socket:
    ask(line, target.getsockname()[1], name)
    stream = target.accept()[0]
    stream.settimeout(20)
    of(line.receive(), "new", name)
    return stream


def say(line: Conversation, data: bytes, name: str = "c1") -> None:
    line.send(FORWARD, "forward", "p1", data, connection_id=name)


def words(heard: Heard) -> str:
    assert heard.kind == "error", heard
    return str(msgpack.unpackb(heard.body)["err"])


def test_there_and_back(either: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target, either.connect() as line:
        target.settimeout(20)
        with connect(line, target) as stream:
            say(line, b"question")
            assert stream.recv(100) == b"question"
            of(line.receive(), "ack")
            stream.sendall(b"answer")
            assert of(line.receive(), "forward").body == b"answer"
            line.send(FORWARD, "ack", "p1", connection_id="c1")
            line.send(FORWARD, "stop", "p1", connection_id="c1")
            of(line.receive(), "stop")
            assert stream.recv(100) == b""


def test_data_behind_new_waits_for_the_connection(line: Conversation, target: socket.socket) -> None:
    ask(line, target.getsockname()[1])
    say(line, b"early")
    stream = target.accept()[0]
    with stream:
        stream.settimeout(20)
        assert stream.recv(100) == b"early"
        of(line.receive(), "new")
        of(line.receive(), "ack")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_names_and_addresses(line: Conversation, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        target = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with target:
        target.settimeout(20)
        ask(line, target.getsockname()[1], host=host)
        target.accept()[0].close()
        of(line.receive(), "new")
        of(line.receive(), "stop")


def test_a_name_that_does_not_exist(line: Conversation, terminal: Served) -> None:
    ask(line, 80, host="no-such-host.invalid")
    line.round_trip()  # nobody waits for it
    assert "cannot resolve" in words(line.receive())
    of(line.receive(), "stop")
    assert not children(terminal.process.pid)


def test_an_address_that_is_silent_leaves_time_for_the_others(
    terminal: Served, target: socket.socket
) -> None:
    with silent_address() as silent:
        addresses = [(2, 1, 6, "", silent)] + [(2, 1, 6, "", target.getsockname())] * 7
        spoil(
            terminal.device, f"import socket\nsocket.getaddrinfo = lambda *words, **options: {addresses!r}\n"
        )
        with terminal.connect() as line:
            ask(line, 80, host="somewhere.invalid")
            of(line.receive(), "new")
            target.accept()[0].close()


NO_IPV6 = """\
import socket
def connect(self, address, plain=socket.socket.connect):
    if self.family == socket.AF_INET6:
        raise OSError(97, "Address family not supported by protocol")
    return plain(self, address)
socket.socket.connect = connect
"""
NO_CHILD = """\
import os
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = fork
"""


@pytest.mark.parametrize(
    ("code", "host", "why"),
    [(NO_IPV6, "::1", "not supported"), (NO_CHILD, "somewhere.invalid", "temporarily unavailable")],
    ids=["a family", "a child"],
)
def test_what_the_system_does_not_let_us_have(terminal: Served, code: str, host: str, why: str) -> None:
    """It is the end of one connection, and of nothing else."""
    spoil(terminal.device, code)
    with terminal.connect() as line:
        line.shell()
        files = descriptors(terminal.process.pid)
        ask(line, 80, host=host)
        *_, error = line.until(lambda heard: heard.kind == "error")
        assert why in words(error)
        of(line.receive(), "stop")
        assert descriptors(terminal.process.pid) == files
        line.type("echo al''ive\n")
        line.see(b"alive\r\n")


def test_the_session_goes_on_when_its_last_connection_is_closed(
    terminal: Served, target: socket.socket
) -> None:
    with terminal.connect("--max-sessions", "1") as line:
        for _ in range(2):
            with connect(line, target):
                line.send(FORWARD, "stop", "p1", connection_id="c1")
                of(line.receive(), "stop")
        line.send(CONTROL, "close", "p1")
        assert line.end() == 1000
    assert "Served 1 session" in terminal.finish()[1]


def test_a_port_where_nobody_listens(line: Conversation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    ask(line, port)
    say(line, b"early")
    assert "refused" in words(line.receive())
    of(line.receive(), "stop")


@pytest.mark.parametrize("name", ["remote_host", "remote_port", "protocol", "connection_id"])
def test_a_request_that_lacks_something(line: Conversation, name: str) -> None:
    wanted: dict[str, Any] = {"remote_host": "127.0.0.1", "remote_port": 1, "protocol": "tcp"}
    props = {} if name == "connection_id" else {"connection_id": "c1"}
    wanted.pop(name, None)
    line.send(FORWARD, "new", "p1", pack(wanted), **props)
    assert "missing connection_id, remote_port or protocol" in words(line.receive())


def test_a_name_that_is_too_long(line: Conversation) -> None:
    ask(line, 1, "c" * 257)
    assert "connection_id is longer than 256" in words(line.receive())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("remote_port", 0),
        ("remote_port", 65536),
        ("remote_port", "80"),
        ("remote_host", ""),
        ("protocol", "sctp"),
    ],
)
def test_a_request_that_makes_no_sense(line: Conversation, name: str, value: object) -> None:
    wanted = {"remote_host": "127.0.0.1", "remote_port": 1, "protocol": "tcp"} | {name: value}
    line.send(FORWARD, "new", "p1", pack(wanted), connection_id="c1")
    assert words(line.receive())


@pytest.mark.parametrize("kind", ["forward", "ack", "stop"])
def test_what_belongs_to_no_connection(line: Conversation, kind: str) -> None:
    line.send(FORWARD, kind, "p1", b"x", connection_id="nobody")
    assert words(line.receive()) == "unknown connection"


def test_a_name_is_given_once(line: Conversation, target: socket.socket) -> None:
    with connect(line, target):
        ask(line, target.getsockname()[1])
        assert "already" in words(line.receive())


def test_one_message_is_under_way_and_the_rest_waits(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as stream:
        stream.sendall(bytes(100_000))
        got = len(of(line.receive(), "forward").body)
        line.send(CONTROL, "ping", "x")
        line.expect(CONTROL, "pong", "x")  # and nothing before it
        while got < 100_000:
            line.send(FORWARD, "ack", "p1", connection_id="c1")
            got += len(of(line.receive(), "forward").body)
        assert got == 100_000


def test_what_a_target_does_not_read_is_not_acknowledged(
    terminal: Served, line: Conversation, target: socket.socket
) -> None:
    """And does not fill the memory: who does not wait for `ack` is told so."""
    with connect(line, target) as stream, connect(line, target, "c2") as other:
        before = resident(terminal.process.pid)
        with contextlib.suppress(OSError):
            for _ in range(500):
                say(line, bytes(32768))
        say(line, b"on", "c2")
        assert other.recv(100) == b"on"
        heard = line.until(lambda heard: heard.kind == "stop")
        assert "wait for ack" in words(heard[-2])
        assert resident(terminal.process.pid) - before < 16384
        stream.close()


def test_the_last_words_before_a_hang_up_arrive(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sent = os.urandom(500_000)
        say(line, sent)
        line.send(FORWARD, "stop", "p1", connection_id="c1")
        line.until(lambda heard: heard.kind == "stop")
        got = b""
        while piece := stream.recv(65536):
            got += piece
        assert got == sent


def test_a_target_that_hangs_up(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as stream:
        stream.sendall(b"last")
    assert of(line.receive(), "forward").body == b"last"
    line.send(FORWARD, "ack", "p1", connection_id="c1")
    of(line.receive(), "stop")
    say(line, b"late")
    assert words(line.receive()) == "unknown connection"


def test_the_end_of_a_session_ends_its_connections(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as first, connect(line, target, "c2") as second:
        line.send(CONTROL, "close", "p1")
        assert first.recv(100) == b""
        assert second.recv(100) == b""


def test_told_to_end_it_stops_every_connection(
    terminal: Served, line: Conversation, target: socket.socket
) -> None:
    with connect(line, target), connect(line, target, "c2"):
        terminal.process.terminate()
        assert {line.receive().props["connection_id"] for _ in range(2)} == {"c1", "c2"}
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def test_there_is_a_most(line: Conversation, target: socket.socket) -> None:
    for number in range(128):
        ask(line, target.getsockname()[1], f"c{number}")
    with contextlib.ExitStack() as streams:
        for _ in range(128):
            streams.enter_context(target.accept()[0])
        ask(line, target.getsockname()[1], "more")
        heard = line.until(lambda heard: heard.props.get("connection_id") == "more" or heard.kind == "error")
        assert "at most 128" in words(heard[-1])


def test_there_is_a_most_of_sessions_too(line: Conversation) -> None:
    """Also of those whose connections have all failed."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for number in range(128):
        ask(line, port, sid=f"p{number}")
        assert "refused" in words(line.receive())
        of(line.receive(), "stop")
    ask(line, port, sid="more")
    assert "at most 128" in words(line.receive())
    ask(line, port, sid="p0")
    assert "refused" in words(line.receive())


def test_datagrams_keep_their_bounds(line: Conversation) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(20)
        ask(line, target.getsockname()[1], kind="udp")
        of(line.receive(), "new")
        for data in (b"one", b"", b"x" * 9000):
            say(line, data)
            got, sender = target.recvfrom(65536)
            assert got == data
            of(line.receive(), "ack")
            target.sendto(data + b"!", sender)
            assert of(line.receive(), "forward").body == data + b"!"
            line.send(FORWARD, "ack", "p1", connection_id="c1")


def test_datagrams_to_nobody_are_lost_and_the_next_arrive(line: Conversation) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        address = target.getsockname()
    ask(line, address[1], kind="udp")
    of(line.receive(), "new")
    for _ in range(3):
        say(line, b"lost")
        of(line.receive(), "ack")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(address)
        target.settimeout(20)
        say(line, b"found")
        assert target.recv(100) == b"found"


def test_under_load_nothing_is_lost_and_nothing_is_left(
    terminal: Served, line: Conversation, target: socket.socket
) -> None:
    """Forty connections to an echo, with five under way at a time, and then none."""

    def echo(stream: socket.socket) -> None:
        with stream:
            while piece := stream.recv(65536):
                stream.sendall(piece)

    def listen() -> None:
        for _ in range(41):
            threads.append(threading.Thread(target=echo, args=(target.accept()[0],)))
            threads[-1].start()

    threads: list[threading.Thread] = []
    listener = threading.Thread(target=listen)
    listener.start()
    sent = {f"c{number}": [os.urandom(10_000), os.urandom(10_000)] for number in range(41)}
    got = dict.fromkeys(sent, b"")
    waiting = list(sent)
    told = dict.fromkeys(sent, 0)

    def tell(name: str) -> None:
        say(line, sent[name][told[name]], name)
        told[name] += 1

    def begin() -> None:
        name = waiting.pop()
        ask(line, target.getsockname()[1], name)
        tell(name)

    begin()
    before, left = 0, len(sent)
    while left:
        heard = line.receive()
        name = heard.props["connection_id"]
        if heard.kind == "ack" and told[name] < 2:
            tell(name)
        elif heard.kind == "forward":
            got[name] += heard.body
            line.send(FORWARD, "ack", "p1", connection_id=name)
            if len(got[name]) == 20_000:
                line.send(FORWARD, "stop", "p1", connection_id=name)
        elif heard.kind == "stop":
            left -= 1
            before = before or descriptors(terminal.process.pid)
            for _ in range(min(5 if left == 40 else 1, len(waiting))):
                begin()
    listener.join()
    for thread in threads:
        thread.join()
    assert got == {name: b"".join(parts) for name, parts in sent.items()}
    eventually(lambda: descriptors(terminal.process.pid) == before, "every connection is closed")


def test_disabled_is_not_offered_and_not_served(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, PortForward={"Disable": True})
    with terminal.connect() as line:
        line.send(CONTROL, "open", "p1", pack({"versions": [1]}))
        assert 3 not in msgpack.unpackb(line.expect(CONTROL, "accept", "p1").body)["protocols"]
        ask(line, 1)
        assert msgpack.unpackb(line.expect(CONTROL, "error", "p1").body)["msgproto"] == 3


def test_very_many_pieces_without_content_are_too_much(line: Conversation) -> None:
    """They take room as well while the target is not connected."""
    with silent_address() as (host, port):
        body = pack({"remote_host": host, "remote_port": port, "protocol": "tcp"})
        line.send(FORWARD, "new", body=body, connection_id="c")
        for _ in range(9000):
            line.send(FORWARD, "forward", connection_id="c")
        assert b"more data than the target takes" in line.expect(FORWARD, "error").body
