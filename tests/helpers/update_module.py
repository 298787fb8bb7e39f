"""An update module that records its calls, and state scripts that do the same, with faults on demand."""

from pathlib import Path

from helpers.device import Device

STATES = (
    *("ArtifactInstall", "ArtifactReboot", "ArtifactCommit"),
    *("ArtifactRollback", "ArtifactRollbackReboot", "ArtifactFailure"),
)
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

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def device_script(device: Device, name: str, text: str) -> Path:
    """Install a state script of the device itself."""
    directory = device.conf / "scripts"
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path
