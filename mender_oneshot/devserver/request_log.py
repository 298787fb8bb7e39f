"""Logs requests and their responses, and lets a test wait for one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message as Headers


@dataclass(frozen=True)
class Seen:
    """One request and its response, as the server saw them.

    `path` is decoded and without the query; `headers` ignores the case of names; `body` is empty for uploaded
    artifacts; `status` is 0 if there was no response; `sent` is the number of bytes of the response body that
    were written; `at` is the real time of arrival, not that of the server's clock.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes
    status: int
    sent: int
    origin: str
    at: float


class RequestLog:
    """All requests of a server, in the order in which their responses ended.

    A request is added just before the last byte of its response is sent, so it is here when the client has
    the response.
    """

    def __init__(self, on_seen: Callable[[Seen], None] | None = None) -> None:
        self._seen: list[Seen] = []
        self._changed = threading.Condition()
        self._on_seen = on_seen

    def add(self, seen: Seen) -> None:
        """Add a request and wake the waiting threads."""
        with self._changed:
            self._seen.append(seen)
            self._changed.notify_all()
        if self._on_seen:
            self._on_seen(seen)

    def correct(self, seen: Seen, sent: int) -> None:
        """Correct the number of bytes sent, because the client has disconnected early."""
        with self._changed:
            self._seen = [replace(s, sent=sent) if s is seen else s for s in self._seen]
            self._changed.notify_all()

    def all(self) -> list[Seen]:
        """Return a copy of the list."""
        with self._changed:
            return list(self._seen)

    def wait_for(self, predicate: Callable[[Seen], bool], timeout: float) -> Seen:
        """Return the first matching request, past or to come.

        Raise TimeoutError after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                for seen in self._seen:
                    if predicate(seen):
                        return seen
                if not self._changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    lines = [f"{s.method} {s.path} {s.status}" for s in self._seen[-20:]]
                    raise TimeoutError("no matching request; the last ones were:\n" + "\n".join(lines))
