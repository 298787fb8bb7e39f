"""Limits and signals end each phase of connecting: `--wait`, `--max-runtime` and SIGTERM."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from helpers.device import patch_python
from helpers.terminal_peer import Served, silent_address
from helpers.waiting import until

SLEEPS = """
import socket, time
socket.getaddrinfo = lambda *arguments, **options: time.sleep(600)
"""


class Slow(NamedTuple):
    """What a peer sends at once, and what it sends again and again."""

    first: bytes
    again: bytes


@contextlib.contextmanager
def answering_slowly(slow: Slow) -> Iterator[int]:
    """Listen on a port, and send a part of an answer five times a second, without an end."""
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):
            stream.sendall(slow.first)
            while not done.wait(0.2):
                stream.sendall(slow.again)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=answer, args=(listener.accept()[0],)))
                threads[-1].start()

    threads = [threading.Thread(target=listen)]
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        listener.close()


# The header of a TLS handshake record that announces 16000 bytes.
RECORD = b"\x16\x03\x03\x3e\x80\x02\x00\x3e\x7c"

PHASES: dict[str, tuple[str, Slow | None]] = {
    # name: where connecting blocks, and what that peer sends
    "resolving the name": ("name", None),
    "TCP": ("tcp", None),
    "resolving the name of the proxy": ("proxy name", None),
    "TCP to the proxy": ("proxy tcp", None),
    "a proxy that sends nothing": ("proxy", Slow(b"", b"")),
    "a proxy that sends line after line": ("proxy", Slow(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n")),
    "a proxy that sends one endless line": ("proxy", Slow(b"HTTP/1.1 200 OK\r\nX-A: ", b"b")),
    "a proxy that sends interim answers": ("proxy", Slow(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "TLS that sends nothing": ("tls", Slow(b"", b"")),
    "TLS that sends single bytes": ("tls", Slow(RECORD, b"x")),
    "a server that sends nothing": ("server", Slow(b"", b"")),
    "a server that sends single bytes": ("server", Slow(b"HTTP/1.1 101 Switching", b"x")),
    "a server that sends line after line": (
        "server",
        Slow(b"HTTP/1.1 101 Switching Protocols\r\n", b"X-A: b\r\n"),
    ),
    "a server that sends interim answers": ("server", Slow(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
}


@contextlib.contextmanager
def blocked(served: Served, name: str) -> Iterator[None]:
    """Let the terminal block in a phase."""
    where, slow = PHASES[name]
    scheme = "https" if where == "tls" else "http"
    with contextlib.ExitStack() as stack:
        if slow:
            port = stack.enter_context(answering_slowly(slow))
            address = f"127.0.0.1:{port}"
        elif "name" in where:
            patch_python(served.device, SLEEPS)
            address = "slow.test:80"
        else:
            host, port = stack.enter_context(silent_address())
            address = f"{host}:{port}"
        if where.startswith("proxy"):
            served.device.environment["http_proxy"] = f"http://{address}"
            address = "device.test:80"
        served.device.configure(ServerURL=f"{scheme}://{address}")
        served.authorize(f"{scheme}://{address}")
        yield


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("arguments", [("--wait", "2"), ("--max-runtime", "2")])
def test_a_limit_ends_each_phase(terminal: Served, name: str, arguments: tuple[str, str]) -> None:
    with blocked(terminal, name):
        terminal.start(*arguments)
        code, _, err = terminal.finish()
    assert code == 75, err


@pytest.mark.parametrize("name", PHASES)
def test_a_signal_ends_each_phase(terminal: Served, name: str) -> None:
    with blocked(terminal, name):
        process = terminal.start("--wait", "0")
        until(lambda: waits(process.pid), "it waits for its peer")
        code, _, err = terminal.stop()
    assert code == 0, err


def waits(pid: int) -> bool:
    """Return whether a process handles SIGTERM, and has a socket or a child that resolves a name."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt:"))
    if not caught >> (signal.SIGTERM - 1) & 1:
        return False
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        if file.read().strip():
            return True
    return any("socket:" in link for link in links(pid))


def links(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


ANSWERS: dict[str, tuple[bytes, str]] = {
    "a head that is too long": (
        b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 20000 + b"\r\n\r\n",
        "is not an HTTP proxy",
    ),
    "too many lines": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 4000 + b"\r\n", "is not an HTTP proxy"),
    "too many interim answers": (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "is not an HTTP proxy"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not an HTTP proxy"),
    "empty lines only": (b"\r\n\r\n", "is not an HTTP proxy"),
    "a status that is not a number": (b"HTTP/1.1 2xx OK\r\n\r\n", "is not an HTTP proxy"),
    "data after the head": (b"HTTP/1.1 200 OK\r\n\r\nhello", "is not an HTTP proxy"),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "rejected the connection"),
    "a rejection": (b"HTTP/1.1 403 Forbidden\r\n\r\n", "rejected the connection"),
    "a rejection without a login": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "needs a valid login",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_a_proxy_that_does_not_open_the_tunnel_is_an_error(terminal: Served, name: str) -> None:
    sent, message = ANSWERS[name]
    with answering_slowly(Slow(sent, b"")) as port:
        terminal.device.environment["http_proxy"] = f"http://127.0.0.1:{port}"
        terminal.start("--wait", "1")
        code, _, err = terminal.finish()
    assert (code, message in err) == (75, True), err


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: a\r\nX: y\r\n\r\n",
        b"HTTP/1.1 204 Fine\n\n",
        b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_an_answer_of_a_proxy_that_opens_the_tunnel(terminal: Served, sent: bytes) -> None:
    terminal.device.environment["http_proxy"] = terminal.peer.url
    terminal.device.configure(ServerURL="http://server.test")
    terminal.authorize("http://server.test")
    terminal.start()
    stream = terminal.peer.raw()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.recv(1)
    assert head.startswith(b"CONNECT server.test:80 HTTP/1.1\r\nHost: server.test:80\r\n")
    stream.sendall(sent)
    with terminal.peer.converse(stream) as line:
        assert line.headers["host"] == "server.test"
        line.shell()
