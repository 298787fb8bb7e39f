"""The time limit of an invocation, `--max-runtime`."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from . import errors

GRACE = 2.0
"""Seconds before the time limit that are reserved for saving the state."""


def hard_end(seconds: float) -> None:
    """Exit from a thread after so many seconds, wherever the process hangs; 0 disables the limit.

    The signal of `deadline` interrupts nearly everything, but not a DNS lookup, and the final message may
    block on a full pipe. The exit is as safe as a power cut, which every write must survive anyway.
    """

    def end() -> None:
        threading.Event().wait(seconds)
        try:
            # Only if stderr can take it: otherwise this thread would hang, too.
            if select.select([], [2], [], 0)[1]:
                os.write(2, f"{_message(seconds)}\n".encode())
        except OSError:
            pass
        finally:
            os._exit(errors.DeadlineExceeded.exit_code)

    if seconds > 0:
        # If no thread can be started, only the signal is left.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=end, daemon=True).start()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `errors.DeadlineExceeded` in the block shortly before `hard_end`; 0 disables the limit."""
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
    return f"The time limit of {seconds:g} s was reached; the next run will continue."
