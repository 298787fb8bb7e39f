"""The built-in installer on a booted Debian: artifacts of `mender-artifact`, started by the timers alone."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import booted_board as board
from helpers.booted_board import DATA, WITH_REBOOT, WITHOUT_REBOOT, Board
from helpers.debian import make_install, need_root, system
from helpers.machine import Machine, copy, have_journal_kept, write
from helpers.waiting import until

from mender_oneshot.devserver import DevServer
from mender_oneshot.schedule import TIMERS

pytestmark = pytest.mark.real

MODULES = Path("/usr/share/mender/modules/v3")
KINDS = ("single-file", "directory", "deb", "script")

# The units' own ticks are a minute and five. One empty assignment resets every trigger, OnBootSec= too.
SOON = """[Timer]
OnBootSec=
OnBootSec=1
OnUnitInactiveSec=1
RandomizedDelaySec=0
AccuracySec=100ms
"""
SETTINGS = {"UpdatePollIntervalSeconds": 1, "RetryPollIntervalSeconds": 1, "StartSpreadSeconds": 0}

# An application that takes its time to stop; the installer is stopped after it.
SLOW = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=sleep 2

[Install]
WantedBy=multi-user.target
"""


def board_of(machine: Machine, server: DevServer, place: Path) -> Board:
    """Return a machine as a board that the server has accepted."""

    def keep_on() -> None:
        machine.run("true", check=False)  # switches it on again after a reboot

    machine.run("mender-oneshot", "auth")
    return Board(machine.root, server, place, keep_on)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A Debian with the tool installed, its timer enabled, and no sub-updater."""
    need_root("systemd-nspawn", "nsenter", "make", "mender-artifact", "dpkg-deb")
    with system(tmp_path / "system") as made:
        make_install(made)
        have_journal_kept(made)
        write(made / "usr/share/mender/identity/mender-device-identity", "#!/bin/sh\necho mac=1\n", 0o755)
        write(made / DATA / "device_type", "device_type=board\n")
        write(made / "etc/mender/artifact_info", "artifact_name=release-1\nfleet=blue\n")
        timer = "mender-oneshot-update.timer"
        write(made / f"etc/systemd/system/{timer}.d/soon.conf", SOON)
        subprocess.run(["systemctl", f"--root={made}", "--quiet", "enable", timer], check=True)
        yield made


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[DevServer]:
    """A server that accepts the system, which is configured for it."""
    with DevServer(tmp_path / "server", accept_all=True) as running:
        copy(running.ca, root / "etc/mender/server.pem")
        settings = {
            **SETTINGS,
            "ServerURL": running.url,
            "ServerCertificate": "/etc/mender/server.pem",
        }
        write(root / "etc/mender/mender.conf", json.dumps(settings))
        yield running


@pytest.mark.parametrize("whose", ["Debian's", "ours"])
def test_each_module_installs(root: Path, server: DevServer, tmp_path: Path, whose: str) -> None:
    if whose == "Debian's":
        if not MODULES.is_dir():
            pytest.skip("not installed: mender-client")
        for kind in KINDS:
            copy(MODULES / kind, root / "usr/share/mender/modules/v3" / kind)
    with Machine(root, tmp_path / "console") as machine:
        one = board_of(machine, server, tmp_path)
        a_file_is_installed(one)
        a_directory_is_replaced(one)
        a_package_is_installed(one)
        a_script_is_run(one)
        an_artifact_that_depends_on_something_else_is_rejected(one)
        assert machine.failed() == ""


def a_file_is_installed(one: Board) -> None:
    """With state scripts, and with all that an artifact can say about what is installed."""
    names = ("ArtifactInstall_Enter", "ArtifactInstall_Leave", "ArtifactCommit_Enter", "ArtifactCommit_Leave")
    more = ("--depends", "fleet:blue", "--provides", "app.version:2", "--clears-provides", "fleet")
    files = {"dest_dir": "/etc", "filename": "app.conf", "permissions": "640", "app.conf": "level=2\n"}
    write(one.path("etc/app.conf"), "level=1\n")
    deployment = one.install("release-2", "single-file", files, *more, scripts=names)
    assert one.server.status_history(deployment) == [*WITHOUT_REBOOT, "success"]
    assert one.text("etc/app.conf") == "level=2\n"
    assert one.path("etc/app.conf").stat().st_mode & 0o777 == 0o640
    assert one.calls() == list(names)
    assert one.provides() == {
        "artifact_name": "release-2",
        "app.version": "2",
        "rootfs-image.single-file.version": "release-2",
    }


def a_directory_is_replaced(one: Board) -> None:
    write(one.path("srv/app/old"), "1\n")
    files: dict[str, str | bytes] = {"dest_dir": "/srv/app", "update.tar": board.tar({"new": "3\n"})}
    deployment = one.install("release-3", "directory", files, "--depends", "app.version:2")
    assert one.server.status_history(deployment) == [*WITHOUT_REBOOT, "success"]
    assert [entry.name for entry in one.path("srv/app").iterdir()] == ["new"]
    assert one.provides()["app.version"] == "2"


def a_package_is_installed(one: Board) -> None:
    deployment = one.install("release-4", "deb", {"hello.deb": board.package(one.place, "4")})
    assert one.server.status_history(deployment) == [*WITHOUT_REBOOT, "success"]
    assert one.text("opt/hello") == "4\n"
    status = one.text("var/lib/dpkg/status")
    assert "Package: hello-board\nStatus: install ok installed\n" in status


def a_script_is_run(one: Board) -> None:
    lines = {name: f"#!/bin/sh\necho {name} >> /opt/calls\n" for name in ("first", "second")}
    deployment = one.install("release-5", "script", lines)
    assert one.server.status_history(deployment) == [*WITHOUT_REBOOT, "success"]
    assert one.calls() == ["first", "second"]
    assert one.provides()["artifact_name"] == "release-5"


def an_artifact_that_depends_on_something_else_is_rejected(one: Board) -> None:
    deployment = one.install("release-6", "script", {"run": "#!/bin/sh\n"}, "--depends", "app.version:9")
    assert one.server.status(deployment) == "failure"
    assert one.provides()["artifact_name"] == "release-5"
    until(lambda: "app.version" in str(one.server.log(deployment)), "the log has the reason")


def test_an_update_reboots_and_is_committed_or_rolled_back(
    root: Path, server: DevServer, tmp_path: Path
) -> None:
    board.prepare(root)
    write(root / "etc/systemd/system/slow.service", SLOW)
    write(
        root / "etc/systemd/system/mender-sub-updater-.service.d/order.conf", "[Unit]\nBefore=slow.service\n"
    )
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", "slow.service"], check=True)
    with Machine(root, tmp_path / "console") as machine:
        one = board_of(machine, server, tmp_path)
        a_reboot_is_verified(one, "automatic", ["Download", "ArtifactInstall"])
        a_reboot_is_verified(one, "by-itself", ["Download", "ArtifactInstall", "ArtifactReboot"])
        a_release_that_is_not_healthy_is_rolled_back(one, "automatic", [])
        a_release_that_is_not_healthy_is_rolled_back(one, "by-itself", ["ArtifactRollbackReboot"])
        machine.wait_booted()
        assert machine.failed() == ""


def a_reboot_is_verified(one: Board, kind: str, before: list[str]) -> None:
    deployment = one.install(f"release-{kind}", kind, {"release": kind})
    assert one.calls() == [*before, "ArtifactVerifyReboot", "ArtifactCommit", "Cleanup"]
    assert one.server.status_history(deployment) == [*WITH_REBOOT, "success"]
    assert one.text(board.RELEASE) == kind
    assert one.provides()["artifact_name"] == f"release-{kind}"


def a_release_that_is_not_healthy_is_rolled_back(one: Board, kind: str, reboot: list[str]) -> None:
    deployment = one.install(f"bad-{kind}", kind, {"release": "bad"}, scripts=("ArtifactFailure_Enter",))
    calls = one.calls()
    assert calls[calls.index("ArtifactVerifyReboot") :] == [
        *("ArtifactVerifyReboot", "ArtifactRollback", *reboot, "ArtifactVerifyRollbackReboot"),
        *("ArtifactFailure_Enter", "ArtifactFailure", "Cleanup"),
    ]
    assert one.server.status_history(deployment) == [*WITH_REBOOT, "failure"]
    assert one.text(board.RELEASE) == "by-itself"
    assert one.provides()["artifact_name"] == "release-by-itself"
    messages = [line["message"] for line in one.server.log(deployment) or []]
    assert "the application of this release does not start" in messages[-1]
    assert "this is ArtifactFailure_Enter" in messages


def schedule_of(machine: Machine) -> dict[str, Any]:
    """Return what `doctor` finds about the timers."""
    done = machine.run("mender-oneshot", "doctor", "--json", check=False)
    checks: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    return next(one for one in checks if one["id"] == "schedule")


def test_doctor_sees_whether_the_timers_are_enabled(root: Path, server: DevServer, tmp_path: Path) -> None:
    (root / "etc/systemd/system/mender-oneshot-update.timer.d/soon.conf").unlink()
    with Machine(root, tmp_path / "console") as machine:
        found = schedule_of(machine)
        assert found["level"] == "warning"
        assert "no inventory is sent" in found["message"]
        machine.run(*found["command"].split())
        found = schedule_of(machine)
        assert found["level"] == "ok"
        assert "the next run is in " in found["message"]
        machine.run("systemctl", "disable", "--now", *TIMERS)
        found = schedule_of(machine)
        assert found["level"] == "failed"
        machine.run(*found["command"].split())
        assert schedule_of(machine)["level"] == "ok"
