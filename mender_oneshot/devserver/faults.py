"""Fault injection: which requests fail, and how; `faulty_socket` and `response_writer` act accordingly."""

import fnmatch
import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One way for requests to fail.

    `match` is a glob pattern over "METHOD path" of either origin (artifacts: "GET /storage/*"); `count` is
    the number of requests to affect, None for all. The first matching fault is used, and no other.
    """

    match: str = "*"
    count: int | None = 1

    # A substituted response; the request is not processed:
    status: int | None = None
    """Respond with this status, with `headers` and `body`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str = b""
    retry_after: int | str | None = None
    """Respond with 429 and this Retry-After: seconds or an HTTP date."""
    redirect: str | None = None
    """Respond with 302 (or `status`) and this URL; "{target}" stands for the requested path and query."""
    drop_before: bool = False
    """Close without a response; the request is not processed."""

    # The request is processed, and the response disturbed:
    drop_after: bool = False
    """Close without a response; the request is processed."""
    cut_after: int | None = None
    """Close after this many bytes of the body, although the headers announce all; for a WebSocket, bytes
    after the handshake in both directions."""
    reset: bool = False
    """With a cut or a drop: close with RST (bytes on their way may be lost) instead of FIN."""
    stall_after: int | None = None
    """Send nothing more after this many bytes of the body, until the client disconnects or `Faults.release`;
    for a WebSocket, receive nothing either."""
    slow: float | None = None
    """Bytes of the body per second; for a WebSocket, bytes in both directions."""
    chunked: bool = False
    """Send Transfer-Encoding: chunked instead of Content-Length."""
    no_length: bool = False
    """Send no Content-Length: the body ends with the connection."""
    no_etag: bool = False
    close_code: int | None = None
    """Close a WebSocket with this code at `cut_after`, instead of cutting it."""
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    # For artifact links:
    expired: bool = False
    """Respond with 403 as if the link had expired: like S3, or like the API for configurations."""
    ignore_range: bool = False
    """Respond with 200 and the whole object although a range was requested."""
    wrong_range: int | bool | None = None
    """Respond with 206 and another start than requested: this one; with True, one byte earlier, or later from
    0."""
    change: bytes | str | bool = False
    """Before responding, replace the bytes of the object (True: invert every bit), permanently."""

    def __post_init__(self) -> None:
        # A wrong type would otherwise fail much later, in another thread, when a request is matched.
        numbers = (self.count, self.cut_after, self.stall_after)
        if not isinstance(self.match, str) or not all(n is None or isinstance(n, int) for n in numbers):
            raise TypeError("match is a string; count, cut_after and stall_after are whole numbers")


class Stall:
    """The place where one response stalls."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()

    def wait(self, client: socket.socket, *, ignore_input: bool) -> bool:
        """Wait; return True if released, False if the client has disconnected or sent something."""
        with self._here:
            poll = select.poll()
            poll.register(self._here, select.POLLIN)
            poll.register(client, select.POLLRDHUP if ignore_input else select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            return self._here.fileno() in ready and self._here.recv(1) == b"+"

    def end(self, *, resume: bool) -> None:
        """End the wait, from another thread; `resume` is what `wait` returns."""
        with self._there:
            try:
                self._there.send(b"+" if resume else b"-")
            except OSError:
                return  # `wait` has returned for another reason.


class Faults:
    """The active faults, oldest first; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._faults: list[Fault] = []
        self._stalls: list[Stall] = []
        self._stopped = threading.Event()

    def add(self, match: str = "*", count: int | None = 1, **fields: object) -> Fault:
        """Add a fault and return it; `fields` are those of `Fault`. Raise TypeError for any other."""
        fault = Fault(match, count, **fields)  # type: ignore[arg-type]  # a wrong name is a TypeError at once
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all faults; responses that stall continue to do so until `release`."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault for this request and count down its `count`; None if there is none."""
        with self._lock:
            for fault in self._faults:
                if fnmatch.fnmatchcase(f"{method} {path}", fault.match):
                    if fault.count is not None:
                        fault.count -= 1
                        if fault.count <= 0:
                            self._faults.remove(fault)
                    return fault
        return None

    def stall(self, client: socket.socket, *, ignore_input: bool = False) -> bool:
        """Block until `release`; return whether to resume: not if the client disconnects or the server stops.

        Without `ignore_input`, anything that the client sends ends the wait too.
        """
        with self._lock:
            if self._stopped.is_set():
                return False
            stall = Stall()
            self._stalls.append(stall)
            self._changed.notify_all()
        try:
            return stall.wait(client, ignore_input=ignore_input)
        finally:
            with self._lock:
                listed = stall in self._stalls
                if listed:
                    self._stalls.remove(stall)
            if listed:
                stall.end(resume=False)

    def release(self) -> None:
        """Resume the responses that stall now."""
        self._end(resume=True)

    def stop(self) -> None:
        """Abort the responses that stall, now and later."""
        with self._lock:
            self._stopped.set()
        self._end(resume=False)

    def _end(self, *, resume: bool) -> None:
        with self._lock:
            stalls, self._stalls = self._stalls, []
        for stall in stalls:
            stall.end(resume=resume)

    def pause(self, seconds: float) -> bool:
        """Sleep; return False, at once, if the server is being stopped."""
        return not self._stopped.wait(seconds)

    def wait_for_stall(self, timeout: float = 30) -> None:
        """Block until a response stalls; raise TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._stalls), timeout):
                raise TimeoutError("no response has stalled")
