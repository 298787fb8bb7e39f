"""The event loop: calls back when a descriptor is ready or a timer is due."""

import contextlib
import heapq
import selectors
import time
from collections.abc import Callable, Iterator
from itertools import count

Action = Callable[[], None]
BugHandler = Callable[[Exception], None]


class Timer:
    """A call at some time in the future."""

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        """Prevent the call; no-op after it was made."""
        self.action = None


class Loop:
    """Waits for descriptors and timers, and makes the calls one after the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._handler: BugHandler | None = None

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()

    def watch(self, file: int, read: Action | None = None, write: Action | None = None) -> None:
        """Call `read` when a descriptor is readable, `write` when it is writable; stop watching without both.

        Replaces what was registered for this descriptor before.
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
            # An empty mask would not do: epoll reports a hang-up whatever the mask, again and again.
            self._selector.unregister(file)

    def later(self, seconds: float, action: Action) -> Timer:
        """Call `action` after so many seconds, unless the returned timer is cancelled."""
        timer = Timer(self.bound(action))
        heapq.heappush(self._timers, (self.now() + seconds, next(self._order), timer))
        return timer

    @contextlib.contextmanager
    def catching(self, handler: BugHandler | None) -> Iterator[None]:
        """Pass exceptions to `handler`, from the block and from callbacks registered in it.

        With None they propagate.
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
        """Return an action whose exceptions go to the handler that is current now."""
        handler = self._handler

        def call() -> None:
            with self.catching(handler):
                action()

        return call

    def run(self, until: Callable[[], bool]) -> None:
        """Run until `until` returns true; it is called before each turn."""
        while not until():
            self.turn()

    def turn(self) -> None:
        """Wait until a descriptor is ready or a timer is due, and make the calls."""
        for key, events in self._selector.select(self._timeout()):
            for event, action in zip((selectors.EVENT_READ, selectors.EVENT_WRITE), key.data, strict=True):
                # An action before this one may have closed the file, and another may have its number.
                current = self._selector.get_map().get(key.fd)
                if events & event and action and current is not None and current.data is key.data:
                    action()
        now = self.now()
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        # Not those that are added meanwhile: an action that repeats itself without a delay must not starve
        # descriptors and signals.
        for timer in due:
            if timer.action:
                action, timer.action = timer.action, None
                action()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else None
