"""GRUB on the board: its core image, its partition, and its environment block."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import root_fs
from .layout import HERE, LOADER, SECTOR

BLOCK = 1024
HEADER = b"# GRUB Environment Block\n"
_DIRECTORY = Path("/usr/lib/grub/i386-pc")
_MODULES = [
    "biosdisk",
    "part_msdos",
    "ext2",
    "normal",
    "configfile",
    "linux",
    "loadenv",
    "memrw",
    "setpci",
    "test",
    "echo",
    "reboot",
    "serial",
    "terminal",
]
_EARLY = "set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/\nconfigfile (hd0,msdos1)/grub.cfg\n"


class Environment(NamedTuple):
    """What GRUB boots next: a slot, and whether that is a trial that has been booted already."""

    slot: int
    upgrade_available: bool
    bootcount: int


def pack(values: dict[str, str]) -> bytes:
    """Return an environment block."""
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    return (HEADER + lines.encode()).ljust(BLOCK, b"#")


def parse(block: bytes) -> Environment | None:
    """Return the variables of a block, None if it is no environment block or lacks a variable."""
    if not block.startswith(HEADER):
        return None
    lines = block.decode("ascii", "replace").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    try:
        return Environment(
            int(values["mender_boot_part"]), values["upgrade_available"] == "1", int(values["bootcount"])
        )
    except (KeyError, ValueError):
        return None


def build_partition(image: Path) -> None:
    """Write the file system with GRUB's configuration and the environment of a board that has no update."""
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        content = Path(name)
        shutil.copy(HERE / "loader/grub.cfg", content)
        values = {
            "mender_boot_part": "2",
            "mender_boot_part_hex": "2",
            "upgrade_available": "0",
            "bootcount": "0",
        }
        (content / "grubenv").write_bytes(pack(values))
        root_fs.make_file_system(image, root_fs.SIMPLE, LOADER.size, content)


def install(disk: Path) -> None:
    """Put GRUB's code into the first sector of a disk, and the rest of it in front of the first partition."""
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        early, core = Path(name) / "early.cfg", Path(name) / "core.img"
        early.write_text(_EARLY)
        subprocess.run(
            [
                *("grub-mkimage", "--format=i386-pc", f"--output={core}", f"--config={early}"),
                *("--prefix=(hd0,msdos1)/", *_MODULES),
            ],
            check=True,
        )
        with disk.open("r+b") as file:
            file.write((_DIRECTORY / "boot.img").read_bytes()[:440])  # the partition table comes after that
            file.seek(SECTOR)
            file.write(core.read_bytes())
