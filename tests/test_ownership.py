"""What another user puts under one of our names is replaced or rejected: never used, followed or uploaded."""

import contextlib
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.device import REPO, Device, Release, patched_python
from helpers.seen import final_status

from mender_oneshot import disk, errors, lock, ownership
from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user's")


@pytest.fixture
def python() -> str:
    """Only the newest libraries: Debian's make the same system calls."""
    return sys.executable


STRANGER = 12345
SECRET = "root's own secret"
KEY, STATE, LOCK = "mender-agent.pem", "mender-oneshot.json", "mender-oneshot.lock"
PART, ARTIFACT, UPDATE_LOCK = "artifact.part", "artifact.mender", "update.lock"
OURS, THEIRS = "deployment.log", "sub-updater.log"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The name of a file in a directory where every user may make files."""
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory / "file"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of root's that no invocation may change, read or upload."""
    path = tmp_path / "victim"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def a_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def a_link_to_nothing(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("victim-to-be"))


def a_link_to_itself(path: Path, victim: Path) -> None:
    path.symlink_to(path)


def a_hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def a_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o666)


def a_socket(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


def a_device(path: Path, victim: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


def a_directory(path: Path, victim: Path) -> None:
    path.mkdir()


def a_strangers_file(path: Path, victim: Path) -> None:
    path.write_text("a stranger's")
    os.chown(path, STRANGER, STRANGER)
    path.chmod(0o600)


def writable_by_all(path: Path, victim: Path) -> None:
    path.write_text("another's")
    path.chmod(0o666)


def writable_by_a_group(path: Path, victim: Path) -> None:
    path.write_text("a group's")
    os.chown(path, 0, STRANGER)
    path.chmod(0o660)


KINDS = [
    a_link,
    a_link_to_nothing,
    a_link_to_itself,
    a_hard_link,
    a_fifo,
    a_socket,
    a_device,
    a_directory,
    a_strangers_file,
    writable_by_all,
    writable_by_a_group,
]
Kind = Callable[[Path, Path], None]


def untouched(victim: Path) -> bool:
    return victim.read_text() == SECRET and not victim.with_name("victim-to-be").exists()


# The functions that every step uses.


def append(path: Path) -> None:
    descriptor = disk.open_own(str(path))
    os.write(descriptor, b"ours")
    os.close(descriptor)
    assert path.read_bytes() == b"ours"


def replace(path: Path) -> None:
    disk.write_whole(str(path), b"ours")
    assert path.read_bytes() == b"ours"


def lock_it(path: Path) -> None:
    held = lock.take(str(path), wait=False)
    assert os.path.samestat(os.fstat(held), path.lstat())
    with pytest.raises(errors.Busy):
        lock.take(str(path), wait=False)
    os.close(held)


def taken_over(path: Path, victim: Path) -> bool:
    return (
        not ownership.not_ours(path.lstat()) and untouched(victim) and os.listdir(path.parent) == [path.name]
    )


@pytest.mark.parametrize("use", [append, replace, lock_it])
@pytest.mark.parametrize("make", KINDS)
def test_what_a_stranger_prepared_is_replaced(
    place: Path, victim: Path, make: Kind, use: Callable[[Path], None]
) -> None:
    make(place, victim)
    if make is a_directory:
        with pytest.raises((OSError, errors.DiskError), match="Is a directory"):
            use(place)
        assert os.listdir(place.parent) == [place.name]
    else:
        use(place)
        assert taken_over(place, victim)
    assert untouched(victim)


@pytest.mark.parametrize("make", KINDS)
def test_what_a_stranger_prepared_is_not_read(place: Path, victim: Path, make: Kind) -> None:
    make(place, victim)
    assert not disk.is_own(str(place))
    # A directory cannot be replaced, so it is an error that names it.
    with pytest.raises(errors.DiskError if make is a_directory else errors.UntrustedFile, match=str(place)):
        disk.read_own(str(place))
    with pytest.raises(errors.UntrustedFile, match=str(place)):
        disk.open_to_read(str(place))
    assert os.listdir(place.parent) == [place.name]


@pytest.mark.parametrize("make", KINDS)
def test_what_lies_beside_a_file_never_keeps_it_from_being_saved(
    place: Path, victim: Path, make: Kind
) -> None:
    make(place.with_name(place.name + ".new"), victim)
    replace(place)
    assert not ownership.not_ours(place.lstat())
    assert untouched(victim)


def our_own(path: Path, victim: Path) -> None:
    path.write_text("ours")
    path.chmod(0o644)


def our_groups(path: Path, victim: Path) -> None:
    path.write_text("ours")
    path.chmod(0o664)


@pytest.mark.parametrize("make", [our_own, our_groups])
def test_what_is_ours_is_kept(place: Path, victim: Path, make: Kind) -> None:
    make(place, victim)
    before = place.lstat().st_ino
    assert disk.is_own(str(place))
    assert disk.read_own(str(place)) == b"ours"
    os.close(lock.take(str(place), wait=False))
    os.close(disk.open_own(str(place)))
    assert place.lstat().st_ino == before
    assert stat.S_IMODE(place.lstat().st_mode) == 0o600


def test_a_lock_that_got_a_second_name_while_it_is_held_is_still_held(place: Path) -> None:
    held = lock.take(str(place), wait=False)
    os.link(place, place.with_name("second"))
    with pytest.raises(errors.Busy):
        lock.take(str(place), wait=False)
    os.close(held)
    os.close(lock.take(str(place), wait=False))
    assert place.lstat().st_nlink == 1


def test_a_stranger_who_holds_a_file_as_our_lock_holds_nobody_up(place: Path, victim: Path) -> None:
    a_strangers_file(place, victim)
    with place.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lock_it(place)


def test_of_many_who_find_a_strangers_lock_one_gets_it(place: Path, victim: Path) -> None:
    """Replacing it is no gap in which two could hold it."""
    code = "import sys; from mender_oneshot import lock; lock.take(sys.argv[1], wait=True); "
    code += "import os; path = sys.argv[1] + '.busy'; os.mkdir(path); os.rmdir(path)"
    for make in (a_strangers_file, a_fifo, a_hard_link):
        place.unlink(missing_ok=True)
        make(place, victim)
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        started = [
            subprocess.Popen([sys.executable, "-c", code, str(place)], env=environment) for _ in range(6)
        ]
        assert [process.wait(60) for process in started] == [0] * 6
        assert taken_over(place, victim)


# The command.


@pytest.fixture
def shared(device: Device, server: DevServer, release: Release) -> Device:
    """An accepted device with an update to come, in whose data directory every user may make files."""
    server.accept_all = True
    device.ok("auth")
    release()
    device.data.chmod(0o1777)
    device.sub_updater("cp $2 $MENDER_DATASTORE_DIR/installed; $ONESHOT report --failure\n")
    return device


def put(device: Device, name: str, make: Kind, victim: Path) -> Path:
    path = device.data / name
    path.unlink(missing_ok=True)
    make(path, victim)
    return path


@pytest.mark.parametrize("make", [a_link, a_hard_link, a_fifo, a_strangers_file, writable_by_all])
@pytest.mark.parametrize(
    "name", [PART, ARTIFACT, LOCK, OURS, THEIRS, "sub-updater.lock", f"{STATE}.new", f"{UPDATE_LOCK}.new"]
)
def test_an_update_passes_by_what_a_stranger_prepared(
    shared: Device, server: DevServer, victim: Path, name: str, make: Kind
) -> None:
    shared.ok("check-update")
    path = put(shared, name, make, victim)
    done = shared.run("run", "--all")
    if (name, done.code) == (ARTIFACT, 75):
        assert "which other users can change" in done.err
        done = shared.run("run", "--all", "--force")
    assert done.code == 0, done
    server.wait_for(lambda seen: seen.path.endswith("/log"))
    assert SECRET not in json.dumps([seen.body.decode("utf-8", "replace") for seen in server.requests])
    assert not os.path.lexists(path) or not ownership.not_ours(path.lstat())
    assert untouched(victim)


def test_who_made_the_part_file_cannot_change_what_was_verified(
    shared: Device, server: DevServer, victim: Path, tmp_path: Path
) -> None:
    shared.sub_updater(f"cp $1 {tmp_path}/installed; $ONESHOT report --success\n")
    with put(shared, PART, a_strangers_file, victim).open("r+b") as held:
        shared.ok("check-update")
        shared.ok("download")
        held.write(b"evil" * 1000)
        held.flush()
        shared.ok("install")
    server.wait_for(final_status)
    assert (tmp_path / "installed").read_bytes() == (tmp_path / "release-2.mender").read_bytes()


@pytest.mark.parametrize("make", [a_hard_link, a_strangers_file, a_link, writable_by_all])
@pytest.mark.parametrize("name", [OURS, THEIRS])
def test_a_log_of_somebody_elses_is_not_uploaded(
    shared: Device, server: DevServer, victim: Path, name: str, make: Kind
) -> None:
    shared.sub_updater()
    shared.ok("run", "--all")
    deployment = shared.handed_off
    victim.chmod(0o644)
    path = put(shared, name, make, victim)
    if make in (a_strangers_file, writable_by_all):
        path.write_text(SECRET)
    shared.ok("report", "--failure")
    log = json.dumps(server.log(deployment))
    assert SECRET not in log
    if name == THEIRS:
        assert f"{path} was left out because it " in log


@pytest.mark.parametrize("make", [a_hard_link, a_strangers_file, a_link, writable_by_all])
def test_a_state_of_somebody_elses_is_not_believed(shared: Device, victim: Path, make: Kind) -> None:
    content = (shared.data / STATE).read_text()
    victim.write_text(content)
    path = put(shared, STATE, make, victim)
    if make in (a_strangers_file, writable_by_all):
        path.write_text(content)
    done = shared.run("auth")
    assert done.code == 0
    assert "has accepted this device" in done.out
    assert f"The state {path} cannot be used (it " in done.err
    assert not ownership.not_ours(path.lstat())
    assert victim.read_text() == content


@pytest.mark.parametrize("make", [a_strangers_file, writable_by_all])
@pytest.mark.parametrize("words", [["auth", "--fresh"], ["bootstrap"]], ids=["auth", "bootstrap"])
def test_a_key_of_somebody_elses_is_neither_used_nor_replaced(
    shared: Device, server: DevServer, victim: Path, make: Kind, words: list[str]
) -> None:
    pem = (shared.data / KEY).read_text()
    path = put(shared, KEY, make, victim)
    path.write_text(pem)
    done = shared.run(*words)
    assert done.code == 78
    assert f"The device key {path} " in done.err
    assert f"chown root:root {path} && chmod 600 {path}" in done.err
    os.chown(path, 0, 0)
    path.chmod(0o600)
    shared.ok(*words)
    assert path.read_text() == pem
    assert len(server.devices) == 1


@pytest.mark.parametrize("make", [a_hard_link, writable_by_all, a_fifo, a_link])
def test_an_update_lock_that_others_can_write_names_no_deployment(
    shared: Device, victim: Path, make: Kind
) -> None:
    put(shared, UPDATE_LOCK, make, victim)
    assert "Deployment (unknown) is being installed" in shared.ok("run").out


def of_a_strangers(make: Kind) -> Kind:
    def made(path: Path, victim: Path) -> None:
        make(path, victim)
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)

    return made


@pytest.mark.parametrize("kind", [a_strangers_file, a_link, a_link_to_nothing, a_fifo, a_socket])
def test_an_update_lock_of_a_strangers_holds_nothing_up(
    shared: Device, server: DevServer, victim: Path, kind: Kind
) -> None:
    path = put(shared, UPDATE_LOCK, of_a_strangers(kind), victim)
    if kind is a_strangers_file:
        path.write_text("11111111-1111-1111-1111-111111111111")
    assert "Handed release-2" in shared.ok("run", "--all").out
    server.wait_for(lambda seen: seen.path.endswith("/log"))
    assert not ownership.not_ours(path.lstat())
    assert untouched(victim)


@pytest.mark.parametrize("log", ["missing", "of a stranger's", "a directory"])
def test_a_log_of_a_strangers_does_not_mean_that_the_sub_updater_was_started(
    shared: Device, server: DevServer, victim: Path, log: str
) -> None:
    """The power failed before it was."""
    shared.ok("check-update")
    shared.ok("download")
    deployment = shared.begin_hand_off(boot="another")
    (shared.data / UPDATE_LOCK).write_text(deployment)
    if log == "of a stranger's":
        put(shared, THEIRS, a_strangers_file, victim)
    elif log == "a directory":
        put(shared, THEIRS, a_directory, victim)
    assert "The sub-updater was never started" in shared.ok("run").out
    if log == "a directory":
        done = shared.run("run")
        assert (done.code, "remove the directory" in done.err) == (74, True), done
        (shared.data / THEIRS).rmdir()
        shared.ok("run", "--all", "--force")
    else:
        shared.ok("run", "--all")
    server.wait_for(lambda seen: seen.path.endswith("/log"))


# A file system that shows the same owner and mode for every file: vfat with uid= and umask=, some shares.
ALIKE = """
import os
def alike(call):
    def answer(*words, **options):
        found = call(*words, **options)
        if (found.st_mode & 0o170000) != 0o100000:
            return found
        return os.stat_result((found.st_mode | 0o777, *found[1:4], 12345, *found[5:]))
    return answer
os.fstat, os.lstat, os.stat = alike(os.fstat), alike(os.lstat), alike(os.stat)
"""


def test_a_file_system_without_owners_and_modes_is_no_reason_to_start_over(
    shared: Device, server: DevServer, release: Release
) -> None:
    """There every file is like any other, so none is suspicious: a download is resumed."""
    server.faults.add(match="GET /storage/*", cut_after=600)
    with patched_python(shared, ALIKE):
        shared.ok("check-update")
        assert shared.run("download").code == 75
        there = (shared.data / PART).stat().st_size
        assert there > 0
        shared.ok("download")
        assert server.requests[-1].headers["Range"] == f"bytes={there}-"
        before = (shared.data / LOCK).stat().st_ino
        shared.ok("install")
        assert (shared.data / LOCK).stat().st_ino == before
    assert not [name for name in os.listdir(shared.data) if ".new" in name]
