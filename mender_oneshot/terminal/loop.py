"""The one loop: files that become ready, timers, signals. Knows nothing of what they are for."""

import contextlib
import heapq
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType

Action = Callable[[], None]
BugHandler = Callable[[Exception], None]


class Timer:
    """Something to be done at a time; `cancel` takes it back."""

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        """Let it not be done."""
        self.action = None


class Loop:
    """Waits for files, timers and signals, and calls whoever waits for them, one after the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._handler: BugHandler | None = None

    def close(self) -> None:
        """Give back the kernel's part of the loop."""
        self._selector.close()

    def watch(self, file: int, read: Action | None = None, write: Action | None = None) -> None:
        """Call `read` when a descriptor can be read, `write` when it can be written; neither: forget it.

        What was said before about this descriptor is replaced.
        """
        read, write = read and self.bound(read), write and self.bound(write)
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        known = self._selector.get_map().get(file)
        if known is None:
            if events:
                self._selector.register(file, events, (read, write))
        elif events:
            self._selector.modify(file, events, (read, write))
        else:
            # Not with an empty mask: epoll tells of a hang-up whatever the mask, over and over.
            self._selector.unregister(file)

    def later(self, seconds: float, action: Action) -> Timer:
        """Call `action` after some seconds, unless the timer returned is cancelled."""
        timer = Timer(self.bound(action))
        heapq.heappush(self._timers, (self.now() + seconds, next(self._order), timer))
        return timer

    @contextlib.contextmanager
    def catching(self, handler: BugHandler | None) -> Iterator[None]:
        """Give exceptions to `handler`: those raised here, and those of callbacks registered here.

        None: let them through.
        """
        before, self._handler = self._handler, handler
        try:
            yield
        except Exception as error:
            if handler is None:
                raise
            handler(error)
        finally:
            self._handler = before

    def bound(self, action: Action) -> Action:
        """Return an action whose exceptions go to the present handler, whenever it is called."""
        handler = self._handler

        def call() -> None:
            with self.catching(handler):
                action()

        return call

    def run(self, over: Callable[[], bool]) -> None:
        """Turn until `over` says so, which is asked after everything that happens."""
        while not over():
            self.turn()

    def turn(self) -> None:
        """Wait for the next thing to happen, and have it dealt with."""
        for key, events in self._selector.select(self._pause()):
            for event, action in zip((selectors.EVENT_READ, selectors.EVENT_WRITE), key.data, strict=True):
                # An action before this one may have closed the file, and another may have its number.
                current = self._selector.get_map().get(key.fd)
                if events & event and action and current is not None and current.data is key.data:
                    action()
        now = self.now()
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        # Those only: one that sets itself anew, at once, has to let files and signals come in between.
        for timer in due:
            if timer.action:
                action, timer.action = timer.action, None
                action()

    def _pause(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else None


class Stopped(BaseException):
    """SIGTERM or SIGINT came, or the time was over, while something was waited for outside the loop."""


class Signals:
    """Turns SIGTERM, SIGINT and SIGCHLD into events of the loop; a context manager that restores what was.

    `seconds` after it was entered it stops whatever waits outside the loop; 0: never.
    """

    def __init__(self, loop: Loop, child: Action, seconds: float = 0) -> None:
        self.loop = loop
        self.stopped = False
        self.time_over = False
        self._seconds = seconds
        self._interrupting = False
        self._child = child
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        self._ear, self._mouth = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGALRM, self._ring),
            # Without a handler of its own nothing is written into the pipe.
            (signal.SIGCHLD, lambda number, frame: None),
        ):
            self._before[number] = signal.signal(number, handler)
        self.loop.watch(self._ear, read=self._hear)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.loop.watch(self._ear)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what `signal` returned
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._ear)
        os.close(self._mouth)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Have signals raise `Stopped` while something outside the loop waits."""
        before, self._interrupting = self._interrupting, True
        try:
            # Looked at only now: a signal that comes in between would be heard by nobody.
            if self.stopped or self.time_over:
                raise Stopped
            yield
        finally:
            self._interrupting = before

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._interrupting:
            raise Stopped

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.time_over = True
        if self._interrupting:
            raise Stopped

    def _hear(self) -> None:
        if signal.SIGCHLD in os.read(self._ear, 4096):
            self._child()
