"""The bootstrap artifact: what a new device provides, installed by the first command that needs it."""

import subprocess
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device, newest_only
from helpers.real_daemon import need

from mender_oneshot.devserver import DevServer


@pytest.fixture
def device(device: Device) -> Device:
    """A device that has never installed anything."""
    (device.conf / "artifact_info").unlink()
    return device


def bootstrap(device: Device, **options: object) -> Path:
    """Put a bootstrap artifact into the image of the device."""
    defaults = {"payload_type": None, "payload": {}, "provides": {"rootfs-image.version": "factory"}}
    path = device.data / "bootstrap.mender"
    return make_artifact(path, name="factory", **(defaults | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["show-artifact", "show-provides"])
def test_the_first_command_installs_it(device: Device, command: str) -> None:
    path = bootstrap(device)
    done = device.ok(command)
    assert done.out.splitlines()[0] in ("factory", "artifact_name=factory")
    assert not path.exists()
    assert device.ok("show-provides").out == "artifact_name=factory\nrootfs-image.version=factory\n"
    assert (device.conf / "artifact_info").read_text() == device.ok("show-provides").out


def test_the_server_gets_what_it_provides(accepted: Device, server: DevServer) -> None:
    bootstrap(accepted)
    accepted.ok("send-inventory")
    inventory = dict(server.device().attributes)
    assert (inventory["artifact_name"], inventory["rootfs-image.version"]) == ("factory", "factory")


def test_it_satisfies_the_dependencies_of_the_first_update(device: Device, tmp_path: Path) -> None:
    bootstrap(device)
    update = make_artifact(tmp_path / "a.mender", depends={"rootfs-image.version": ["factory"]})
    assert "would be accepted" in device.ok("verify", str(update)).out


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_commands_that_change_nothing_leave_it(device: Device, command: str) -> None:
    path = bootstrap(device)
    device.run(command)
    assert path.exists()


def test_it_changes_nothing_on_a_device_with_a_name(device: Device) -> None:
    path = bootstrap(device)
    (device.conf / "artifact_info").write_text("artifact_name=release-1\n")
    assert device.ok("show-artifact").out == "release-1\n"
    assert not path.exists()
    assert not (device.data / "provides.json").exists()


BAD: dict[str, tuple[dict[str, object], str]] = {
    "for another device type": ({"device_types": ("other",)}, "device type"),
    "with a payload": ({"payload_type": "app", "payload": {"app": b"1"}}, "payload"),
    "corrupt": ({"checksums": {"version": "0" * 64}}, "checksum"),
    "that depends on another": ({"depends": {"artifact_name": ["release-1"]}}, "artifact_name"),
    "that provides too much": ({"provides": {"a": "b" * 70_000}}, "more than"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_that_is_rejected_is_removed_and_the_name_stays_unknown(device: Device, case: str) -> None:
    options, word = BAD[case]
    path = bootstrap(device, **options)
    done = device.ok("show-artifact")
    assert done.out == "unknown\n"
    assert word in done.err
    assert len(done.err.splitlines()) == 1
    assert not path.exists()
    assert device.ok("show-artifact").err == ""


def test_one_that_other_users_can_write_is_removed(device: Device) -> None:
    path = bootstrap(device)
    path.chmod(0o666)
    done = device.ok("show-artifact")
    assert (done.out, path.exists()) == ("unknown\n", False)
    assert "can be written by other users" in done.err


def test_it_waits_for_a_device_type(device: Device) -> None:
    path = bootstrap(device)
    (device.data / "device_type").unlink()
    done = device.ok("show-artifact")
    assert done.out == "unknown\n"
    assert "device_type=" in done.err
    assert path.exists()
    (device.data / "device_type").write_text("device_type=board\n")
    assert device.ok("show-artifact").out == "factory\n"


def test_an_unsigned_one_is_accepted_where_updates_must_be_signed(device: Device) -> None:
    bootstrap(device)
    device.configure(ArtifactVerifyKey=str(device.root / "no-such-key.pem"))
    assert device.ok("show-artifact").out == "factory\n"


def test_a_sub_updater_of_the_device_finds_it_in_artifact_info(device: Device) -> None:
    device.sub_updater()
    bootstrap(device)
    assert device.ok("show-artifact").out == "factory\n"
    assert (device.conf / "artifact_info").read_text().startswith("artifact_name=factory\n")


def test_it_is_found_by_commands_that_start_at_the_same_time(device: Device) -> None:
    bootstrap(device)
    started = [device.start("show-artifact") for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in started]
    assert [out for out, _ in outputs] == ["factory\n"] * 4
    assert [err for _, err in outputs] == [""] * 4


@pytest.mark.real
@newest_only
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "unlink"])
def test_a_power_cut_at_any_call_loses_nothing(device: Device, call: str) -> None:
    need("strace")
    info, number = device.conf / "artifact_info", 1
    while True:
        path = bootstrap(device)
        fault = f"inject={call}:signal=SIGKILL:when={number}"
        trace = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", fault)
        code = device.run("show-artifact", wrapper=trace).code
        assert device.ok("show-provides").out == "artifact_name=factory\nrootfs-image.version=factory\n"
        assert not path.exists()
        if code == 0:
            break
        number += 1
        info.unlink(missing_ok=True)
        (device.data / "provides.json").unlink()
    assert number > 1


@pytest.mark.real
@newest_only
def test_a_run_with_nothing_due_does_not_look_for_it(accepted: Device, tmp_path: Path) -> None:
    need("strace")
    accepted.ok("run", "--all")
    log = tmp_path / "calls"
    done = accepted.run("run", wrapper=("strace", "-f", "-o", str(log), "-e", "trace=file"))
    assert (done.code, done.out) == (0, "")
    assert "mender-oneshot.json" in log.read_text()
    assert "bootstrap" not in log.read_text()


@pytest.mark.real
def test_one_of_mender_artifact_is_installed(device: Device) -> None:
    need("mender-artifact")
    path = device.data / "bootstrap.mender"
    command = ["mender-artifact", "write", "bootstrap-artifact", "-t", "board", "-n", "factory"]
    subprocess.run(
        [*command, "--provides", "rootfs-image.version:factory", "-o", path], check=True, capture_output=True
    )
    path.chmod(0o644)
    assert device.ok("show-provides").out == "artifact_name=factory\nrootfs-image.version=factory\n"
