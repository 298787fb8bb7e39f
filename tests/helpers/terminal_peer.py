"""A scripted deviceconnect server for the real client: a test sends and receives single messages."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
)

from helpers.device import Device
from mender_oneshot.terminal.messages import CONTROL, SHELL, Message, encode

SECONDS = float(os.environ.get("PEER_SECONDS", "30"))
TOKEN = "aaaa.bbbb.cccc"


def need_the_extra(python: str) -> None:
    """Skip the test if an interpreter lacks the libraries of the terminal."""
    done = subprocess.run([python, "-c", "import wsproto, msgpack"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("python3-wsproto and python3-msgpack are not both installed")


class Received:
    """A message of the device, and its encoded form."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        whole: dict[str, Any] = msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape")
        header = whole["hdr"]
        self.proto: int = header["proto"]
        self.kind: str = header.get("typ", "")
        self.sid: str = header.get("sid", "")
        self.props: dict[str, Any] = header.get("props", {})
        self.body: bytes = whole.get("body", b"")

    def __repr__(self) -> str:
        return f"{self.proto}/{self.kind} {self.sid} {self.props} {self.body[:200]!r}"


class Conversation:
    """One connection of the device."""

    def __init__(self, stream: socket.socket, patience: float = SECONDS) -> None:
        self.stream = stream
        stream.settimeout(patience)
        self.websocket = WSConnection(ConnectionType.SERVER)
        self.headers: dict[str, str] = {}
        self.target = ""
        self.closed: int | None = None
        self.pongs: list[bytes] = []
        self.pings = 0
        self._messages: list[Received] = []
        self._parts: list[bytes] = []
        while not self.headers:
            self.read()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def put(self, event: Any) -> None:
        """Send an event of wsproto."""
        self.stream.sendall(self.websocket.send(event))

    def send(self, proto: int, kind: str, sid: str = "s1", body: bytes = b"", **props: Any) -> None:
        """Send a message as the server does: with `user_id` among the properties."""
        props = {"user_id": "u1"} | props
        self.put(BytesMessage(data=encode(Message(proto, kind, sid, props, body))))

    def send_bytes(self, data: bytes) -> None:
        """Send a binary message with any content."""
        self.put(BytesMessage(data=data))

    def receive(self) -> Received:
        """Return the next message of the device; raise `ConnectionError` if it closes."""
        while not self._messages:
            if self.closed is not None:
                raise ConnectionError(f"closed with {self.closed}")
            self.read()
        return self._messages.pop(0)

    def expect(self, proto: int, kind: str, sid: str = "s1") -> Received:
        """Return the next message other than output of shells, which must be this one."""
        received = self.receive()
        while received.kind == "shell" != kind:
            received = self.receive()
        assert (received.proto, received.kind, received.sid) == (proto, kind, sid), received
        return received

    def until(self, true: Callable[[Received], bool]) -> list[Received]:
        """Return the messages up to the first for which the condition is true."""
        found = [self.receive()]
        while not true(found[-1]):
            found.append(self.receive())
        return found

    def see(self, text: bytes, sid: str = "s1") -> bytes:
        """Return the output of a shell up to the message that completes the text."""
        shown = b""
        while text not in shown:
            try:
                received = self.receive()
            except TimeoutError:
                pytest.fail(f"no {text!r} in the output: {shown!r}")
            assert received.kind in ("shell", "ping"), (received, shown)
            shown += received.body if received.sid == sid else b""
        return shown

    def shell(self, sid: str = "s1", width: int = 80, height: int = 24, **props: Any) -> None:
        """Open a shell."""
        self.send(SHELL, "new", sid, terminal_width=width, terminal_height=height, **props)
        answer = self.expect(SHELL, "new", sid)
        assert answer.props["status"] == 1, answer

    def type(self, text: str, sid: str = "s1") -> None:
        """Send input to a shell."""
        self.send(SHELL, "shell", sid, text.encode())

    def round_trip(self) -> None:
        """Wait until the device has handled everything that was sent before."""
        self.send(CONTROL, "ping", "round-trip")
        self.until(lambda received: received.proto == CONTROL and received.kind == "pong")

    def read_to_the_end(self) -> None:
        """Read until the device closes, and confirm that; the messages can be received later."""
        with contextlib.suppress(OSError):
            while self.closed is None:
                self.read()

    def end(self) -> int | None:
        """Read until the device closes; return its close code, -1 if it sends none."""
        with contextlib.suppress(ConnectionError):
            while True:
                self._messages.clear()
                self.receive()
        return self.closed

    def read(self) -> None:
        """Read once from the socket and handle the data; raise `ConnectionError` if the device closes."""
        piece = self.stream.recv(65536)
        if not piece:
            self.closed = self.closed or -1
            raise ConnectionError("the device closed the connection")
        self.websocket.receive_data(piece)
        for event in self.websocket.events():
            if isinstance(event, Request):
                self.target = event.target
                self.headers = {
                    "host": event.host,
                    **{name.decode().lower(): value.decode() for name, value in event.extra_headers},
                }
                self.answer()
            elif isinstance(event, BytesMessage):
                self._parts.append(bytes(event.data))
                if event.message_finished:
                    self._messages.append(Received(b"".join(self._parts)))
                    self._parts.clear()
            elif isinstance(event, Ping):
                self.pings += 1
                self.put(event.response())
            elif isinstance(event, Pong):
                self.pongs.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                self.closed = int(event.code)
                with contextlib.suppress(Exception):
                    self.put(event.response())

    def answer(self) -> None:
        """Accept the handshake."""
        self.put(AcceptConnection())


class Rejection(Conversation):
    """A connection whose handshake is answered with an HTTP status."""

    def __init__(self, stream: socket.socket, status: int, headers: dict[str, str]) -> None:
        self._status = status
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        super().__init__(stream)

    def answer(self) -> None:
        """Reject the handshake."""
        self.put(RejectConnection(status_code=self._status, headers=self._headers))
        self.stream.close()


class Peer:
    """The server: listens on loopback, without TLS."""

    def __init__(self, patience: float = SECONDS) -> None:
        self._patience = patience
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(patience)
        self.newest: Conversation | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def accept(self) -> Conversation:
        """Wait for the device and accept its handshake."""
        self.newest = Conversation(self._listener.accept()[0], self._patience)
        return self.newest

    def converse(self, stream: socket.socket) -> Conversation:
        """Accept the device's handshake on a stream of the test."""
        return Conversation(stream, self._patience)

    def reject(self, status: int, **headers: str) -> Conversation:
        """Wait for the device and answer its handshake with a status."""
        return Rejection(self._listener.accept()[0], status, headers)

    def raw(self) -> socket.socket:
        """Wait for the device and return the stream; the test handles the handshake."""
        stream = self._listener.accept()[0]
        stream.settimeout(SECONDS)
        return stream


class Served:
    """A device under test: its files, its server, and its processes."""

    def __init__(self, device: Device, peer: Peer) -> None:
        self.device = device
        self.peer = peer
        self.processes: list[subprocess.Popen[str]] = []
        device.configure(ServerURL=peer.url)
        self.authorize(peer.url)
        self.configure(RemoteTerminal=True)

    def authorize(self, url: str, jwt: str = TOKEN) -> None:
        """Write a token to the state, as an authorization does."""
        token = {"jwt": jwt, "server": url, "at": time.time()}
        state = {"schema": 1, "spread": 0.5, "identity_format": "string", "token": token}
        (self.device.data / "mender-oneshot.json").write_text(json.dumps(state))

    def configure(self, **members: Any) -> None:
        """Write `mender-connect.conf`."""
        (self.device.conf / "mender-connect.conf").write_text(json.dumps(members))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the terminal."""
        process = self.device.start("terminal", *arguments)
        self.processes.append(process)
        return process

    def connect(self, *arguments: str) -> Conversation:
        """Start the terminal and accept its connection."""
        self.start(*arguments)
        return self.peer.accept()

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The newest process."""
        return self.processes[-1]

    def finish(self, process: "subprocess.Popen[str] | None" = None) -> tuple[int, str, str]:
        """Wait until the terminal exits; return its exit code, stdout and stderr."""
        process = process or self.process
        out, err = process.communicate(timeout=SECONDS)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def stop(self) -> tuple[int, str, str]:
        """Stop the terminal as a service manager does; return exit code, stdout and stderr."""
        self.process.terminate()
        if self.peer.newest:
            # Otherwise the terminal waits for the close frame until its time limit.
            self.peer.newest.read_to_the_end()
        return self.finish()

    def clean_up(self) -> None:
        """Kill the processes that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            if process.stdout and not process.stdout.closed:
                process.communicate()


@contextlib.contextmanager
def serving(device: Device, patience: float = SECONDS) -> Iterator[Served]:
    """Provide a device whose server is the test."""
    need_the_extra(device.python)
    with Peer(patience) as peer:
        served = Served(device, peer)
        try:
            yield served
        finally:
            served.clean_up()


def descriptors(pid: int) -> int:
    """Return the number of open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[int]:
    """Return the children of a process, including zombies."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def resident(pid: int) -> int:
    """Return the resident memory of a process, in KiB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def is_blocked(pid: int) -> bool:
    """Return whether a process uses no CPU time for 0.3 s."""

    def cpu_time() -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = cpu_time()
    time.sleep(0.3)
    return cpu_time() == before


@contextlib.contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """Provide a local address where connecting gets no response."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        # One more than the backlog allows: the kernel drops the SYN of all others.
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()
