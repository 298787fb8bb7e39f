"""Answers that are legal and rare, and answers without end, read from a raw socket."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from helpers.device import MENDERS, Device, Release, Run
from helpers.memory import PEAK_MEMORY

from mender_oneshot.devserver import DevServer
from mender_oneshot.paths import Places
from mender_oneshot.settings import Settings
from mender_oneshot.transport import Transport

BODY = MENDERS.encode()
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


@contextlib.contextmanager
def raw_server(answer: Callable[[], Iterable[bytes]]) -> Iterator[str]:
    """A server that answers every request with the same pieces and closes; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for piece in answer():
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture
def alone(tmp_path: Path, python: str) -> Device:
    """A device without a server."""
    return Device(tmp_path / "device", python)


def asks(device: Device, *pieces: bytes, words: tuple[str, ...] = ("auth",)) -> Run:
    """What comes of a request that is answered with these bytes."""
    with raw_server(lambda: pieces) as address:
        device.configure(ServerURL=f"http://{address}")
        return device.run(*words)


INTERIM = {
    "102": PROCESSING,
    "103": EARLY,
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "one of tomorrow": b"HTTP/1.1 199 Whatever\r\nA: b\r\nC: d\r\n\r\n",
    "several": EARLY + PROCESSING * 40 + b"HTTP/1.1 100 Continue\r\n\r\n" + EARLY,
}


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
def test_interim_answers_are_skipped(alone: Device, interim: bytes) -> None:
    done = asks(alone, interim, REFUSAL)
    assert done.code == 77
    assert "as the test wants it" in done.err
    # Also where they come in one packet with the answer, and byte by byte.
    assert asks(alone, interim + REFUSAL).code == 77
    assert asks(alone, *(bytes([byte]) for byte in interim[-60:] if len(interim) < 200), REFUSAL).code in (
        75,
        77,
    )


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
def test_interim_answers_of_the_storage_are_skipped(
    accepted: Device, release: Release, tmp_path: Path, interim: bytes
) -> None:
    release()
    accepted.ok("check-update")
    content = (tmp_path / "release-2.mender").read_bytes()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    with raw_server(lambda: (interim, head, content)) as address:
        accepted.change_link(f"http://{address}/a")
        accepted.ok("download")
    assert (accepted.data / "artifact.mender").read_bytes() == content


def test_an_interim_answer_of_a_proxy_is_skipped(device: Device, server: DevServer) -> None:
    """Before the 200 to CONNECT; what follows has no TLS, so it fails there, and not before."""
    with raw_server(lambda: (EARLY, b"HTTP/1.1 200 Connection established\r\n\r\n")) as address:
        device.environment["https_proxy"] = f"http://{address}"
        done = device.run("auth")
    assert done.code == 75
    assert "the proxy" not in done.err


def endless(*repeated: bytes) -> Iterator[bytes]:
    yield repeated[0]
    while True:
        yield repeated[1]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: dict[str, tuple[Callable[[], Iterable[bytes]], int, str]] = {
    "interim answers": (lambda: endless(b"", PROCESSING * 100), 76, "header lines"),
    "interim answers with headers": (lambda: endless(b"", EARLY * 100), 76, "header lines"),
    "header lines": (lambda: endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 100), 76, "header lines"),
    "120 header lines": (
        lambda: (b"HTTP/1.1 401 No\r\n" + b"A: b\r\n" * 120 + b"\r\n" + BODY,), 76, "header lines",
    ),
    "long header lines": (
        lambda: (b"HTTP/1.1 401 No\r\n" + (b"A: " + b"b" * 65_000 + b"\r\n") * 95 + b"\r\n",),
        76, "header lines",
    ),
    "one header line": (lambda: endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 10_000), 76, "header lines"),
    "trailers": (lambda: endless(CHUNKED + b"0\r\n", b"A: b\r\n" * 100), 76, "header lines"),
    "a body in chunks of a byte": (
        lambda: endless(CHUNKED, b"1\r\nx\r\n" * 1000),
        76,
        "at most 1048576 bytes",
    ),
    "a body": (lambda: endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536), 76, "at most 1048576 bytes"),
    "a chunk that never comes": (lambda: (CHUNKED + b"5\r\nhello\r\n",), 75, "the connection was lost"),
    "a body cut short": (
        lambda: (b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\n{",), 75, "the connection was lost",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "code", "words"), ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_end_has_one(
    alone: Device, answer: Callable[[], Iterable[bytes]], code: int, words: str
) -> None:
    with raw_server(lambda: (REFUSAL,)) as address:
        alone.configure(ServerURL=f"http://{address}")
        usual = int(alone.run("auth", wrapper=PEAK_MEMORY).err.split()[-1])
    with raw_server(answer) as address:
        alone.configure(ServerURL=f"http://{address}")
        done = alone.run("auth", wrapper=PEAK_MEMORY)
    *_, said, peak = done.err.splitlines()
    assert (done.code, words in said) == (code, True), done
    assert int(peak) < usual + 12_000


NO_HTTP = {
    "no head at all": b"<html>Log in</html>",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "an unknown version": b"HTTP/2.0 204 No\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 099 No\r\n\r\n",
    "two lengths": b"HTTP/1.1 401 No\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP)
def test_an_answer_that_is_no_http_is_not_called_a_broken_connection(alone: Device, answer: bytes) -> None:
    with raw_server(lambda: (answer,)) as address:
        alone.configure(ServerURL=f"http://{address}")
        done = alone.run("auth")
    assert (done.code, done.err.count("\n")) == (76, 1), done
    assert f"{address} sent a response that is not valid HTTP/1.1; check the scheme and the port" in done.err


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP)
def test_a_storage_that_does_not_speak_http_costs_no_bytes(
    accepted: Device, server: DevServer, release: Release, answer: bytes
) -> None:
    release(size=100_000)
    accepted.ok("check-update")
    server.faults.add(match="GET /storage/*", cut_after=50_000)
    assert accepted.run("download").code == 75
    accepted.forget_failures()
    with raw_server(lambda: (answer,)) as address:
        accepted.change_link(f"http://{address}/a?secret=topsecret")
        done = accepted.run("download")
    assert done.code == 76, done
    assert f"{address}, the storage in the server's link sent a response that is not valid" in done.err
    assert "topsecret" not in done.err
    assert (accepted.data / "artifact.part").stat().st_size == 50_000


def test_an_idle_connection_that_the_server_has_closed_is_opened_again() -> None:
    closed = threading.Event()

    def serve() -> None:
        for _ in range(2):
            connection, _address = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        transport = Transport(Settings(Places("/c/mender.conf", "/d/mender.conf", False, "/c", "/s", "/d")))
        for _ in range(2):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            with transport.send("GET", url, None, {}) as response:
                assert response.status == 204
            assert closed.wait(10)
        transport.close()
        thread.join()


def test_who_is_at_fault_is_named(accepted: Device, release: Release) -> None:
    release()
    accepted.ok("check-update")
    accepted.change_link("https://no-such-storage.invalid/a?secret=topsecret")
    done = accepted.run("download")
    assert "no-such-storage.invalid, the storage in the server's link: its name cannot be" in done.err
    assert "topsecret" not in done.err


def test_a_proxy_that_is_away_is_named(alone: Device) -> None:
    for scheme in ("http", "https"):
        alone.configure(ServerURL=f"{scheme}://server.invalid")
        alone.environment[f"{scheme}_proxy"] = "http://user:secret@127.0.0.1:9"
        done = alone.run("auth")
        assert done.code == 75
        assert "No answer from server.invalid: the proxy cannot be reached: Connection refused" in done.err
        assert "secret" not in done.err


def test_a_proxy_that_wants_a_login_for_plain_http(alone: Device) -> None:
    page = b"HTTP/1.1 407 Login\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin"
    with raw_server(lambda: (page,)) as address:
        alone.configure(ServerURL="http://server.invalid")
        alone.environment["http_proxy"] = f"http://{address}"
        done = alone.run("auth")
    assert done.code == 75
    assert f"The proxy {address} requires a login (407)" in done.err
