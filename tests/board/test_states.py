"""Which cuts leave the same board."""

from pathlib import Path

import pytest

from board import boot_loader, disk, root_fs, states
from board.build import NEW, OLD, Built
from board.layout import DATA, DISK_SIZE, LOADER, MIB, ROOT_A, ROOT_B, SECTOR
from board.replay import LOST_SOME, RECORDED, TORN, Cut
from board.write_log import Entry, WriteLog
from mender_oneshot.devserver.operations import Snapshot

SERVER = Snapshot({}, {})
NOTE = b"what the device has noted" + bytes(4096 - 25)
AT_REST = {
    "mender_boot_part": "2",
    "mender_boot_part_hex": "2",
    "upgrade_available": "0",
    "bootcount": "0",
}


class Board:
    """A board without Debian in its slots, and a record of writes to it that grows."""

    def __init__(self, directory: Path) -> None:
        self.built = Built(directory)
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self._log = directory / "writes.log"
        self._log.touch()
        self.entries: list[Entry] = []
        for release, fill in ((OLD, b"old"), (NEW, b"new")):
            self.built.root(release).write_bytes(fill.ljust(ROOT_A.size, b"\0"))
        files = {
            LOADER: {"grubenv": boot_loader.pack(AT_REST)},
            DATA: {"note": NOTE, "device_type": b"board"},
        }
        with self.built.disk.open("wb") as file:
            file.truncate(DISK_SIZE)
        for part, kind in ((LOADER, root_fs.SIMPLE), (DATA, root_fs.JOURNALED)):
            content = directory / str(part.number)
            content.mkdir()
            for name, data in files[part].items():
                (content / name).write_bytes(data)
            image = directory / f"{part.number}.img"
            root_fs.make_file_system(image, kind, part.size, content)
            disk.write(self.built.disk, part, image)
        disk.write(self.built.disk, ROOT_A, self.built.root(OLD))
        self.content = self.built.disk.read_bytes()

    def write(self, at: int, data: bytes) -> Cut:
        """Record a write, and return the cut after it."""
        data = data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")
        self.entries.append(Entry(at, len(data), 0, self._log.stat().st_size))
        with self._log.open("ab") as file:
            file.write(data)
        return Cut(len(self.entries), RECORDED)

    def set_environment(self, **values: str) -> Cut:
        """Record the change of the boot loader's environment."""
        at = self.content.index(boot_loader.HEADER + b"mender_boot_part", LOADER.start)
        return self.write(at, boot_loader.pack(AT_REST | values))

    def after(self, cut: Cut, server: Snapshot = SERVER) -> str:
        """Return the state after a cut."""
        log = WriteLog(self._log, SECTOR, tuple(self.entries))
        return states.States(self.built, log, self.scratch).after(cut, server)


BEFORE = Cut(0, RECORDED)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_a_piece_of_a_slot_that_is_not_booted_leaves_the_same_board(board: Board) -> None:
    first = board.write(ROOT_B.start, b"new")
    second = board.write(ROOT_B.start + MIB, b"something else")
    assert board.after(first) != board.after(BEFORE), "the slot holds the whole image now"
    third = board.write(ROOT_B.start + 2 * MIB, b"more")
    assert board.after(second) == board.after(third) == board.after(BEFORE)


def test_every_byte_of_a_slot_on_trial_counts(board: Board) -> None:
    trial = board.set_environment(mender_boot_part="3", upgrade_available="1")
    first = board.write(ROOT_B.start + MIB, b"something")
    second = board.write(ROOT_B.start + MIB, b"something else")
    assert len({board.after(cut) for cut in (BEFORE, trial, first, second)}) == 4


def test_a_block_that_no_file_uses_leaves_the_same_board(board: Board) -> None:
    unused = board.write(DATA.start + DATA.size - 8 * MIB, b"nothing points here")
    assert board.after(unused) == board.after(BEFORE)


def test_another_content_of_a_file_leaves_another_board(board: Board) -> None:
    at = board.content.index(NOTE, DATA.start)
    changed = board.write(at, b"something else")
    back = board.write(at, NOTE)
    assert board.after(changed) != board.after(BEFORE)
    assert board.after(back) == board.after(BEFORE)


def test_a_torn_environment_is_compared_as_it_is_on_the_disk(board: Board) -> None:
    whole = board.set_environment(bootcount="1")
    assert board.after(Cut(0, TORN)) == board.after(whole), "all variables are in the first sector"
    assert board.after(whole) != board.after(BEFORE)


def test_the_server_belongs_to_the_state(board: Board) -> None:
    assert board.after(BEFORE, Snapshot({"one": None}, {})) != board.after(BEFORE)  # type: ignore[dict-item]


def test_a_file_system_that_lost_a_block_is_inconsistent(board: Board) -> None:
    broken = board.write(DATA.start + 4096, bytes(4096))
    with pytest.raises(states.Inconsistent, match="e2fsck"):
        board.after(broken)


def test_cuts_are_grouped_by_what_they_leave_and_in_order(board: Board) -> None:
    class Recorded:
        directory = board.scratch

        def server_at(self, _entries: int) -> Snapshot:
            return SERVER

    board.write(ROOT_B.start + MIB, b"one")
    board.write(ROOT_B.start + 2 * MIB, b"two")
    trial = board.set_environment(mender_boot_part="3", upgrade_available="1")
    cuts = [BEFORE, Cut(1, RECORDED), Cut(2, LOST_SOME, 1), trial]
    log = WriteLog(board.scratch.parent / "writes.log", SECTOR, tuple(board.entries))
    for _again in range(2):
        found = states.groups(board.built, Recorded(), log, cuts)
        assert [group.cuts for group in found] == [tuple(cuts[:3]), (trial,)]
