"""`verify FILE` and `extract FILE DIRECTORY`: the payload of a verified artifact, whole or not at all."""

import fcntl
import hashlib
import json
import lzma
import os
import signal
import stat
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import corpus
from helpers.artifacts import make_artifact
from helpers.corpus import Artifact
from helpers.device import Device

FILES = {"app": b"content of app\n" * 1000, "some/where/else": b"deeper", "empty": b"", "bjørn": b"not ASCII"}


@pytest.fixture
def device(tmp_path: Path, python: str) -> Device:
    """A device without a server."""
    return Device(tmp_path / "device", python)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "release-2.mender", payload=FILES, payload_type="app")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def leftovers(directory: Path) -> list[str]:
    """What is beside the artifacts and the device."""
    return sorted(
        path.name for path in directory.iterdir() if path.name not in ("device", "release-2.mender")
    )


def test_the_payload_is_extracted(device: Device, tmp_path: Path, made: Path) -> None:
    done = device.ok("extract", str(made), f"{tmp_path}/out/")
    assert done.out == f"Extracted 4 files of release-2 to {tmp_path}/out.\n"
    assert contents(tmp_path / "out") == FILES
    assert leftovers(tmp_path) == ["out"]


@pytest.mark.parametrize("compression", ["none", "xz"])
def test_json_tells_what_was_extracted(device: Device, tmp_path: Path, compression: str) -> None:
    made = make_artifact(
        tmp_path / "a", payload=FILES, compression=compression, provides={"a": "b"}, payload_type="app"
    )
    answer = device.ok("extract", "--json", str(made), str(tmp_path / "out")).json
    assert answer["schema"] == 1
    assert (answer["outcome"], answer["directory"]) == ("extracted", str(tmp_path / "out"))
    assert (answer["artifact_name"], answer["payload_type"], answer["provides"]) == (
        "release-2",
        "app",
        {"a": "b"},
    )
    files = [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    ]
    assert answer["files"] == files
    verified = device.ok("verify", "--json", str(made)).json
    assert verified["outcome"] == "accepted"
    assert verified["files"] == files


def test_owner_and_mode_of_the_artifact_are_not_taken_over(device: Device, tmp_path: Path) -> None:
    # They are under no checksum.
    setuid = corpus.header(b"app", 1, owner=b"nobody", fields={100: b"0004777\x000177777\x000177777\0"})
    whole = Artifact(files={"app": b"x", "d/e": b"y"}, payload_tar=setuid + corpus.padded(b"x"))
    assert whole.payload_tar
    whole.payload_tar += corpus.member("d/e", b"y") + corpus.END
    (tmp_path / "a").write_bytes(whole.bytes())
    device.ok("extract", str(tmp_path / "a"), str(tmp_path / "out"))
    for path, mode in (("", 0o40700), ("d", 0o40700), ("app", 0o100600), ("d/e", 0o100600)):
        found = (tmp_path / "out" / path).stat()
        assert (found.st_mode, found.st_uid) == (mode, os.geteuid())


def test_an_artifact_without_a_payload_gives_an_empty_directory(device: Device, tmp_path: Path) -> None:
    info = {**corpus.HEADER_INFO, "payloads": [{"type": None}]}
    (tmp_path / "a").write_bytes(Artifact(header_info=info, type_info={"type": None}, files={}).bytes())
    assert "Extracted 0 files" in device.ok("extract", str(tmp_path / "a"), str(tmp_path / "out")).out
    assert contents(tmp_path / "out") == {}


def test_stdin_and_a_fifo_are_read_once(device: Device, tmp_path: Path, made: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for number, name in enumerate(("-", str(fifo))):
        process = device.start("extract", name, str(tmp_path / f"out{number}"))
        if name == "-":
            process.kill()
            process.communicate()
            with made.open("rb") as file:
                command = [device.python, "-m", "mender_oneshot", "extract", "-", str(tmp_path / "out0")]
                subprocess.run(command, env=device.env(), stdin=file, check=True, timeout=60, cwd="/")
        else:
            fifo.write_bytes(made.read_bytes())
            assert process.communicate(timeout=60)[1] == ""
        assert contents(tmp_path / f"out{number}") == FILES


def test_it_needs_no_lock_and_no_server(device: Device, tmp_path: Path, made: Path) -> None:
    device.configure(ServerURL="https://server.invalid")
    with (device.data / "mender-oneshot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        device.ok("verify", str(made))
        device.ok("extract", str(made), str(tmp_path / "out"))
    assert not (device.data / "mender-oneshot.json").exists()


# What is rejected


def swapped(data: bytes) -> bytes:
    """The last file changed, after all others were extracted."""
    return data.replace(b"not ASCII", b"not asciI")


def plain(**bent: Any) -> bytes:
    return Artifact(files=FILES, **bent).bytes()


REFUSED: dict[str, Callable[[], bytes]] = {
    "the last file is another": lambda: swapped(plain()),
    "cut in the payload": lambda: plain()[:-3000],
    "cut at the very end": lambda: plain()[:-1],
    "continues after its end": lambda: plain(end=corpus.END + b"\1"),
    "for another device": lambda: plain(
        header_info={**corpus.HEADER_INFO, "artifact_depends": {"device_type": ["other"]}}
    ),
    "needs another release": lambda: plain(
        type_info={"type": "app", "artifact_depends": {"rootfs-image.version": "7"}}
    ),
    "a file more than the manifest lists": lambda: Artifact(
        files={"app": b""}, payload_tar=corpus.member("app") + corpus.member("evil") + corpus.END
    ).bytes(),
    "a file twice": lambda: Artifact(
        files={"app": b""}, payload_tar=corpus.member("app") * 2 + corpus.END
    ).bytes(),
    "a name that leads elsewhere": lambda: Artifact(
        files={"app": b""}, payload_tar=corpus.member("../app") + corpus.END
    ).bytes(),
    "a link": lambda: Artifact(
        files={"app": b""}, payload_tar=corpus.member("app", kind=b"2", linkname=b"/etc") + corpus.END
    ).bytes(),
    "another size for other programs": lambda: Artifact(
        files={"app": b"x" * 600},
        payload_tar=corpus.pax({"size": "600"})
        + corpus.header(b"app")
        + corpus.padded(b"x" * 600)
        + corpus.END,
    ).bytes(),
    "no artifact": lambda: b"hello\n",
    "empty": lambda: b"",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_leaves_nothing(device: Device, tmp_path: Path, data: Callable[[], bytes]) -> None:
    made = tmp_path / "release-2.mender"
    made.write_bytes(data())
    done = device.run("extract", str(made), str(tmp_path / "out"))
    assert (done.code, done.out) == (65, "")
    assert done.err.startswith("The artifact")
    assert len(done.err.splitlines()) == 1
    assert leftovers(tmp_path) == []
    checked = device.run("verify", "--json", str(made))
    assert (checked.code, checked.json["exit_code"]) == (65, 65)
    assert checked.json["error"] == done.err.strip()


def test_a_key_demands_a_signature(device: Device, tmp_path: Path, made: Path) -> None:
    key = tmp_path / "device" / "key.pem"
    subprocess.run(
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-out", f"{key}.private"], check=True
    )
    subprocess.run(["openssl", "pkey", "-in", f"{key}.private", "-pubout", "-out", key], check=True)
    device.configure(ArtifactVerifyKey=str(key))
    done = device.run("extract", str(made), str(tmp_path / "out"))
    assert done.code == 65
    assert "not signed" in done.err
    device.configure(ArtifactVerifyKey=str(tmp_path / "absent.pem"))
    assert device.run("extract", str(made), str(tmp_path / "out")).code == 78
    device.configure(ArtifactVerifyKey="")
    (device.data / "device_type").unlink()
    assert device.run("extract", str(made), str(tmp_path / "out")).code == 78
    assert leftovers(tmp_path) == []


# Places


def test_an_empty_directory_is_replaced(device: Device, tmp_path: Path, made: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o777)
    device.ok("extract", str(made), str(tmp_path / "out"))
    assert contents(tmp_path / "out") == FILES
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_a_relative_name_is_one_of_the_working_directory(device: Device, tmp_path: Path, made: Path) -> None:
    command = [device.python, "-m", "mender_oneshot", "extract", made.name, "out"]
    subprocess.run(command, env=device.env(), cwd=tmp_path, check=True, timeout=60)
    assert contents(tmp_path / "out") == FILES


IN_THE_WAY = {
    "a file": "echo mine >out",
    "a directory with a file": "mkdir out; touch out/mine",
    "a link to an empty directory": "mkdir other; ln -s other out",
    "a link to nothing": "ln -s nothing out",
    "a FIFO": "mkfifo out",
    "a file in the place of the temporary directory": "echo mine >out.extracting",
    "a link in the place of the temporary directory": "mkdir other; ln -s other out.extracting",
    "a temporary directory of another user": "mkdir out.extracting; chown nobody out.extracting",
}


@pytest.mark.parametrize("put", IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_what_is_in_the_way_stays_as_it_is(device: Device, tmp_path: Path, made: Path, put: str) -> None:
    if os.geteuid():
        pytest.skip("another user's directory needs root")
    subprocess.run(["sh", "-ec", put], cwd=tmp_path, check=True)
    before = sorted((str(path), path.lstat()[:2]) for path in tmp_path.glob("o*/**/*")), leftovers(tmp_path)
    done = device.run("extract", str(made), str(tmp_path / "out"))
    assert done.code == 73
    assert done.err.startswith(f"Cannot extract to {tmp_path}/out: ")
    after = sorted((str(path), path.lstat()[:2]) for path in tmp_path.glob("o*/**/*")), leftovers(tmp_path)
    assert after == before


@pytest.mark.parametrize(
    ("name", "code"),
    [("/", 64), (".", 64), ("..", 64), ("", 64), ("out/..", 64), ("no/such", 73), ("e" * 300, 74)],
)
def test_names_that_no_directory_can_have(
    device: Device, tmp_path: Path, made: Path, name: str, code: int
) -> None:
    place = name if code == 64 else str(tmp_path / name)
    done = device.run("extract", str(made), place)
    assert done.code == code
    assert len(done.err.splitlines()) == 1
    assert leftovers(tmp_path) == []


def test_an_artifact_that_cannot_be_read_is_an_error_of_the_disk(device: Device, tmp_path: Path) -> None:
    for name in ("absent", "device"):
        for command in (("verify",), ("extract", str(tmp_path / "out"))):
            done = device.run(command[0], str(tmp_path / name), *command[1:])
            assert done.code == 74
            assert f"Cannot read the artifact {tmp_path}/{name}: " in done.err
    assert leftovers(tmp_path) == []


def test_a_full_disk_leaves_nothing(device: Device, tmp_path: Path) -> None:
    made = make_artifact(tmp_path / "release-2.mender", payload={"a": b"a", "big": bytes(1 << 20)})
    place = tmp_path / "device" / "small"
    place.mkdir()
    mount = f'mount -t tmpfs -o size=256k none {place} || exit 99; "$@"; code=$?; ls -A {place}; exit $code'
    wrapper = ("unshare", "-rm", "sh", "-c", mount, "sh")
    done = device.run("extract", str(made), f"{place}/out", wrapper=wrapper)
    if done.code == 99 or "unshare" in done.err:
        pytest.skip(f"no mount name space: {done.err}")
    assert (done.code, done.out) == (73, "")
    assert done.err.startswith(f"Cannot extract to {place}/out: No space left on device; ")


# Cut short


def started(device: Device, fifo: Path, out: Path, data: bytes) -> "tuple[subprocess.Popen[str], int]":
    """An extraction that has got the first bytes of its artifact, and waits for more."""
    process = device.start("extract", str(fifo), str(out))
    feed = os.open(fifo, os.O_WRONLY)
    os.write(feed, data)
    # What it has read is no longer in the pipe.
    while os.get_blocking(feed) and int.from_bytes(fcntl.ioctl(feed, 0x541B, bytes(4)), "little"):  # FIONREAD
        assert process.poll() is None
        os.sched_yield()
    return process, feed


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "device" / "fifo")
    return tmp_path / "device" / "fifo"


BIG = Artifact(files={"first": b"1", "app": bytes(range(256)) * 4096}).bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_half_result(
    device: Device, tmp_path: Path, fifo: Path, number: signal.Signals
) -> None:
    process, feed = started(device, fifo, tmp_path / "out", BIG[:-60_000])
    process.send_signal(number)
    process.communicate(timeout=60)
    os.close(feed)
    assert process.returncode in (-number, 128 + number)
    # What nothing can react to leaves the temporary directory; the next extraction uses it up.
    assert leftovers(tmp_path) == (["out.extracting"] if number == signal.SIGKILL else [])
    (tmp_path / "release-2.mender").write_bytes(BIG)
    device.ok("extract", str(tmp_path / "release-2.mender"), str(tmp_path / "out"))
    assert leftovers(tmp_path) == ["out"]
    assert sorted(contents(tmp_path / "out")) == ["app", "first"]


def test_the_deadline_leaves_nothing(device: Device, tmp_path: Path, fifo: Path) -> None:
    keep_open = os.open(fifo, os.O_RDWR)
    done = device.run("extract", "--max-runtime", "2", str(fifo), str(tmp_path / "out"))
    os.close(keep_open)
    assert done.code == 75
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_bomb_is_ended_by_a_signal_and_by_the_deadline(device: Device, tmp_path: Path, suffix: str) -> None:
    # Some GiB of content in some MB: more than can be decompressed in the time given.
    head = corpus.header(b"app", 1 << 32)
    pack: Any = zlib.compressobj(9, zlib.DEFLATED, 31) if suffix == ".gz" else lzma.LZMACompressor(preset=0)
    piece = bytes(1 << 24)
    stored = pack.compress(head) + b"".join(pack.compress(piece) for _ in range(24))
    made = tmp_path / "release-2.mender"
    made.write_bytes(Artifact(files={"app": b""}, suffix=suffix, stored_payload=stored).bytes())
    for command in (["verify", str(made)], ["extract", str(made), str(tmp_path / "out")]):
        done = device.run(*command, "--max-runtime", "1")
        assert done.code in (65, 75)
        process = device.start(*command)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert leftovers(tmp_path) == []


def test_two_at_once_do_not_mix(device: Device, tmp_path: Path, made: Path, fifo: Path) -> None:
    process, feed = started(device, fifo, tmp_path / "out", BIG[:-60_000])
    done = device.run("extract", str(made), str(tmp_path / "out"))
    assert done.code == 75
    assert "Another invocation is extracting" in done.err
    os.write(feed, BIG[-60_000:])
    os.close(feed)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert sorted(contents(tmp_path / "out")) == ["app", "first"]


def test_a_directory_that_appears_meanwhile_is_left_alone(device: Device, tmp_path: Path, fifo: Path) -> None:
    process, feed = started(device, fifo, tmp_path / "out", BIG[:-60_000])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    os.write(feed, BIG[-60_000:])
    os.close(feed)
    assert "not an empty directory" in process.communicate(timeout=60)[1]
    assert process.returncode == 73
    assert leftovers(tmp_path) == ["out"]
    assert sorted(contents(tmp_path / "out")) == ["mine"]


# What verify says


def test_verify_shows_what_is_in_an_artifact(device: Device, tmp_path: Path) -> None:
    (device.conf / "artifact_info").write_text("artifact_name=release-1\nshape=round\n")
    made = make_artifact(
        tmp_path / "a",
        payload={"app": b"content"},
        payload_type="app",
        device_types=["board", "other"],
        provides={"rootfs-image.app.version": "2"},
        depends={"shape": ["round", "flat"]},
    )
    sum_ = hashlib.sha256(b"content").hexdigest()
    assert device.ok("verify", str(made)).out.splitlines() == [
        "release-2 would be accepted; no signature was checked.",
        "name            release-2",
        "group           none",
        "device types    board, other",
        "payload type    app",
        "signed          not checked: no ArtifactVerifyKey is set",
        "provides        rootfs-image.app.version=2",
        "depends         shape=round or flat",
        "clears          *",
        f"file            {sum_}          7 app",
    ]
    answer = device.ok("verify", str(made), "--json").json
    assert json.loads(json.dumps(answer)) == {
        "schema": 1,
        "exit_code": 0,
        "step": "verify",
        "outcome": "accepted",
        "message": "release-2 would be accepted; no signature was checked.",
        "artifact_name": "release-2",
        "artifact_group": "",
        "device_types": ["board", "other"],
        "payload_type": "app",
        "signed": False,
        "provides": {"rootfs-image.app.version": "2"},
        "depends": {"shape": ["round", "flat"]},
        "clears_provides": ["*"],
        "files": [{"name": "app", "size": 7, "sha256": sum_}],
        "warnings": [],
    }
