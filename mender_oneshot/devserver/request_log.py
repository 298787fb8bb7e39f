"""Remembers what was asked and answered, and lets a test wait for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message


@dataclass(frozen=True)
class Seen:
    """One request and what came of it.

    `path` is decoded and without the query; `headers` matches names without regard to case; `body` is empty
    for uploaded artifacts; `status` is 0 when nothing was answered; `sent` counts the body's bytes that were
    written; `at` is the real time of arrival, whatever clock the server was given.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes
    status: int
    sent: int
    origin: str
    at: float


class RequestLog:
    """All requests of a server in the order their answers ended.

    A request is added just before the last byte of its answer is written: whoever has the answer finds it
    here.
    """

    def __init__(self, on_seen: Callable[[Seen], None] | None = None) -> None:
        self._seen: list[Seen] = []
        self._changed = threading.Condition()
        self._on_seen = on_seen

    def add(self, seen: Seen) -> None:
        """Remember one request and wake those who wait."""
        with self._changed:
            self._seen.append(seen)
            self._changed.notify_all()
        if self._on_seen:
            self._on_seen(seen)

    def correct(self, seen: Seen, sent: int) -> None:
        """Say that fewer bytes than thought went out: the client had gone."""
        with self._changed:
            self._seen = [replace(s, sent=sent) if s is seen else s for s in self._seen]
            self._changed.notify_all()

    def all(self) -> list[Seen]:
        """A copy of the list as it is now."""
        with self._changed:
            return list(self._seen)

    def wait_for(self, predicate: Callable[[Seen], bool], timeout: float) -> Seen:
        """The first request that fits, past or to come; TimeoutError when none does in time."""
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                for seen in self._seen:
                    if predicate(seen):
                        return seen
                if not self._changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    lines = [f"{s.method} {s.path} {s.status}" for s in self._seen[-20:]]
                    raise TimeoutError("no such request; the last ones were:\n" + "\n".join(lines))
