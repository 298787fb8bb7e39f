"""What `doctor` finds wrong with update modules, state scripts, health checks, slots and the boot loader."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.device import Device, newest_only, patch_python
from helpers.module_board import ModuleBoard
from helpers.update_module import Recorder, device_script

from mender_oneshot import paths
from mender_oneshot.errors import SettingsError
from mender_oneshot.installation_checks import slots
from mender_oneshot.modules.slots import Board
from mender_oneshot.settings import Settings

SIZE = 1 << 20


def wrong(device: Device) -> dict[str, list[str]]:
    """The messages about what is wrong, by the name of the check."""
    found: dict[str, list[str]] = {}
    for check in device.run("doctor", "--json").json["checks"]:
        if not check["ok"] and check["name"] != "authorization":
            found.setdefault(check["name"], []).append(check["message"])
    return found


def check_file(device: Device, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    directory = device.conf / "checks.d"
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return path


def script(name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> "Break":
    """Return a function that installs a state script of the device."""
    return lambda device: device_script(device, name, text).chmod(mode)


def test_a_device_with_all_of_them_has_nothing_wrong(device: Device) -> None:
    Recorder(device)
    device_script(device, "Download_Enter_00_ask", "#!/bin/sh\n")
    (device.conf / "scripts" / "version").write_text("3\n")
    check_file(device, "10-web")
    assert wrong(device) == {}
    done = device.run("doctor").out
    for line in (
        "All update modules can be started.",
        "All state scripts can be started.",
        "All health checks can be started.",
    ):
        assert line in done
    assert "payload types: deb, directory, fake, " in done


Break = Callable[[Device], object]
CASES: dict[str, tuple[Break, str, str]] = {
    "module that is not executable": (
        lambda device: Recorder(device).program.chmod(0o644), "update modules", "not executable",
    ),
    "module without its interpreter": (
        lambda device: Recorder(device).program.write_text("#!/no/shell\n"), "update modules", "/no/shell",
    ),
    "script of an unknown state": (
        script("Downlaod_Enter_00"), "state scripts", "never run",
    ),
    "script without a number": (
        script("Download_Enter"), "state scripts", "STATE_ACTION_NN",
    ),
    "script that belongs into the artifact": (
        script("ArtifactInstall_Enter_00"),
        "state scripts", "mender-artifact write --script",
    ),
    "script that is not executable": (
        script("Sync_Enter_00", mode=0o644),
        "state scripts", "not executable",
    ),
    "script with Windows line endings": (
        script("Sync_Enter_00", "#!/bin/sh\r\n"), "state scripts", "sed -i",
    ),
    "scripts of another version": (
        script("version", "1\n"), "state scripts", "2 and 3 are supported",
    ),
    "health check that is not executable": (
        lambda device: check_file(device, "10-web", mode=0o644), "health checks", "not executable",
    ),
    "health check without an interpreter": (
        lambda device: check_file(device, "10-web", "true\n"), "health checks", "#!/bin/sh",
    ),
    "health check that others can write": (
        lambda device: check_file(device, "10-web", mode=0o777), "permissions", "chmod go-w",
    ),
    "script that others can write": (
        script("Sync_Enter_00", mode=0o777), "permissions", "chmod go-w",
    ),
    "noexec": (
        lambda device: patch_python(
            device,
            "import os\n"
            "statvfs = os.statvfs\n"
            "def noexec(path):\n"
            "    found = list(statvfs(path))\n"
            "    found[8] |= os.ST_NOEXEC\n"
            "    return os.statvfs_result(found)\n"
            "os.statvfs = noexec\n",
        ),
        "update modules", "noexec",
    ),
}  # fmt: skip


@newest_only
@pytest.mark.parametrize("case", CASES)
def test_the_one_thing_that_is_wrong(device: Device, case: str) -> None:
    ruin, name, words = CASES[case]
    ruin(device)
    found = wrong(device)
    assert list(found) == [name]
    [message] = found[name]
    assert words in message


@newest_only
def test_each_broken_module_is_named(device: Device) -> None:
    for name in ("one", "two"):
        (device.scripts / "modules" / "v3").mkdir(parents=True, exist_ok=True)
        device.script(f"modules/v3/{name}", "#!/bin/sh\n", 0o644)
    assert [message.split("'")[1] for message in wrong(device)["update modules"]] == ["one", "two"]


@newest_only
def test_a_device_with_a_sub_updater_needs_no_modules(device: Device) -> None:
    Recorder(device).program.chmod(0o644)
    check_file(device, "10-web", mode=0o644)
    device.configure(RootfsPartA="/dev/a1", RootfsPartB="/dev/a2")
    device.sub_updater()
    assert wrong(device) == {}


@newest_only
def test_slots_that_do_not_exist_are_found(device: Device) -> None:
    device.configure(RootfsPartA="/dev/nothing1", RootfsPartB="/dev/nothing2")
    assert list(wrong(device)) == ["slots"]


# --- slots and boot loader, on a made-up board


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleBoard:
    made = ModuleBoard(tmp_path, SIZE)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    monkeypatch.setenv("MENDER_CONF_DIR", str(made.conf))
    monkeypatch.setenv("MENDER_DATASTORE_DIR", str(made.data))
    return made


def examined(board: ModuleBoard) -> str:
    return slots(Settings(paths.find_places()), Board(str(board.root)))


def test_slots_and_boot_loader_that_fit_are_described(board: ModuleBoard) -> None:
    assert examined(board) == f"{board.slots[2]} is running, {board.slots[3]} is free for the next update."


BOARDS: dict[str, tuple[Callable[[ModuleBoard], object], str]] = {
    "no tools": (lambda board: (board.programs / "fw_printenv").unlink(), "fw_printenv"),
    "an environment that cannot be read": (
        lambda board: (board.root / "broken").touch(),
        "/etc/fw_env.config",
    ),
    "a canary that is missing": (
        lambda board: board.set(mender_check_saveenv_canary=1),
        "mender_saveenv_canary",
    ),
    "a trial that was left over": (
        lambda board: board.set(upgrade_available=1),
        "fw_setenv upgrade_available 0",
    ),
    "another slot than the mounted one": (lambda board: board.set(mender_boot_part=3), "reboot"),
    "an unknown slot": (lambda board: board.set(mender_boot_part=7), "mender_boot_part=7"),
    "another root": (lambda board: board.mount("/dev/sda1"), "on neither"),
    "a slot that is missing": (lambda board: board.slots[3].unlink(), "board1p3"),
    "slots of two sizes": (lambda board: board.slots[3].write_bytes(bytes(SIZE // 2)), "same size"),
    "one slot twice": (
        lambda board: board.configure(RootfsPartA=str(board.slots[2]), RootfsPartB=str(board.slots[2])),
        "both have the number 2",
    ),
    "no second slot": (
        lambda board: board.configure(RootfsPartA=str(board.slots[2])),
        "RootfsPartB is not set",
    ),
}


@pytest.mark.parametrize("case", BOARDS)
def test_what_does_not_fit_is_named(board: ModuleBoard, case: str) -> None:
    ruin, words = BOARDS[case]
    ruin(board)
    with pytest.raises(SettingsError) as caught:
        examined(board)
    assert words in str(caught.value)


def test_slots_are_not_judged_during_an_update(board: ModuleBoard) -> None:
    board.set(mender_boot_part=3, upgrade_available=1)
    (board.data / "update.lock").touch()
    assert "being installed" in examined(board)
