"""Measures what a daemon costs that polls a development server."""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from helpers.device import SYSTEM_PYTHON, Device
from helpers.flash_trace import Trace, Written
from helpers.memory import proportional
from mender_oneshot.devserver import DevServer

DAY = 86400

SECONDS = 15.0
"""How long a phase of the daemon is watched."""

INVENTORY = "#!/bin/sh\necho colour=blue\necho colour=green\n"


class Field(NamedTuple):
    """A server with the two releases, and a proxy that counts what passes; artifacts pass beside it."""

    place: Path
    server: DevServer
    port: int
    sizes: list[int]

    def wire(self) -> int:
        """Return the bytes on the wire so far."""
        stored = (seen.sent for seen in self.server.requests if seen.path.startswith("/storage/"))
        return sum(self.sizes) + sum(stored)

    def asked(self, end: str) -> int:
        """Return the number of requests whose path has this end."""
        return sum(seen.path.endswith(end) for seen in self.server.requests)


class Part(NamedTuple):
    """One kind of thing that happens so many times a day; seconds, KiB and bytes of one of them."""

    what: str
    times: int
    cpu: float
    wall: float
    memory: float
    wire: int
    flash: Written


class MeasuredDaemon:
    """A daemon on a device of its own that the server accepts; each client is a subclass."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.server = field.server
        self.device = Device(field.place / "device", SYSTEM_PYTHON)
        self.device.script("identity/mender-device-identity", "#!/bin/sh\necho mac=de:ad:be:ef:00:02\n")
        self.device.script("inventory/mender-inventory-colour", INVENTORY)
        self.device.configure(
            ServerURL=f"https://127.0.0.1:{field.port}",
            ServerCertificate=str(field.server.ca),
            RetryPollIntervalSeconds=1,
        )

    def running(self) -> AbstractContextManager[int]:
        """Run the daemon until the end of the block; provide its pid."""
        raise NotImplementedError

    def update(self, what: str, count: int) -> Part:
        """Have it update to release-2 and release-3, the second time under strace."""
        raise NotImplementedError

    @contextlib.contextmanager
    def polling(self, update: int, inventory: int) -> Iterator[int]:
        """Run it with these intervals; provide its pid when it has settled."""
        self.device.configure(UpdatePollIntervalSeconds=update, InventoryPollIntervalSeconds=inventory)
        began = time.time()
        with self.running() as pid:
            self.server.accept_all = True
            for end in ("/attributes", "/next"):
                self.server.wait_for(lambda seen, end=end: seen.at > began and seen.path.endswith(end))  # type: ignore[misc]
            time.sleep(2)
            yield pid

    def part(self, what: str, count: int, end: str, **intervals: int) -> Part:
        """Let it repeat one request, and return what one costs."""
        with self.polling(**intervals) as pid:
            wire, asked, cpu = self.field.wire(), self.field.asked(end), cpu_seconds(pid)
            time.sleep(SECONDS)
            asked, cpu = self.field.asked(end) - asked, cpu_seconds(pid) - cpu
            wire = self.field.wire() - wire
            memory = proportional(pid)
            trace = self.trace()
            again = self.field.asked(end)
            with trace.attached(pid):
                time.sleep(5)
            again, written = self.field.asked(end) - again, trace.written()
        each = Written(written.files, *(round(value / (again or 1)) for value in written[1:]))
        return Part(what, count, cpu / (asked or SECONDS), 0, memory, wire // (asked or 1), each)

    def trace(self) -> Trace:
        """Return a trace of the writes to its flash."""
        place = self.field.place
        return Trace(place / "trace", (self.device.data, self.device.conf, place.parent / "installed"))


def cpu_seconds(pid: int) -> float:
    """Return the seconds of CPU of a process and of the children that it has waited for."""
    # In nanoseconds, unlike the sum in `stat`, whose unit is longer than a minute of rest takes.
    own = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    children = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    return own / 1e9 + sum(map(int, children)) / os.sysconf("SC_CLK_TCK")
