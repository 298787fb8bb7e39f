"""A device at the default places of a system that has its own cron, units and processes."""

import os
import subprocess
from pathlib import Path

import pytest

from helpers.device import Device, Run

_SCRIPT = """
for place in /etc /var /usr/share; do
    mkdir -p "{work}$place/upper" "{work}$place/work"
    layers="lowerdir=$place,upperdir={work}$place/upper,workdir={work}$place/work"
    mount -t overlay overlay -o "$layers" "$place"
done
mount -t tmpfs run /run
rm -rf /etc/cron* /var/spool/cron /etc/systemd /etc/mender /var/lib/mender /usr/share/mender
mkdir -p /etc/mender /var/lib/mender /usr/share/mender
mount --bind "{device.conf}" /etc/mender
mount --bind "{device.data}" /var/lib/mender
mount --bind "{device.scripts}" /usr/share/mender
{more}
"$@"
"""

_STAND_IN = """#!/bin/sh
while :; do sleep 1000; done
"""

# The shell has become the stand-in when the command line of the process names it.
_START = '{path} {words} &\nuntil tr "\\0" " " </proc/$!/cmdline | grep -q "{path} {words}"; do :; done\n'


class OwnSystem:
    """A system around a device: `more` is shell code that prepares it."""

    def __init__(self, device: Device, work: Path) -> None:
        self.device = device
        self.work = work
        self.more = ""
        device.environment |= dict.fromkeys(
            ("MENDER_CONF_DIR", "MENDER_DATA_DIR", "MENDER_DATASTORE_DIR"), ""
        )

    def write(self, path: str, text: str) -> None:
        """Write a file of the system."""
        self.more += f"mkdir -p '{os.path.dirname(path)}'\ncat >'{path}' <<'END'\n{text}\nEND\n"

    def start(self, name: str, words: str = "daemon") -> None:
        """Let a process with this name run in the system."""
        program = self.work / name
        program.write_text(_STAND_IN)
        program.chmod(0o755)
        self.more += _START.format(path=program, words=words)

    def systemd(self, properties: str, *units: str) -> None:
        """Let systemd be its init, whose timers have these properties, and that has these unit files."""
        tool = self.work / "systemctl"
        lines = "\n".join(properties.split())
        tool.write_text(f"#!/bin/sh\ncase $1 in show) cat <<'END'\n{lines}\nEND\n;; esac\n")
        tool.chmod(0o755)
        self.device.environment["PATH"] = f"{self.work}:{os.environ['PATH']}"
        self.more += "mkdir -p /run/systemd/system\n"
        for unit in units:
            self.write(f"/etc/systemd/system/{unit}", "[Timer]")

    def run(self, *words: str) -> Run:
        """Run a command of the client in the system."""
        script = _SCRIPT.format(work=self.work, device=self.device, more=self.more)
        unshare = ("unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc")
        return self.device.run(*words, wrapper=(*unshare, "sh", "-euc", script, "sh"))


def own_system(device: Device, work: Path) -> OwnSystem:
    """Return a system around a device; skip the test if it cannot be made here."""
    work.mkdir()
    system = OwnSystem(device, work)
    script = _SCRIPT.format(work=work, device=device, more="")
    command = ["unshare", "-m", "-p", "-f", "--mount-proc", "sh", "-euc", script, "sh", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"a system of one's own needs root and overlay mounts: {tried.stderr.strip()}")
    return system
