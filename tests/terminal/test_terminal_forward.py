"""Port forwards: data in order, one message in flight, nothing lost, every connection closed at the end."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from helpers.device import patch_python
from helpers.terminal_peer import (
    Conversation,
    Received,
    Served,
    children,
    descriptors,
    resident,
    silent_address,
)
from helpers.waiting import until

from mender_oneshot.terminal.messages import CONTROL, FORWARD, pack


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A port that the device connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def request(
    line: Conversation,
    port: int,
    name: str = "c1",
    sid: str = "p1",
    host: str = "127.0.0.1",
    kind: str = "tcp",
) -> None:
    """Request a connection."""
    body = pack({"remote_host": host, "remote_port": port, "protocol": kind})
    line.send(FORWARD, "new", sid, body, connection_id=name)


def check(received: Received, kind: str, name: str = "c1") -> Received:
    """Return a message, which must be of one type and connection."""
    assert (received.proto, received.kind, received.props.get("connection_id")) == (FORWARD, kind, name), (
        received
    )
    return received


def connect(line: Conversation, target: socket.socket, name: str = "c1") -> socket.socket:
    """Open a connection, and return the target's end of it."""
    request(line, target.getsockname()[1], name)
    stream = target.accept()[0]
    stream.settimeout(20)
    check(line.receive(), "new", name)
    return stream


def send(line: Conversation, data: bytes, name: str = "c1") -> None:
    line.send(FORWARD, "forward", "p1", data, connection_id=name)


def error_text(received: Received) -> str:
    """Return the text of an error."""
    assert received.kind == "error", received
    return str(msgpack.unpackb(received.body)["err"])


def test_data_goes_there_and_back(either: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target, either.connect() as line:
        target.settimeout(20)
        with connect(line, target) as stream:
            send(line, b"question")
            assert stream.recv(100) == b"question"
            check(line.receive(), "ack")
            stream.sendall(b"answer")
            assert check(line.receive(), "forward").body == b"answer"
            line.send(FORWARD, "ack", "p1", connection_id="c1")
            line.send(FORWARD, "stop", "p1", connection_id="c1")
            check(line.receive(), "stop")
            assert stream.recv(100) == b""


def test_data_sent_right_after_new_waits_for_the_connection(
    line: Conversation, target: socket.socket
) -> None:
    request(line, target.getsockname()[1])
    send(line, b"early")
    stream = target.accept()[0]
    with stream:
        stream.settimeout(20)
        assert stream.recv(100) == b"early"
        check(line.receive(), "new")
        check(line.receive(), "ack")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_target_may_be_a_name_or_an_address(line: Conversation, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        target = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with target:
        target.settimeout(20)
        request(line, target.getsockname()[1], host=host)
        target.accept()[0].close()
        check(line.receive(), "new")
        check(line.receive(), "stop")


def test_a_host_name_that_does_not_exist_is_an_error(line: Conversation, terminal: Served) -> None:
    request(line, 80, host="no-such-host.invalid")
    line.round_trip()  # the device does not block
    assert "cannot resolve" in error_text(line.receive())
    check(line.receive(), "stop")
    assert not children(terminal.process.pid)


def test_an_address_that_does_not_respond_leaves_time_for_the_others(
    terminal: Served, target: socket.socket
) -> None:
    with silent_address() as silent:
        addresses = [(2, 1, 6, "", silent)] + [(2, 1, 6, "", target.getsockname())] * 7
        patch_python(
            terminal.device,
            f"import socket\nsocket.getaddrinfo = lambda *arguments, **options: {addresses!r}\n",
        )
        with terminal.connect() as line:
            request(line, 80, host="somewhere.invalid")
            check(line.receive(), "new")
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
    ids=["no IPv6", "no child process"],
)
def test_a_failing_system_call_ends_only_its_connection(
    terminal: Served, code: str, host: str, why: str
) -> None:
    patch_python(terminal.device, code)
    with terminal.connect() as line:
        line.shell()
        files = descriptors(terminal.process.pid)
        request(line, 80, host=host)
        *_, error = line.until(lambda received: received.kind == "error")
        assert why in error_text(error)
        check(line.receive(), "stop")
        assert descriptors(terminal.process.pid) == files
        line.type("echo al''ive\n")
        line.see(b"alive\r\n")


def test_a_session_continues_after_its_last_connection(terminal: Served, target: socket.socket) -> None:
    with terminal.connect("--max-sessions", "1") as line:
        for _ in range(2):
            with connect(line, target):
                line.send(FORWARD, "stop", "p1", connection_id="c1")
                check(line.receive(), "stop")
        line.send(CONTROL, "close", "p1")
        assert line.end() == 1000
    assert "Served 1 session" in terminal.finish()[1]


def test_a_port_without_a_listener_is_an_error(line: Conversation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    request(line, port)
    send(line, b"early")
    assert "refused" in error_text(line.receive())
    check(line.receive(), "stop")


@pytest.mark.parametrize("name", ["remote_host", "remote_port", "protocol", "connection_id"])
def test_a_request_without_a_required_field_is_an_error(line: Conversation, name: str) -> None:
    wanted: dict[str, Any] = {"remote_host": "127.0.0.1", "remote_port": 1, "protocol": "tcp"}
    props = {} if name == "connection_id" else {"connection_id": "c1"}
    wanted.pop(name, None)
    line.send(FORWARD, "new", "p1", pack(wanted), **props)
    assert "missing connection_id, remote_port or protocol" in error_text(line.receive())


def test_a_connection_id_that_is_too_long_is_an_error(line: Conversation) -> None:
    request(line, 1, "c" * 257)
    assert "connection_id is longer than 256" in error_text(line.receive())


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
def test_a_request_with_an_invalid_field_is_an_error(line: Conversation, name: str, value: object) -> None:
    wanted = {"remote_host": "127.0.0.1", "remote_port": 1, "protocol": "tcp"} | {name: value}
    line.send(FORWARD, "new", "p1", pack(wanted), connection_id="c1")
    assert error_text(line.receive())


@pytest.mark.parametrize("kind", ["forward", "ack", "stop"])
def test_a_message_for_an_unknown_connection_is_an_error(line: Conversation, kind: str) -> None:
    line.send(FORWARD, kind, "p1", b"x", connection_id="nobody")
    assert error_text(line.receive()) == "unknown connection"


def test_a_connection_id_that_is_in_use_is_an_error(line: Conversation, target: socket.socket) -> None:
    with connect(line, target):
        request(line, target.getsockname()[1])
        assert "already exists" in error_text(line.receive())


def test_the_next_message_waits_for_the_ack(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as stream:
        stream.sendall(bytes(100_000))
        got = len(check(line.receive(), "forward").body)
        line.send(CONTROL, "ping", "x")
        line.expect(CONTROL, "pong", "x")  # no data was sent before it
        while got < 100_000:
            line.send(FORWARD, "ack", "p1", connection_id="c1")
            got += len(check(line.receive(), "forward").body)
        assert got == 100_000


def test_what_a_target_does_not_read_is_not_acknowledged(
    terminal: Served, line: Conversation, target: socket.socket
) -> None:
    """A peer that does not wait for `ack` gets an error, and the memory does not grow."""
    with connect(line, target) as stream, connect(line, target, "c2") as other:
        before = resident(terminal.process.pid)
        with contextlib.suppress(OSError):
            for _ in range(500):
                send(line, bytes(32768))
        send(line, b"on", "c2")
        assert other.recv(100) == b"on"
        received = line.until(lambda received: received.kind == "stop")
        assert "wait for ack" in error_text(received[-2])
        assert resident(terminal.process.pid) - before < 16384
        stream.close()


def test_data_sent_before_the_user_closes_arrives(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sent = os.urandom(500_000)
        send(line, sent)
        line.send(FORWARD, "stop", "p1", connection_id="c1")
        line.until(lambda received: received.kind == "stop")
        got = b""
        while piece := stream.recv(65536):
            got += piece
        assert got == sent


def test_a_target_that_closes_ends_its_connection(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as stream:
        stream.sendall(b"last")
    assert check(line.receive(), "forward").body == b"last"
    line.send(FORWARD, "ack", "p1", connection_id="c1")
    check(line.receive(), "stop")
    send(line, b"late")
    assert error_text(line.receive()) == "unknown connection"


def test_the_end_of_a_session_ends_its_connections(line: Conversation, target: socket.socket) -> None:
    with connect(line, target) as first, connect(line, target, "c2") as second:
        line.send(CONTROL, "close", "p1")
        assert first.recv(100) == b""
        assert second.recv(100) == b""


def test_sigterm_stops_every_connection(terminal: Served, line: Conversation, target: socket.socket) -> None:
    with connect(line, target), connect(line, target, "c2"):
        terminal.process.terminate()
        assert {line.receive().props["connection_id"] for _ in range(2)} == {"c1", "c2"}
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def test_the_129th_connection_is_rejected(line: Conversation, target: socket.socket) -> None:
    for number in range(128):
        request(line, target.getsockname()[1], f"c{number}")
    with contextlib.ExitStack() as streams:
        for _ in range(128):
            streams.enter_context(target.accept()[0])
        request(line, target.getsockname()[1], "more")
        received = line.until(
            lambda received: received.props.get("connection_id") == "more" or received.kind == "error"
        )
        assert "at most 128" in error_text(received[-1])


def test_the_129th_session_is_rejected(line: Conversation) -> None:
    """Sessions whose connections have all failed count too."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for number in range(128):
        request(line, port, sid=f"p{number}")
        assert "refused" in error_text(line.receive())
        check(line.receive(), "stop")
    request(line, port, sid="more")
    assert "at most 128" in error_text(line.receive())
    request(line, port, sid="p0")
    assert "refused" in error_text(line.receive())


def test_datagrams_keep_their_boundaries(line: Conversation) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(20)
        request(line, target.getsockname()[1], kind="udp")
        check(line.receive(), "new")
        for data in (b"one", b"", b"x" * 9000):
            send(line, data)
            got, sender = target.recvfrom(65536)
            assert got == data
            check(line.receive(), "ack")
            target.sendto(data + b"!", sender)
            assert check(line.receive(), "forward").body == data + b"!"
            line.send(FORWARD, "ack", "p1", connection_id="c1")


def test_datagrams_arrive_after_others_were_rejected(line: Conversation) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        address = target.getsockname()
    request(line, address[1], kind="udp")
    check(line.receive(), "new")
    for _ in range(3):
        send(line, b"lost")
        check(line.receive(), "ack")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(address)
        target.settimeout(20)
        send(line, b"found")
        assert target.recv(100) == b"found"


def echo(target: socket.socket, count: int) -> threading.Thread:
    """Send back the data of so many connections, each in a thread."""

    def copy(stream: socket.socket) -> None:
        with stream:
            while piece := stream.recv(65536):
                stream.sendall(piece)

    def listen() -> None:
        threads = []
        for _ in range(count):
            threads.append(threading.Thread(target=copy, args=(target.accept()[0],)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    listener = threading.Thread(target=listen)
    listener.start()
    return listener


class Load:
    """Sends 20 kB in two messages through each connection, and collects what comes back."""

    def __init__(self, line: Conversation, port: int, count: int) -> None:
        self.sent = {f"c{number}": [os.urandom(10_000), os.urandom(10_000)] for number in range(count)}
        self.received = dict.fromkeys(self.sent, b"")
        self._line = line
        self._port = port
        self._unopened = list(self.sent)
        self._unsent = {name: list(parts) for name, parts in self.sent.items()}

    def open(self, count: int) -> None:
        """Open so many connections, or those that are left, and send their first message."""
        for _ in range(min(count, len(self._unopened))):
            name = self._unopened.pop()
            request(self._line, self._port, name)
            self._send(name)

    def run_until_stop(self) -> None:
        """Handle messages until one connection is stopped; each is stopped when all of it came back."""
        while (message := self._line.receive()).kind != "stop":
            name = message.props["connection_id"]
            if message.kind == "ack" and self._unsent[name]:
                self._send(name)
            elif message.kind == "forward":
                self._handle_data(name, message.body)

    def _send(self, name: str) -> None:
        send(self._line, self._unsent[name].pop(0), name)

    def _handle_data(self, name: str, data: bytes) -> None:
        self.received[name] += data
        self._line.send(FORWARD, "ack", "p1", connection_id=name)
        if len(self.received[name]) == 20_000:
            self._line.send(FORWARD, "stop", "p1", connection_id=name)


def test_under_load_all_data_arrives_and_every_connection_is_closed(
    terminal: Served, line: Conversation, target: socket.socket
) -> None:
    """After a first connection forty others, five at a time."""
    listener = echo(target, 41)
    load = Load(line, target.getsockname()[1], 41)
    load.open(1)
    load.run_until_stop()
    before = descriptors(terminal.process.pid)
    load.open(5)
    for _ in range(40):
        load.run_until_stop()
        load.open(1)
    listener.join()
    assert load.received == {name: b"".join(parts) for name, parts in load.sent.items()}
    until(lambda: descriptors(terminal.process.pid) == before, "every connection is closed")


def test_port_forwards_can_be_disabled(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, PortForward={"Disable": True})
    with terminal.connect() as line:
        line.send(CONTROL, "open", "p1", pack({"versions": [1]}))
        assert 3 not in msgpack.unpackb(line.expect(CONTROL, "accept", "p1").body)["protocols"]
        request(line, 1)
        assert msgpack.unpackb(line.expect(CONTROL, "error", "p1").body)["msgproto"] == 3


def test_very_many_empty_messages_exceed_the_queue(line: Conversation) -> None:
    """They take memory as long as the target is not connected."""
    with silent_address() as (host, port):
        body = pack({"remote_host": host, "remote_port": port, "protocol": "tcp"})
        line.send(FORWARD, "new", body=body, connection_id="c")
        for _ in range(9000):
            line.send(FORWARD, "forward", connection_id="c")
        assert b"more data than the target takes" in line.expect(FORWARD, "error").body
