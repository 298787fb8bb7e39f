"""An update module that records its calls, and state scripts that do the same, with faults on demand."""

import os
from pathlib import Path
from typing import Any

from helpers.artifacts import make_artifact
from helpers.device import Device

STATES = (
    *("ArtifactInstall", "ArtifactReboot", "ArtifactCommit"),
    *("ArtifactRollback", "ArtifactRollbackReboot", "ArtifactFailure"),
)
TREE = "modules/v3/payloads/0000/tree"
"""The directory of the module, in the data directory."""
# In FAULTS, a file named as a call or as a script holds shell code to run there.
PROGRAM = """#!/bin/sh
call=$1
case $call in
ProvidePayloadFileSizes) echo "$call" >>{log}; [ ! -e {faults}/$call ] || . {faults}/$call; exit 0 ;;
NeedsArtifactReboot) echo {reboot}; [ ! -e {faults}/$call ] || . {faults}/$call; exit 0 ;;
SupportsRollback) echo {rollback}; [ ! -e {faults}/$call ] || . {faults}/$call; exit 0 ;;
esac
echo "$call" >>{log}
[ ! -e {faults}/$call ] || . {faults}/$call
exit 0
"""
SCRIPT = """#!/bin/sh
echo "{name}" >>{log}
[ ! -e {faults}/{name} ] || . {faults}/{name}
exit 0
"""


class Recorder:
    """The calls of a module and of state scripts, in the order they were made."""

    def __init__(
        self, device: Device, *, reboot: str = "No", rollback: str = "Yes", name: str = "fake"
    ) -> None:
        self.log = device.root / "calls"
        self.faults = device.root / "faults"
        self.faults.mkdir()
        self.name = name
        modules = device.scripts / "modules" / "v3"
        modules.mkdir(parents=True, exist_ok=True)
        self.program = modules / name
        self.write(reboot, rollback)

    def write(self, reboot: str, rollback: str) -> None:
        text = PROGRAM.format(log=self.log, faults=self.faults, reboot=reboot, rollback=rollback)
        self.program.write_text(text)
        self.program.chmod(0o755)

    def scripts(self) -> dict[str, str]:
        """Return a state script for each state and action, as an artifact carries them."""
        names = [f"{state}_{action}" for state in STATES for action in ("Enter", "Leave", "Error")]
        return {f"{name}_00": SCRIPT.format(name=name, log=self.log, faults=self.faults) for name in names}

    def at(self, name: str, code: str, *, once: bool = True) -> None:
        """Have shell code run in a call or a script, the first time only unless `once` is false."""
        path = self.faults / name
        path.write_text((f"rm {path}\n" if once else "") + code + "\n")

    def artifact(self, device: Device, name: str = "release-2", **options: Any) -> str:
        """Write an artifact for this module, with all state scripts, and return its path."""
        options = {"payload_type": self.name, "scripts": self.scripts()} | options
        return str(make_artifact(device.root / f"{name}.mender", name, **options))

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def left_running(device: Device) -> list[str]:
    """Return the command lines of the processes that work below the directory of a device."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and f"{os.readlink(process / 'cwd')}/".startswith(f"{device.root}/"):
                found.append((process / "cmdline").read_text().replace("\0", " ").strip())
        except OSError:
            continue
    return found


def device_script(device: Device, name: str, text: str) -> Path:
    """Install a state script of the device itself."""
    directory = device.conf / "scripts"
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def failed_install(
    device: Device, module: Recorder, *words: str, name: str = "release-1", artifact: str = ""
) -> str:
    """Install an artifact by hand, which has to fail with a sentence and to leave nothing; return stderr."""
    done = device.run("install", artifact or module.artifact(device))
    assert done.code == 70, done
    last = done.err.splitlines()[-1]
    assert last.startswith("The installation of release-2 failed and was"), done.err
    for word in words:
        assert word in last, done.err
    assert device.ok("show-artifact").out == f"{name}\n"
    assert left_running(device) == []
    for path in (TREE, "scripts", "installer.json"):
        assert not os.path.lexists(device.data / path), path
    return done.err


def next_install(device: Device, module: Recorder) -> None:
    """Install another artifact, after the module has got well."""
    for fault in module.faults.iterdir():
        fault.unlink()
    device.ok("install", module.artifact(device, "release-3"))
    device.ok("commit")
    assert device.ok("show-artifact").out == "release-3\n"
