"""Field stories of bad disks: full, out of inodes, read-only, failing; nothing lost, no storm, then on again.

The data directory lies on a small tmpfs. A `run` here is the tick of a timer: what a disk in trouble makes of
it is counted at the server.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.clock_and_disk import PAGE, RESERVE, Disk, Traffic, failing, needs_strace, small_disk
from helpers.device import Device, Release, one_sentence
from helpers.seen import final_status
from helpers.waiting import until, until_size

from mender_oneshot.devserver import DevServer

# Both worlds of libraries write with the same system calls.


FULL, BROKEN = 73, 74
STATE, LOCK, PART, KEY = "mender-oneshot.json", "mender-oneshot.lock", "artifact.part", "mender-agent.pem"


@pytest.fixture
def device(device: Device) -> Iterator[Device]:
    """A fresh device whose data directory is a small file system of its own."""
    with small_disk(device.data, "size=8m,nr_inodes=100"):
        (device.data / "device_type").write_text("device_type=board\n")
        yield device


@pytest.fixture
def disk(device: Device) -> Disk:
    """That file system."""
    return Disk(device.data)


def due(device: Device) -> bytes:
    """Half an hour has passed: a check is due. Returns what the state file holds."""
    device.make_due("check-update", "send-inventory")
    return (device.data / STATE).read_bytes()


def leftovers(device: Device) -> list[str]:
    return [path.name for path in device.data.iterdir() if path.name.endswith(".new")]


def full(disk: Disk) -> None:
    disk.leave(0)


def one_page(disk: Disk) -> None:
    disk.leave(PAGE)


def no_inode(disk: Disk) -> None:
    disk.use_up_inodes()


def read_only(disk: Disk) -> None:
    disk.remount("ro")


TROUBLES = [full, one_page, no_inode, read_only]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_nobody_is_asked_what_could_not_be_remembered(
    accepted: Device, server: DevServer, disk: Disk, trouble: Callable[[Disk], None]
) -> None:
    """Without a state that can be written there is no back-off: each minute's tick would ask again."""
    before = due(accepted)
    trouble(disk)
    asked = Traffic(server)
    for words in (["run"], ["run", "--all"], ["check-update"]):
        one_sentence(accepted.run(*words), FULL, str(disk.path), "the next run will retry")
    assert asked.new() == []
    assert (accepted.data / STATE).read_bytes() == before
    assert leftovers(accepted) == []
    disk.relieve() if trouble is not read_only else disk.remount("rw")
    accepted.ok("run", "--all")
    assert asked.new()[-2:] == ["next", "attributes"]
    assert accepted.state["token"] == json.loads(before)["token"]


@pytest.mark.parametrize("trouble", [full, read_only])
def test_a_fresh_device_on_a_bad_disk_does_not_enrol(
    device: Device, server: DevServer, disk: Disk, trouble: Callable[[Disk], None]
) -> None:
    """A key that cannot be kept would make a new device for the server at every tick."""
    trouble(disk)
    for _ in range(2):
        one_sentence(device.run("run"), FULL, str(disk.path))
    assert server.devices == []
    assert not (device.data / KEY).exists()
    disk.relieve() if trouble is not read_only else disk.remount("rw")
    assert device.run("run").code == 77
    assert len(server.devices) == 1


def test_a_tick_with_nothing_due_does_not_care(accepted: Device, server: DevServer, disk: Disk) -> None:
    accepted.ok("run", "--all")
    disk.leave(0)
    disk.remount("ro")
    asked = Traffic(server)
    done = accepted.ok("run")
    assert (done.out, done.err, asked.new()) == ("", "", [])
    assert accepted.ok("show-artifact").out == "release-1\n"


# The system calls of an invocation on the files that it needs.
CALLS = [
    ("openat", LOCK),
    ("openat", STATE),
    ("read", STATE),
    ("openat", f"{STATE}.new"),
    ("write", f"{STATE}.new"),
    ("fsync", f"{STATE}.new"),
    ("?rename,?renameat,?renameat2", f"{STATE}.new"),
    ("fsync", ""),
]


@pytest.mark.real
@needs_strace
def test_an_input_output_error_in_whatever_call_asks_nobody(accepted: Device, server: DevServer) -> None:
    before = due(accepted)
    asked = Traffic(server)
    for calls, name in CALLS:
        done = accepted.run("run", wrapper=failing(calls, accepted.data / name))
        one_sentence(done, BROKEN, "Input/output error", str(accepted.data), "the next run will retry")
        assert (asked.new(), leftovers(accepted)) == ([], []), (calls, name)
        assert accepted.state == json.loads(before), (calls, name)
    accepted.ok("run", "--all")
    assert asked.new()[-2:] == ["next", "attributes"]


# Checks that write to /run only.


@pytest.fixture
def polling(accepted: Device) -> Device:
    """A device that has checked for an update since it was started; its next check needs no write."""
    accepted.ok("run", "--all")
    accepted.let_time_pass(2000, expire=False)
    return accepted


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("words", [["run"], ["run", "--all"], ["check-update"]])
def test_a_disk_that_became_unusable_is_seen_without_a_write(
    polling: Device, server: DevServer, disk: Disk, trouble: Callable[[Disk], None], words: list[str]
) -> None:
    before = (polling.data / STATE).read_bytes()
    trouble(disk)
    asked = Traffic(server)
    for _ in range(2):
        one_sentence(polling.run(*words), FULL, str(disk.path), "the next run will retry")
    assert (asked.new(), (polling.data / STATE).read_bytes()) == ([], before)
    disk.relieve() if trouble is not read_only else disk.remount("rw")
    polling.ok(*words)
    assert asked.new() == ["next"]


@pytest.mark.real
@needs_strace
@pytest.mark.parametrize("news", ["an update", "a failure"])
@pytest.mark.parametrize(("calls", "name"), CALLS[3:])
def test_what_a_check_finds_but_cannot_save_is_asked_once(
    polling: Device, server: DevServer, release: Release, news: str, calls: str, name: str
) -> None:
    """A write that fails can only be noticed by a write, which comes after the first request."""
    release() if news == "an update" else server.faults.add(match="* */next", status=503, count=None)
    asked = Traffic(server)
    assert polling.run("run", wrapper=failing(calls, polling.data / name)).code == BROKEN
    assert set(asked.new()) == {"next"}
    for _ in range(2):
        polling.run("run", "--all", wrapper=failing(calls, polling.data / name))
    assert asked.new() == []


@pytest.mark.real
@needs_strace
def test_a_disk_that_fails_stops_no_checks_while_there_is_nothing_to_save(
    polling: Device, server: DevServer
) -> None:
    asked = Traffic(server)
    for _ in range(3):
        for _ in range(2):
            done = polling.run("run", wrapper=failing("write", polling.data / f"{STATE}.new"))
            assert (done.code, done.err) == (0, "")
        assert asked.new() == ["next"]
        polling.let_time_pass(2000, expire=False)


@pytest.mark.real
@needs_strace
def test_after_a_check_was_killed_the_next_one_writes_first(
    polling: Device, server: DevServer, release: Release
) -> None:
    release()
    server.faults.add(match="* */next", stall_after=10)
    process = polling.start("run")
    server.faults.wait_for_stall()
    before = len(server.requests)
    process.kill()
    process.communicate()
    server.faults.release()
    until(lambda: len(server.requests) > before, "the server logs the request of the killed check")
    asked = Traffic(server)
    done = polling.run("run", wrapper=failing("write", polling.data / f"{STATE}.new"))
    assert (done.code, asked.new()) == (BROKEN, [])
    polling.ok("run")
    assert asked.new() == ["next"]


# Downloads.


@pytest.fixture
def offered(accepted: Device, release: Release) -> Device:
    """A device with a deployment in hand whose artifact has a size in whole pages."""
    release(size=3_000_000, payload_type="single-file")
    accepted.ok("check-update")
    return accepted


def artifact(tmp_path: Path) -> bytes:
    return (tmp_path / "release-2.mender").read_bytes()


def test_room_is_looked_for_before_the_first_byte(
    offered: Device, server: DevServer, disk: Disk, tmp_path: Path
) -> None:
    """To the page: the artifact and a reserve for the state have to fit."""
    size = len(artifact(tmp_path))
    pages = -(-size // PAGE) * PAGE
    disk.leave(pages + RESERVE - PAGE)
    one_sentence(
        offered.run("download"), FULL, "Not enough space for the artifact", "MB are needed", "free some space"
    )
    assert (offered.data / PART).stat().st_size == 0
    disk.leave(pages - PAGE)
    one_sentence(offered.run("download"), FULL, "Not enough space for the artifact")
    assert (offered.data / PART).stat().st_size == 0
    # The state had its room all the time: the tick that follows keeps its distance,
    # and has time for the inventory.
    assert offered.failures["download"] == 2
    asked = Traffic(server)
    offered.ok("run")
    assert asked.new() in ([], ["attributes"])
    disk.leave(pages + RESERVE)
    offered.ok("download")
    assert (offered.data / "artifact.mender").read_bytes() == artifact(tmp_path)


def test_a_disk_that_is_too_small_for_good_fails_the_update_with_a_log_that_says_so(
    offered: Device, server: DevServer, disk: Disk
) -> None:
    """And once the size is known, nothing is fetched in vain."""
    deployment = offered.deployment
    offered.configure(RetryDownloadCount=2)
    disk.leave(RESERVE)
    one_sentence(offered.run("download"), FULL, "Not enough space for the artifact")
    asked = Traffic(server)
    assert offered.run("download").code == 69
    assert "artifact" not in asked.new()
    offered.ok("run", "--force")
    assert server.status(deployment) == "failure"
    assert "Not enough space for the artifact" in json.dumps(server.log(deployment))


def fills_up(device: Device, server: DevServer, disk: Disk, left: int) -> None:
    """Another program fills the disk when 1.2 MB of the artifact are there."""
    server.faults.add(match="GET /storage/*", stall_after=1_200_000)
    process = device.start("download")
    server.faults.wait_for_stall()
    until_size(device.data / PART, 1_200_000)
    disk.leave(left)
    server.faults.release()
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == FULL, complaint
    assert len(complaint.splitlines()) == 1, complaint


def test_a_disk_that_fills_up_during_the_download_keeps_what_is_there(
    offered: Device, server: DevServer, disk: Disk, tmp_path: Path
) -> None:
    fills_up(offered, server, disk, RESERVE // 2)
    there = (offered.data / PART).stat().st_size
    assert there >= 1_200_000
    assert offered.failures["download"] == 1
    disk.relieve()
    offered.ok("download")
    assert (offered.data / "artifact.mender").read_bytes() == artifact(tmp_path)
    assert server.requests[-1].headers["Range"] == f"bytes={there}-"


def test_a_disk_without_a_byte_left_in_the_download_is_no_storm(
    offered: Device, server: DevServer, disk: Disk, tmp_path: Path
) -> None:
    """Not even the failure can be written down, so the ticks that follow must see it for themselves."""
    fills_up(offered, server, disk, 0)
    there = (offered.data / PART).stat().st_size
    asked = Traffic(server)
    for _ in range(3):
        one_sentence(offered.run("run"), FULL, "No space left on device")
    assert asked.new() == []
    assert (offered.data / PART).stat().st_size == there
    disk.relieve()
    offered.ok("run")
    assert server.requests[-1].headers["Range"] == f"bytes={there}-"


@pytest.mark.real
@needs_strace
@pytest.mark.parametrize("calls", ["write", "fsync"])
def test_an_input_output_error_in_the_download_is_put_right_by_the_next(
    offered: Device, server: DevServer, tmp_path: Path, calls: str
) -> None:
    server.faults.add(match="GET /storage/*", cut_after=600_000)
    assert offered.run("download").code == 75
    done = offered.run("download", wrapper=failing(calls, offered.data / PART))
    assert done.code == BROKEN
    assert "Input/output error" in done.err
    assert offered.failures["download"] >= 1
    offered.ok("download")
    assert (offered.data / "artifact.mender").read_bytes() == artifact(tmp_path)
    assert leftovers(offered) == []


# Hand-off and report.


def test_a_full_disk_holds_up_the_hand_off_and_nothing_runs_twice(
    offered: Device, server: DevServer, disk: Disk, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    offered.sub_updater(f"echo called >> {called}\n$ONESHOT report --success\n")
    offered.ok("download")
    disk.leave(0)
    asked = Traffic(server)
    for _ in range(3):
        one_sentence(offered.run("run", "--all"), FULL, "No space left on device")
    assert asked.new() == []
    assert not called.exists()
    assert not (offered.data / "update.lock").exists()
    disk.relieve()
    offered.ok("run", "--all")
    server.wait_for(final_status)
    assert called.read_text() == "called\n"


@pytest.fixture
def installing(offered: Device, server: DevServer) -> Device:
    """A device whose update is being installed by a sub-updater that does nothing by itself."""
    offered.sub_updater()
    offered.ok("run", "--all")
    return offered


def test_a_result_on_a_full_disk_takes_the_room_of_the_artifact(
    installing: Device, server: DevServer, disk: Disk
) -> None:
    """The update is over, so its artifact is the first thing to go; the result is worth more."""
    deployment = installing.handed_off
    disk.leave(0)
    answer = installing.ok("report", "--success", "--json").json
    assert answer["outcome"] == "delivered"
    assert server.status(deployment) == "success"
    assert installing.last_status == "success"


def test_a_result_that_cannot_be_written_down_is_refused_and_not_sent(
    installing: Device, server: DevServer, disk: Disk
) -> None:
    """Exit 0 promises "delivered or queued"; sent but forgotten, a later tick would call it a failure."""
    deployment = installing.handed_off
    before = (installing.data / STATE).read_bytes()
    asked = Traffic(server)
    disk.remount("ro")
    one_sentence(installing.run("report", "--success"), FULL, "Read-only file system")
    assert (asked.new(), server.status(deployment)) == ([], "installing")
    disk.remount("rw")
    assert (installing.data / STATE).read_bytes() == before
    assert installing.ok("report", "--success", "--json").json["outcome"] == "delivered"
    assert server.status_history(deployment).count("success") == 1


def test_a_queued_result_outlives_the_trouble(installing: Device, server: DevServer, disk: Disk) -> None:
    """Server away, then the disk read-only, then both well: one final status."""
    deployment = installing.handed_off
    server.faults.add(match="PUT */status", drop_before=True)
    assert installing.ok("report", "--failure", "--json").json["outcome"] == "queued"
    installing.forget_failures()
    asked = Traffic(server)
    disk.remount("ro")
    for _ in range(3):
        one_sentence(installing.run("run", "--all"), FULL, "Read-only file system")
    assert asked.new() == []
    disk.remount("rw")
    installing.ok("run", "--all")
    assert len([seen for seen in server.requests if final_status(seen) and seen.status == 204]) == 1
    assert server.status(deployment) == "failure"
    assert server.log(deployment)


def test_a_sub_updater_given_up_on_a_full_disk(installing: Device, server: DevServer, disk: Disk) -> None:
    deployment = installing.handed_off
    installing.age_hand_off(14400)
    disk.leave(0)
    installing.ok("run", "--all")
    assert server.status(deployment) == "failure"


# The log of a deployment.


@pytest.mark.parametrize("trouble", ["a directory stands there", "read-only", "full"])
def test_a_log_that_cannot_be_written_does_not_break_the_update(
    accepted: Device, server: DevServer, release: Release, tmp_path: Path, trouble: str
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with small_disk(logs, "size=64k") as disk:
        (logs / "deployment.log").write_text("of the update before\n")
        accepted.configure(UpdateLogPath=str(logs))
        if trouble == "a directory stands there":
            (logs / "deployment.log").unlink()
            (logs / "deployment.log").mkdir()
        elif trouble == "read-only":
            disk.remount("ro")
        else:
            disk.leave(0)
        deployment = release()
        accepted.sub_updater("$ONESHOT report --failure\n")
        accepted.ok("run", "--all")
        server.wait_for(lambda seen: seen.path.endswith("/log"))
        assert server.status_history(deployment) == ["downloading", "installing", "failure"]
        assert server.log(deployment)


def test_a_program_hears_of_the_disk_in_json(accepted: Device, disk: Disk) -> None:
    due(accepted)
    disk.leave(0)
    answer = accepted.run("run", "--json").json
    assert answer["exit_code"] == FULL
    assert os.strerror(errno.ENOSPC) in answer["error"]


def test_a_limit_on_the_size_of_a_file_is_known_before_the_first_byte(
    offered: Device, server: DevServer
) -> None:
    offered.configure(RetryDownloadCount=5)
    server.faults.add(match="GET /storage/*", cut_after=600_000)
    assert offered.run("download").code == 75  # now the size is known
    asked = Traffic(server)
    limited = ("sh", "-c", 'ulimit -f 2000; exec "$@"', "sh")
    one_sentence(
        offered.run("download", wrapper=limited), FULL, "more than the limit of 1024000", "ulimit -f"
    )
    assert "artifact" not in asked.new()
    offered.ok("download")


@pytest.mark.parametrize(
    ("trouble", "remedy"),
    [(read_only, "mount it read-write"), (no_inode, "to free inodes"), (full, "free some space")],
)
def test_doctor_and_run_name_the_same_remedy(
    accepted: Device, disk: Disk, trouble: Callable[[Disk], None], remedy: str
) -> None:
    due(accepted)
    trouble(disk)
    one_sentence(accepted.run("run"), FULL, remedy)
    found = [line for line in accepted.run("doctor").out.splitlines() if " data directory " in line]
    assert len(found) == 1
    assert found[0].startswith("FAILED ")
    assert remedy in found[0]
