"""Boot loader tools that hang, flood, lie or are missing, and slots that are none: nothing is written."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import REPO, Device, newest_only
from helpers.module_board import ModuleBoard

from mender_oneshot import errors
from mender_oneshot.modules import boot_environment

SIZE = 1 << 20
IMAGE = random.Random("bad").randbytes(SIZE - 4096)

Change = Callable[[ModuleBoard], object]


@pytest.fixture
def board(tmp_path: Path) -> ModuleBoard:
    """A board whose tools have half a second."""
    made = ModuleBoard(tmp_path / "board", SIZE)
    *python, code = made.tree.module
    short = "from mender_oneshot.modules import programs; programs.CAPTURE_SECONDS = 0.5; "
    made.tree.module = (*python, f"import sys; sys.path.append({str(REPO)!r}); {short}{code}")
    return made


def tool(name: str, text: str) -> Change:
    return lambda board: board.program(name, f"#!/bin/sh\n{text}\n")


TOOLS: dict[str, tuple[Change, str]] = {
    "hangs": (tool("fw_printenv", "sleep 60"), "it timed out"),
    "hangs with a child": (tool("fw_printenv", "sleep 60 & wait"), "it timed out"),
    "prints, then hangs": (tool("fw_printenv", "echo mender_boot_part=2; sleep 60"), "it timed out"),
    "floods": (tool("fw_printenv", "exec yes mender_boot_part=2"), "it printed more than 1048576 bytes"),
    "floods stderr": (tool("fw_printenv", "head -c 9000000 /dev/zero >&2; exit 1"), "exit code 1"),
    "prints nothing": (tool("fw_printenv", ":"), "has no number in mender_boot_part"),
    "prints bytes": (tool("fw_printenv", r"printf '\377\000=\n=\n'"), "has no number in mender_boot_part"),
    "prints no number": (
        tool("fw_printenv", "echo mender_boot_part=2x"),
        "has no number in mender_boot_part",
    ),
    "prints a negative": (
        tool("fw_printenv", "echo mender_boot_part=-2"),
        "has no number in mender_boot_part",
    ),
    "prints a long one": (
        tool("fw_printenv", "head -c 5000 /dev/zero | tr '\\0' 2 | sed 's/^/mender_boot_part=/'"),
        "has no number in mender_boot_part",
    ),
    "is killed": (tool("fw_printenv", "kill -SEGV $$"), "fw_printenv was killed by signal 11"),
    "fails": (tool("fw_printenv", "echo 'Bad CRC' >&2; exit 1"), "(Bad CRC)"),
    "cannot be started": (
        lambda board: board.program("fw_printenv", "#!/no/such\n"),
        "names the interpreter /no/such, which cannot be used",
    ),
}


@pytest.mark.parametrize("case", TOOLS)
def test_a_tool_that_cannot_read_fails_the_download_and_nothing_is_written(
    board: ModuleBoard, case: str
) -> None:
    change, words = TOOLS[case]
    reader = (board.programs / "fw_printenv").read_text()
    change(board)
    done = board.download(IMAGE)
    assert done.code == 1
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert len(done.err) < 5000
    assert done.err.strip().isprintable()
    assert [slot.read_bytes() for slot in board.slots.values()] == [bytes(SIZE)] * 2
    board.program("fw_printenv", reader)
    assert board.download(IMAGE).code == 0


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.Error, match="neither fw_printenv nor grub-mender-grubenv-print is installed"):
        boot_environment.load()


@pytest.mark.parametrize("text", ["sleep 60", "exec yes", "exit 0", "exit 1", "cat >/dev/null; kill -9 $$"])
def test_a_tool_that_cannot_write_leaves_the_old_system_to_boot(board: ModuleBoard, text: str) -> None:
    assert board.download(IMAGE).code == 0
    writer = (board.programs / "fw_setenv").read_text()
    tool("fw_setenv", text)(board)
    assert "fw_setenv" in board.tree.rejects("ArtifactInstall")
    assert board.boots == ("2", "0")
    board.tree.ok("ArtifactRollback")
    board.program("fw_setenv", writer)
    board.tree.ok("ArtifactInstall")
    assert board.boots == ("3", "1")


@pytest.mark.parametrize("call", ["ArtifactVerifyReboot", "ArtifactCommit", "ArtifactVerifyRollbackReboot"])
def test_a_tool_that_hangs_in_the_new_system_does_not_hang_the_call(board: ModuleBoard, call: str) -> None:
    board.begin(IMAGE)
    board.reboot()
    tool("fw_printenv", "sleep 60")(board)
    assert "it timed out" in board.tree.rejects(call)
    assert "The boot loader ends the trial at the next boot." in board.tree.ok("ArtifactRollback").err
    assert board.reboot() == 2


def other_slot(make: Callable[[Path], object]) -> Change:
    def change(board: ModuleBoard) -> None:
        board.slots[3].unlink()
        make(board.slots[3])

    return change


def links_to_one_device(board: ModuleBoard) -> None:
    directory = board.root / "dev" / "disk" / "by-partlabel"
    directory.mkdir(parents=True)
    for name in ("a", "b"):
        (directory / name).symlink_to(board.slots[2])
    board.configure(RootfsPartA="/dev/disk/by-partlabel/a", RootfsPartB="/dev/disk/by-partlabel/b")


SLOTS: dict[str, tuple[Change, str]] = {
    "the same twice": (
        lambda b: b.configure(RootfsPartA=str(b.slots[2]), RootfsPartB=str(b.slots[2])),
        "both have the number 2",
    ),
    "two links to one": (links_to_one_device, "both have the number 2"),
    "a directory": (other_slot(Path.mkdir), "it is not a block device"),
    "a FIFO": (other_slot(os.mkfifo), "it is not a block device"),
    "a link to another device": (other_slot(lambda path: path.symlink_to("/dev/null")), "leads to no device"),
    "a dangling link": (other_slot(lambda path: path.symlink_to("nothing")), "leads to no device"),
    "empty": (other_slot(Path.touch), "holds 0"),
    "too small": (other_slot(lambda path: path.write_bytes(bytes(4096))), "holds 4096"),
    "a number": (lambda b: b.configure(RootfsPartA=2, RootfsPartB=3), "RootfsPartA is not set"),
    "a directory's name": (
        lambda b: b.configure(RootfsPartA="/dev/", RootfsPartB="/dev/"),
        "leads to no device with a number",
    ),
}


@pytest.mark.parametrize("case", SLOTS)
def test_a_slot_that_is_none_is_not_written(board: ModuleBoard, case: str) -> None:
    change, words = SLOTS[case]
    change(board)
    done = board.download(IMAGE)
    assert done.code == 1
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert board.slots[2].read_bytes() == bytes(SIZE)
    assert board.boots == ("2", "0")


@newest_only
def test_an_image_for_a_device_without_slots_fails_with_the_reason_in_the_log(
    tmp_path: Path, python: str
) -> None:
    device = Device(tmp_path / "device", python)
    path = make_artifact(tmp_path / "a.mender", payload={"a.ext4": IMAGE}, payload_type="rootfs-image")
    done = device.run("install", str(path))
    assert done.code == 70
    assert "RootfsPartA is not set, so the slots are unknown" in done.err
    assert "failed in DownloadWithFileSizes (exit code 1); its output is in the log" in done.err
    assert device.ok("show-artifact").out == "release-1\n"
