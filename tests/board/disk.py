"""The disk of the board: its partitions put together without a mount or a loop device."""

import os
import subprocess
from pathlib import Path

from . import boot_loader
from .layout import DATA, DISK_SIZE, LOADER, PARTITIONS, ROOT_A, SECTOR, Partition

_PIECE = 1 << 20


def build(disk: Path, loader: Path, root: Path, data: Path) -> None:
    """Write a disk with one root file system in slot A, none in slot B."""
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
    table = "label: dos\n" + "".join(
        f"start={part.start // SECTOR}, size={part.size // SECTOR}, type=83\n" for part in PARTITIONS
    )
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)],
        input=table.encode(),
        env=os.environ | {"PATH": path},
        check=True,
    )
    boot_loader.install(disk)
    for part, image in ((LOADER, loader), (ROOT_A, root), (DATA, data)):
        write(disk, part, image)


def write(disk: Path, part: Partition, image: Path) -> None:
    """Write an image into a partition; its zeros are left out."""
    with image.open("rb") as source, disk.open("r+b") as target:
        target.seek(part.start)
        while piece := source.read(_PIECE):
            if piece.count(0) == len(piece):
                target.seek(len(piece), os.SEEK_CUR)
            else:
                target.write(piece)


def holds(disk: Path, part: Partition, image: Path) -> bool:
    """Return whether a partition holds exactly an image."""
    with image.open("rb") as wanted, disk.open("rb") as found:
        found.seek(part.start)
        while piece := wanted.read(_PIECE):
            if found.read(len(piece)) != piece:
                return False
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a disk without the room that it does not use."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)], check=True)
