"""Which descriptors a process has open, to find the ones that a test left."""

import contextlib
import gc
import os
import time


def open_descriptors() -> dict[str, str]:
    """Return the open descriptors of this process: number -> what it refers to."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this listing
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def left_open(before: dict[str, str], seconds: float = 10) -> list[str]:
    """Return what is open now and was not `before`, unless the number of descriptors has not grown.

    Waits so many seconds at most, because a server closes its end of a connection a moment after its client.
    """
    end = time.monotonic() + seconds
    while len(now := open_descriptors()) > len(before):
        if time.monotonic() > end:
            return sorted(what for number, what in now.items() if before.get(number) != what)
        gc.collect()
        time.sleep(0.02)
    return []
