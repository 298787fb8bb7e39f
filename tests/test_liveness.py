"""A sub-updater that is still running: nothing is swept, and no second one is started beside it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.device import Device, Release
from helpers.uptime import later_by
from helpers.waiting import until

from mender_oneshot import liveness
from mender_oneshot.devserver import DevServer

BODIES = {
    "plain": "read -r go < {gate}\n",
    "output elsewhere": "exec > {gate}.out 2>&1\nread -r go < {gate}\n",
    "a lock of its own": "exec 9> {gate}.lock\nflock 9\nexec 9>&-\nread -r go < {gate}\n",
    "Python": 'exec {python} -c \'open("{gate}").read(1); open("{gate}").read(1)\'\n',
    "closes what it inherits": "exec {python} -c '"
    'import os; os.closerange(3, 99); open("{gate}").read(1)\'\n',
    "reads all our files": "exec {python} -c '"
    'import os; open(os.environ["MENDER_DATASTORE_DIR"] + "/sub-updater.lock").close(); '
    'open("{gate}").read(1)\'\n',
}


class Working:
    """A sub-updater that runs until it is let go."""

    def __init__(self, device: Device, gate: Path) -> None:
        self.device = device
        self.gate = gate
        self._held = True

    def let_go(self) -> None:
        """Let the sub-updater end, and wait for its end."""
        if not self._held:
            return
        self._held = False
        pid = self.gate.with_suffix(".pid")
        until(pid.exists, "the sub-updater has begun", 60)
        process = Path("/proc", pid.read_text().strip(), "stat")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while process.read_bytes().rpartition(b")")[2].split()[0] != b"Z":
                self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it does not read just now
            descriptor = os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(descriptor, b"go\n")
            finally:
                os.close(descriptor)


@pytest.fixture(params=BODIES)
def working(
    request: pytest.FixtureRequest, accepted: Device, release: Release, tmp_path: Path
) -> Iterator[Working]:
    """A device whose sub-updater runs."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pid = gate.with_suffix(".pid")
    body = BODIES[request.param].format(gate=gate, python=accepted.python)
    accepted.sub_updater(f"echo $$ > {pid}.new\nmv {pid}.new {pid}\n{body}")
    release()
    accepted.ok("run", "--all")
    assert accepted.handed_off
    held = Working(accepted, gate)
    yield held
    held.let_go()


plain = pytest.mark.parametrize("working", ["plain"], indirect=True)


def outcomes(device: Device) -> list[str]:
    done = device.ok("run", "--all", "--only", "update", "--json")
    return [step["outcome"] for step in done.json["steps"]]


def age(device: Device, seconds: float) -> None:
    """Put the hand-off further back."""
    device.age_hand_off(seconds)
    device.forget_failures()


def forget_pauses(device: Device) -> None:
    device.forget_failures()
    device.make_due("check-update")
    device.age_last_result()


def test_a_slow_sub_updater_is_not_failed_while_it_runs(working: Working, server: DevServer) -> None:
    device = working.device
    deployment = device.handed_off
    age(device, 15_000)
    assert outcomes(device) == ["waiting"]
    assert (device.data / "update.lock").read_text() == deployment
    assert (device.data / "artifact.mender").exists()
    assert server.status(deployment) == "installing"
    assert outcomes(device) == []  # the next look has a pause before it
    assert device.ok("status", "--json").json["failures"] == {}
    working.let_go()
    age(device, 0)
    assert outcomes(device)[:2] == ["gave-up", "delivered"]
    assert server.status(deployment) == "failure"


@plain
def test_one_that_hangs_is_a_failure_in_the_end_but_is_left_its_files(
    working: Working, server: DevServer
) -> None:
    device = working.device
    deployment = device.handed_off
    age(device, 6 * 14_400)
    assert outcomes(device)[:2] == ["gave-up", "delivered"]
    assert server.status(deployment) == "failure"
    forget_pauses(device)
    assert outcomes(device) == ["waiting"]
    assert (device.data / "update.lock").exists()
    assert (device.data / "artifact.mender").exists()
    working.let_go()
    forget_pauses(device)
    assert "swept" in outcomes(device)


@plain
@pytest.mark.parametrize("lock", ["kept", "removed"])
def test_nothing_is_swept_from_under_one_that_has_reported(working: Working, lock: str) -> None:
    device = working.device
    device.ok("report", "--success")
    if lock == "removed":
        (device.data / "update.lock").unlink()
    forget_pauses(device)
    assert outcomes(device) == ["waiting"]
    assert device.run("check-update").code == 75
    assert (device.data / "artifact.mender").exists()
    assert device.ok("status", "--json").json["failures"] == {}
    working.let_go()
    forget_pauses(device)
    assert outcomes(device)[0] == "swept"
    device.ok("check-update")


@plain
def test_a_second_one_is_not_started_beside_it(working: Working, release: Release, server: DevServer) -> None:
    device = working.device
    device.ok("report", "--success")
    for name in ("update.lock", "artifact.mender"):
        (device.data / name).unlink()
    second = release("release-3")
    forget_pauses(device)
    done = device.run("run", "--all")
    assert (done.code, "only one may run at a time" in done.err) == (75, True)
    assert device.ok("status", "--json").json["failures"] == {}
    assert device.run("install").code == 75
    assert "downloading" in server.status_history(second)
    working.let_go()
    forget_pauses(device)
    assert outcomes(device) == ["handed-off"]


def test_what_the_sub_updater_leaves_running_is_not_the_sub_updater(
    accepted: Device, release: Release, tmp_path: Path
) -> None:
    gate, ready = tmp_path / "gate", tmp_path / "ready"
    os.mkfifo(gate)
    os.mkfifo(ready)
    accepted.sub_updater(f"(echo $$ > {ready}; read -r go < {gate}) &\nexit 0\n")
    release()
    accepted.ok("run", "--all")
    with (accepted.data / "sub-updater.lock").open("rb+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # until it has ended
    ready.read_text()  # what it left is there
    age(accepted, 15_000)
    assert outcomes(accepted)[0] == "gave-up"
    gate.write_text("go\n")


def test_time_asleep_is_no_time_to_install_in(accepted: Device, release: Release) -> None:
    """The sub-updater has ended without a report; only the time counts."""
    accepted.sub_updater()
    release()
    accepted.ok("run", "--all")
    asleep = ("unshare", *later_by(boottime=14460))
    run = ("run", "--all", "--only", "update", "--json")
    done = accepted.run(*run, wrapper=asleep)
    if "unshare" in done.err:
        pytest.skip(f"no namespaces of time here: {done.err}")
    assert (done.code, done.json["steps"]) == (0, [])
    assert accepted.handed_off
    awake = ("unshare", *later_by(monotonic=14460))
    steps = accepted.run(*run, wrapper=awake).json["steps"]
    assert steps[0]["outcome"] == "gave-up"


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", False),
        ("mender-sub-updater-d1.service loaded active running Mender sub-updater\n", True),
        ("mender-sub-updater-d1.service loaded activating start Mender sub-updater\n", True),
        ("mender-sub-updater-d1.service loaded deactivating stop-post Mender sub-updater\n", True),
        ("mender-sub-updater-d1.service loaded failed failed Mender sub-updater\n", False),
        ("mender-sub-updater-d1.service loaded inactive dead Mender sub-updater\n", False),
        ("mender-sub-updater-boot.service loaded active exited Finish the update\n", False),
        (
            "mender-sub-updater-d1.service loaded inactive dead Mender sub-updater\n"
            "mender-sub-updater-d2.service loaded active running Mender sub-updater\n",
            True,
        ),
    ],
)
def test_the_table_of_units_is_read(listing: str, expected: bool) -> None:
    assert liveness.any_active(listing) is expected
