"""The example unit that calls the sub-updater at boot, on a booted Debian."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.debian import make_install, need_root, system
from helpers.device import REPO
from helpers.machine import Machine, write
from helpers.waiting import until

pytestmark = pytest.mark.real

UNIT = "mender-sub-updater-boot.service"
DEPLOYMENT = "2a6fdbd5-3b2b-4a63-8a79-7d2b40d4b0c3"
APP = "#!/bin/sh\necho {}\n"

# On no list of what a boot mounts: it comes for a unit that says that it needs it.
DATA = """[Mount]
What=/data/mender
Where=/var/lib/mender
Options=bind
"""

HANGS = "#!/bin/sh\nread -r never < /run/never\n"


def test_what_a_power_cut_interrupted_is_ended_at_the_boot(tmp_path: Path) -> None:
    need_root("systemd-nspawn", "nsenter", "make")
    with system(tmp_path / "system") as root:
        make_install(root)
        (root / "usr/share/mender").mkdir(parents=True)
        shutil.copy(REPO / "docs/examples/one-file", root / "usr/share/mender/install")
        shutil.copy(REPO / f"docs/examples/{UNIT}", root / "etc/systemd/system")
        subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", UNIT], check=True)
        # Cut after the swap, before the new one has proven itself; the server cannot be reached.
        write(root / "usr/local/bin/app", APP.format("release-2"), 0o755)
        write(root / "usr/local/bin/app.old", APP.format("release-1"), 0o755)
        write(root / "etc/mender/mender.conf", '{"ServerURL": "https://127.0.0.1:9"}')
        data = root / "data/mender"
        write(data / "update.lock", DEPLOYMENT)
        write(data / "sub-updater.notes", f"{DEPLOYMENT} tried release-2\n")
        write(root / "etc/systemd/system/var-lib-mender.mount", DATA)
        with Machine(root, tmp_path / "console") as machine:
            assert machine.run("app").stdout == "release-1\n"
            assert not (data / "update.lock").exists()
            status = json.loads(machine.run("mender-oneshot", "status", "--json").stdout)
            assert status["queued_results"] == [{"deployment": DEPLOYMENT, "status": "failure"}]
            assert machine.failed() == ""
            # With no update in hand it is not even started.
            before = machine.run("systemctl", "show", "-p", "ConditionResult", UNIT).stdout
            machine.run("systemctl", "start", UNIT)
            after = machine.run("systemctl", "show", "-p", "ConditionResult", UNIT).stdout
            assert (before, after) == ("ConditionResult=yes\n", "ConditionResult=no\n")
            a_sub_updater_that_hangs_stops_no_timer(machine, data)


def a_sub_updater_that_hangs_stops_no_timer(machine: Machine, data: Path) -> None:
    """It is the timers that give it up."""
    write(data / "update.lock", DEPLOYMENT)
    write(machine.root / "usr/share/mender/install", HANGS, 0o755)
    machine.run("mkfifo", "/run/never")
    machine.run("systemctl", "start", "--no-block", UNIT)
    until(
        lambda: machine.run("systemctl", "show", "-P", "ActiveState", UNIT).stdout == "activating\n",
        "the boot's unit is at it",
    )
    timers = ("mender-oneshot-update.timer", "mender-oneshot-inventory.timer")
    machine.run("timeout", "10", "systemctl", "start", *timers)
    assert machine.run("systemctl", "is-active", *timers, UNIT, check=False).stdout.split() == [
        *("active", "active"),
        "activating",
    ]
