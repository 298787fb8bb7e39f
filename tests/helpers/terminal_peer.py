"""A deviceconnect that says and hears exactly what a test wants: the device's end is the real program."""

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
    """Skip the test where an interpreter lacks the libraries of the terminal."""
    done = subprocess.run([python, "-c", "import wsproto, msgpack"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("python3-wsproto and python3-msgpack are not both installed")


class Heard:
    """A message of the device, with the bytes it came in."""

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
        self._messages: list[Heard] = []
        self._parts: list[bytes] = []
        while not self.headers:
            self.read()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def put(self, event: Any) -> None:
        self.stream.sendall(self.websocket.send(event))

    def send(self, proto: int, kind: str, sid: str = "s1", body: bytes = b"", **props: Any) -> None:
        """Say something as the server does: with `user_id` among the properties."""
        props = {"user_id": "u1"} | props
        self.put(BytesMessage(data=encode(Message(proto, kind, sid, props, body))))

    def send_bytes(self, data: bytes) -> None:
        """Say something that is no message."""
        self.put(BytesMessage(data=data))

    def receive(self) -> Heard:
        """Wait for the next message of the device; `ConnectionError` at the end."""
        while not self._messages:
            if self.closed is not None:
                raise ConnectionError(f"closed with {self.closed}")
            self.read()
        return self._messages.pop(0)

    def expect(self, proto: int, kind: str, sid: str = "s1") -> Heard:
        """Wait for one message, which has to be the next but for what shells show."""
        heard = self.receive()
        while heard.kind == "shell" != kind:
            heard = self.receive()
        assert (heard.proto, heard.kind, heard.sid) == (proto, kind, sid), heard
        return heard

    def until(self, true: Callable[[Heard], bool]) -> list[Heard]:
        """Collect messages up to the first for which something holds."""
        found = [self.receive()]
        while not true(found[-1]):
            found.append(self.receive())
        return found

    def see(self, text: bytes, sid: str = "s1") -> bytes:
        """Collect what a shell shows until some text is in it."""
        shown = b""
        while text not in shown:
            try:
                heard = self.receive()
            except TimeoutError:
                pytest.fail(f"waited in vain for {text!r}; shown was {shown!r}")
            assert heard.kind in ("shell", "ping"), (heard, shown)
            shown += heard.body if heard.sid == sid else b""
        return shown

    def shell(self, sid: str = "s1", width: int = 80, height: int = 24, **props: Any) -> None:
        """Open a shell, which has to work."""
        self.send(SHELL, "new", sid, terminal_width=width, terminal_height=height, **props)
        answer = self.expect(SHELL, "new", sid)
        assert answer.props["status"] == 1, answer

    def type(self, text: str, sid: str = "s1") -> None:
        """Type something into a shell."""
        self.send(SHELL, "shell", sid, text.encode())

    def round_trip(self) -> None:
        """Have everything that was sent before be dealt with."""
        self.send(CONTROL, "ping", "round-trip")
        self.until(lambda heard: heard.proto == CONTROL and heard.kind == "pong")

    def end(self) -> int | None:
        """Read until the device closes; the code it closes with, None where it just goes."""
        with contextlib.suppress(ConnectionError):
            while True:
                self._messages.clear()
                self.receive()
        return self.closed

    def read(self) -> None:
        """Take in what comes next."""
        piece = self.stream.recv(65536)
        if not piece:
            self.closed = self.closed or -1
            raise ConnectionError("the device is gone")
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
                    self._messages.append(Heard(b"".join(self._parts)))
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
        """Answer the handshake."""
        self.put(AcceptConnection())


class Refusal(Conversation):
    """A connection whose handshake is answered with a status of HTTP."""

    def __init__(self, stream: socket.socket, status: int, headers: dict[str, str]) -> None:
        self._status = status
        self._more = [(name.encode(), value.encode()) for name, value in headers.items()]
        super().__init__(stream)

    def answer(self) -> None:
        self.put(RejectConnection(status_code=self._status, headers=self._more))
        self.stream.close()


class Peer:
    """Listens on loopback, without TLS."""

    def __init__(self, patience: float = SECONDS) -> None:
        self._patience = patience
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(patience)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def accept(self) -> Conversation:
        """Wait for the device and let it in."""
        return Conversation(self._listener.accept()[0], self._patience)

    def converse(self, stream: socket.socket) -> Conversation:
        """Let the device in over a stream that has come otherwise."""
        return Conversation(stream, self._patience)

    def refuse(self, status: int, **headers: str) -> Conversation:
        """Wait for the device and answer with a status."""
        return Refusal(self._listener.accept()[0], status, headers)

    def raw(self) -> socket.socket:
        """Wait for the device and leave the rest to the test."""
        stream = self._listener.accept()[0]
        stream.settimeout(SECONDS)
        return stream


class Served:
    """A device under test: its files, the server it is told of, and its process."""

    def __init__(self, device: Device, peer: Peer) -> None:
        self.device = device
        self.peer = peer
        self.processes: list[subprocess.Popen[str]] = []
        device.configure(ServerURL=peer.url)
        self.authorize(peer.url)
        self.configure(RemoteTerminal=True)

    def authorize(self, url: str, jwt: str = TOKEN) -> None:
        """Put a token into the state, as an authorization would have."""
        token = {"jwt": jwt, "server": url, "at": time.time()}
        state = {"schema": 1, "spread": 0.5, "identity_format": "string", "token": token}
        (self.device.data / "mender-oneshot.json").write_text(json.dumps(state))

    def configure(self, **members: Any) -> None:
        """Write `mender-connect.conf`."""
        (self.device.conf / "mender-connect.conf").write_text(json.dumps(members))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start the terminal."""
        process = self.device.start("terminal", *words)
        self.processes.append(process)
        return process

    def connect(self, *words: str) -> Conversation:
        """Start the terminal and let it in."""
        self.start(*words)
        return self.peer.accept()

    @property
    def process(self) -> "subprocess.Popen[str]":
        return self.processes[-1]

    def finish(self, process: "subprocess.Popen[str] | None" = None) -> tuple[int, str, str]:
        """Wait for the end of the terminal: its code, and what it said."""
        process = process or self.process
        out, err = process.communicate(timeout=SECONDS)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def stop(self) -> tuple[int, str, str]:
        """End the terminal as a service manager does."""
        self.process.terminate()
        return self.finish()

    def clean_up(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            if process.stdout and not process.stdout.closed:
                process.communicate()


@contextlib.contextmanager
def serving(device: Device, patience: float = SECONDS) -> Iterator[Served]:
    """Make a device whose server is the test."""
    need_the_extra(device.python)
    with Peer(patience) as peer:
        served = Served(device, peer)
        try:
            yield served
        finally:
            served.clean_up()


def descriptors(pid: int) -> int:
    """Count the open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[int]:
    """List the children of a process, zombies too."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def resident(pid: int) -> int:
    """The memory of a process, in KiB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def stands_still(pid: int) -> bool:
    """Say whether a process sleeps and gets no further."""

    def spent() -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = spent()
    time.sleep(0.3)  # the time over which "no further" is judged
    return spent() == before


@contextlib.contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """Have an address of this machine that answers nothing to whoever wants to connect."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        # One more than it has room for: the kernel drops what comes then.
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def eventually(true: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Wait for something that only shows from outside."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)
