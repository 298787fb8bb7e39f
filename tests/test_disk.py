"""Files on real file systems: whole or not at all, whatever stands in the way."""

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.descriptors import open_descriptors
from helpers.device import REPO, Device
from helpers.permissions import mode
from helpers.real_daemon import need

from mender_oneshot import disk, lock
from mender_oneshot.errors import Busy, DiskError, Error, NoSpace

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def sentence(caught: pytest.ExceptionInfo[Error], path: object) -> str:
    """What an error says: one sentence that names the file."""
    said = str(caught.value)
    assert str(path) in said
    assert said.isprintable()
    assert "Errno" not in said
    return said


# Writing.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with something in it, alone in its directory."""
    path = tmp_path / "data" / "state.json"
    path.parent.mkdir()
    path.write_bytes(b"old")
    path.chmod(0o644)
    return path


def alone(path: Path) -> bool:
    return os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
@pytest.mark.parametrize("before", [True, False], ids=["replaced", "new"])
def test_what_is_written_is_for_us_alone(file: Path, mask: int, before: bool) -> None:
    if not before:
        file.unlink()
    with umask(mask):
        disk.write_whole(str(file), b"new")
    assert file.read_bytes() == b"new"
    assert mode(file) == 0o600
    assert alone(file)


@pytest.mark.parametrize("content", [b"", b"\0" * 5_000_000], ids=["nothing", "much"])
def test_all_of_it_is_written(file: Path, content: bytes) -> None:
    disk.write_whole(str(file), content)
    assert file.read_bytes() == content


def test_another_mode_can_be_asked_for(file: Path) -> None:
    with umask(0):
        disk.write_whole(str(file), b"new", 0o644)
    assert mode(file) == 0o644


def test_a_name_without_a_directory_is_one_here(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    disk.write_whole(file.name, b"new")
    assert file.read_bytes() == b"new"


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def open_file(path: Path) -> None:
    path.write_bytes(b"prepared")
    path.chmod(0o666)


def link(path: Path) -> None:
    path.symlink_to("../victim")


def hard_link(path: Path) -> None:
    path.hardlink_to(path.parent.parent / "victim")


def dangling_link(path: Path) -> None:
    path.symlink_to("../victim-to-be")


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


@pytest.mark.parametrize("prepare", [open_file, link, hard_link, dangling_link, fifo])
def test_what_somebody_prepared_beside_is_neither_followed_nor_used(
    file: Path, prepare: Callable[[Path], None]
) -> None:
    victim = file.parent.parent / "victim"
    victim.write_bytes(b"untouched")
    victim.chmod(0o644)
    prepare(beside(file))
    with umask(0):
        disk.write_whole(str(file), b"new")
    assert file.read_bytes() == b"new"
    assert stat.S_ISREG(file.lstat().st_mode)
    assert mode(file) == 0o600
    assert file.stat().st_nlink == 1
    assert alone(file)
    assert (victim.read_bytes(), mode(victim)) == (b"untouched", 0o644)
    assert not (file.parent.parent / "victim-to-be").exists()


def test_a_directory_beside_is_left_alone_and_another_name_is_used(file: Path) -> None:
    (beside(file) / "kept").mkdir(parents=True)
    disk.write_whole(str(file), b"new")
    assert file.read_bytes() == b"new"
    assert sorted(os.listdir(file.parent)) == [file.name, beside(file).name]
    assert os.listdir(beside(file)) == ["kept"]


def test_a_link_in_place_of_the_file_is_replaced_not_followed(file: Path) -> None:
    victim = file.parent.parent / "victim"
    file.rename(victim)
    file.symlink_to(victim)
    disk.write_whole(str(file), b"new")
    assert victim.read_bytes() == b"old"
    assert not file.is_symlink()


def test_a_directory_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    target.mkdir()
    with pytest.raises(DiskError) as caught:
        disk.write_whole(str(target), b"new")
    sentence(caught, target)
    assert alone(target)


@pytest.mark.parametrize(
    "where",
    ["nowhere/state.json", "data/state.json/x", "x" * 300, "loop/x"],
    ids=["none", "file", "long", "loop"],
)
def test_a_path_that_cannot_be_written_is_an_error_and_leaves_the_old_file(file: Path, where: str) -> None:
    (file.parent.parent / "loop").symlink_to("loop")
    path = file.parent.parent / where
    with pytest.raises(DiskError) as caught:
        disk.write_whole(str(path), b"new")
    sentence(caught, path)
    assert caught.value.exit_code == 74
    assert file.read_bytes() == b"old"


@NOT_ROOT
def test_a_directory_without_write_permission_leaves_the_old_file(file: Path) -> None:
    file.parent.chmod(0o555)
    with pytest.raises(DiskError):
        disk.write_whole(str(file), b"new")
    file.parent.chmod(0o755)
    assert file.read_bytes() == b"old"


IN_A_SMALL_PLACE = """
import os, sys
sys.path.insert(0, sys.argv[2])
os.chdir(sys.argv[1])
from mender_oneshot import disk, errors

def said(act, *words):
    try:
        act(*words)
    except errors.Error as error:
        print(type(error).__name__, error.exit_code, str(error).partition("; ")[2].partition(",")[0])
    else:
        print("done")
    print(open("state.json").read(), sorted(os.listdir(".")))
"""


def in_a_small_place(tmp_path: Path, *acts: str) -> list[str]:
    """What is said by code that runs on a file system of 64 KiB, in a mount namespace of its own."""
    need("unshare")
    place = tmp_path / "small"
    place.mkdir()
    script = f"mount -t tmpfs -o size=64k,nr_inodes=8 none {place} || exit 99\n" + 'exec "$@"'
    code = "\n".join([IN_A_SMALL_PLACE, *acts])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", code, str(place), str(REPO)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@ROOT
def test_a_full_file_system_leaves_the_old_file(tmp_path: Path) -> None:
    assert in_a_small_place(
        tmp_path,
        'disk.write_whole("state.json", b"old")',
        'said(disk.write_whole, "state.json", bytes(100_000))',
        'open("filler", "wb").write(bytes(60 << 10))',
        'said(disk.write_whole, "state.json", b"new")',
        'os.remove("filler")',
        'said(disk.write_whole, "state.json", b"new")',
    ) == [
        "NoSpace 73 free some space",
        "old ['state.json']",
        "NoSpace 73 free some space",
        "old ['filler', 'state.json']",
        "done",
        "new ['state.json']",
    ]


@ROOT
def test_a_file_system_without_room_for_another_name_leaves_the_old_file(tmp_path: Path) -> None:
    *_, full, listing = in_a_small_place(
        tmp_path,
        'disk.write_whole("state.json", b"old")',
        'for n in range(6): open(str(n), "w")',
        'said(disk.write_whole, "state.json", b"new")',
    )
    assert full == "NoSpace 73 delete files to free inodes"
    assert listing.startswith("old ")


@ROOT
def test_a_file_system_that_is_read_only_leaves_the_old_file(tmp_path: Path) -> None:
    assert (
        in_a_small_place(
            tmp_path,
            'disk.write_whole("state.json", b"old")',
            'import subprocess; subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)',
            'said(disk.write_whole, "state.json", b"new")',
            'said(disk.remove, "state.json")',
            'said(disk.ensure_directory, "sub")',
        )
        == ["NoSpace 73 mount it read-write", "old ['state.json']"] * 3
    )


# Reading.


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 65536])
def test_what_is_there_is_read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert disk.read(str(file)) == content


@pytest.mark.parametrize("name", ["none", "nowhere/none"])
def test_no_file_is_none(tmp_path: Path, name: str) -> None:
    assert disk.read(f"{tmp_path}/{name}") is None


def test_the_limit_is_a_limit(file: Path) -> None:
    file.write_bytes(bytes(10))
    assert disk.read(str(file), 10) == bytes(10)
    with pytest.raises(DiskError) as caught:
        disk.read(str(file), 9)
    assert "larger than 9 bytes" in sentence(caught, file)
    assert caught.value.exit_code == 74


def a_directory(path: Path) -> None:
    path.mkdir()


def a_device_without_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_device_without_content(path: Path) -> None:
    path.symlink_to("/dev/null")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def below_a_file(path: Path) -> None:
    path.write_text("")


ODD = [fifo, a_device_without_end, a_device_without_content, a_loop, a_directory]


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_file_is_an_error_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "odd"
    make(path)
    with pytest.raises(DiskError) as caught:
        disk.read(str(path))
    sentence(caught, path)


def test_below_a_file_nothing_can_be_read(file: Path) -> None:
    with pytest.raises(DiskError) as caught:
        disk.read(f"{file}/further")
    sentence(caught, file)


@pytest.mark.parametrize("make", [fifo, a_device_without_end, a_directory])
def test_errors_leave_no_descriptor_open(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "odd"
    make(path)
    before = open_descriptors()
    with pytest.raises((DiskError, OSError)):
        disk.read(str(path))
    assert open_descriptors() == before


# Removing, and the data directory.


def test_what_is_removed_is_gone_and_the_missing_is_fine(file: Path) -> None:
    link_beside = file.parent / "link"
    link_beside.symlink_to("../victim")
    (file.parent.parent / "victim").write_text("untouched")
    disk.remove(str(file), str(file.parent / "none"), str(link_beside))
    assert os.listdir(file.parent) == []
    assert (file.parent.parent / "victim").exists()
    disk.remove(str(file))


def test_what_cannot_be_removed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        disk.remove(str(tmp_path))
    sentence(caught, tmp_path)


def test_the_data_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for _ in range(2):
        disk.ensure_directory(str(path))
    assert mode(path) == 0o700


def test_a_link_that_leads_nowhere_is_no_place_for_a_new_key(device: Device) -> None:
    """Its partition may just not be mounted."""
    shutil.rmtree(device.data)
    device.data.symlink_to("data/mender")
    (device.root / "data").mkdir()
    done = device.run("bootstrap")
    assert done.code == 74
    assert f"There is no data directory {device.data}: " in done.err
    assert "is a link to data/mender, which does not exist; mount its partition" in done.err
    assert os.listdir(device.root / "data") == []
    (device.root / "data/mender").mkdir()
    device.ok("bootstrap")
    assert (device.root / "data/mender/mender-agent.pem").exists()


def test_a_file_in_place_of_the_data_directory_is_an_error(file: Path) -> None:
    loop = file.parent / "loop"
    loop.symlink_to("loop")
    for path in (file, file / "below", loop):
        with pytest.raises(DiskError) as caught:
            disk.ensure_directory(str(path))
        sentence(caught, path)


# An error of the system, its exit code, and what to do about it.
WORDS = [
    ("ENOSPC", 73, "free some space"),
    ("EDQUOT", 73, "raise the disk quota"),
    ("EROFS", 73, "mount it read-write"),
    ("EFBIG", 73, "ulimit -f"),
    ("EIO", 74, "dmesg"),
    ("EMFILE", 74, "ulimit -n"),
    ("ENFILE", 74, "too many files open"),
    ("ENOMEM", 74, "free some memory"),
    ("ENAMETOOLONG", 74, "choose a shorter path"),
    ("ENOENT", 74, "create its directory"),
    ("ENOTDIR", 74, "part of the path is a file"),
    ("EISDIR", 74, "remove the directory"),
    ("ELOOP", 74, "form a loop"),
    ("ENOLCK", 74, "its file system does not support locks"),
    ("EOPNOTSUPP", 74, "its file system does not support that"),
    ("ESTALE", 74, "mount the network file system again"),
    ("EACCES", 74, "security modules" if os.geteuid() == 0 else "run this as root"),
    ("EPERM", 74, "chattr -i" if os.geteuid() == 0 else "run this as root"),
    ("EPROTO", 74, "check the file system"),
]


@pytest.mark.parametrize(("code", "exit_code", "advice"), WORDS)
def test_each_kind_of_trouble_has_its_own_remedy(code: str, exit_code: int, advice: str) -> None:
    error = disk.failure("write /d/x", OSError(getattr(errno, code), "secret text"))
    assert type(error) is (NoSpace if exit_code == 73 else DiskError)
    assert error.exit_code == exit_code
    assert str(error).startswith(f"Cannot write /d/x: {os.strerror(getattr(errno, code))}; ")
    assert advice in str(error)
    assert "secret" not in str(error)
    assert [remedy for _, _, remedy in WORDS if remedy in str(error)] == [advice]


@ROOT
def test_an_immutable_file_is_named_as_one(file: Path) -> None:
    if subprocess.run(["chattr", "+i", str(file)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(DiskError) as caught:
            disk.write_whole(str(file), b"new")
        assert "chattr -i" in sentence(caught, file)
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
    assert alone(file)


# The lock.


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with umask(0):
        held = lock.take(path, wait=False)
    assert mode(Path(path)) == 0o600
    assert not os.get_inheritable(held)
    before = open_descriptors()
    with pytest.raises(Busy) as caught:
        lock.take(path, wait=False)
    assert caught.value.exit_code == 75
    assert open_descriptors() == before
    os.close(held)
    os.close(lock.take(path, wait=False))


def test_waiting_for_the_lock_ends_when_it_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    held = lock.take(path, wait=False)
    taken: list[int] = []
    waiting = threading.Thread(target=lambda: taken.append(lock.take(path, wait=True)))
    waiting.start()
    assert not taken
    os.close(held)
    waiting.join(10)
    assert len(taken) == 1
    with pytest.raises(Busy):
        lock.take(path, wait=False)
    os.close(taken[0])


def test_the_dead_hold_no_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = "import sys; from mender_oneshot import lock; lock.take(sys.argv[1], wait=False); sys.exit(9)"
    done = subprocess.run(
        [sys.executable, "-c", code, path], env={**os.environ, "PYTHONPATH": str(REPO)}, check=False
    )
    assert done.returncode == 9
    os.close(lock.take(path, wait=False))


def test_a_shared_lock_of_somebody_else_is_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(Busy):
            lock.take(str(path), wait=False)


def test_a_directory_in_place_of_the_lock_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.mkdir()
    with pytest.raises(DiskError) as caught:
        lock.take(str(path), wait=False)
    assert "remove the directory" in sentence(caught, path)
