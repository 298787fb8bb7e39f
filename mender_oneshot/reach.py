"""Connect to a host that has several addresses, some of which may be unreachable."""

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

STAGGER_SECONDS = 0.25
"""Delay before the next address is tried in parallel (RFC 8305 section 5)."""

Target = tuple[int, Any]
"""An address family and an address, both as `socket` takes them."""


def alternate(targets: Sequence[Target]) -> list[Target]:
    """Interleave the address families, because all addresses of one family may be unreachable."""
    first = [target for target in targets if target[0] == targets[0][0]]
    others = [target for target in targets if target[0] != targets[0][0]]
    both = min(len(first), len(others))
    turns = [target for pair in zip(first, others, strict=False) for target in pair]
    return turns + first[both:] + others[both:]


def connect(targets: Sequence[Target], seconds: float) -> socket.socket:
    """Return a socket that is connected to the first address that answers.

    An unreachable address delays the next one by `STAGGER_SECONDS` only. Raises `TimeoutError` after
    `seconds` in all, or the `OSError` of the last address that failed. Every other socket is closed.
    """
    end = time.monotonic() + seconds
    waiting = deque(alternate(targets))
    trying: dict[int, socket.socket] = {}
    poller = select.poll()
    problem: OSError = socket.gaierror("no address")
    turn = 0.0
    try:
        while waiting or trying:
            now = time.monotonic()
            if now >= end:
                raise TimeoutError
            if waiting and (now >= turn or not trying):
                turn = now + STAGGER_SECONDS
                try:
                    stream = _begin(waiting.popleft())
                except OSError as error:
                    problem = error
                    continue
                trying[stream.fileno()] = stream
                poller.register(stream, select.POLLOUT)
            until = min(turn, end) if waiting else end
            for descriptor, _ in poller.poll(max(0.0, until - time.monotonic()) * 1000 + 1):
                poller.unregister(descriptor)
                stream = trying.pop(descriptor)
                code = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    stream.setblocking(True)
                    return stream
                stream.close()
                problem = OSError(code, os.strerror(code))
                turn = 0.0
        raise problem
    finally:
        for stream in trying.values():
            stream.close()


def _begin(target: Target) -> socket.socket:
    """Start connecting and return the socket; raise `OSError` if that fails immediately."""
    stream = socket.socket(target[0], socket.SOCK_STREAM)
    try:
        stream.setblocking(False)
        code = stream.connect_ex(target[1])
        if code not in (0, errno.EINPROGRESS, errno.EINTR):
            raise OSError(code, os.strerror(code))
    except BaseException:
        stream.close()
        raise
    return stream
