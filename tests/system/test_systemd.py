"""At home under systemd: a real Debian 12 boots, its timers do everything, we look on from outside."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.debian import make_install, need_root, system
from helpers.device import REPO
from helpers.machine import Machine, copy, have_journal_kept, write
from helpers.waiting import until

from mender_oneshot.devserver import DevServer, Seen

pytestmark = pytest.mark.real

UNITS = ("mender-oneshot-update", "mender-oneshot-inventory")
TICK = REPO / "systemd-timers/mender-oneshot-tick@.service"

# The units' own ticks are a minute and five. One empty assignment resets every trigger, OnBootSec= too.
SOON = """[Timer]
OnBootSec=
OnBootSec=1
OnUnitInactiveSec=1
RandomizedDelaySec=0
AccuracySec=100ms
"""

SETTINGS = {
    "UpdatePollIntervalSeconds": 2,
    "InventoryPollIntervalSeconds": 5,
    "RetryPollIntervalSeconds": 1,
    "StartSpreadSeconds": 0,
}

# Says from where it looks how much of the machine it could change.
INVENTORY = """#!/bin/sh
for place in etc usr boot home root var/lib/dpkg var/lib/systemd var/spool/cron run/systemd/system; do
    if touch "/$place/written" 2>/dev/null; then echo "could_change=/$place"; fi
done
mknod /tmp/disk b 8 0 2>/dev/null && echo could_change=devices
mount -t tmpfs none /tmp 2>/dev/null && echo could_change=mounts
echo 1 2>/dev/null >/proc/sys/kernel/panic && echo could_change=kernel
chown 1 /tmp 2>/dev/null && echo could_change=owners
echo "python=$(python3 --version)"
echo "board=$(cat /proc/sys/kernel/hostname)"
"""

SUB_UPDATER = """#!/bin/sh
# Installs a release into the other root file system; here that is a name in a file, and a reboot.
set -eu
echo "installing $MENDER_ARTIFACT_NAME"
echo "artifact_name=$MENDER_ARTIFACT_NAME" > /etc/mender/artifact_info
if [ "$MENDER_ARTIFACT_NAME" = release-2 ]; then
    echo "rebooting"
    systemctl --no-block reboot 2> /dev/null  # without a logind it says so
    exec sleep infinity
fi
echo "$no_proxy $(umask)" > /run/told
mkfifo /run/go /run/late
(read -r go < /run/late; echo "said in the background") &
read -r go < /run/go
mender-oneshot report --success
rm "$MENDER_DATASTORE_DIR/update.lock"
"""

# A part of every release: the new software says of itself that it works.
COMMIT = """[Unit]
Description=The new release works
ConditionPathExists=/var/lib/mender/update.lock
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/usr/local/bin/mender-oneshot report --success
ExecStart=rm /var/lib/mender/update.lock

[Install]
WantedBy=multi-user.target
"""


class Story:
    """What happens, with the seconds since it began; printed at the end."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lines: list[str] = []

    def tell(self, line: str) -> None:
        self._lines.append(f"{time.monotonic() - self._began:6.1f} s  {line}")

    def __str__(self) -> str:
        return "\n".join(self._lines)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A Debian with the tool installed and its timers enabled, as an integrator would."""
    need_root("systemd-nspawn", "nsenter", "make")
    with system(tmp_path / "system") as made:
        make_install(made)
        have_journal_kept(made)
        write(made / "usr/share/mender/identity/mender-device-identity", "#!/bin/sh\necho mac=1\n", 0o755)
        write(made / "usr/share/mender/inventory/mender-inventory-test", INVENTORY, 0o755)
        write(made / "usr/share/mender/install", SUB_UPDATER, 0o755)
        # As on most devices the data is on a partition of its own; StateDirectory= could not bear the link.
        write(made / "data/mender/device_type", "device_type=board\n")
        (made / "var/lib/mender").symlink_to("/data/mender")
        write(made / "etc/mender/artifact_info", "artifact_name=release-1\n")
        write(made / "etc/systemd/system/release-works.service", COMMIT)
        for unit in UNITS:
            write(made / f"etc/systemd/system/{unit}.timer.d/soon.conf", SOON)
        write(made / "etc/proxies", "no_proxy=s3cret.invalid\n", 0o600)
        with_proxies = "[Service]\nEnvironmentFile=/etc/proxies\n"
        write(made / f"etc/systemd/system/{UNITS[0]}.service.d/proxies.conf", with_proxies)
        timers = [f"{unit}.timer" for unit in UNITS]
        enable = ["systemctl", f"--root={made}", "--quiet", "enable", *timers, "release-works.service"]
        subprocess.run(enable, check=True)
        yield made


def seen(method: str, end: str, status: int | None = None) -> Callable[[Seen], bool]:
    return lambda one: (
        one.method == method and one.path.endswith(end) and (status is None or one.status == status)
    )


def said(machine: Machine, unit: str) -> list[dict[str, Any]]:
    """What the journal has of a unit, of its own words and of systemd's."""
    return machine.journal("--unit", unit)


def test_from_first_boot_to_a_reported_update(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story()
    with DevServer(tmp_path / "server") as first:
        port, ca, url = int(first.url.rpartition(":")[2]), first.ca, first.url
    copy(ca, root / "etc/mender/server.pem")
    settings = {**SETTINGS, "ServerURL": url, "ServerCertificate": "/etc/mender/server.pem"}
    write(root / "etc/mender/mender.conf", json.dumps(settings))
    with Machine(root, tmp_path / "console") as machine:
        story.tell("booted, the server is down")
        until(
            lambda: any(
                "cannot be reached" in e["MESSAGE"] or "refused" in e["MESSAGE"]
                for e in said(machine, UNITS[0])
            ),
            "the timer finds no server",
        )
        assert machine.failed() == ""
        with DevServer(tmp_path / "server", port=port) as server:
            server.wait_for(seen("POST", "/auth_requests", 401))
            story.tell("the server is up, and knows of the device: pending")
            until(lambda: any("not accepted" in e["MESSAGE"] for e in said(machine, UNITS[0])), "it says so")
            assert machine.failed() == ""
            server.accept()
            server.wait_for(seen("PUT", "/inventory/device/attributes", 200))
            attributes = server.device().attributes
            story.tell(f"accepted: the inventory came by its own timer, {len(attributes)} attributes")
            assert "could_change" not in attributes
            assert attributes["python"].startswith("Python 3.11")
            server.upload(make_artifact(tmp_path / "release-2.mender", name="release-2"))
            before = machine.boot_id()
            deployment = server.deploy("release-2")
            story.tell("release-2 deployed")
            server.wait_for(lambda one: b'"installing"' in one.body)
            story.tell("found by the timer, downloaded, handed to the sub-updater")
            until(lambda: rebooted(machine, before), "the sub-updater reboots", 60)
            story.tell("the sub-updater has rebooted the machine")
            server.wait_for(lambda one: b'"success"' in one.body, timeout=60)
            story.tell("the new release reported success")
            assert server.status_history(deployment)[-3:] == ["downloading", "installing", "success"]
            asked = len(server.requests)
            until(
                lambda: any(
                    one.path.endswith("/deployments/next") and one.status == 204
                    for one in server.requests[asked:]
                ),
                "the next poll is clean",
            )
            story.tell("the next poll was clean")
            machine.wait_booted()
            assert machine.failed() == ""
            assert machine.run("mender-oneshot", "show-artifact").stdout == "release-2\n"
            name = f"mender-sub-updater-{deployment}"
            assert [e["MESSAGE"] for e in machine.journal("-t", "mender-sub-updater")] == [
                "installing release-2",
                "rebooting",
            ]
            assert {e["_SYSTEMD_UNIT"] for e in machine.journal("-t", "mender-sub-updater")} == {
                f"{name}.service"
            }
            the_sub_updater_outlives_our_unit(machine, server, tmp_path)
            story.tell("a second update continued while its timer and unit were stopped")
            assert machine.failed() == ""
        the_journal_reads_well(machine)
    with capsys.disabled():
        print(f"\n{story}")


def test_the_terminal_is_reachable_as_long_as_its_unit_runs(root: Path, tmp_path: Path) -> None:
    unit = "mender-oneshot-terminal.service"
    with DevServer(tmp_path / "server", accept_all=True) as server:
        copy(server.ca, root / "etc/mender/server.pem")
        settings = {**SETTINGS, "ServerURL": server.url, "ServerCertificate": "/etc/mender/server.pem"}
        write(root / "etc/mender/mender.conf", json.dumps(settings))
        write(root / "etc/mender/mender-connect.conf", '{"RemoteTerminal": true, "User": "games"}')
        with Machine(root, tmp_path / "console") as machine:
            server.wait_for(seen("PUT", "/inventory/device/attributes", 200))
            machine.run("systemctl", "start", unit)
            server.wait_connected()
            with server.terminal(user="u1") as user:
                user.new()
                user.type(b"id -un; setsid -f sleep 2000; nohup sleep 1000 & echo got-$((40 + 2))\n")
                shown = user.until(b"got-42")
                assert b"games" in shown
                # Another process may end while `find` reads the directory.
                of_games = ("find", "/proc", "-ignore_readdir_race", "-maxdepth", "1", "-user", "games")
                until(lambda: machine.run(*of_games).stdout.count("/proc/") == 3, "all that it starts runs")
                machine.run("systemctl", "stop", unit)
                user.until(b"ends its terminal service")
                user.expect(1, "stop")
            assert server.wait_disconnected() == 1000
            assert machine.run("systemctl", "is-active", unit, check=False).stdout == "inactive\n"
            # What was set apart stays, and nothing else.
            (left,) = machine.run(*of_games).stdout.split()
            assert "2000" in machine.run("cat", f"{left}/cmdline").stdout
            assert machine.failed() == ""
            said_of_it = [entry["MESSAGE"] for entry in said(machine, unit)]
            assert any("u1" in sentence and "games" in sentence for sentence in said_of_it), said_of_it


def rebooted(machine: Machine, before: str) -> bool:
    time.sleep(0.05)
    now = machine.run("cat", "/proc/sys/kernel/random/boot_id", check=False).stdout
    return bool(now) and now != before


def the_sub_updater_outlives_our_unit(machine: Machine, server: DevServer, tmp_path: Path) -> None:
    server.upload(make_artifact(tmp_path / "release-3.mender", name="release-3"))
    deployment = server.deploy("release-3")
    go = machine.root / "run/go"
    until(lambda: machine.run("test", "-p", "/run/go", check=False).returncode == 0, f"it waits at {go}")
    machine.run("systemctl", "stop", *(f"{unit}.{kind}" for unit in UNITS for kind in ("timer", "service")))
    unit = f"mender-sub-updater-{deployment}.service"
    assert machine.run("systemctl", "is-active", unit).stdout == "active\n"
    # A proxy may have a password: it reaches the sub-updater, and no other process.
    assert machine.run("cat", "/run/told").stdout == "s3cret.invalid 0022\n"
    assert "s3cret" not in machine.run("systemctl", "show", unit).stdout
    assert "s3cret" not in machine.run("cat", f"/run/systemd/transient/{unit}").stdout
    assert not list((machine.root / "data/mender").glob("*.env"))
    machine.run("sh", "-c", "echo > /run/go")
    server.wait_for(lambda one: b'"success"' in one.body and deployment in one.path)
    until(
        lambda: machine.run("test", "-e", "/var/lib/mender/update.lock", check=False).returncode == 1,
        "the sub-updater takes its lock away",
    )
    ended = ("systemctl", "show", "-P", "ActiveState", unit)
    until(lambda: machine.run(*ended).stdout == "inactive\n", "it ends")
    # Without a reader that lasts forever.
    machine.run("timeout", "20", "sh", "-c", "echo > /run/late")
    log = machine.root / "data/mender/sub-updater.log"
    until(lambda: log.read_text().endswith("said in the background\n"), "its background process continues")


def the_journal_reads_well(machine: Machine) -> None:
    """Priorities, one sentence per step, nothing twice, no time stamps of ours, no chatter of systemd's."""
    for unit in UNITS:
        entries = said(machine, unit)
        assert entries
        assert all(int(entry["PRIORITY"]) <= 5 for entry in entries), entries
        ours = [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "mender-oneshot"]
        assert len(ours) >= len(entries) - 3, entries
        assert not [entry for entry in ours if entry["MESSAGE"].startswith(("<", "20"))]
        runs: dict[str, list[str]] = {}
        for entry in ours:
            runs.setdefault(entry["_PID"] + entry["_BOOT_ID"], []).append(entry["MESSAGE"])
        assert all(len(set(sentences)) == len(sentences) for sentences in runs.values()), runs
        ticks = said(machine, f"mender-oneshot-tick@{unit.rpartition('-')[2]}")
        # While the system shuts down, systemd may reject a start.
        assert all(entry["MESSAGE"].startswith("Failed to start mender-oneshot") for entry in ticks), ticks
    levels = {entry["MESSAGE"].split()[0]: int(entry["PRIORITY"]) for entry in said(machine, UNITS[0])}
    assert levels["Handed"] == levels["Downloaded"] == 5


TERMINALS = ("mender-oneshot-terminal.service", "mender-oneshot-terminal-window.service")


@pytest.mark.parametrize("unit", [*TERMINALS, "mender-oneshot-terminal-window.timer"])
def test_the_units_of_the_terminal_are_right(root: Path, unit: str) -> None:
    need_root("systemd-analyze")
    verify = ["chroot", str(root), "systemd-analyze", "verify", "--man=no"]
    done = subprocess.run(
        [*verify, f"/usr/local/lib/systemd/system/{unit}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_are_right_and_tight(root: Path, unit: str) -> None:
    need_root("systemd-analyze")
    inside = ["chroot", str(root), "systemd-analyze"]
    names = (f"{unit}.service", f"{unit}.timer", TICK.name.replace("@", f"@{unit.rpartition('-')[2]}"))
    files = [f"/usr/local/lib/systemd/system/{name}" for name in names]
    verified = subprocess.run(
        [*inside, "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    limit = ["security", "--no-pager", "--offline=true", "--threshold=30", files[0]]
    scored = subprocess.run([*inside, *limit], capture_output=True, text=True, check=False)
    assert scored.returncode == 0, scored.stdout[-300:]
    print(scored.stdout.splitlines()[-1])


def test_the_units_call_nothing_that_is_not_there() -> None:
    """Every unit's program is ours, and the Makefile puts it where the unit looks for it."""
    for path in set((REPO / "systemd-timers").glob("*.service")) - {TICK}:
        starts = [line for line in path.read_text().splitlines() if line.startswith("ExecStart=")]
        assert starts
        assert all(line.startswith("ExecStart=/usr/local/bin/mender-oneshot ") for line in starts)


def test_one_file_serves_both_units() -> None:
    units = REPO / "systemd-timers"
    one, other = ((units / f"{unit}.service").read_text() for unit in UNITS)
    assert one == other
