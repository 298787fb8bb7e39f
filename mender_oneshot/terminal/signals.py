"""SIGTERM, SIGINT, SIGALRM and SIGCHLD as events of the loop."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from .loop import Action, Loop


class Stopped(BaseException):
    """A signal or the time limit interrupted a wait outside the loop."""


class Signals:
    """A context manager that handles the signals, and restores the former handlers.

    `stopped` is set by SIGTERM and SIGINT, `timed_out` when so many `seconds` have passed (0: never), and
    `child_ended` is called by the loop after a SIGCHLD.
    """

    def __init__(self, loop: Loop, child_ended: Action, seconds: float = 0) -> None:
        self.loop = loop
        self.stopped = False
        self.timed_out = False
        self._seconds = seconds
        self._interrupting = False
        self._child_ended = child_ended
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGTERM, self._on_stop),
            (signal.SIGINT, self._on_stop),
            (signal.SIGALRM, self._on_alarm),
            # Without a Python handler nothing is written to the pipe.
            (signal.SIGCHLD, lambda number, frame: None),
        ):
            self._before[number] = signal.signal(number, handler)
        self.loop.watch(self._read_fd, read=self._on_wakeup)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.loop.watch(self._read_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what `signal` returned
        signal.set_wakeup_fd(self._wakeup_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let SIGTERM, SIGINT and the time limit raise `Stopped` in a block that waits without the loop."""
        before, self._interrupting = self._interrupting, True
        try:
            # Checked after the flag is set: a signal in between would neither raise nor be seen here.
            if self.stopped or self.timed_out:
                raise Stopped
            yield
        finally:
            self._interrupting = before

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._interrupting:
            raise Stopped

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self.timed_out = True
        if self._interrupting:
            raise Stopped

    def _on_wakeup(self) -> None:
        if signal.SIGCHLD in os.read(self._read_fd, 4096):
            self._child_ended()
