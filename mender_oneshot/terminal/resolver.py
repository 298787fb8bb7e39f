"""Resolve host names without blocking: in a child process, because `getaddrinfo` cannot be interrupted.

A thread would not do: forks are safe in this process because it has only one.
"""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from .loop import Loop, Timer

SECONDS = 30.0
ANSWER_LIMIT = 65536
MOST_ADDRESSES = 8
"""They share the time limit of connecting, so more would leave too little for each."""


class Address(NamedTuple):
    """Where to connect to: a family and an address, as `socket` takes them."""

    family: int
    address: tuple[str | int, ...]


Found = Callable[[list[Address]], None]


class Lookup:
    """A lookup in progress; `found` gets the addresses in the order to try them, none after a failure."""

    def __init__(self, loop: Loop, host: str, port: int, kind: int, found: Found) -> None:
        """Start the child process; raises `OSError` if the system allows no other process or pipe."""
        self._loop = loop
        self._found = found
        self._answer = b""
        self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._child = os.fork()
        except OSError:
            os.close(self._read_fd)
            os.close(write_fd)
            raise
        if not self._child:
            _run_child(host, port, kind, write_fd)
        os.close(write_fd)
        self._timer: Timer = loop.later(SECONDS, self._finish)
        loop.watch(self._read_fd, read=self._read)

    def give_up(self) -> None:
        """Stop, and call `found` with no address."""
        if self._child:
            self._finish()

    def cancel(self) -> None:
        """Stop without calling `found`."""
        self._found = _ignore
        if self._child:
            self._finish()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._read_fd, 4096)
            self._answer += piece
            if not piece or len(self._answer) > ANSWER_LIMIT:
                self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        self._loop.watch(self._read_fd)
        os.close(self._read_fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        self._child = 0
        try:
            found = [Address(family, tuple(address)) for family, address in json.loads(self._answer)]
        except (ValueError, TypeError):
            found = []
        self._found(found)


def _ignore(found: list[Address]) -> None:
    """Do nothing: the callback after `cancel`."""


def _run_child(host: str, port: int, kind: int, write_fd: int) -> None:
    """Resolve, write the answer and exit; closes the inherited descriptors first."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(write_fd, 3)
        os.closerange(4, 65536)
        found = socket.getaddrinfo(host, port, type=kind)
        addresses = [(family, address) for family, _, _, _, address in found]
        os.write(3, json.dumps(addresses[:MOST_ADDRESSES]).encode())
    except BaseException:  # noqa: BLE001, S110  # the parent treats an empty answer as a failure
        pass
    finally:
        os._exit(0)


def parse_address(host: str, port: int) -> Address | None:
    """Return the address if a host is an IP address; None if it is a name to resolve."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return Address(family, (host, port))
    return None
