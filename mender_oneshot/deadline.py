"""The end of an invocation: `--max-runtime`, counted over everything it does."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from . import errors

GRACE = 2.0
"""Seconds at the end, within the deadline, for putting the state on disk."""


def hard_end(seconds: float) -> None:
    """End the process after so many seconds, wherever it hangs; 0 means no end.

    A signal ends everything that Python or the kernel can interrupt (`deadline`). A name look-up cannot be
    interrupted, and what is said last may find a stderr that nobody reads: a thread ends the process there.
    That is as safe as a power cut, which every write expects anyway.
    """

    def end() -> None:
        threading.Event().wait(seconds)
        try:
            # Only where there is room for it: else we would hang here, too.
            if select.select([], [2], [], 0)[1]:
                os.write(2, f"{_message(seconds)}\n".encode())
        except OSError:
            pass
        finally:
            os._exit(errors.DeadlineExceeded.exit_code)

    if seconds > 0:
        # Where there can be no more threads, the signal has to do.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=end, daemon=True).start()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `errors.DeadlineExceeded` shortly before the `hard_end`; 0 means no end."""
    if seconds <= 0:
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise errors.DeadlineExceeded(_message(seconds))

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds - GRACE, seconds / 2))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _message(seconds: float) -> str:
    return f"The time limit of {seconds:g} s is over; the next run will continue."
