"""The hard end of an invocation: `--max-runtime`, counted over everything it does."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from . import errors

GRACE = 2.0
"""Seconds at the end, within the deadline, for putting the state on disk."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `errors.TimeOver` when the time is over; 0 means no end.

    A signal ends everything that Python or the kernel can interrupt. A name look-up cannot be interrupted:
    a thread ends the whole process where the signal found no ear. That is as safe as a power cut, which
    every write expects anyway.
    """
    if seconds <= 0:
        yield
        return
    message = f"The time limit of {seconds:g} s is over; the next run goes on."

    def over(number: int, frame: FrameType | None) -> None:
        raise errors.TimeOver(message)

    def end() -> None:
        if not done.wait(seconds):
            os.write(2, f"{message}\n".encode())
            os._exit(errors.TimeOver.exit_code)

    done = threading.Event()
    before = signal.signal(signal.SIGALRM, over)
    threading.Thread(target=end, daemon=True).start()
    signal.setitimer(signal.ITIMER_REAL, max(seconds - GRACE, seconds / 2))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        done.set()
