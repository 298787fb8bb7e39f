"""Faults on demand: which request shall go wrong, and how. What they do to an answer is `http`'s part."""

import fnmatch
import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One way for requests to go wrong.

    `match` is a glob over "METHOD path" of either origin (artifacts: "GET /storage/*"); `count` says how
    many requests it is for, None for all. The first fault that matches is used, alone.
    """

    match: str = "*"
    count: int | None = 1

    # Answered instead, the request is not processed:
    status: int | None = None
    """Answer this status, with `headers` and `body`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str = b""
    retry_after: int | str | None = None
    """429 with this Retry-After: seconds or an HTTP date."""
    redirect: str | None = None
    """302 (or `status`) to this URL, in which "{target}" stands for the path and query asked for."""
    drop_before: bool = False
    """Close without an answer, the request not processed."""

    # Processed, and the answer spoilt on its way:
    drop_after: bool = False
    """Close without an answer, the request processed."""
    cut_after: int | None = None
    """Close after so many bytes of the body, the headers having promised all; of a websocket's bytes behind
    the handshake, in and out."""
    reset: bool = False
    """With a cut or a drop: close with RST (bytes under way may be lost) in place of a plain end."""
    stall_after: int | None = None
    """Say nothing more after so many bytes of the body, until the client goes or `Faults.release`; on a
    websocket, do not listen either."""
    slow: float | None = None
    """So many bytes of the body per second; of a websocket, in and out."""
    chunked: bool = False
    """Transfer-Encoding: chunked in place of Content-Length."""
    no_length: bool = False
    """No Content-Length: the body ends with the connection."""
    no_etag: bool = False
    close_code: int | None = None
    """End a websocket with this close code at `cut_after`, in place of a cut."""
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    # For artifact links:
    expired: bool = False
    """403 as S3, or the API for configurations, says it of an expired link."""
    ignore_range: bool = False
    """200 with the whole object although a range was asked for."""
    wrong_range: int | bool | None = None
    """206 with another start than asked for: this one, or with True one byte earlier (from 0: later)."""
    change: bytes | str | bool = False
    """Before answering, put other bytes (True: every bit flipped) into the object's place, for good."""

    def __post_init__(self) -> None:
        # These would otherwise fail much later, in another thread, when a request is compared with them.
        numbers = (self.count, self.cut_after, self.stall_after)
        if not isinstance(self.match, str) or not all(n is None or isinstance(n, int) for n in numbers):
            raise TypeError("match is a string; count, cut_after and stall_after are whole numbers")


class Stall:
    """A place where one answer waits."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()

    def wait(self, client: socket.socket, *, ignore_input: bool) -> bool:
        """Wait; tell whether to go on (released), or not: the client has gone, or spoken out of turn."""
        with self._here:
            poll = select.poll()
            poll.register(self._here, select.POLLIN)
            poll.register(client, select.POLLRDHUP if ignore_input else select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            return self._here.fileno() in ready and self._here.recv(1) == b"+"

    def end(self, *, go_on: bool) -> None:
        """End the wait, from another thread."""
        with self._there:
            try:
                self._there.send(b"+" if go_on else b"-")
            except OSError:
                return  # The waiting side has gone by itself.


class Faults:
    """The faults in force, oldest first; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._faults: list[Fault] = []
        self._stalls: list[Stall] = []
        self._stopped = threading.Event()

    def add(self, match: str = "*", count: int | None = 1, **what: object) -> Fault:
        """Add a fault; `what` are the fields of `Fault`."""
        fault = Fault(match, count, **what)  # type: ignore[arg-type]  # a wrong name is a TypeError at once
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all faults; answers that stall go on stalling until `release`."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, used up by one."""
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
        """Wait for `release`, the client's going or the server's stop; tell whether to go on.

        A client may be `ignore_input` meanwhile; else what it says ends the wait.
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
                known = stall in self._stalls
                if known:
                    self._stalls.remove(stall)
            if known:
                stall.end(go_on=False)

    def release(self) -> None:
        """Let the answers that stall now go on to their end."""
        self._end(go_on=True)

    def stop(self) -> None:
        """Break off the answers that stall, now and later."""
        with self._lock:
            self._stopped.set()
        self._end(go_on=False)

    def _end(self, *, go_on: bool) -> None:
        with self._lock:
            stalls, self._stalls = self._stalls, []
        for stall in stalls:
            stall.end(go_on=go_on)

    def pause(self, seconds: float) -> bool:
        """Sleep; return False, at once, if the server is being stopped."""
        return not self._stopped.wait(seconds)

    def wait_for_stall(self, timeout: float = 30) -> None:
        """Block until some answer stalls; TimeoutError when none does in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._stalls), timeout):
                raise TimeoutError("no answer has stalled")
