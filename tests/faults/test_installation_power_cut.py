"""The power fails at every system call of an installation by the built-in installer, to its final status.

One traced run of each kind stops before every system call that writes, syncs, renames, removes, links, makes
a directory or a FIFO, sends something, or starts a program, in every process: the client, the installer, its
commands, the update module, the state scripts. What the disk and the server hold at that moment is what a
power cut leaves there. From each such moment the board boots and a timer starts `run`; nothing else helps it.
"""

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from helpers.installing_board import IDLE, NEW, NEXT, OLD, Board, Stop
from helpers.power_cut import CutPoint

from mender_oneshot.devserver import DevServer


class Kind(NamedTuple):
    """One kind of installation."""

    payload_type: str
    least: int  # system calls between its first phase and its last
    healthy: bool = True  # the health check succeeds
    fails_in: str = ""  # a state script
    since: str = ""  # the phase before which it is the same as another kind


KINDS = {
    "without reboot": Kind("single-file", 350),
    "with reboot": Kind("slots", 430),
    "rolled back": Kind("app", 400, fails_in="ArtifactInstall_Leave", since="ArtifactInstall_Leave"),
    "rolled back with reboot": Kind("slots", 530, healthy=False, since="Confirm"),
}


class Cut(NamedTuple):
    """A power cut: before which call, what it left, and how far the installation had come."""

    stop: Stop
    left: CutPoint
    phase: str
    calls: list[str]
    finals: list[str]
    on_trial: bool
    lost: tuple[str, ...] = ()  # the files whose content had not been synced, and is lost

    def __str__(self) -> str:
        lost = f", {', '.join(self.lost)} empty" if self.lost else ""
        return f"cut before {self.stop} in {self.phase or 'no phase'}{lost}"


class Life:
    """A board up to the moment before the hand-off of each kind of installation."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._known: dict[str, CutPoint] = {}
        assert board.device.run("auth").code == 77
        board.server.accept()
        board.device.ok("run", "--all")
        for payload_type in ("single-file", "slots", "app"):
            board.make_release(f"{NEW}-{payload_type}", payload_type)
            board.make_release(f"{NEXT}-{payload_type}", payload_type)
        self._idle = board.keep()

    def before_hand_off(self, kind: Kind) -> Board:
        """Go there, for the first time or again."""
        board, name = self.board, str(kind)
        if name not in self._known:
            board.back_to(self._idle)
            board.check("true" if kind.healthy else "echo it does not work >&2; false")
            if kind.fails_in:
                (board.faults / kind.fails_in).write_text("exit 1\n")
            board.deploy(f"{NEW}-{kind.payload_type}")
            board.a_day_passes()
            board.device.ok("check-update")
            board.device.ok("download")
            self._known[name] = board.keep()
        board.back_to(self._known[name])
        return board


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    directory = tmp_path_factory.mktemp("installing")
    with DevServer(directory / "server") as server:
        yield Life(Board(directory, server))


class Enumeration:
    """The calls of one installation, and each different state of disk and server before one of them."""

    def __init__(self, board: Board, since: str) -> None:
        self.stops: list[Stop] = []
        self.cuts: list[Cut] = []
        self.inside = 0  # calls while a phase was under way
        self._board = board
        self._since = since
        self._known: dict[str, int] = {}  # where a state is in `cuts`, by its digest
        self._unsynced: set[int] = set()

    def decide(self, stop: Stop) -> str:
        """Keep what a cut before this call would leave, unless that is known."""
        board = self._board
        self.stops.append(stop)
        phase = board.phase
        self.inside += bool(phase)
        if phase == self._since:
            self._since = ""
        if not self._since:
            self._keep(stop, ())
            if lost := self._lost():
                self._keep(stop, lost)
        self._note_sync(stop)
        return "go"

    def _keep(self, stop: Stop, lost: tuple[str, ...]) -> None:
        board = self._board
        digest = board.digest(lost)
        if digest not in self._known:
            self._known[digest] = len(self.cuts)
            left = board.keep()
            for name in lost:
                (left.directory / name).write_bytes(b"")
            self.cuts.append(
                Cut(stop, left, board.phase, board.calls, board.finals(), board.is_on_trial, lost)
            )
            return
        # The calls of the module are not of the state, but of what is compared in the end.
        known = self.cuts[self._known[digest]]
        if known.calls != board.calls:
            shutil.copy2(board.log, known.left.directory)
            self.cuts[self._known[digest]] = known._replace(calls=board.calls)

    def _note_sync(self, stop: Stop) -> None:
        """Note which files, by their inodes, this call leaves unsynced or syncs."""
        if stop.call in ("sync", "syncfs"):
            self._unsynced.clear()
        try:
            number = os.stat(stop.target).st_ino
        except OSError:
            return
        if stop.call in ("write", "pwrite64", "writev", "sendfile", "copy_file_range"):
            self._unsynced.add(number)
        elif stop.call in ("fsync", "fdatasync"):
            self._unsynced.discard(number)

    def _lost(self) -> tuple[str, ...]:
        """Return the files that are not synced."""
        root = self._board.root
        return tuple(
            str(path.relative_to(root))
            for path in root.rglob("*")
            if path.name not in IDLE and path.is_file() and path.stat().st_ino in self._unsynced
        )


def enumerate_cuts(life: Life, kind: Kind) -> Enumeration:
    board = life.before_hand_off(kind)
    found = Enumeration(board, kind.since)
    board.carry_on(found.decide)
    ended_well(board, kind, "success" if succeeds(kind) else "failure", [])
    assert found.inside >= kind.least
    return found


def succeeds(kind: Kind) -> bool:
    return kind.healthy and not kind.fails_in


# --- What holds afterwards

UNDOES = (
    *("ArtifactInstall_Enter", "ArtifactInstall", "ArtifactInstall_Leave", "ReportRebooting"),
    *("ArtifactVerifyReboot", "ArtifactReboot_Leave", "Confirm", "ArtifactCommit_Enter"),
)
"""A cut in these phases fails the update, although nothing was wrong with it (docs/installing.md)."""


def after(kind: Kind, cut: Cut) -> str:
    """Return the final status that a cut must lead to."""
    undone = not succeeds(kind) or cut.phase in UNDOES or cut.on_trial
    return "failure" if undone else "success"


def ended_well(board: Board, kind: Kind, status: str, before: list[str]) -> None:
    """Compare how it ended; `before` are the final statuses that were sent before the cut.

    If the server had the status but the device could not record that, the status is sent again.
    """
    finals = board.finals()
    assert set(finals) == {status}, board.history()
    assert len(finals) <= 1 + len(before)
    name = f"{NEW}-{kind.payload_type}"
    assert board.installed(kind.payload_type) == (name if status == "success" else OLD)
    shown = board.device.ok("show-artifact").out.strip()
    assert shown == (name if status == "success" else OLD)
    if status == "failure":
        assert board.server.log(board.deployment)
    # The history of deployments is only for people: the next one removes what its own power cut has left.
    left = board.debris()
    assert not {name for name in left if not name.startswith(("history.json", "logs/"))}
    device = board.device
    assert (device.deployment, device.handed_off, device.queued_results) == ("", "", [])
    right_calls(board.calls, status)


def right_calls(calls: list[str], status: str) -> None:
    """Check that nothing was called again that may not be, nor after what must be the last."""
    for name in ("ArtifactInstall", "ArtifactInstall_Enter", "ArtifactInstall_Leave"):
        assert calls.count(name) <= 1, calls
    for name in ("ArtifactReboot_Enter", "ArtifactCommit_Enter", "ArtifactInstall.ok"):
        assert calls.count(name) <= 1, calls
    text = " ".join(calls)
    assert not re.search(r"Artifact\S+ .*\bDownload\b", text), calls
    assert not re.search(r"ArtifactRollback\b.*ArtifactCommit\b", text), calls
    if status == "success":
        assert "ArtifactRollback" not in calls
        assert "ArtifactFailure" not in calls
    else:
        assert "ArtifactCommit.ok" not in calls
    if "Cleanup.ok" in calls:
        assert set(calls[calls.index("Cleanup.ok") :]) <= {"Cleanup", "Cleanup.ok"}, calls


def next_goes_through(board: Board, kind: Kind) -> None:
    """Deploy another release, with nothing wrong about it."""
    board.check("true")
    for fault in board.faults.iterdir():
        fault.unlink()
    name = f"{NEXT}-{kind.payload_type}"
    board.deploy(name)
    board.carry_on()
    assert board.finals() == ["success"]
    assert board.installed(kind.payload_type) == name
    assert not board.debris()


def recover(board: Board, kind: Kind, cut: Cut, *, go_on: bool) -> str:
    """Boot after a cut and compare the end; return what went wrong, "" if all went well."""
    board.back_to(cut.left)
    try:
        board.power_on()
        board.carry_on()
        ended_well(board, kind, after(kind, cut), cut.finals)
        if go_on:
            next_goes_through(board, kind)
    except Exception as error:  # noqa: BLE001  # every case is tried, then all failures are reported
        return failed(cut, error)
    return ""


def failed(case: object, error: Exception) -> str:
    """Tell a failure at once, because the others take long, and return it."""
    story = f"{case}: {type(error).__name__}: {error}"
    print(story, flush=True)
    return story


# --- The power fails


@pytest.mark.parametrize("name", KINDS)
def test_the_power_fails_somewhere_in_an_installation(life: Life, name: str) -> None:
    kind = KINDS[name]
    found = enumerate_cuts(life, kind)
    sample = random.Random(name).sample(found.cuts, 4)
    stories = [story for cut in sample if (story := recover(life.board, kind, cut, go_on=False))]
    assert not stories, "\n".join(stories)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_the_power_fails_at_every_system_call_of_an_installation(life: Life, name: str) -> None:
    kind = KINDS[name]
    found = enumerate_cuts(life, kind)
    stories = [
        story
        for i, cut in enumerate(found.cuts)
        if (story := recover(life.board, kind, cut, go_on=i % 16 == 0))
    ]
    print(
        f"{name}: {len(found.stops)} system calls, {len(found.cuts)} states, "
        f"{len(found.cuts) - len(stories)} survived"
    )
    assert not stories, "\n".join(stories)


# --- One process is killed, and the others live on


class Kill(NamedTuple):
    """A kill of one process: the `nth` of its calls that are the same."""

    stop: Stop
    nth: int

    def __str__(self) -> str:
        return f"{self.stop}, number {self.nth}"


def kills_of_one(board: Board) -> list[Kill]:
    """Install, and list the calls of the client's processes before which something has changed."""
    counts: Counter[Stop] = Counter()
    found: list[Kill] = []
    last = ""

    def decide(stop: Stop) -> str:
        nonlocal last
        counts[stop] += 1
        polled = stop.call == "openat" and "/stream" in stop.target and counts[stop] > 1
        if stop.is_ours and stop.program.split()[0] in KILLED and not polled:
            digest = board.digest()
            if digest != last:
                found.append(Kill(stop, counts[stop]))
            last = digest
        return "go"

    board.run("run", "--all", "--json", decide=decide)
    return found


KILLED = ("run", "resume", "report")


def kill_one(life: Life, kind: Kind, victim: Kill) -> str:
    """Kill a process before a call; return what went wrong, "" if all went well."""
    board = life.before_hand_off(kind)
    phase, left = "", victim.nth

    def decide(stop: Stop) -> str:
        nonlocal phase, left
        left -= stop == victim.stop
        if left:
            return "go"
        phase = board.phase
        return "kill"

    first = board.start("run", "--all", "--json")
    try:
        assert first.until_killed(decide), "it did not come to that"
        if victim.stop.program != "resume":
            first.wait()  # the installer works on, or has ended
        board.carry_on()
        first.wait()  # what the killed process had started has ended as well
        status = "failure" if not succeeds(kind) or phase in UNDOES else "success"
        ended_well(board, kind, status, [status])
    except Exception as error:  # noqa: BLE001  # every case is tried, then all failures are reported
        return failed(f"killed before {victim} in {phase or 'no phase'}", error)
    finally:
        first.stop()
    return ""


IN_ONE_BOOT = {
    "without reboot": Kind("app", 40),
    "rolled back": Kind("app", 40, fails_in="ArtifactInstall_Leave"),
}


@pytest.mark.parametrize("name", IN_ONE_BOOT)
def test_one_process_is_killed_somewhere_in_an_installation(life: Life, name: str) -> None:
    kind = IN_ONE_BOOT[name]
    found = kills_of_one(life.before_hand_off(kind))
    assert len(found) >= kind.least
    sample = random.Random(name).sample(found, 3)
    stories = [story for stop in sample if (story := kill_one(life, kind, stop))]
    assert not stories, "\n".join(stories)


@pytest.mark.long
@pytest.mark.parametrize("name", IN_ONE_BOOT)
def test_one_process_is_killed_at_every_system_call_of_an_installation(life: Life, name: str) -> None:
    kind = IN_ONE_BOOT[name]
    found = kills_of_one(life.before_hand_off(kind))
    stories = [story for stop in found if (story := kill_one(life, kind, stop))]
    print(f"{name}, one process: {len(found)} kills, {len(found) - len(stories)} survived")
    assert not stories, "\n".join(stories)


def test_a_state_script_that_outlives_the_installer_is_ended(life: Life) -> None:
    kind = IN_ONE_BOOT["without reboot"]
    board = life.before_hand_off(kind)
    (board.faults / "ArtifactInstall_Enter").write_text("kill -9 $PPID\nwhile :; do sleep 1; done\n")
    first = board.start("run", "--all", "--json")
    try:
        # Its first sleep is killed, so that the tracer asks no more; the script starts the next.
        assert first.until_killed(lambda stop: "kill" if stop.program == "sleep 1" else "go")
        board.carry_on()
        first.wait()
        ended_well(board, kind, "failure", [])
    finally:
        first.stop()
