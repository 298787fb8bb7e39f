"""How far a download is, at what rate, and how long the rest takes, for a person at a terminal."""

import math
import os
import signal
import time
from collections import deque
from types import FrameType

from . import console
from .partial_download import in_words
from .units import duration

INTERVAL = 0.1
"""Seconds between two drawings."""
WINDOW = 5.0
"""The rate is that of the last so many seconds."""
SHORTEST = 0.5
"""Seconds of data without which there is no rate yet."""
BAR = 30
"""Characters of the bar, if the terminal is wide enough."""


class ProgressBar:
    """Draws the bytes done and the bytes in all (-1: unknown) on the last line of the terminal."""

    def __init__(self) -> None:
        self._rate = Rate()
        self._drawn = 0.0
        _end_line_if_terminated()

    def __call__(self, done: int, size: int) -> None:
        """Draw, at most once each `INTERVAL`, and at the end."""
        now, whole = time.monotonic(), 0 <= size <= done
        if now < self._drawn + INTERVAL and not whole:
            return
        self._drawn = now
        console.draw(line(done, size, self._rate.add(now, done), console.width()), stays=True)
        if whole:
            console.clear()


class Rate:
    """The bytes per second of the last few seconds; what an earlier invocation downloaded does not count."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> float:
        """Return the rate when so many bytes are done; 0 if it is not known yet."""
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # the download has started over
        self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
        began, before = self._samples[0]
        return (done - before) / (now - began) if now - began >= SHORTEST else 0.0


def line(done: int, size: int, rate: float, width: int) -> str:
    """Return the line for a rate in bytes per second; less than 1: stalled, or not known yet."""
    amount = in_words(done) if size < 0 else f"{in_words(done)} of {in_words(size)}"
    parts = [amount]
    if rate >= 1:
        parts.append(f"{in_words(round(rate))}/s")
    if rate >= 1 and done < size:
        parts.append(f"{duration(math.ceil((size - done) / rate))} left")
    text = ", ".join(parts)
    if size <= 0:
        return f"Downloading  {text}"
    share = min(done / size, 1)
    head = f"Downloading {math.floor(share * 100):3} %  "
    room = min(BAR, width - len(head) - len(text) - 4)
    if room < 5:
        return f"{head}{text}" if len(head) + len(text) <= width else f"{head}{amount}"
    full = math.floor(share * room)
    return f"{head}[{'#' * full}{'.' * (room - full)}]  {text}"


def _end_line_if_terminated() -> None:
    """End the line on SIGTERM, then die of it as without this."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def end(number: int, frame: FrameType | None) -> None:
        console.clear()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
