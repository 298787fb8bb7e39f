"""A check that finds nothing writes nothing to flash; its time is in /run, and a reboot may forget it."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.clock_and_disk import Traffic
from helpers.device import Device, Release, newest_only

from mender_oneshot.devserver import DevServer

pytestmark = newest_only  # both sets of libraries write with the same system calls

STATE = "mender-oneshot.json"
BY_NAME, BY_TIMER, WHOLE = ["check-update"], ["run"], ["run", "--all"]


def on_flash(device: Device) -> dict[str, tuple[int, int, int]]:
    """Return what changes when the data directory, or a file in it, is written to."""
    found = {path: path.stat() for path in (device.data, *device.data.iterdir())}
    return {str(path): (one.st_ino, one.st_mtime_ns, one.st_ctime_ns) for path, one in found.items()}


def last_check(device: Device) -> float:
    return float(device.ok("status", "--json").json["checked_at"])


@pytest.fixture
def polling(accepted: Device) -> Device:
    """A device that has checked for an update since it was started, half an hour ago and more."""
    accepted.ok("run", "--all")
    accepted.let_time_pass(2000, expire=False)
    return accepted


@pytest.mark.parametrize("words", [BY_NAME, BY_TIMER, WHOLE])
def test_a_check_without_news_writes_nothing_to_flash(
    polling: Device, server: DevServer, words: list[str]
) -> None:
    asked, before, began = Traffic(server), on_flash(polling), time.time()
    polling.ok(*words)
    assert (asked.new(), on_flash(polling)) == (["next"], before)
    assert last_check(polling) >= began
    assert polling.ok("run", "--dry-run").out.startswith("Would do nothing now.")
    polling.ok(*WHOLE)
    assert asked.new() == []


def test_the_day_of_a_device_writes_the_time_of_a_check_once(polling: Device, server: DevServer) -> None:
    """Without inventories, which save it as well."""
    polling.configure(InventoryPollIntervalSeconds=10**6)
    asked, writes = Traffic(server), 0
    for _ in range(50):
        before = on_flash(polling)
        polling.ok("run", "--only", "update")
        writes += on_flash(polling) != before
        polling.let_time_pass(1800, expire=False)
        assert last_check(polling) - polling.state["checked_at"] < 86400
    assert (asked.new(), writes) == (["next"] * 50, 1)


def test_whatever_else_is_saved_saves_the_time_too(polling: Device) -> None:
    polling.ok("check-update")
    polling.ok("send-inventory")
    assert polling.state["checked_at"] == last_check(polling)
    before = on_flash(polling)
    polling.ok("check-update")
    assert on_flash(polling) == before


def test_a_check_that_fails_is_remembered_across_a_reboot(polling: Device, server: DevServer) -> None:
    server.faults.add(match="* */next", status=503, count=None)
    assert polling.run("run").code == 75
    polling.reboot()
    asked = Traffic(server)
    polling.ok("run")
    assert (asked.new(), polling.failures) == ([], {"check-update": 1})


def test_an_update_that_a_quiet_check_finds_is_saved(polling: Device, release: Release) -> None:
    polling.ok("check-update")
    deployment = release()
    polling.ok("check-update")
    polling.reboot()
    assert polling.deployment == deployment


def test_a_reboot_forgets_the_last_check_and_nothing_else(polling: Device, server: DevServer) -> None:
    known = polling.state
    polling.ok("check-update")
    polling.reboot()
    assert (polling.state, last_check(polling)) == (known, known["checked_at"])
    asked = Traffic(server)
    polling.ok("run", "--all")
    assert asked.new() == ["next"]
    assert {**polling.state, "checked_at": known["checked_at"]} == known


def test_a_device_that_restarts_often_checks_no_more_often(polling: Device, server: DevServer) -> None:
    asked = Traffic(server)
    for _ in range(4):
        polling.reboot()
        polling.ok("run", "--all")
        polling.let_time_pass(300, expire=False)
    assert asked.new() == ["next"]


def plant(text: str) -> Callable[[Device, dict[str, Any]], object]:
    return lambda device, _: device.last_check.write_text(text)


def claim(**members: Any) -> Callable[[Device, dict[str, Any]], object]:
    return lambda device, note: device.last_check.write_text(json.dumps(note | members))


def in_future(device: Device, note: dict[str, Any]) -> None:
    device.last_check.write_text(json.dumps(note | {"at": time.time() + 3600}))


def just_now(device: Device, note: dict[str, Any]) -> None:
    """Write what would prevent the check, if it was taken."""
    device.last_check.write_text(json.dumps(note | {"at": time.time() - 10}))


def of_another_user(device: Device, note: dict[str, Any]) -> None:
    just_now(device, note)
    os.chown(device.last_check, 65534, 65534)


def writable_by_others(device: Device, note: dict[str, Any]) -> None:
    just_now(device, note)
    device.last_check.chmod(0o666)


def link(device: Device, note: dict[str, Any]) -> None:
    just_now(device, note)
    device.last_check.rename(device.root / "target")
    device.last_check.symlink_to(device.root / "target")


def second_name(device: Device, note: dict[str, Any]) -> None:
    just_now(device, note)
    os.link(device.last_check, device.root / "second")


def directory(device: Device, _: dict[str, Any]) -> None:
    device.last_check.unlink()
    device.last_check.mkdir()


def fifo(device: Device, _: dict[str, Any]) -> None:
    device.last_check.unlink()
    os.mkfifo(device.last_check)


def foreign_directory(device: Device, note: dict[str, Any]) -> None:
    of_another_user(device, note)
    os.chown(device.last_check.parent, 65534, 65534)
    device.last_check.parent.chmod(0o777)


ODD: dict[str, Callable[[Device, dict[str, Any]], object]] = {
    "empty": plant(""),
    "no JSON": plant("{"),
    "no object": plant("[1, 2, true]"),
    "no number": claim(at="now"),
    "not a number": claim(at=float("nan")),
    "infinite": claim(at=float("inf")),
    "in the future": in_future,
    "for another state": lambda device, _: claim(in_state=1.0, at=time.time() - 10)(device, {"sure": True}),
    "before the state": claim(at=1.0),
    "of another user": of_another_user,
    "writable by others": writable_by_others,
    "a link": link,
    "with a second name": second_name,
    "a directory": directory,
    "a FIFO": fifo,
    "in the directory of another user": foreign_directory,
}


@pytest.mark.parametrize("planted", ODD)
def test_a_planted_file_prevents_no_check(polling: Device, server: DevServer, planted: str) -> None:
    if os.geteuid() and "user" in planted:
        pytest.skip("only root can give a file to another user")
    ODD[planted](polling, json.loads(polling.last_check.read_text()))
    asked = Traffic(server)
    done = polling.ok("run", "--all")
    assert (asked.new(), done.err) == (["next"], "")
    polling.ok("run", "--all")
    assert asked.new() == []


def test_a_file_that_only_claims_to_be_ours_would_prevent_it(polling: Device, server: DevServer) -> None:
    """Or the table above would prove nothing."""
    just_now(polling, json.loads(polling.last_check.read_text()))
    asked = Traffic(server)
    polling.ok("run", "--all")
    assert asked.new() == []


def test_the_file_is_readable_by_its_owner_only(polling: Device) -> None:
    assert polling.last_check.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["a file", "/proc/none"])
def test_without_a_run_directory_the_state_has_the_time(
    accepted: Device, server: DevServer, place: str
) -> None:
    (accepted.root / "run").touch()
    accepted.environment["MENDER_RUN_DIR"] = str(accepted.root / "run") if place == "a file" else place
    accepted.ok("run", "--all")
    asked = Traffic(server)
    for _ in range(2):
        accepted.make_hours_old("check-update", 1)
        for _ in range(2):
            done = accepted.ok("run", "--all")
            assert done.err == ""
        assert asked.new() == ["next"]
        assert accepted.state["checked_at"] == last_check(accepted)


def test_a_run_directory_that_vanishes_costs_one_check(polling: Device, server: DevServer) -> None:
    polling.ok("check-update")
    shutil.rmtree(polling.root / "run")
    (polling.root / "run").touch()
    asked = Traffic(server)
    for _ in range(3):
        polling.ok("run", "--all")
    assert asked.new() == ["next"]


def test_each_data_directory_has_its_own(polling: Device, server: DevServer) -> None:
    other = Path(shutil.copytree(polling.data, polling.root / "other"))
    polling.ok("check-update")
    asked = Traffic(server)
    for _ in range(2):
        polling.ok("--data", str(other), "run")
    assert asked.new() == ["next"]


def test_another_state_is_not_taken_for_the_one_that_was_checked(polling: Device, server: DevServer) -> None:
    """A factory reset, for example: the device is authorized at once."""
    polling.ok("check-update")
    (polling.data / STATE).unlink()
    asked = Traffic(server)
    polling.ok("run", "--all")
    assert asked.new()[:2] == ["auth_requests", "next"]


def test_an_older_check_after_a_reboot_is_not_overdue_during_the_delay(polling: Device) -> None:
    def level() -> str:
        [found] = [one for one in polling.run("doctor", "--json").json["checks"] if one["id"] == "contact"]
        return str(found["level"])

    uptime = time.clock_gettime(time.CLOCK_MONOTONIC)
    interval = int(uptime * 3)
    polling.set_spread(0.999)
    polling.make_hours_old("check-update", (interval * 3 + 7200) / 3600)
    polling.configure(UpdatePollIntervalSeconds=interval)
    assert level() == "warning"
    polling.configure(StartSpreadSeconds=interval)
    assert level() == "ok"
