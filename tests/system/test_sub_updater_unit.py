"""The sub-updater as a unit of its own: while it runs, nothing is swept and no second one is started."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.debian import make_install, need_root, system
from helpers.device import REPO
from helpers.machine import Machine, copy, write
from helpers.state_file import StateFile
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.real

SERVICE = "mender-oneshot-update.service"
BOOT = "mender-sub-updater-boot.service"

# Runs until something is written to the FIFO, and leaves a process in the background.
SUB_UPDATER = """#!/bin/sh
echo "$MENDER_ARTIFACT_NAME" >> /run/started
sleep infinity &
read -r go < /run/go
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A Debian with the tool installed; its timers are the test itself."""
    need_root("systemd-nspawn", "nsenter", "make")
    with system(tmp_path / "system") as made:
        make_install(made)
        write(made / "usr/share/mender/identity/mender-device-identity", "#!/bin/sh\necho mac=1\n", 0o755)
        write(made / "usr/share/mender/install", SUB_UPDATER, 0o755)
        copy(REPO / "docs/examples" / BOOT, made / "etc/systemd/system" / BOOT)
        write(made / "var/lib/mender/device_type", "device_type=board\n")
        write(made / "etc/mender/artifact_info", "artifact_name=release-1\n")
        yield made


class Fleet(StateFile):
    """The machine, its server and its data directory."""

    def __init__(self, machine: Machine, server: DevServer, place: Path) -> None:
        self.machine = machine
        self.server = server
        self.place = place
        self.data = machine.root / "var/lib/mender"

    def deploy(self, name: str) -> str:
        self.server.upload(make_artifact(self.place / f"{name}.mender", name=name))
        return self.server.deploy(name)

    def tick(self) -> None:
        """Let the unit run, in its sandbox, as its timer would; it must not fail."""
        self.machine.run("systemctl", "start", SERVICE)

    def wait_no_more(self) -> None:
        """Let the pauses and the grace pass."""
        self.forget_failures()
        self.make_due("check-update")
        if self.last_status:
            self.age_last_result()

    def age(self, seconds: float) -> None:
        """Let the sub-updater take so many seconds more."""
        self.age_hand_off(seconds)
        self.forget_failures()

    def started(self) -> list[str]:
        return (self.machine.run("cat", "/run/started").stdout).split()

    def active(self, deployment: str) -> str:
        unit = f"mender-sub-updater-{deployment}.service"
        return self.machine.run("systemctl", "show", "-P", "ActiveState", unit).stdout.strip()

    def said(self, words: str) -> int:
        """Return how many lines of the client's unit have some words."""
        return sum(words in entry["MESSAGE"] for entry in self.machine.journal("--unit", SERVICE))

    def files(self) -> tuple[bool, bool]:
        return (self.data / "update.lock").exists(), (self.data / "artifact.mender").exists()


def test_while_the_unit_lives(root: Path, tmp_path: Path) -> None:
    with DevServer(tmp_path / "server") as server:
        server.accept_all = True
        copy(server.ca, root / "etc/mender/server.pem")
        settings = {
            "ServerURL": server.url,
            "ServerCertificate": "/etc/mender/server.pem",
            "StartSpreadSeconds": 0,
            "UpdatePollIntervalSeconds": 1,
        }
        write(root / "etc/mender/mender.conf", json.dumps(settings))
        with Machine(root, tmp_path / "console") as machine:
            machine.run("mkfifo", "/run/go")
            fleet = Fleet(machine, server, tmp_path)
            machine.run("mender-oneshot", "auth")
            first = fleet.deploy("release-2")
            fleet.tick()
            until(lambda: fleet.active(first) == "active", "the sub-updater runs")
            a_slow_one_is_waited_for(fleet, first)
            systemd_may_execute_itself_anew(fleet, first)
            nothing_is_swept_from_under_it(fleet, first)
            no_second_one_is_started(fleet, first)
            second = what_it_left_in_the_background_counts_no_more(fleet, first)
            the_unit_of_the_boot_counts_too(fleet, second)
            assert machine.failed() == ""


def a_slow_one_is_waited_for(fleet: Fleet, deployment: str) -> None:
    fleet.age(15_000)
    fleet.tick()
    assert fleet.said("is still running after 14400 s; waiting.") == 1
    assert fleet.server.status(deployment) == "installing"
    assert fleet.files() == (True, True)


def systemd_may_execute_itself_anew(fleet: Fleet, deployment: str) -> None:
    for command in ("daemon-reload", "daemon-reexec"):
        fleet.machine.run("systemctl", command)
        fleet.wait_no_more()
        fleet.tick()
        assert (fleet.server.status(deployment), fleet.files()) == ("installing", (True, True)), command


def nothing_is_swept_from_under_it(fleet: Fleet, deployment: str) -> None:
    fleet.machine.run("mender-oneshot", "report", "--failure")
    assert fleet.server.status(deployment) == "failure"
    fleet.wait_no_more()
    fleet.tick()
    assert fleet.files() == (True, True)
    assert fleet.machine.run("mender-oneshot", "check-update", check=False).returncode == 75


def no_second_one_is_started(fleet: Fleet, first: str) -> None:
    second = fleet.deploy("release-3")
    for name in ("update.lock", "artifact.mender"):
        (fleet.data / name).unlink()
    fleet.wait_no_more()
    fleet.tick()  # it downloads
    assert fleet.files() == (False, True)
    done = fleet.machine.run("mender-oneshot", "install", check=False)
    assert (done.returncode, "only one may run at a time" in done.stderr) == (75, True), done
    assert fleet.started() == ["release-2"]
    assert fleet.active(first) == "active"
    assert fleet.server.status(second) in ("downloading", "installing")


def what_it_left_in_the_background_counts_no_more(fleet: Fleet, first: str) -> str:
    fleet.machine.run("sh", "-c", "echo go > /run/go")
    until(lambda: fleet.active(first) in ("inactive", "failed"), "it has ended")
    assert fleet.machine.run("pgrep", "-c", "sleep", check=False).stdout.strip() != "0"
    fleet.wait_no_more()
    fleet.tick()
    until(lambda: fleet.started() == ["release-2", "release-3"], "the second one is started")
    second: str = fleet.handed_off
    fleet.machine.run("sh", "-c", "echo go > /run/go")
    until(lambda: fleet.active(second) in ("inactive", "failed"), "it has ended, without a report")
    return second


def the_unit_of_the_boot_counts_too(fleet: Fleet, deployment: str) -> None:
    """As after a power cut: the sub-updater is called again, by its own unit."""
    fleet.machine.run("systemctl", "start", "--no-block", BOOT)
    until(lambda: fleet.active("boot") == "activating", "the unit of the boot is at work")
    before = fleet.said("is still running after")
    fleet.age(15_000)
    fleet.tick()
    assert fleet.said("is still running after") == before + 1
    assert fleet.server.status(deployment) == "installing"
    fleet.machine.run("sh", "-c", "echo go > /run/go")
    until(lambda: fleet.active("boot") in ("inactive", "failed"), "it has ended")
    fleet.age(0)
    fleet.tick()
    assert fleet.server.status(deployment) == "failure"
