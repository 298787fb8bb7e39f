"""Clients that are broken on purpose: cuts of the power that find nothing wrong with these show nothing."""

from pathlib import Path
from typing import NamedTuple

from .root_fs import Change, replace

_PACKAGE = "usr/local/share/mender-oneshot/mender_oneshot"


def _without_sync(root: Path) -> None:
    """Neither sync the slot before the boot loader's environment is changed, nor everything after that."""
    _replace(root, "modules/block_device.py", "os.fdatasync(device)", "pass")
    _replace(root, "modules/block_device.py", "os.fsync(device)", "pass")
    _replace(root, "modules/boot_environment.py", "os.sync()", "pass")


def _commit_late(root: Path) -> None:
    """Note the commit, save what is installed, and only then commit."""
    commit = "boot_environment.store(None, upgrade_available=False, bootcount=False)"
    clean = '"""Remove a trial from the environment that the running system, the old one, did not start."""'
    _replace(root, "modules/rootfs_image.py", commit, "pass")
    _replace(root, "modules/rootfs_image.py", clean, f"{clean}\n        {commit}")


def _replace(root: Path, name: str, old: str, new: str) -> None:
    replace(root / _PACKAGE / name, old, new)


class Client(NamedTuple):
    """A client, and the phase of the update in which a cut of the power must find its fault."""

    change: Change
    phase: str


CLIENTS = {"no-sync": Client(_without_sync, "reboot"), "late-commit": Client(_commit_late, "trial")}
