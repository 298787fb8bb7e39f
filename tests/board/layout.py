"""Where things are: the partitions of the board's disk, and the files that are built once and kept."""

from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
CACHE = REPO / "build" / "board"
HERE = Path(__file__).resolve().parent

SECTOR = 512
MIB = 1 << 20


class Partition(NamedTuple):
    """A part of the disk, in bytes; `number` is GRUB's and Linux's."""

    number: int
    start: int
    size: int

    @property
    def device(self) -> str:
        """The device in the running system."""
        return f"/dev/vda{self.number}"


LOADER = Partition(1, 1 * MIB, 8 * MIB)
ROOT_A = Partition(2, 9 * MIB, 56 * MIB)
ROOT_B = Partition(3, 65 * MIB, 56 * MIB)
DATA = Partition(4, 121 * MIB, 64 * MIB)
PARTITIONS = (LOADER, ROOT_A, ROOT_B, DATA)
DISK_SIZE = DATA.start + DATA.size

GUEST_SERVER = "10.0.2.100"
API_PORT = 8443
STORAGE_PORT = 8444
