"""`rootfs-image`: an image into the inactive slot, booted as a trial, committed or rolled back."""

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.module_board import ModuleBoard, cut_at
from helpers.module_tree import Cut, Tree, ours
from helpers.real_daemon import need
from hypothesis import given, settings
from hypothesis import strategies as st

from mender_oneshot.modules import slots

SIZE = 2 << 20
IMAGE = random.Random("new").randbytes(SIZE - 100_000)
STYLES = ("libubootenv", "uboot", "grub")

Change = Callable[[ModuleBoard], Any]


@pytest.fixture(params=STYLES)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> ModuleBoard:
    return ModuleBoard(tmp_path, SIZE, request.param)


@pytest.fixture
def plain(tmp_path: Path) -> ModuleBoard:
    return ModuleBoard(tmp_path, SIZE)


def holds(board: ModuleBoard, slot: int, image: bytes) -> bool:
    return board.slots[slot].read_bytes()[: len(image)] == image


# --- a whole update


def test_an_update_is_booted_verified_and_committed(board: ModuleBoard) -> None:
    board.begin(IMAGE)
    assert holds(board, 3, IMAGE)
    assert board.slots[2].read_bytes() == bytes(SIZE)
    assert board.slots[3].read_bytes()[len(IMAGE) :] == bytes(100_000)
    assert board.boots == ("3", "1")
    assert (board.root / "env.calls").read_text() == "set\n"  # all variables in one call
    assert board.reboot() == 3
    board.tree.ok("ArtifactVerifyReboot")
    board.tree.ok("ArtifactCommit")
    assert board.boots == ("3", "0")
    board.tree.ok("ArtifactCommit")
    board.tree.ok("Cleanup")
    assert board.boots == ("3", "0")
    assert board.reboot() == 3


def test_the_next_update_goes_to_the_first_slot(board: ModuleBoard) -> None:
    board.begin(IMAGE)
    board.reboot()
    board.tree.ok("ArtifactCommit")
    board.new_tree()
    board.begin(IMAGE[::-1])
    assert holds(board, 2, IMAGE[::-1])
    assert holds(board, 3, IMAGE)
    assert board.boots == ("2", "1")


@pytest.mark.parametrize("rebooted", [True, False])
def test_a_rollback_returns_to_the_old_slot(board: ModuleBoard, rebooted: bool) -> None:
    board.begin(IMAGE)
    if rebooted:
        board.reboot()
    for _ in range(2):
        board.tree.ok("ArtifactRollback")
        assert board.boots == ("2", "0")
    assert board.reboot() == 2
    board.tree.ok("ArtifactVerifyRollbackReboot")
    board.tree.ok("Cleanup")
    assert board.boots == ("2", "0")


def test_an_update_without_a_reboot_is_seen(board: ModuleBoard) -> None:
    board.begin(IMAGE)
    assert "there was no reboot" in board.tree.rejects("ArtifactVerifyReboot")


def test_the_boot_loaders_own_rollback_is_seen(board: ModuleBoard) -> None:
    board.begin(IMAGE)
    board.reboot()
    assert board.reboot() == 2
    assert "the boot loader tried" in board.tree.rejects("ArtifactVerifyReboot")
    assert "Cannot commit the update: the old slot" in board.tree.rejects("ArtifactCommit")
    for _ in range(2):
        board.tree.ok("ArtifactRollback")
    board.tree.ok("ArtifactVerifyRollbackReboot")
    assert board.boots == ("2", "0")


def test_the_two_questions_tell_three_systems_apart(plain: ModuleBoard) -> None:
    plain.begin(IMAGE)
    assert plain.verdicts() == (False, False)  # the old one, which has not rebooted
    plain.reboot()
    assert plain.verdicts() == (True, False)  # the new one, uncommitted
    kept = plain.env.read_bytes()
    plain.tree.ok("ArtifactCommit")
    assert plain.verdicts() == (False, False)  # the new one, committed
    plain.env.write_bytes(kept)
    plain.reboot()
    assert plain.verdicts() == (False, True)  # the old one


def test_a_commit_that_is_rolled_back_returns_too(plain: ModuleBoard) -> None:
    plain.begin(IMAGE)
    plain.reboot()
    plain.tree.ok("ArtifactCommit")
    plain.tree.ok("ArtifactRollback")
    assert plain.boots == ("2", "0")


# --- what is written


def test_only_blocks_that_differ_are_written(plain: ModuleBoard) -> None:
    first = plain.download(IMAGE)
    assert f"Wrote {len(IMAGE)} of {len(IMAGE)} bytes to {plain.slots[3]}" in first.err
    changed = bytearray(IMAGE)
    changed[70_000] ^= 1
    changed[-1] ^= 1
    second = plain.download(bytes(changed))
    last = len(IMAGE) % 4096
    assert f"Wrote {4096 + last} of {len(IMAGE)} bytes" in second.err
    assert holds(plain, 3, bytes(changed))
    assert "Wrote 0 of" in plain.download(bytes(changed)).err


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, SIZE])
def test_every_length_that_fits_is_written(plain: ModuleBoard, length: int) -> None:
    image = random.Random(length).randbytes(length)
    assert plain.download(image).code == 0
    assert plain.slots[3].read_bytes() == image + bytes(SIZE - length)


def test_an_image_that_does_not_fit_is_rejected_before_a_byte_is_written(plain: ModuleBoard) -> None:
    done = plain.download(bytes(SIZE) + b"x")
    assert done.code == 1
    assert f"The image has {SIZE + 1} bytes, but {plain.slots[3]} holds {SIZE}" in done.err
    assert plain.slots[3].read_bytes() == bytes(SIZE)
    plain.tree.rejects("ArtifactInstall")


@pytest.mark.parametrize(
    ("images", "sizes", "expected"),
    [
        ([("a", b"x" * 9)], [10], "ends after 9 of 10 bytes"),
        ([("a", b"x" * 11)], [10], "longer than the 10 bytes"),
        ([("a", b"x"), ("b", b"y")], [], "more than one file"),
        ([], [], "no image"),
        ([("a", b"x")], ["many"], "not the name of a stream and its size"),
        ([("a", b"x")], [-1], "not the name of a stream and its size"),
    ],
)
def test_a_bad_payload_is_rejected_and_changes_no_variable(
    plain: ModuleBoard, images: list[tuple[str, bytes]], sizes: list[Any], expected: str
) -> None:
    done = plain.tree.feed(images, sizes=sizes)
    assert done.code == 1
    assert expected in done.err
    assert plain.boots == ("2", "0")
    assert "has not been written completely" in plain.tree.rejects("ArtifactInstall")
    plain.tree.ok("ArtifactRollback")
    assert plain.boots == ("2", "0")


def test_an_installation_can_be_repeated_until_the_reboot(plain: ModuleBoard) -> None:
    plain.begin(IMAGE)
    plain.tree.ok("ArtifactInstall")
    assert plain.boots == ("3", "1")


def test_an_image_that_was_complete_and_then_overwritten_in_part_is_not_installed(plain: ModuleBoard) -> None:
    assert plain.download(IMAGE).code == 0
    assert plain.download(IMAGE[::-1], sizes=[len(IMAGE) + 1]).code == 1
    assert "has not been written completely" in plain.tree.rejects("ArtifactInstall")


def test_a_name_with_blanks_is_a_name(plain: ModuleBoard) -> None:
    assert plain.tree.feed([("my image 10", IMAGE)]).code == 0
    assert holds(plain, 3, IMAGE)


def test_the_call_without_sizes_is_rejected(plain: ModuleBoard) -> None:
    assert "call DownloadWithFileSizes" in plain.tree.rejects("Download")


def ubi(board: ModuleBoard) -> None:
    """Make the slots volumes of UBI, with a program that writes them."""
    for number, name in ((2, "rootfs-a"), (3, "rootfs-b")):
        board.slots[number] = board.slots[number].rename(board.root / "dev" / f"ubi0_{number}")
        volume = board.root / "sys/class/ubi" / f"ubi0_{number}"
        volume.mkdir(parents=True)
        (volume / "name").write_text(f"{name}\n")
        (volume / "data_bytes").write_text(f"{SIZE}\n")
    board.configure(RootfsPartA="ubi0:rootfs-a", RootfsPartB="ubi0:rootfs-b")
    board.program("ubiupdatevol", f'#!/bin/sh\necho "$2" > {board.root}/ubi\nexec cat "$3" > "$1"\n')


@pytest.mark.parametrize("source", ["ubi0:rootfs-a", "ubi0_2", "/dev/root"])
def test_a_ubi_volume_is_written_by_its_own_program(plain: ModuleBoard, source: str) -> None:
    ubi(plain)
    plain.mount(source)
    (plain.root / "proc" / "cmdline").write_text("ubi.mtd=1 root=ubi0:rootfs-a rootfstype=ubifs\n")
    plain.begin(IMAGE)
    assert holds(plain, 3, IMAGE)
    assert (plain.root / "ubi").read_text() == f"--size={len(IMAGE)}\n"
    assert plain.boots == ("3", "1")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda b: b.program("ubiupdatevol", "#!/bin/sh\nexit 1\n"), "ubiupdatevol ended with exit code 1"),
        (lambda b: b.mount("ubi0_2", "40 27 0:98 / /b rw - ubifs ubi0:rootfs-b rw"), "it is mounted at /b"),
        (lambda b: (b.root / "sys/class/ubi/ubi0_3/data_bytes").write_text("9\n"), "ubi0_3 holds 9"),
    ],
)
def test_a_ubi_volume_that_cannot_be_written_is_an_error(
    plain: ModuleBoard, change: Change, expected: str
) -> None:
    ubi(plain)
    plain.mount("ubi0_2")
    change(plain)
    done = plain.download(IMAGE)
    assert done.code == 1
    assert expected in done.err
    plain.tree.rejects("ArtifactInstall")


# --- stale variables


def test_a_trial_that_a_lost_update_left_is_ended(board: ModuleBoard) -> None:
    board.set(upgrade_available=1, bootcount=1)
    done = board.download(IMAGE)
    assert done.code == 0
    assert done.err.startswith("Set upgrade_available=0 in the boot loader environment: an earlier update")
    assert board.boots == ("2", "0")
    board.tree.ok("ArtifactInstall")
    assert board.boots == ("3", "1")


def test_a_trial_of_the_other_slot_is_left_alone(plain: ModuleBoard) -> None:
    plain.set(mender_boot_part=3, upgrade_available=1)
    done = plain.download(IMAGE)
    assert done.code == 1
    assert "names the other slot" in done.err
    assert plain.boots == ("3", "1")
    assert plain.slots[2].read_bytes() == plain.slots[3].read_bytes() == bytes(SIZE)


def test_a_download_amid_its_own_trial_is_rejected(plain: ModuleBoard) -> None:
    plain.begin(IMAGE)
    plain.reboot()
    done = plain.download(IMAGE)
    assert done.code == 1
    assert "this update is under way already" in done.err
    assert plain.boots == ("3", "1")


def test_the_cleanup_leaves_no_trial_that_never_began(plain: ModuleBoard) -> None:
    plain.begin(IMAGE)
    plain.tree.ok("Cleanup")
    assert plain.boots == ("2", "0")


# --- a device that is not as it has to be

BAD: list[tuple[str, Change, str]] = [
    ("environment of another slot", lambda b: b.set(mender_boot_part=3), "names the other slot"),
    ("slot of no number", lambda b: b.set(mender_boot_part=4), "is the number of neither"),
    ("slot unknown", lambda b: b.set(mender_boot_part=""), "has no number in mender_boot_part"),
    ("root elsewhere", lambda b: b.mount("/dev/nfs"), "The root file system is on neither"),
    ("root on an overlay", lambda b: b.mount("overlay"), "The root file system is on neither"),
    ("canary missing", lambda b: b.set(mender_check_saveenv_canary=1), "but not mender_saveenv_canary=1"),
    ("unreadable", lambda b: (b.root / "broken").touch(), "Cannot read the boot loader environment"),
    ("not configured", lambda b: b.configure(), "RootfsPartA is not set"),
    ("one slot", lambda b: b.configure(RootfsPartA=str(b.slots[2])), "RootfsPartB is not set"),
    ("not JSON", lambda b: (b.conf / "mender.conf").write_text("{"), "is not JSON"),
    (
        "no number",
        lambda b: b.configure(RootfsPartA="/dev/a", RootfsPartB="/dev/b"),
        "leads to no device with a number",
    ),
    (
        "same number",
        lambda b: b.configure(RootfsPartA="/dev/a2", RootfsPartB="/dev/b2"),
        "both have the number 2",
    ),
    ("slot missing", lambda b: b.slots[3].unlink(), "No such file or directory"),
    (
        "slot mounted",
        lambda b: b.mount(b.slots[2], f"40 27 0:98 / /mnt/my\\040b rw - ext4 {b.slots[3]} rw"),
        "it is mounted at /mnt/my",
    ),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_download_on_a_bad_device_is_rejected_and_writes_nothing(
    plain: ModuleBoard, change: Change, expected: str
) -> None:
    change(plain)
    before = plain.env.read_bytes()
    done = plain.download(IMAGE)
    assert done.code == 1
    assert expected in done.err
    assert len(done.err.splitlines()) == 1
    assert plain.env.read_bytes() == before
    assert plain.slots[2].read_bytes() == bytes(SIZE)
    if plain.slots[3].is_file():
        assert plain.slots[3].read_bytes() == bytes(SIZE)


def test_a_canary_that_is_there_is_enough(board: ModuleBoard) -> None:
    board.set(mender_check_saveenv_canary=1, mender_saveenv_canary=1)
    board.begin(IMAGE)


def test_a_tool_that_writes_nothing_is_noticed(plain: ModuleBoard) -> None:
    plain.program("fw_setenv", "#!/bin/sh\nexit 0\n")
    assert plain.download(IMAGE).code == 0
    assert "fw_setenv changed nothing" in plain.tree.rejects("ArtifactInstall")
    plain.tree.ok("ArtifactRollback")


def test_an_unwritable_environment_fails_the_rollback_only_before_the_trial(plain: ModuleBoard) -> None:
    plain.begin(IMAGE)
    plain.program("fw_setenv", "#!/bin/sh\necho 'Read-only' >&2; exit 1\n")
    assert "fw_setenv ended with 1 (Read-only)" in plain.tree.rejects("ArtifactRollback")
    plain.reboot()
    done = plain.tree.ok("ArtifactRollback")
    assert "The boot loader ends the trial at the next boot." in done.err
    assert plain.reboot() == 2
    assert plain.verdicts() == (False, True)


@pytest.mark.parametrize(
    "change", [row[1] for row in BAD if row[0] in ("not configured", "not JSON", "unreadable")]
)
def test_a_new_system_without_the_configuration_rolls_back(plain: ModuleBoard, change: Change) -> None:
    kept = (plain.conf / "mender.conf").read_bytes()
    plain.begin(IMAGE)
    plain.reboot()
    change(plain)
    plain.tree.rejects("ArtifactVerifyReboot")
    plain.tree.ok("ArtifactRollback")
    (plain.root / "broken").unlink(missing_ok=True)
    (plain.conf / "mender.conf").write_bytes(kept)  # as the old system has it
    assert plain.reboot() == 2
    assert plain.verdicts() == (False, True)


def test_the_two_files_are_merged_with_the_second_first(plain: ModuleBoard) -> None:
    (plain.data / "mender.conf").write_text(
        f'{{"rootfsparta": "/dev/x2", "RootfsPartB": "{plain.slots[3]}"}}'
    )
    plain.configure(RootfsPartA=str(plain.slots[2]), ServerURL=7)
    plain.begin(IMAGE)


# --- which slot runs


@pytest.mark.parametrize(
    ("source", "command_line"),
    [
        ("/dev/root", "root={slot}"),
        ("/dev/root", "root=/dev/sda root={slot} rw"),
        ("/dev/root", "root=PARTUUID=AB-02"),
        ("/dev/root", 'root="PARTLABEL=rootA"'),
        ("overlay", "root=UUID=1-2"),
        ("/dev/root", "root=8:2"),
        ("{prefix}/dev/link", ""),
    ],
)
def test_the_root_is_found_by_each_of_its_names(plain: ModuleBoard, source: str, command_line: str) -> None:
    for link in (
        "disk/by-partuuid/ab-02",
        "disk/by-partlabel/rootA",
        "disk/by-uuid/1-2",
        "block/8:2",
        "link",
    ):
        path = plain.root / "dev" / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(plain.slots[2])
    plain.mount(source.format(prefix=plain.root))
    (plain.root / "proc" / "cmdline").write_text(f"quiet {command_line.format(slot=plain.slots[2])}\n")
    plain.begin(IMAGE)


@pytest.mark.parametrize("name", ["/dev/disk/by-partuuid/ab-02", "PARTUUID=ab-02", "/dev/root"])
def test_a_slot_is_found_by_each_of_its_names(plain: ModuleBoard, name: str) -> None:
    directory = plain.root / "dev/disk/by-partuuid"
    directory.mkdir(parents=True)
    (directory / "ab-02").symlink_to(plain.slots[2])
    (plain.root / "proc" / "cmdline").write_text("root=PARTUUID=ab-02\n")
    plain.configure(RootfsPartA=name, RootfsPartB=str(plain.slots[3]))
    plain.begin(IMAGE)


def test_a_real_root_is_found_by_its_device_number(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    node = tmp_path / "root2"
    os.mknod(node, stat.S_IFBLK | 0o600, os.stat("/").st_dev)
    here, other = slots.Slot(str(node), 2), slots.Slot("/dev/null3", 3)
    assert slots.mounted(slots.Board(), (other, here)) == here
    with pytest.raises(Exception, match="it is mounted as root; correct mender.conf"):
        slots.require_writable(slots.Board(), here)


def test_a_file_in_the_place_of_a_device_is_not_written(plain: ModuleBoard) -> None:
    tree = Tree(plain.root / "tree", ours("rootfs_image", arguments=f", board=Board({str(plain.root)!r})"))
    tree.environment = plain.tree.environment
    done = tree.feed([("image", IMAGE)])
    assert done.code == 1
    assert "it is not a block device; remove it" in done.err


# --- the real tools


@pytest.mark.real
def test_a_whole_update_with_the_real_tools_of_u_boot(plain: ModuleBoard) -> None:
    environment = plain.root / "uboot.env"
    environment.write_bytes(b"\0" * 0x10000)
    config = plain.root / "fw_env.config"
    config.write_text(f"{environment} 0x0000 0x4000\n{environment} 0x8000 0x4000\n")
    for name in ("fw_printenv", "fw_setenv"):
        need(name)
        real = shutil.which(name)
        plain.program(name, f'#!/bin/sh\nexec {real} -c {config} -f {plain.env} "$@"\n')

    def boots() -> str:
        words = [str(plain.programs / "fw_printenv"), "mender_boot_part", "upgrade_available", "bootcount"]
        return str(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    plain.begin(IMAGE)
    assert boots() == "mender_boot_part=3\nupgrade_available=1\nbootcount=0\n"
    plain.mount(plain.slots[3])
    assert plain.verdicts() == (True, False)
    plain.tree.ok("ArtifactCommit")
    assert boots() == "mender_boot_part=3\nupgrade_available=0\nbootcount=0\n"
    assert plain.verdicts() == (False, False)
    plain.tree.ok("ArtifactRollback")
    assert boots() == "mender_boot_part=2\nupgrade_available=0\nbootcount=0\n"


# --- power cuts


def image_part(at: int) -> bytes:
    part = IMAGE[at : at + 4096].ljust(4096, b"\0")
    return part if at % (3 * 4096) == 0 else bytes(4096)


def test_a_cut_in_the_download_harms_only_the_inactive_slot(plain: ModuleBoard) -> None:
    old = random.Random("old").randbytes(SIZE)
    for cut in [
        *(Cut("pwrite64", nth) for nth in (1, 2, 50, 150)),
        *(Cut("fsync", nth) for nth in range(1, 4)),
    ]:
        plain.new_tree()
        plain.slots[2].write_bytes(old)
        # Every third block is the same, so that the image is written in many pieces.
        plain.slots[3].write_bytes(b"".join(image_part(at) for at in range(0, SIZE, 4096)))
        done = plain.download(IMAGE, wrapper=cut_at(cut))
        assert done.code < 0 or done.code > 128, cut
        assert plain.slots[2].read_bytes() == old
        assert plain.boots == ("2", "0")
        plain.new_tree()
        plain.begin(IMAGE)
        assert holds(plain, 3, IMAGE)
        plain.set(mender_boot_part=2, upgrade_available=0)


@pytest.mark.parametrize("call", ["ArtifactInstall", "ArtifactCommit", "ArtifactRollback", "Cleanup"])
def test_a_cut_at_every_write_of_a_call_leaves_a_device_that_can_finish(
    plain: ModuleBoard, tmp_path: Path, call: str
) -> None:
    def prepare() -> None:
        plain.set(mender_boot_part=2, mender_boot_part_hex=2, upgrade_available=0, bootcount=0)
        plain.mount(plain.slots[2])
        plain.new_tree()
        assert plain.download(IMAGE).code == 0
        if call != "ArtifactInstall":
            plain.tree.ok("ArtifactInstall")
            if call != "Cleanup":
                plain.reboot()

    prepare()
    cuts = plain.tree.cuts(call, tmp_path / "log")
    assert cuts
    for cut in cuts:
        prepare()
        assert plain.tree.cut(call, cut), cut
        assert plain.boots in {("2", "0"), ("3", "1"), ("3", "0")}, cut
        if call == "ArtifactCommit" and plain.verdicts() != (True, False):
            assert plain.verdicts() == (False, False)  # it was committed
            plain.tree.ok(call)
            assert plain.boots == ("3", "0")
            continue
        plain.tree.ok("ArtifactRollback")
        assert plain.boots == ("2", "0"), cut
        assert plain.reboot() == 2
        assert plain.verdicts() == (False, True), cut


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["download", "ArtifactInstall", "reboot", "ArtifactCommit", "ArtifactRollback", "Cleanup"]
        ),
        st.none()
        | st.tuples(st.sampled_from(["pwrite64", "fsync", "vfork", "rename", "write"]), st.integers(1, 8)),
    ),
    max_size=8,
)


@settings(max_examples=12)
@given(style=st.sampled_from(STYLES), steps=STEPS)
def test_whatever_happens_the_running_slot_is_never_written_and_every_slot_that_boots_is_whole(
    tmp_path_factory: pytest.TempPathFactory, style: str, steps: list[tuple[str, tuple[str, int] | None]]
) -> None:
    root = tmp_path_factory.mktemp("board")
    board = ModuleBoard(root, 1 << 19, style)
    first = random.Random("first").randbytes(1 << 19)
    images = [random.Random(number).randbytes(1 << 19) for number in range(len(steps))]
    board.slots[2].write_bytes(first)
    whole = {first, *images}
    for image, (step, kill) in zip(images, steps, strict=True):
        running = board.slots[board.running].read_bytes()
        cut = Cut(*kill) if kill else None
        if step == "reboot":
            board.reboot()
        elif step == "download":
            board.new_tree()
            board.download(image, wrapper=cut_at(cut) if cut else ())
        elif cut:
            board.tree.cut(step, cut)
        else:
            board.tree.call(step)
        if step != "reboot":
            assert board.slots[board.running].read_bytes() == running
        assert board.slots[int(board.boots[0])].read_bytes() in whole
    shutil.rmtree(root)
