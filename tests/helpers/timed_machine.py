"""A booted Debian with a device that has nothing to do, and what a tick of its timers costs."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.debian import make_install, system
from helpers.machine import Machine, copy, write
from helpers.waiting import until
from mender_oneshot.devserver import DevServer

UPDATE, INVENTORY = "mender-oneshot-update", "mender-oneshot-inventory"
# The shell adds a line for each tick; it starts no program for that.
_COUNT = "echo >>/run/ticks"
_TIMER = """[Timer]
OnBootSec=
OnActiveSec=0
OnUnitInactiveSec=0.1
RandomizedDelaySec=0
AccuracySec=1ms
"""
_HERTZ = os.sysconf("SC_CLK_TCK")


class Share(NamedTuple):
    """Seconds of CPU: of systemd's first process, of its other services, and of the processes of the unit."""

    init: float
    services: float
    unit: float

    def __sub__(self, other: "Share") -> "Share":
        return Share(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class TimedMachine:
    """A booted machine with an accepted device that has nothing to do."""

    def __init__(self, machine: Machine, server: DevServer) -> None:
        self.machine = machine
        self._run = machine.run
        machine.run("mender-oneshot", "auth", check=False)
        server.accept()
        machine.run("mender-oneshot", "auth")
        machine.run("mender-oneshot", "run", "--all")
        past = "find /etc/mender /var/lib/mender -exec touch -h -d '1 minute ago' {} +"
        machine.run("sh", "-c", past)
        for unit in (UPDATE, INVENTORY):
            machine.run("systemctl", "start", f"{unit}.service")
            note = f"/run/mender-oneshot/var/lib/mender/{unit.rpartition('-')[2]}.until"
            machine.run("test", "-e", note)
        machine.run("sh", "-c", f": >/run/ticks; echo '{_COUNT}' >>/usr/local/share/mender-oneshot/idle.sh")

    def tick(self, unit: str = UPDATE, seconds: float = 10) -> Share:
        """Return what a tick of a timer costs, beyond what the same time costs without ticks.

        The timer ticks several times a second for this, and is stopped in the end.
        """
        resting = self._during(seconds)
        self.configure(f"{unit}.timer", _TIMER)
        self._run("systemctl", "start", f"{unit}.timer")
        before = self._ticks()
        until(lambda: self._ticks() > before, "the timer ticks")
        before = self._ticks()
        ticking = self._during(seconds)
        count = self._ticks() - before
        self._run("systemctl", "stop", f"{unit}.timer")
        return Share(*(value / count for value in ticking - resting))

    def configure(self, unit: str, text: str, name: str = "bench") -> None:
        """Write a drop-in of a unit."""
        directory = f"/run/systemd/system/{unit}.d"
        self._run("sh", "-c", 'mkdir -p "$1" && printf %s "$2" >"$1/$3.conf"', "sh", directory, text, name)
        self._run("systemctl", "daemon-reload")

    def started(self, command: str, rounds: int = 50) -> float:
        """Return the seconds of CPU of a command that a shell in the machine starts."""
        loop = f"for n in $(seq {rounds}); do {command}; done; cat /proc/$$/stat"
        return _children(self._run("sh", "-c", loop).stdout) / rounds

    def _ticks(self) -> int:
        return int(self._run("stat", "-c", "%s", "/run/ticks").stdout)

    def _during(self, seconds: float) -> Share:
        """Return what the machine uses in so many seconds."""
        before = self._used()
        time.sleep(seconds)
        return self._used() - before

    def _used(self) -> Share:
        stats = self._run("sh", "-c", "cat /proc/[0-9]*/stat").stdout.splitlines()
        init = next(line for line in stats if line.startswith("1 "))
        services = sum(_own(line) for line in stats if "(systemd-" in line or "(dbus-" in line)
        return Share(_own(init), services, _children(init))


def _own(stat: str) -> float:
    """Return the seconds of CPU of a process, from its line in /proc."""
    return sum(map(int, stat.rpartition(")")[2].split()[11:13])) / _HERTZ


def _children(stat: str) -> float:
    """Return the seconds of CPU of the children that a process has waited for."""
    return sum(map(int, stat.rpartition(")")[2].split()[13:15])) / _HERTZ


@contextlib.contextmanager
def timed_machine(place: Path) -> Iterator[TimedMachine]:
    """Provide a booted Debian 12 with the units installed."""
    with DevServer(place / "server") as server, system(place / "system") as root:
        make_install(root)
        write(root / "usr/share/mender/identity/mender-device-identity", "#!/bin/sh\necho mac=1\n", 0o755)
        write(root / "var/lib/mender/device_type", "device_type=board\n")
        write(root / "etc/mender/artifact_info", "artifact_name=release-1\n")
        copy(server.ca, root / "etc/mender/server.pem")
        settings = {
            "ServerURL": server.url,
            "ServerCertificate": "/etc/mender/server.pem",
            "StartSpreadSeconds": 0,
        }
        write(root / "etc/mender/mender.conf", json.dumps(settings))
        with Machine(root, place / "console") as machine:
            yield TimedMachine(machine, server)
