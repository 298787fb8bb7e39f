"""The network that can be slow and cut."""

import socket
import threading
from collections.abc import Iterator

import pytest

from board.link import Link
from board.machine import TimedOut

SIZE = 1_000_000


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that sends `SIZE` bytes after each byte that it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def serve(listener: socket.socket) -> None:
    try:
        while True:
            with listener.accept()[0] as side:
                while side.recv(1):
                    side.sendall(bytes(SIZE))
    except OSError:
        pass


def download(port: int) -> int:
    """Return the number of bytes that come until the connection ends, or until all have come."""
    found = 0
    with socket.create_connection(("127.0.0.1", port)) as side:
        try:
            side.sendall(b"x")
            while found < SIZE and (piece := side.recv(65536)):
                found += len(piece)
        except ConnectionResetError:
            pass
    return found


def test_a_connection_is_forwarded_both_ways(port: int) -> None:
    with Link(port, 1e9) as link:
        assert download(link.port) == SIZE
        link.wait(SIZE, 10)
        assert link.forwarded == SIZE


def test_a_cut_ends_a_connection_and_all_later_ones_until_the_link_is_restored(port: int) -> None:
    with Link(port, SIZE) as link:
        found: list[int] = []
        running = threading.Thread(target=lambda: found.append(download(link.port)))
        running.start()
        link.wait(SIZE // 10, 10)
        link.cut()
        running.join()
        assert SIZE // 10 <= found[0] < SIZE
        assert download(link.port) == 0
        link.restore()
        assert download(link.port) == SIZE


def test_bytes_that_do_not_come_time_out(port: int) -> None:
    with Link(port, SIZE) as link, pytest.raises(TimedOut):
        link.wait(1, 0.1)
