"""The power fails: at every system call of an update, on a disk that had not flushed, two hundred times.

Whatever happens, timers alone carry the device on: one final status, the right one, and the sub-updater
started at most once, with the very bytes that were released.
"""

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.power_cut import (
    ARTIFACT,
    LARGE,
    LOCK,
    PART,
    SILENT,
    SMALL,
    STATE,
    WORKING,
    Call,
    CutPoint,
    Field,
    ThinLink,
    calls,
    kill,
    sha256,
    unsynced,
)
from helpers.real_daemon import need
from helpers.waiting import until

from mender_oneshot.devserver import DevServer
from mender_oneshot.partial_download import SYNC_BYTES, trusted

STORAGE = "GET /storage/*"


def some_of(every: Iterable[str], *short: str) -> list[Any]:
    """Parameters of which the ordinary run takes the short ones, and `make test-long` all."""
    assert set(short) <= set(every)
    return [each if each in short else pytest.param(each, marks=pytest.mark.long) for each in every]


class Life:
    """A device's life up to each of the moments that the stories start from; each is lived once."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._known: dict[str, CutPoint] = {}

    def at(self, name: str) -> Field:
        """Go to a moment, for the first time or again."""
        if name not in self._known:
            getattr(self, "_" + re.sub("[ -]", "_", name.replace(",", "")))()
            self._known[name] = self.field.keep()
        self.field.back_to(self._known[name])
        return self.field

    def _fresh(self) -> None:
        self.field.release("release-2", SMALL)
        self.field.release("large", LARGE)

    def _asked(self) -> None:
        assert self.at("fresh").device.run("auth").code == 77

    def _accepted(self) -> None:
        self.at("asked").server.accept()

    def _authorized(self) -> None:
        self.at("accepted").device.ok("auth")

    def _polled(self) -> None:
        self.at("authorized").device.ok("run", "--all")

    def _deployed(self) -> None:
        self.at("polled").deploy("release-2")
        self.field.a_day_passes()

    def _offered(self) -> None:
        self.at("deployed").device.ok("check-update")

    def _offered_something_large(self) -> None:
        self.at("polled").deploy("large")
        self.field.device.ok("check-update")

    def _nearly_downloaded(self) -> None:
        self.at("offered, something large").server.faults.add(match=STORAGE, cut_after=LARGE - 1000)
        assert self.field.device.run("download").code == 75

    def _half_downloaded(self) -> None:
        self.at("offered").server.faults.add(match=STORAGE, cut_after=SMALL // 2)
        assert self.field.device.run("download").code == 75

    def _downloaded(self) -> None:
        self.at("offered").device.ok("download")

    def _aborted(self) -> None:
        self.at("half downloaded").server.abort(self.field.deployment)

    def _corrupt(self) -> None:
        artifact = self.at("downloaded").data / ARTIFACT
        content = artifact.read_bytes()
        artifact.write_bytes(content[: SMALL // 2] + b"damage" + content[SMALL // 2 + 6 :])

    def _without_a_sub_updater(self) -> None:
        self.at("downloaded").device.script("install", "#!/no/such/interpreter\n")

    def _handed_off(self) -> None:
        self.at("downloaded").sub_updater(SILENT)
        self.field.device.ok("install")
        self.field.wait_for_sub_updater(1)

    def _silent_for_a_day(self) -> None:
        self.at("handed off").a_day_passes()

    def _success_queued(self) -> None:
        self.at("handed off").server.faults.add(match="PUT */status", drop_before=True)
        assert self.field.device.ok("report", "--success", "--json").json["outcome"] == "queued"
        self.field.a_day_passes()

    def _failure_queued(self) -> None:
        self.at("handed off").server.faults.add(match="PUT */status", drop_before=True)
        assert self.field.device.ok("report", "--failure", "--json").json["outcome"] == "queued"
        self.field.a_day_passes()

    def _reported_lock_left(self) -> None:
        self.at("handed off").device.ok("report", "--success")
        self.field.a_day_passes()

    def _reported_lock_gone(self) -> None:
        self.at("reported, lock left").data.joinpath(LOCK).unlink()

    def _handed_off_state_corrupt(self) -> None:
        self.at("handed off").data.joinpath(STATE).write_bytes(bytes(700))

    def _offered_state_corrupt(self) -> None:
        self.at("half downloaded").data.joinpath(STATE).write_bytes(bytes(700))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    directory = tmp_path_factory.mktemp("power")
    with DevServer(directory / "server") as server:
        yield Life(Field(directory, server))


class End(NamedTuple):
    """How an update has to end."""

    status: str
    starts: int


def ended_well(field: Field, end: End, before: list[str]) -> None:
    """Compare how it ended, to the last file; `before` are the final statuses sent before the power failed.

    If the server had the status but the device could not record that, the status is sent again.
    """
    finals, starts = field.finals(), field.starts()
    assert set(finals) == {end.status}, field.history()
    assert len(finals) <= 1 + len(before)
    name = field.server.deployments[0].artifact_name
    assert starts == [f"{field.deployment} {sha256(field.directory / f'{name}.mender')}"] * end.starts
    assert not any(name in field.left_behind() for name in (LOCK, PART, ARTIFACT, f"{STATE}.new"))
    device = field.device
    assert (device.deployment, device.handed_off, device.queued_results) == ("", "", [])
    if end.status == "failure":
        assert field.server.log(field.deployment)
    # One identity and one key: neither is replaced without need.
    assert len(field.server.device().auth_sets) == 1


# --- Killed at every system call


class Kind(NamedTuple):
    """One kind of invocation: when, what, the codes it has when nothing happens, and how the update ends."""

    moment: str
    words: str
    codes: tuple[int, ...] = (0,)
    end: Callable[[list[Call], int], End] = lambda calls, at: End("success", 1)
    fault: dict[str, int] = {}
    said_again: str = ""
    busy: bool = False  # the sub-updater is open for writing until the power fails


def by_hand_off(calls: list[Call], at: int) -> End:
    """Killed between the record of the start and the start: it may have run, so it is not started again."""
    marked = next(
        i for i, call in enumerate(calls) if call.target == "sub-updater.log" and call.name == "rename"
    )
    started = next(i for i, call in enumerate(calls) if i > marked and call.target == "a new process")
    return End("failure", 0) if marked < at <= started else End("success", 1)


def by_taking_back(calls: list[Call], at: int) -> End:
    """Killed between the mark of a start that failed and its removal: it counts as started."""
    marked, gone = (
        next(i for i, call in enumerate(calls) if (call.name, call.target) == (name, "sub-updater.log"))
        for name in ("rename", "unlink")
    )
    return End("failure", 0) if marked < at <= gone else End("success", 1)


def by_record(calls: list[Call], at: int) -> End:
    """A success that was taken down is delivered; one that was not, and is never said again, is none."""
    return End("success" if at > state_is_saved(calls) else "failure", 1)


def state_is_saved(calls: list[Call]) -> int:
    return next(i for i, call in enumerate(calls) if call.name == "rename" and call.target == STATE)


def always(status: str, starts: int) -> Callable[[list[Call], int], End]:
    return lambda calls, at: End(status, starts)


KINDS = {
    "bootstrap": Kind("fresh", "bootstrap"),
    "the first auth": Kind("fresh", "auth", (77,)),
    "auth, rejected": Kind("asked", "auth", (77,)),
    "auth, accepted": Kind("accepted", "auth"),
    "inventory": Kind("authorized", "send-inventory"),
    "check": Kind("deployed", "check-update"),
    "check, and more": Kind("deployed", "run --all", end=by_hand_off),
    "download": Kind("offered, something large", "download"),
    "download, cut": Kind("offered", "download", (75,), fault={"cut_after": SMALL // 2}),
    "download, resumed": Kind("half downloaded", "download"),
    "install": Kind("downloaded", "install", end=by_hand_off),
    "install, artifact corrupt": Kind("corrupt", "install", (65,), end=always("failure", 0)),
    "install, no start": Kind("without a sub-updater", "install", (69,), end=always("failure", 0)),
    "install, busy": Kind("downloaded", "install", (75,), end=by_taking_back, busy=True),
    "success, said again": Kind("handed off", "report --success", said_again="report --success"),
    "success, said once": Kind("handed off", "report --success", end=by_record),
    "failure, said again": Kind(
        "handed off", "report --failure", end=always("failure", 1), said_again="report --failure"
    ),
    "failure, said once": Kind("handed off", "report --failure", end=always("failure", 1)),
    "deliver success": Kind("success queued", "run"),
    "deliver failure": Kind("failure queued", "run", end=always("failure", 1)),
    "give up": Kind("silent for a day", "run", end=always("failure", 1)),
    "sweep the lock": Kind("reported, lock left", "run"),
    "sweep the artifact": Kind("reported, lock gone", "run"),
    "adopt the lock": Kind("handed off, state corrupt", "run", end=always("failure", 1)),
    "start afresh": Kind("offered, state corrupt", "run"),
}


def the_call(name: str, target: str, nth: int = -1) -> Callable[[list[Call]], int]:
    """Pick the call of a name that acts upon a file, the last one where there are several."""
    return lambda calls: [i for i, c in enumerate(calls) if (c.name, c.target) == (name, target)][nth]


SHORT: dict[str, Callable[[list[Call]], int]] = {
    "the first auth": the_call("rename", "mender-agent.pem"),
    "check": the_call("rename", STATE),
    "download, resumed": the_call("rename", ARTIFACT),
    "install": the_call("rename", "sub-updater.log"),
    "install, busy": the_call("unlink", LOCK),
    "success, said once": the_call("rename", STATE, 0),
    "deliver failure": the_call("fsync", "the data directory"),
    "give up": the_call("rename", STATE),
    "sweep the lock": the_call("unlink", ARTIFACT),
    "adopt the lock": the_call("openat", f"{STATE}.new"),
}
"""One call of each of the main kinds, for the ordinary run: where most would be lost."""


@pytest.mark.parametrize("name", SHORT)
def test_killed_where_it_hurts_most(life: Life, name: str) -> None:
    kind = KINDS[name]
    field = at(life, kind)
    found, _ = calls(field, *kind.words.split())
    field.wait_for_sub_updater(by_itself(kind, found, len(found)))
    assert not killed(life, kind, found, SHORT[name](found))


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_killed_at_every_system_call(life: Life, name: str) -> None:
    kind = KINDS[name]
    words = kind.words.split()
    field = at(life, kind)
    found, done = calls(field, *words)
    assert done.code in kind.codes, done
    field.wait_for_sub_updater(by_itself(kind, found, len(found)))
    failed = [story for i in range(len(found)) if (story := killed(life, kind, found, i))]
    print(f"{name}: {len(found)} kills tried, {len(found) - len(failed)} survived")
    assert not failed, "\n".join(failed)


def by_itself(kind: Kind, calls: list[Call], at: int) -> int:
    """Say how often the sub-updater was started, in all, before this call."""
    if (
        kind.moment in ("handed off", "silent for a day")
        or "queued" in kind.moment
        or "reported" in kind.moment
    ):
        return 1
    before = [call.target for call in calls[:at]]
    if kind.busy:
        return 0
    started = LOCK in before and "a new process" in before[before.index(LOCK) :]
    return kind.end(calls, at).starts if started else 0


def at(life: Life, kind: Kind) -> Field:
    field = life.at(kind.moment)
    if kind.fault:
        field.server.faults.add(match=STORAGE, **kind.fault)
    field.hold_sub_updater(kind.busy)
    return field


def killed(life: Life, kind: Kind, found: list[Call], i: int) -> str:
    """Tell what went wrong, "" when all went well."""
    field = at(life, kind)
    words = kind.words.split()
    end = kind.end(found, i)
    try:
        kill(field, found[i], *words)
        field.hold_sub_updater(False)
        field.server.faults.clear()
        before = field.finals()
        assert (field.data / f"{STATE}.unreadable").exists() <= ("corrupt" in kind.moment)
        # Started before the kill, it lives on by itself.
        field.wait_for_sub_updater(by_itself(kind, found, i))
        if kind.said_again:
            assert field.device.run(*kind.said_again.split()).code == 0
        field.life_goes_on()
        ended_well(field, end, before)
    except Exception as error:  # noqa: BLE001  # every case is tried, then all failures are reported
        return f"killed before {found[i]}, number {i} of {len(found)}: {type(error).__name__}: {error}"
    return ""


@pytest.mark.long
def test_the_whole_board_loses_power_around_the_start(life: Life) -> None:
    """Everything dies at once, the sub-updater too, at each call from the lock on."""
    field = life.at("downloaded")
    found, _ = calls(field, "install")
    field.wait_for_sub_updater(1)
    lock = next(i for i, call in enumerate(found) if call.target == f"{LOCK}.new")
    # When the shell ends, the first process of its world, all others in there are killed.
    whole = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh")
    for call in found[lock:]:
        field = life.at("downloaded")
        # Slow enough to be hit before it reports.
        field.sub_updater(SILENT.replace("echo >>", "sleep 60; echo >>"))
        kill(field, call, "install", wrapper=whole)
        assert len(field.starts()) <= 1
        (field.device.root / "ends").write_text("\n" * len(field.starts()))
        field.sub_updater(WORKING)
        field.reboot()
        field.device.configure(InstallTimeoutSeconds=1)
        marked = (field.data / "sub-updater.log").exists()
        end = End("failure", len(field.starts())) if marked else End("success", 1)
        field.life_goes_on()
        ended_well(field, end, [])


def test_the_sub_updater_alone_dies_on_its_way_in(life: Life) -> None:
    field = life.at("downloaded")
    program = str(field.device.scripts / "install")
    need("strace")
    killer = ("strace", "-f", "-o", "/dev/null", "-P", program, "-e", "inject=execve:signal=SIGKILL")
    done = field.device.run("install", "--json", wrapper=killer)
    assert done.json["outcome"] == "handed-off"
    field.life_goes_on()
    ended_well(field, End("failure", 0), [])


# --- A disk that had not flushed

Corrupt = Callable[[bytes], bytes | None]

RUINS: dict[str, Corrupt] = {
    "empty": lambda content: b"",
    "all NUL": lambda content: bytes(len(content)),
    "one byte": lambda content: content[:1],
    "a third": lambda content: content[: len(content) // 3],
    "the last lines lost": lambda content: content[:-10],
    "its tail NUL": lambda content: content[:-100] + bytes(100),
    "missing": lambda content: None,
}


def corrupt(path: Path, how: Corrupt) -> None:
    changed = how(path.read_bytes())
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)


@pytest.mark.parametrize("ruin", some_of(RUINS, "empty", "missing"))
@pytest.mark.parametrize(
    "moment", some_of(("deployed", "half downloaded", "downloaded", "handed off"), "downloaded", "handed off")
)
def test_a_corrupt_state_costs_no_update(life: Life, moment: str, ruin: str) -> None:
    """With `update.lock` there, the update is known to be in other hands; without, it is begun again."""
    field = life.at(moment)
    field.reboot()
    corrupt(field.data / STATE, RUINS[ruin])
    if moment == "handed off":
        field.device.run("run")
        assert field.device.ok("report", "--success", "--json").json["outcome"] == "delivered"
    field.life_goes_on()
    ended_well(field, End("success", 1), [])


@pytest.mark.parametrize("ruin", some_of(("empty", "all NUL", "missing"), "missing"))
def test_a_state_lost_after_the_result_was_recorded_fails_the_update(life: Life, ruin: str) -> None:
    """The result is lost with it; the server ends the update itself when the new software asks for more."""
    field = life.at("success queued")
    (field.device.conf / "artifact_info").write_text("artifact_name=release-2\n")
    (field.data / LOCK).unlink()
    corrupt(field.data / STATE, RUINS[ruin])
    field.life_goes_on()
    assert field.finals() == ["failure"]
    assert len(field.starts()) == 1


@pytest.mark.parametrize("ruin", some_of(("empty", "all NUL"), "empty"))
@pytest.mark.parametrize("moment", ["handed off", "reported, lock left"])
def test_a_corrupt_lock_after_a_reboot_costs_no_result(life: Life, moment: str, ruin: str) -> None:
    field = life.at(moment)
    field.reboot()
    corrupt(field.data / LOCK, RUINS[ruin])
    if moment == "handed off":
        field.device.ok("report", "--success")
    field.life_goes_on()
    ended_well(field, End("success", 1), field.finals())


@pytest.mark.parametrize("name", [STATE, LOCK, "mender-agent.pem"])
@pytest.mark.parametrize("kind", some_of(("part of a file", "a link", "a link to nowhere"), "a link"))
def test_something_stands_where_a_new_file_is_begun(life: Life, name: str, kind: str) -> None:
    field = life.at("fresh" if name.endswith("pem") else "downloaded")
    leftover, victim = field.data / f"{name}.new", field.device.root / "victim"
    if kind == "part of a file":
        leftover.write_bytes(b'{"schema": 1, "tok')
    else:
        leftover.symlink_to(victim)
    if kind == "a link":
        victim.write_text("precious")
    field.life_goes_on()
    ended_well(field, End("success", 1), [])
    assert not leftover.exists()
    assert not leftover.is_symlink()
    assert victim.exists() == (kind == "a link")
    assert kind != "a link" or victim.read_text() == "precious"


PARTS: dict[str, Corrupt] = {
    "empty": lambda content: b"",
    "missing": lambda content: None,
    "its tail lost": lambda content: content[:-70_000],
    "a megabyte lost": lambda content: content[:-SYNC_BYTES],
    "its tail NUL": lambda content: content[:-70_000] + bytes(70_000),
    "a megabyte NUL": lambda content: content[:-SYNC_BYTES] + bytes(SYNC_BYTES),
    "as long as the object, the end NUL": lambda content: content + bytes(9216),
    "longer than the object": lambda content: content + bytes(LARGE),
}


@pytest.mark.parametrize("ruin", some_of(PARTS, "its tail lost", "a megabyte NUL", "longer than the object"))
def test_a_corrupt_part_file_after_a_reboot_costs_no_update(life: Life, ruin: str) -> None:
    field = life.at("nearly downloaded")
    field.reboot()
    corrupt(field.data / PART, PARTS[ruin])
    field.life_goes_on()
    ended_well(field, End("success", 1), [])


def test_a_part_file_that_is_too_long_without_a_reboot(life: Life) -> None:
    field = life.at("nearly downloaded")
    corrupt(field.data / PART, PARTS["longer than the object"])
    field.life_goes_on()
    ended_well(field, End("success", 1), [])


@pytest.mark.parametrize("ruin", some_of(("empty", "all NUL", "one byte", "a third", "missing"), "empty"))
def test_a_corrupt_artifact_fails_the_update_and_a_missing_one_is_fetched_again(
    life: Life, ruin: str
) -> None:
    """It was synced before it got its name, so a disk that corrupts it anyway has failed the update."""
    field = life.at("downloaded")
    corrupt(field.data / ARTIFACT, RUINS[ruin])
    field.life_goes_on()
    ended_well(field, End("success", 1) if ruin == "missing" else End("failure", 0), [])


def test_an_artifact_whose_end_is_corrupt_fails_the_update(life: Life) -> None:
    field = life.at("downloaded")
    corrupt(field.data / ARTIFACT, lambda content: content[:-20_000] + bytes(20_000))
    field.life_goes_on()
    ended_well(field, End("failure", 0), [])


@pytest.mark.parametrize("tail", [b'{"timestamp": "2024-01-01T00:0', bytes(300)], ids=["torn", "NUL"])
def test_a_corrupt_line_of_the_log_costs_no_later_line(life: Life, tail: bytes) -> None:
    """What is written next, here why the update failed, must not get lost in the ruins of a line."""
    field = life.at("corrupt")
    with (field.data / "deployment.log").open("ab") as log:
        log.write(tail)
    field.life_goes_on()
    ended_well(field, End("failure", 0), [])
    messages = [entry["message"] for entry in field.server.log(field.deployment) or []]
    assert [message for message in messages if re.match(r"[^{]*checksum", message)], messages


def test_what_is_not_synced_yet_is_what_is_not_trusted(life: Life) -> None:
    """However often it was killed, no more of `artifact.part` is unsynced than the next boot distrusts."""
    field = life.at("offered, something large")
    found, _ = calls(field, "download")
    most, _ = unsynced(field.directory / "calls", 0)
    writes = [call for call in found if call.name == "write" and call.target == PART]
    field = life.at("offered, something large")
    kill(field, writes[len(writes) // 2], "download")
    _, left = unsynced(field.directory / "killed", 0)
    calls(field, "download")
    after, _ = unsynced(field.directory / "calls", left)
    distrusted = 10 * SYNC_BYTES - trusted(10 * SYNC_BYTES)
    assert max(most, after) <= distrusted


# --- Many at once


def test_twenty_at_once(life: Life) -> None:
    field = life.at("deployed")
    words = ["run", "run --all", "check-update", "download", "report --success"] * 4
    started = [(each, field.device.start(*each.split())) for each in words]
    for each, process in started:
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        assert process.returncode in {"report --success": (0, 2), "download": (0, 2, 75)}.get(
            each, (0, 75)
        ), err
        if each.startswith("run") and process.returncode == 75:
            assert (out, err) == ("", "")
    field.wait_for_sub_updater(len(field.starts()))
    field.life_goes_on()
    ended_well(field, End("success", 1), [])


def test_the_holder_of_the_lock_is_killed(life: Life) -> None:
    field = life.at("half downloaded")
    field.server.faults.add(match=STORAGE, stall_after=1000)
    holder = field.device.start("download")
    field.server.faults.wait_for_stall()
    field.a_day_passes()
    given_way = field.device.run("run", "--all")
    assert (given_way.code, given_way.out, given_way.err) == (75, "", "")
    waiting = [field.device.start("check-update", "--json") for _ in range(2)]
    with (field.data / "mender-oneshot.lock").open() as lock:
        until(lambda: waits_for_a_lock(waiting), "both wait for the lock", 60)
        assert pytest.raises(BlockingIOError, fcntl.flock, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    killed_at = time.monotonic()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    for process in waiting:
        out, _ = process.communicate(timeout=60)
        assert json.loads(out)["outcome"] == "update"
    assert time.monotonic() - killed_at < 20
    field.life_goes_on()
    ended_well(field, End("success", 1), [])


def waits_for_a_lock(processes: list["subprocess.Popen[str]"]) -> bool:
    return all(
        "flock" in Path(f"/proc/{process.pid}/wchan").read_text()
        or Path(f"/proc/{process.pid}/syscall").read_text().startswith(f"{FLOCK} ")
        for process in processes
    )


FLOCK = 73 if os.uname().machine == "x86_64" else 32


# --- Killed again and again


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.long)])
def test_a_download_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """Half of the kills fall anywhere in an invocation, half while bytes come in."""
    chance = random.Random(kills)
    # So slow that a machine busy with other tests loses a few packets in its buffers at a kill, not many.
    rate, size = 2.5e5, kills * 250_000
    with DevServer(tmp_path / "server", tls=False) as server:
        field = Field(tmp_path, server)
        device = field.device
        artifact = field.release("release-2", size)
        assert device.run("auth").code == 77
        server.accept()
        field.deploy("release-2")
        device.ok("check-update")
        link = ThinLink(artifact, rate)
        server.faults.add(match=STORAGE, count=None, redirect=link.url)
        for number in range(kills):
            process = device.start("download")
            if number % 2:
                until(lambda: link.asked.acquire(blocking=False), "the artifact is requested", 60)
                time.sleep(chance.uniform(0, 0.2))
            else:
                time.sleep(chance.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            said = process.communicate()
            assert process.returncode == -signal.SIGKILL, said
            while link.asked.acquire(blocking=False):
                continue
        link.rate = 100e6
        device.ok("download")
        link.stop()
        assert (field.data / ARTIFACT).read_bytes() == artifact.read_bytes()
        total = artifact.stat().st_size
        print(f"{kills} kills, {len(link.ranges)} requests: {link.sent / total:.4f} of the size served")
        assert link.sent <= 1.05 * total
        assert len(link.ranges) > kills // 2
        field.life_goes_on()
        ended_well(field, End("success", 1), [])
