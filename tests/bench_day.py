"""`make bench-day`: what a day in the field costs, beside the daemons of other clients.

They are that of Debian's mender-client and, where MENDER_PYTHON_CLIENT names a checkout, that of
mender-python-client.

The day is composed of the measured cost of each kind of invocation, times its number; it is not run through.
CPU is user and system time with all children. Bytes are those of TCP, both ways, without headers of packets.
"""

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import counted
from helpers import debian, python_client
from helpers.device import SYSTEM_PYTHON
from helpers.flash_trace import Trace
from helpers.installed_device import Cost, InstalledDevice, Starter, medians
from helpers.measured_daemon import DAY, INVENTORY, Field, MeasuredDaemon, Part, cpu_seconds
from helpers.memory import proportional
from helpers.python_client import PythonClient
from helpers.real_artifact import write_artifact
from helpers.real_daemon import daemon, mender
from helpers.timed_machine import timed_machine
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))
PAYLOAD = int(os.environ.get("BENCH_MEGABYTES", "100")) * 1_000_000
UPDATE = f"update of {PAYLOAD // 1_000_000} MB"

IDLE = 0.4
"""Seconds until an idle connection ends, so that each poll of the daemon opens one, as in the field."""

TICKS, INVENTORY_TICKS, POLLS, INVENTORIES, UPDATES = 1440, 288, 48, 3, 1
CHANGES = INVENTORIES + UPDATES
"""Each of them changes the state, so the next tick starts Python to look for what is due."""

SYSTEMD_TICK = 0.005
"""Seconds of CPU for a tick of a timer in a booted Debian 12, from docs/performance.md."""


@contextlib.contextmanager
def field(place: Path, artifacts: list[Path]) -> Iterator[Field]:
    """Provide a server for one client."""
    with DevServer(place / "server") as server, counted(server.url, IDLE) as (port, sizes):
        for path in artifacts:
            server.upload(path)
        yield Field(place, server, port, sizes)


def releases(place: Path) -> list[Path]:
    """Return two artifacts with the same file and different names."""
    content = os.urandom(PAYLOAD)
    files: dict[str, str | bytes] = {
        "dest_dir": f"{place}/installed",
        "filename": "app",
        "permissions": "755",
        "app": content,
    }
    made = []
    for name in ("release-2", "release-3"):
        made.append(write_artifact(place / f"{name}.mender", "single-file", files))
        shutil.rmtree(made[-1].with_suffix(".source"))
    return made


def ours(field: Field) -> list[Part]:
    """Measure each kind of tick, as cron starts it."""
    server = field.server
    device = InstalledDevice(field.place / "device", SYSTEM_PYTHON, server)
    device.script("inventory/mender-inventory-colour", INVENTORY)
    device.configure(ServerURL=f"https://127.0.0.1:{field.port}")
    device.call("auth")
    deployments: list[str] = []

    def changed() -> None:
        device.make_idle()
        shutil.rmtree(device.root / "run")

    def update() -> None:
        deployments.append(server.deploy(("release-2", "release-3")[len(deployments) % 2]))
        device.make_check_due()

    kinds: dict[str, tuple[int, int, Callable[[], None]]] = {
        "tick with nothing due": (TICKS - POLLS - 2 * CHANGES, 2 * ROUNDS, device.make_idle),
        "tick after a change": (CHANGES, ROUNDS, changed),
        "poll without news": (POLLS, ROUNDS, device.make_check_due),
        "inventory": (INVENTORIES, ROUNDS, device.make_inventory_due),
        UPDATE: (UPDATES, 3, update),
    }
    parts = []
    with Starter() as starter:
        for what, (count, rounds, before) in kinds.items():

            def run(before: Callable[[], None] = before) -> Cost:
                before()
                return starter.cost(device.tick(), device.env())

            cost = medians({what: run}, rounds)[what]
            before()
            trace = Trace(field.place / "trace", (device.data, device.conf, field.place.parent / "installed"))
            wire = field.wire()
            starter.cost([*trace.words(), *device.tick()], device.env())
            parts.append(
                Part(what, count, cost.cpu, cost.wall, cost.peak, field.wire() - wire, trace.written())
            )
    assert [server.status(deployment) for deployment in deployments] == ["success"] * len(deployments)
    return parts


def systemd(place: Path) -> None:
    """Print what systemd adds in a day."""
    ticks = TICKS + INVENTORY_TICKS
    cost, source = SYSTEMD_TICK, "as docs/performance.md has it; no booted Debian is at hand here"
    # Making the Debian takes minutes, so only one that the tests have made is used.
    if debian.CACHE.with_suffix(".done").exists():
        try:
            with contextlib.redirect_stdout(io.StringIO()), timed_machine(place / "machine") as machine:
                share = machine.tick()
                start = machine.started("/usr/bin/python3 -c pass")
        except pytest.skip.Exception as skipped:
            source += f" ({skipped})"
        else:
            cost = sum(share)
            parts = " + ".join(f"{seconds * 1000:.1f}" for seconds in share)
            source = f"{parts} ms of PID 1, journald and the unit; python3 -c pass: {start * 1000:.1f} ms"
    print(f"  by systemd's two timers: {ticks} ticks with nothing due, {cost * 1000:.1f} ms each,")
    print(f"  {ticks * cost:.1f} s a day in place of the first row ({source})")


class Daemon(MeasuredDaemon):
    """Debian's mender daemon."""

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Run the daemon until the end of the block; provide its pid."""
        with contextlib.redirect_stdout(io.StringIO()), daemon(self.device):
            until(self._pids, "the daemon runs")
            yield self._pids()[0]

    def _pids(self) -> list[int]:
        found = []
        words = [os.fsencode(word) for word in (*mender(self.device), "daemon")]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().split(b"\0")[:-1] == words:
                    found.append(int(path.parent.name))
        return found

    def update(self, what: str, count: int) -> Part:
        """Have it update to release-2 and release-3, the second time under strace."""
        with self.polling(update=1, inventory=DAY) as pid:
            wire, cpu = self.field.wire(), cpu_seconds(pid)
            self._until_updated("release-2")
            cpu, wire, memory = cpu_seconds(pid) - cpu, self.field.wire() - wire, proportional(pid)
            trace = self.trace()
            with trace.attached(pid):
                self._until_updated("release-3")
        return Part(what, count, cpu, 0, memory, wire, trace.written())

    def _until_updated(self, name: str) -> None:
        deployment = self.server.deploy(name)
        ended = ("success", "failure")
        until(lambda: self.server.status(deployment) in ended, f"the daemon has installed {name}", 90)
        assert self.server.status(deployment) == "success"
        time.sleep(1)  # it is not idle at once


def theirs(device: MeasuredDaemon) -> list[Part]:
    """Measure what a daemon does."""
    return [
        device.part("second with nothing due", DAY, "", update=DAY, inventory=DAY),
        device.part(
            "poll without news", POLLS, "/v1/deployments/device/deployments/next", update=1, inventory=DAY
        ),
        device.part("inventory", INVENTORIES, "/attributes", update=DAY, inventory=1),
        device.update(UPDATE, UPDATES),
    ]


def show(name: str, parts: list[Part], memory: float) -> None:
    """Print a day; `memory` is its average in KiB."""
    print(f"{name}: cost of one, and CPU of a day")
    print(
        f"  {'':24} {'a day':>6} {'CPU ms':>9} {'CPU s':>7} {'MiB':>6} {'wire bytes':>11}"
        "   flash: files, KiB, syncs"
    )
    for part in parts:
        files, size, syncs = part.flash
        print(
            f"  {part.what:24} {part.times:6} {part.cpu * 1000:9.2f} {part.cpu * part.times:7.2f}"
            f" {part.memory / 1024:6.1f} {part.wire:11} {files:8}, {size / 1024:.0f}, {syncs}"
        )
    cpu, wire, size, syncs = (
        sum(part.times * value for part, value in zip(parts, column, strict=True))
        for column in zip(*((p.cpu, p.wire, p.flash.bytes, p.flash.syncs) for p in parts), strict=True)
    )
    print(
        f"  a day: {cpu:.1f} s CPU, {memory:.0f} KiB of memory on average, {wire / 1e6:.1f} MB on the wire,"
        f" {size / 1e6:.1f} MB in {syncs:.0f} syncs to flash"
    )


def beside(
    client: str, title: str, daemon: Callable[[Field], MeasuredDaemon], place: Path, artifacts: list[Path]
) -> None:
    """Print the day of another client, or why it is left out."""
    try:
        with field(place / client, artifacts) as made:
            parts = theirs(daemon(made))
    except pytest.skip.Exception as skipped:
        print(f"{client}: left out, {skipped}")
    else:
        show(f"{client} {title}", parts, parts[0].memory)


def main() -> None:
    """Print the day of each client."""
    print(f"A day: {TICKS} ticks, among them {POLLS} polls, {INVENTORIES} inventories and an {UPDATE},")
    print("composed of the median cost of each of them, times its number; not run through.")
    missing = [program for program in ("mender-artifact", "strace") if not shutil.which(program)]
    if missing:
        print(f"left out: {' and '.join(missing)} not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        artifacts = releases(place)
        with field(place / "ours", artifacts) as made:
            parts = ours(made)
        in_use = sum(part.times * part.wall * part.memory for part in parts)
        show("mender-oneshot, started as by cron, without cron's own share", parts, in_use / DAY)
        systemd(place)
        beside("mender-client", "3.4 (its daemon)", Daemon, place, artifacts)
        if os.environ.get(python_client.VARIABLE):
            beside("mender-python-client", python_client.TITLE, PythonClient, place, artifacts)
        else:
            print(f"mender-python-client: left out; {python_client.VARIABLE}=/path/to/its/checkout adds it")


if __name__ == "__main__":
    main()
