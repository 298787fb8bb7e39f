"""`doctor` sees what runs the client, and which other clients are there, on a system of its own."""

from pathlib import Path
from typing import Any

import pytest
from helpers.device import Device
from helpers.own_system import OwnSystem, own_system

from mender_oneshot import schedule_checks, unit_files
from mender_oneshot.schedule import TIMERS

EVERY_MINUTE = "* * * * * /usr/local/bin/mender-oneshot --syslog run --all"
SHIPPED = (
    "#* * * * * root [ -d /run/systemd/system ] || [ ! -x /usr/local/bin/mender-oneshot ] || "
    "/usr/local/bin/mender-oneshot --syslog run --all"
)
ON = "LoadState=loaded UnitFileState=enabled ActiveState=active NextElapseUSecMonotonic=1y"
OFF = "LoadState=loaded UnitFileState=disabled ActiveState=inactive NextElapseUSecMonotonic="
ENABLE = f"systemctl enable --now {' '.join(TIMERS)}"


@pytest.fixture
def system(accepted: Device, tmp_path: Path) -> OwnSystem:
    accepted.sub_updater()
    return own_system(accepted, tmp_path / "system")


def check(system: OwnSystem, name: str) -> dict[str, Any]:
    """Return the first finding of a check."""
    found: list[dict[str, Any]] = system.run("doctor", "--json").json["checks"]
    return next(one for one in found if one["id"] == name)


def test_timers_that_are_off_are_named_with_the_command(system: OwnSystem) -> None:
    system.systemd(OFF, *TIMERS)
    found = check(system, "schedule")
    assert (found["level"], found["command"]) == ("failed", ENABLE)
    assert "Nothing runs mender-oneshot regularly" in found["message"]
    assert system.run("doctor").code == 78


def test_timers_that_are_on_are_fine(system: OwnSystem) -> None:
    system.systemd(ON, *TIMERS)
    found = check(system, "schedule")
    assert found["level"] == "ok"
    assert "the next run is in " in found["message"]


def test_a_timer_that_no_boot_starts_is_a_fault(system: OwnSystem) -> None:
    system.systemd(ON.replace("enabled", "disabled"), *TIMERS)
    found = check(system, "schedule")
    assert (found["level"], found["command"]) == ("failed", ENABLE)
    assert "no boot starts it" in found["message"]


def test_a_timer_that_a_link_enables_is_fine(system: OwnSystem) -> None:
    system.systemd(ON.replace("enabled", "disabled"), *TIMERS)
    wants = "/etc/systemd/system/timers.target.wants"
    for timer in TIMERS:
        system.more += f"mkdir -p {wants}\nln -s /etc/systemd/system/{timer} {wants}\n"
    assert check(system, "schedule")["level"] == "ok"


def test_systemd_without_the_units_and_without_cron_runs_nothing(system: OwnSystem) -> None:
    system.systemd("LoadState=not-found UnitFileState= ActiveState=inactive")
    found = check(system, "schedule")
    assert (found["level"], found["command"]) == ("failed", ENABLE)
    assert "not installed" in found["message"]


def test_the_cron_line_of_the_package_does_nothing_under_systemd(system: OwnSystem) -> None:
    system.systemd(OFF, *TIMERS)
    system.write("/etc/cron.d/mender-oneshot", SHIPPED.removeprefix("#"))
    system.start("cron", "-f")
    assert check(system, "schedule")["level"] == "failed"


def test_an_own_unit_that_runs_the_client_is_no_fault(system: OwnSystem) -> None:
    system.systemd("LoadState=not-found UnitFileState= ActiveState=inactive")
    system.write(
        "/etc/systemd/system/fleet.service", "[Service]\nExecStart=/usr/bin/mender-oneshot run --all"
    )
    found = check(system, "schedule")
    assert found["level"] == "ok"
    assert "fleet.service" in found["message"]


@pytest.mark.parametrize("table", ["/etc/crontab", "/etc/cron.d/fleet", "/var/spool/cron/crontabs/root"])
def test_a_line_for_a_cron_that_runs_is_fine(system: OwnSystem, table: str) -> None:
    system.write(table, EVERY_MINUTE)
    system.start("crond", "-b")
    found = check(system, "schedule")
    assert found["level"] == "ok"
    assert table in found["message"]
    assert "the next run is in " in found["message"]


def test_a_line_without_a_cron_that_runs_is_a_fault(system: OwnSystem) -> None:
    system.write("/etc/crontabs/root", EVERY_MINUTE)
    found = check(system, "schedule")
    assert found["level"] == "failed"
    assert "no cron daemon is running" in found["message"]
    assert found["command"]


@pytest.mark.parametrize(
    ("table", "text", "command"),
    [
        ("/etc/cron.d/mender-oneshot", SHIPPED, "sed -i 's/^#[*]/*/' /etc/cron.d/mender-oneshot"),
        ("/etc/cron.d/other", "", "echo '* * * * * root /usr/local/bin/mender-oneshot --syslog run"),
        ("/etc/crontabs/root", "", f"echo '{EVERY_MINUTE}' >> /etc/crontabs/root && echo root"),
        ("/etc/crontabs/root", "* * * * * mender-oneshot terminal --wait 0", "echo "),
    ],
    ids=["disabled", "cron.d", "busybox", "terminal"],
)  # fmt: skip
def test_cron_without_a_line_is_a_fault_with_a_command_that_adds_one(
    system: OwnSystem, table: str, text: str, command: str
) -> None:
    system.write(table, text)
    system.start("crond", "-b")
    found = check(system, "schedule")
    assert found["level"] == "failed"
    assert (found["command"] or "").startswith(command)
    system.more += f"{found['command']}\n"
    assert check(system, "schedule")["level"] == "ok"


def test_a_cron_that_this_user_cannot_see_is_not_judged(system: OwnSystem) -> None:
    system.write("/etc/crontab", EVERY_MINUTE)
    system.more += "mount -t tmpfs empty /proc\n"
    assert check(system, "schedule")["level"] == "ok"


def test_a_system_without_systemd_and_cron_is_not_judged(system: OwnSystem) -> None:
    found = check(system, "schedule")
    assert (found["level"], found["ok"]) == ("skipped", True)
    assert system.run("doctor").code == 0


CLIENTS = (
    "mender",
    "mender-authd",
    "mender-auth",
    "mender-updated",
    "mender-connect",
    "mender-python-client",
)


@pytest.mark.parametrize("name", CLIENTS)
def test_another_client_that_runs_is_named_with_the_command_that_stops_it(
    system: OwnSystem, name: str
) -> None:
    system.start(name)
    found = check(system, "other-clients")
    assert found["level"] == "failed"
    assert f"Another client, {name}, is running" in found["message"]
    assert found["command"].startswith("kill ")
    assert ("terminal" if name == "mender-connect" else "token") in found["message"]


@pytest.mark.parametrize("words", ["daemon --data /var/lib/another", "show-artifact"])
def test_a_client_of_another_device_and_one_that_only_prints_are_no_fault(
    system: OwnSystem, words: str
) -> None:
    system.start("mender", words)
    assert check(system, "other-clients")["level"] == "ok"


def test_a_client_that_a_unit_starts_is_disabled_by_that(system: OwnSystem) -> None:
    unit = "/etc/systemd/system/mender-client.service"
    system.systemd(ON, *TIMERS)
    system.write(unit, "[Service]")
    system.more += f"mkdir -p {unit}.wants /etc/systemd/system/multi-user.target.wants\n"
    system.more += f"ln -s {unit} /etc/systemd/system/multi-user.target.wants\n"
    found = check(system, "other-clients")
    assert (found["level"], found["command"]) == ("failed", "systemctl disable --now mender-client.service")
    system.start("mender")
    assert check(system, "other-clients")["command"] == "systemctl disable --now mender-client.service"
    system.more += f"ln -sf /dev/null {unit}\n"
    assert check(system, "other-clients")["command"].startswith("kill ")


def test_no_unit_for_the_sub_updater_at_boot_is_a_warning(system: OwnSystem) -> None:
    system.systemd(ON, *TIMERS)
    found = check(system, "boot")
    assert (found["level"], found["ok"]) == ("warning", True)
    assert found["command"] == "systemctl enable mender-sub-updater-boot.service"
    unit = "/etc/systemd/system/board.service"
    system.write(unit, "[Service]\nExecStart=/usr/share/mender/install")
    assert check(system, "boot")["command"] == "systemctl enable board.service"
    system.more += (
        f"mkdir -p /etc/systemd/system/x.target.wants\nln -s {unit} /etc/systemd/system/x.target.wants\n"
    )
    assert check(system, "boot")["level"] == "ok"
    done = system.run("doctor")
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("All ")


def test_the_sub_updater_at_boot_is_not_judged_without_systemd(system: OwnSystem) -> None:
    assert check(system, "boot")["level"] == "skipped"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30.5s", 30.5), ("1min 2s", 62), ("2h 1min 500ms", 7260.5), ("1d 1h", 90000), ("infinity", None),
        ("", None), ("5 s", None), ("s", None),
    ],
)  # fmt: skip
def test_a_time_span_of_systemd_is_read(text: str, seconds: float | None) -> None:
    assert schedule_checks.seconds(text) == seconds


@pytest.mark.parametrize(
    ("line", "now", "left"),
    [
        ("* * * * * x", 0, 60), ("* * * * * x", 59, 1), ("*/5 * * * * x", 60, 240), ("*/5 * * * * x", 299, 1),
        ("*/7 * * * * x", 59 * 60, 60), ("0 * * * * x", 0, None), ("* 3 * * * x", 0, None),
        ("@hourly x", 0, None), ("*/0 * * * * x", 0, None), ("", 0, None),
    ],
)  # fmt: skip
def test_the_next_run_of_cron_is_computed(line: str, now: float, left: float | None) -> None:
    assert schedule_checks.until_next(line, now) == left


def test_units_are_read_without_systemd(tmp_path: Path) -> None:
    units = tmp_path / "usr/lib/systemd/system"
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    units.mkdir(parents=True)
    for name in ("mender-connect.service", "mender-client.service"):
        (units / name).write_text("[Service]\n")
        (wants / name).symlink_to(units / name)
    (wants / "gone.service").symlink_to(units / "gone.service")
    (tmp_path / "etc/systemd/system/mender-client.service").symlink_to("/dev/null")
    assert list(unit_files.enabled(str(tmp_path))) == ["mender-connect.service"]
