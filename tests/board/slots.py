"""What a board has in its slots when it is at rest, seen from outside."""

from pathlib import Path

from . import boot_loader, disk
from .build import NEW, OLD, Built
from .layout import LOADER, ROOT_A, ROOT_B


def problems_of(board: Path, built: Built, status: str) -> list[str]:
    """Return what is wrong with the slots of a board that has come to rest."""
    with board.open("rb") as file:
        file.seek(LOADER.start)
        content = file.read(LOADER.size)
    at = content.index(boot_loader.HEADER + b"mender_boot_part")
    environment = boot_loader.parse(content[at : at + boot_loader.BLOCK])
    part, release = (ROOT_B, NEW) if status == "success" else (ROOT_A, OLD)
    problems = []
    if environment is None or (environment.slot, environment.upgrade_available) != (part.number, False):
        problems.append(f"after {status} the boot loader has {environment}")
    if not disk.holds(board, part, built.root(release)):
        problems.append(f"{part.device} is not exactly the image of {release}")
    return problems
