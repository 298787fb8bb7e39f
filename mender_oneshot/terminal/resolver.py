"""Looking up names without being held up: a child asks, for nothing that waits can stop `getaddrinfo`.

No thread does it: this process has one, and its children are made by plain fork.
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
"""Each gets its share of the time there is to connect, which would be too little with more."""


class Address(NamedTuple):
    """Where to connect to: the family of `socket`, and the address as it wants it."""

    family: int
    address: tuple[str | int, ...]


Found = Callable[[list[Address]], None]


class Lookup:
    """One question under way; `found` gets the addresses in the order to try them."""

    def __init__(self, loop: Loop, host: str, port: int, kind: int, found: Found) -> None:
        """Start the child; raises `OSError` where the system lets us have none."""
        self._loop = loop
        self._found = found
        self._answer = b""
        self._ear, mouth = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._child = os.fork()
        except OSError:
            os.close(self._ear)
            os.close(mouth)
            raise
        if not self._child:
            _ask(host, port, kind, mouth)
        os.close(mouth)
        self._timer: Timer = loop.later(SECONDS, self._finish)
        loop.watch(self._ear, read=self._hear)

    def give_up(self) -> None:
        """Stop asking; `found` gets what there is, which is nothing."""
        if self._child:
            self._finish()

    def cancel(self) -> None:
        """Stop asking; `found` is not called any more."""
        self._found = _nobody
        if self._child:
            self._finish()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._ear, 4096)
            self._answer += piece
            if not piece or len(self._answer) > ANSWER_LIMIT:
                self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        self._loop.watch(self._ear)
        os.close(self._ear)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        self._child = 0
        try:
            found = [Address(family, tuple(address)) for family, address in json.loads(self._answer)]
        except (ValueError, TypeError):
            found = []
        self._found(found)


def _nobody(found: list[Address]) -> None:
    """Take the place of who has gone."""


def _ask(host: str, port: int, kind: int, mouth: int) -> None:
    """Be the child: ask, answer, end, and hold nothing open meanwhile that the parent may close."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(mouth, 3)
        os.closerange(4, 65536)
        found = socket.getaddrinfo(host, port, type=kind)
        addresses = [(family, address) for family, _, _, _, address in found]
        os.write(3, json.dumps(addresses[:MOST_ADDRESSES]).encode())
    except BaseException:  # noqa: BLE001, S110  # whatever it is, the parent sees that no answer came
        pass
    finally:
        os._exit(0)


def plain(host: str, port: int) -> Address | None:
    """Read a host that is an address already; None where it has to be looked up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return Address(family, (host, port))
    return None
