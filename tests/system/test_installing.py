"""The built-in installer on a booted Debian: artifacts of `mender-artifact`, started by the timers alone."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from helpers import booted_board as board
from helpers.debian import make_install, need_root, system
from helpers.machine import Machine, copy, have_journal_kept, write
from helpers.real_artifact import write_artifact
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.real

MODULES = Path("/usr/share/mender/modules/v3")
KINDS = ("single-file", "directory", "deb", "script")
DATA = "var/lib/mender"
WITHOUT_REBOOT = ["downloading", "installing", "installing"]
WITH_REBOOT = ["downloading", "installing", "rebooting", "installing"]

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


class Board:
    """A machine and its server."""

    def __init__(self, machine: Machine, server: DevServer, place: Path) -> None:
        self.machine = machine
        self.server = server
        self.place = place

    def install(
        self,
        name: str,
        kind: str,
        files: Mapping[str, str | bytes],
        *options: str,
        scripts: tuple[str, ...] = (),
    ) -> str:
        """Deploy an artifact and wait until the update has ended; return the id of the deployment."""
        self.path(board.CALLS).unlink(missing_ok=True)
        artifact = self.place / f"{name}.mender"
        write_artifact(artifact, kind, files, *options, scripts=board.scripts(*scripts))
        self.server.upload(artifact)
        deployment = self.server.deploy(name)

        def ended() -> bool:
            time.sleep(0.05)
            self.machine.run("true", check=False)  # switches a machine on again that reboots
            final = self.server.status(deployment) in ("success", "failure")
            return final and not self.left()

        until(ended, f"the update to {name} has ended", 90)
        return deployment

    def path(self, *parts: str) -> Path:
        return self.machine.root.joinpath(*parts)

    def text(self, *parts: str) -> str:
        return self.path(*parts).read_text()

    def calls(self) -> list[str]:
        """Return the calls of modules and scripts since the last artifact was deployed."""
        return self.text(board.CALLS).split()

    def provides(self) -> dict[str, str]:
        shown = self.machine.run("mender-oneshot", "show-provides").stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def left(self) -> set[str]:
        """Return what an update has not removed yet from the data directory."""
        names = {entry.name for entry in self.path(DATA).iterdir()}
        return names & {"installer.json", "update.lock", "artifact.mender", "scripts"}


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
        machine.run("mender-oneshot", "auth")
        one = Board(machine, server, tmp_path)
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
    assert one.machine.run("dpkg-query", "-W", "hello-board").stdout == "hello-board\t4\n"


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
    assert "app.version" in str(one.server.log(deployment))


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
        machine.run("mender-oneshot", "auth")
        one = Board(machine, server, tmp_path)
        a_reboot_is_verified(one, "automatic", ["Download", "ArtifactInstall"])
        a_reboot_is_verified(one, "by-itself", ["Download", "ArtifactInstall", "ArtifactReboot"])
        a_release_that_is_not_healthy_is_rolled_back(one, "automatic", [])
        a_release_that_is_not_healthy_is_rolled_back(one, "by-itself", ["ArtifactRollbackReboot"])
        machine.wait_booted()
        assert machine.failed() == ""


def a_reboot_is_verified(one: Board, kind: str, before: list[str]) -> None:
    boot = one.machine.boot_id()
    deployment = one.install(f"release-{kind}", kind, {"release": kind})
    assert one.calls() == [*before, "ArtifactVerifyReboot", "ArtifactCommit", "Cleanup"]
    assert one.server.status_history(deployment) == [*WITH_REBOOT, "success"]
    assert one.machine.boot_id() != boot
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
