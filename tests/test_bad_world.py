"""What bad input gets: one sentence, the exit code of the contract, and nothing lost."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from helpers.device import Device, Run, one_sentence, patch_python
from helpers.real_daemon import need
from helpers.silent_server import silent_after

from mender_oneshot.devserver import DevServer


def test_without_a_configuration_a_command_that_needs_the_server_ends_with_78(device: Device) -> None:
    (device.conf / "mender.conf").unlink()
    one_sentence(device.run("auth"), 78, "No server is configured", "ServerURL")
    one_sentence(device.run("run"), 78, "No server is configured")
    assert device.ok("status").err == ""
    one_sentence(device.run("-c", "/no/such/file", "status"), 78, "/no/such/file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"ServerURL": "https://x",\n  oops}', ("line 2, column 3",)),
        (
            '{"ServerURL": "https://x",\n "UpdatePollIntervalSeconds": "60"}',
            ("line 2, column 31", "whole number"),
        ),
        ('{"ServerURL": "x.example.com"}', ("https://host",)),
        ("", ("not JSON",)),
        ("\0\0\0\0", ("not JSON",)),
        ("[" * 100_000, ("not JSON",)),
    ],
    ids=["syntax", "type", "url", "empty", "nul", "deep"],
)
def test_each_command_with_a_broken_configuration_ends_with_78(
    device: Device, text: str, words: tuple[str, ...]
) -> None:
    (device.conf / "mender.conf").write_text(text)
    for command in ("run", "auth", "report", "status"):
        done = device.run(command, *(["--failure"] if command == "report" else []))
        one_sentence(done, 78, str(device.conf / "mender.conf"), *words) if "host" not in words[
            0
        ] else one_sentence(done, 78, *words)


def test_an_unknown_key_is_a_warning_with_the_nearest_known(accepted: Device) -> None:
    accepted.configure(UpdatePollIntervallSeconds=60)
    one_sentence(accepted.run("check-update"), 0, "mender.conf", "did you mean UpdatePollIntervalSeconds?")


def test_without_a_device_type_a_check_ends_with_78_and_the_name_of_the_file(accepted: Device) -> None:
    (accepted.data / "device_type").unlink()
    one_sentence(accepted.run("check-update"), 78, "device_type=", str(accepted.data))
    (accepted.data / "device_type").write_text("board\n")
    one_sentence(accepted.run("send-inventory"), 78, "has no line device_type=")
    (accepted.data / "device_type").unlink()
    os.mkfifo(accepted.data / "device_type")
    one_sentence(accepted.run("check-update"), 78, "not a regular file")


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (None, 0, "cannot be started: it does not exist"),
        ("#!/bin/sh\necho mac=1\n", 0o644, "it is not executable"),
        ("#!/bin/sh\necho broken >&2\nexit 4\n", 0o755, "it exited with status 4 (broken)"),
        ("#!/bin/sh\necho no pair\n", 0o755, "printed no key=value"),
        ("#!/bin/sh\nprintf 'mac=\\377'\n", 0o755, "not UTF-8"),
        ("mac=1\n", 0o755, "does not begin with #!"),
    ],
    ids=["missing", "not executable", "fails", "says nothing", "not text", "no interpreter line"],
)
def test_auth_with_an_identity_script_that_cannot_be_used_ends_with_78_and_its_name(
    device: Device, text: str | None, mode: int, words: str
) -> None:
    script = device.scripts / "identity/mender-device-identity"
    script.unlink()
    if text is not None:
        device.script("identity/mender-device-identity", text, mode)
    one_sentence(device.run("auth"), 78, str(script), words)


def test_what_cannot_be_read_is_one_sentence(device: Device) -> None:
    path = device.conf / "artifact_info"
    path.unlink()
    path.mkdir()
    done = device.run("show-artifact")
    assert (done.code, done.err) == (78, f"Cannot read {path}: it is not a regular file; remove it.\n")
    path.rmdir()
    path.write_bytes(b"artifact_name=\377\n")
    done = device.run("show-artifact")
    assert (done.code, done.err) == (78, f"{path} is not UTF-8; save it as UTF-8.\n")


def test_no_artifact_info_is_no_obstacle(accepted: Device) -> None:
    (accepted.conf / "artifact_info").unlink()
    assert accepted.ok("show-artifact").out == "unknown\n"
    accepted.ok("check-update")


def test_a_web_site_in_place_of_the_server_is_rejected(device: Device, server: DevServer) -> None:
    page: Any = {"body": "<html>Welcome</html>", "headers": {"Content-Type": "text/html"}}
    server.faults.add(status=200, count=None, **page)
    one_sentence(device.run("auth"), 76, "text/html", "portal")
    server.faults.clear()
    server.faults.add(status=404, count=None, **page)
    one_sentence(device.run("auth"), 69, "answered 404")
    server.faults.clear()
    server.faults.add(redirect="https://elsewhere.example/", count=None)
    one_sentence(device.run("auth"), 76, "302")


def test_without_a_network_auth_ends_with_75_and_the_reason(device: Device) -> None:
    device.configure(ServerURL="https://127.0.0.1:9")
    one_sentence(device.run("auth"), 75, "Connection refused")
    device.configure(ServerURL="https://no-such-host.invalid")
    one_sentence(device.run("auth"), 75, "its name cannot be resolved")


def test_a_certificate_of_an_unknown_ca_is_rejected(device: Device, server: DevServer) -> None:
    device.settings.pop("ServerCertificate")
    device.configure()
    one_sentence(device.run("auth"), 69, "not trusted", "ServerCertificate")
    assert not server.requests
    device.configure(ServerCertificate="/no/such/file")
    done = device.run("auth")
    assert done.code == 69
    assert "ServerCertificate /no/such/file does not exist" in done.err


def test_skip_verify_is_the_users_word_and_is_said_each_time(device: Device, server: DevServer) -> None:
    device.settings.pop("ServerCertificate")
    device.configure(SkipVerify=True)
    done = device.run("auth")
    assert done.code == 77
    assert "SkipVerify" in done.err


def test_a_certificate_for_another_name_is_rejected(tmp_path: Path, python: str) -> None:
    with DevServer(tmp_path / "server") as server:
        device = Device(tmp_path / "device", python)
        # The same address in other words, which the certificate does not have.
        url = server.url.replace("127.0.0.1", "127.1")
        device.configure(ServerURL=url, ServerCertificate=str(server.ca))
        done = device.run("auth")
        assert done.code == 69, done
        assert "certificate" in done.err
        assert not server.requests


@pytest.mark.parametrize(
    ("valid", "code", "words"),
    [
        ((datetime(2090, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)), 75, "set the clock"),
        (
            (datetime(1990, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC)),
            69,
            "has expired by this device's clock",
        ),
    ],
    ids=["clock behind", "expired"],
)
def test_a_clock_that_is_wrong_is_named(
    tmp_path: Path, python: str, valid: Any, code: int, words: str
) -> None:
    with DevServer(tmp_path / "server", certificate_validity=valid) as server:
        device = Device(tmp_path / "device", python)
        device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
        one_sentence(device.run("auth"), code, words)


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("https", b""),
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nContent-"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
    ],
    ids=["handshake", "answer", "headers", "body"],
)
def test_silence_ends_at_the_time_limit(device: Device, scheme: str, words: bytes) -> None:
    # An exception in the middle of a handshake leaves the socket to the interpreter's end.
    with silent_after(words) as port:
        device.configure(ServerURL=f"{scheme}://127.0.0.1:{port}")
        one_sentence(device.run("--max-runtime", "3", "auth"), 75, "time limit of 3 s")
    # The attempt is counted: the next run keeps its distance.
    assert device.failures["auth"] == 1


@pytest.mark.parametrize("name", ["identity/mender-device-identity", "inventory/mender-inventory-hangs"])
def test_a_script_that_hangs_ends_at_the_time_limit(accepted: Device, tmp_path: Path, name: str) -> None:
    pid = tmp_path / "pid"
    accepted.script(name, f"#!/bin/sh\necho $$ > {pid}\nsleep 100 & wait\n")
    accepted.forget_token()
    accepted.run("auth") if "inventory" in name else None
    one_sentence(accepted.run("--max-runtime", "3", "send-inventory"), 75, "time limit of 3 s")
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@contextmanager
def unread() -> Iterator[str]:
    """A pipe that is full and never read, so that each writer blocks; yields its path."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    try:
        yield f"/proc/{os.getpid()}/fd/{writer}"
    finally:
        os.close(reader)
        os.close(writer)


def redirected(where: str) -> tuple[str, ...]:
    """The words before a command that send what it one_sentence elsewhere."""
    return ("sh", "-c", f'exec "$@" {where}', "sh")


def lock_is_free(device: Device) -> bool:
    import fcntl

    with (device.data / "mender-oneshot.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("level", ["debug", "warning"])
def test_a_stderr_that_nobody_reads_ends_at_the_time_limit(device: Device, level: str) -> None:
    """In the middle of the work ("debug") or in its last sentence; the failure is remembered."""
    with silent_after(b"") as port, unread() as pipe:
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        # Long enough to reach the request on a busy machine.
        done = device.run("-l", level, "--max-runtime", "8", "auth", wrapper=redirected(f"2>{pipe}"))
    assert (done.code, done.out, done.err) == (75, "", "")
    assert lock_is_free(device)
    assert device.failures["auth"] == 1


@pytest.mark.parametrize("descriptor", [1, 2])
def test_words_that_nobody_reads_are_within_the_time_limit(accepted: Device, descriptor: int) -> None:
    """Those before the work (a warning) and after it (the result), too."""
    accepted.configure(Unknown=1)
    with unread() as pipe:
        wrapper = redirected(f"{descriptor}>{pipe}")
        assert accepted.run("check-update", "--json", "--max-runtime", "3", wrapper=wrapper).code == 75
    assert lock_is_free(accepted)


# The C library looks a name up without an ear for signals.
DEAF = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"


@pytest.mark.parametrize("stderr", ["unread", "/dev/full", "closed", "read"])
def test_a_look_up_that_hangs_ends_at_the_time_limit(device: Device, stderr: str) -> None:
    patch_python(device, DEAF)
    with silent_after(b"") as port, unread() as pipe:
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        where = {"unread": f"2>{pipe}", "/dev/full": "2>/dev/full", "closed": "2>&-", "read": ""}[stderr]
        done = device.run("--max-runtime", "2", "auth", wrapper=redirected(where))
    assert done.code == 75
    assert ("time limit of 2 s" in done.err) == (stderr == "read")
    assert lock_is_free(device)


def test_the_time_limit_needs_no_thread(device: Device) -> None:
    patch_python(
        device,
        "import threading\n"
        "def start(self):\n"
        '    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start\n",
    )
    one_sentence(device.run("auth"), 77, "accept it under")
    with silent_after(b"") as port:
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        one_sentence(device.run("--max-runtime", "3", "auth"), 75, "time limit of 3 s")


def test_the_lock_is_given_way_to_or_waited_for(accepted: Device) -> None:
    import fcntl

    with (accepted.data / "mender-oneshot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = accepted.run("run")
        assert (done.code, done.out, done.err) == (75, "", "")
        one_sentence(accepted.run("check-update", "--max-runtime", "3"), 75, "time limit")
        # Looking on is always possible.
        accepted.ok("status")
        waiting = accepted.start("check-update")
        fcntl.flock(lock, fcntl.LOCK_UN)
        out, _ = waiting.communicate(timeout=30)
    assert out == "There is no update for this device.\n"


def test_a_person_is_told_that_another_run_is_at_work(accepted: Device) -> None:
    import fcntl
    import pty

    reader, terminal = pty.openpty()
    wrapper = ("bash", "-c", f'exec "$@" 2>&{terminal}', "bash")
    with (accepted.data / "mender-oneshot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = accepted.run("run", "--all", wrapper=wrapper, pass_fds=(terminal,))
    said = os.read(reader, 4096)
    os.close(reader)
    os.close(terminal)
    assert done == Run(75, "", "")
    assert b"Another mender-oneshot is already running" in said


def ticks(device: Device) -> list[str]:
    """What the steps of one tick of a timer came to."""
    return [step["outcome"] for step in device.ok("run", "--all", "--json").json["steps"]]


def test_a_lock_without_an_id_is_waited_for_each_time(accepted: Device) -> None:
    """An update may be being installed, whatever happened to the one before."""
    accepted.ok("run", "--all")
    lock = accepted.data / "update.lock"
    for _ in range(2):
        lock.touch()
        assert ticks(accepted) == ["adopted"]
        assert ticks(accepted) == []
        assert lock.exists()
        accepted.age_hand_off(14400)
        accepted.make_due("check-update")
        # It is given up for good: the device continues.
        assert ticks(accepted) == ["gave-up", "nothing"]
        assert not lock.exists()
        assert ticks(accepted) == []


@pytest.mark.parametrize("limit", [14400, 0])
def test_a_lock_without_an_id_that_is_gone_is_not_waited_for(accepted: Device, limit: int) -> None:
    accepted.configure(InstallTimeoutSeconds=limit)
    accepted.ok("run", "--all")
    lock = accepted.data / "update.lock"
    lock.touch()
    assert ticks(accepted) == ["adopted"]
    accepted.make_due("check-update")
    assert ticks(accepted) == []
    lock.unlink()
    assert ticks(accepted) == ["swept", "nothing"]
    assert ticks(accepted) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_loses_nothing(accepted: Device, tmp_path: Path) -> None:
    need("unshare")
    before = accepted.state
    script = (
        "set -e; mkdir /tmp/full.$$; mount -t tmpfs -o size=64k none /tmp/full.$$; "
        f"cp -a {accepted.data}/. /tmp/full.$$; cat /dev/zero > /tmp/full.$$/filler 2>/dev/null || true; "
        "export MENDER_DATASTORE_DIR=/tmp/full.$$; set +e; "
        '"$@"; code=$?; cat /tmp/full.$$/mender-oneshot.json > $0; '
        "umount /tmp/full.$$; rmdir /tmp/full.$$; exit $code"
    )
    kept = tmp_path / "kept.json"
    wrapper = ("unshare", "-m", "sh", "-c", script, str(kept))
    done = accepted.run("check-update", wrapper=wrapper)
    one_sentence(done, 73, "No space left on device", "free some space, and the next run will retry")
    assert json.loads(kept.read_text()) == before


def test_a_data_directory_is_created_private_or_named_in_the_error(device: Device, tmp_path: Path) -> None:
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "no" / "such" / "disk")
    device.environment["MENDER_DATASTORE_DIR"] = str(dangling)
    done = device.run("run")
    assert done.code in (73, 74)
    assert str(dangling) in done.err
    # A missing one is made, private.
    device.environment["MENDER_DATASTORE_DIR"] = str(tmp_path / "new" / "lib")
    device.ok("bootstrap")
    assert (tmp_path / "new/lib").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"\0" * 100, b"[]", b"{" * 100_000])
def test_an_unreadable_state_is_set_aside(accepted: Device, server: DevServer, content: bytes) -> None:
    key = (accepted.data / "mender-agent.pem").read_bytes()
    (accepted.data / "mender-oneshot.json").write_bytes(content)
    assert accepted.ok("status", "--json").json["trouble"]
    assert (accepted.data / "mender-oneshot.json").read_bytes() == content
    one_sentence(accepted.run("auth"), 0, "mender-oneshot.json.unreadable", "starting with an empty state")
    assert (accepted.data / "mender-oneshot.json.unreadable").read_bytes() == content
    assert (accepted.data / "mender-agent.pem").read_bytes() == key
    assert len(server.devices) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": 1, "results": 7}'])
def test_a_state_with_nothing_to_keep_gets_no_copy(
    accepted: Device, server: DevServer, content: bytes
) -> None:
    (accepted.data / "mender-oneshot.json").write_bytes(content)
    assert accepted.ok("status", "--json").json["trouble"]
    assert (accepted.data / "mender-oneshot.json").read_bytes() == content
    one_sentence(accepted.run("auth"), 0, "The state", "mender-oneshot.json")
    assert not (accepted.data / "mender-oneshot.json.unreadable").exists()
    assert len(server.devices) == 1


def test_members_of_a_newer_version_survive(accepted: Device) -> None:
    accepted.alter_state(schema=2, from_the_future={"deep": [1]})
    accepted.ok("check-update")
    assert accepted.state["from_the_future"] == {"deep": [1]}


@pytest.mark.parametrize(
    "words", [[], ["frobnicate"], ["run", "--no-such"], ["report"], ["--max-runtime", "x", "run"]]
)
def test_wrong_usage_ends_with_64(device: Device, words: list[str]) -> None:
    assert device.run(*words).code == 64


def test_errors_come_as_json_too(device: Device) -> None:
    done = device.run("auth", "--json")
    assert done.json["exit_code"] == done.code == 77
    assert done.json["schema"] == 1
    assert "accept it under" in done.json["error"]


def test_a_closed_stdout_changes_no_exit_code(accepted: Device) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    import subprocess

    done = subprocess.run(
        [accepted.python, "-m", "mender_oneshot", "status"],
        env={name: value for name, value in accepted.env().items() if name != "PYTHONUNBUFFERED"},
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0


def test_a_stdout_that_takes_nothing_holds_up_no_step(
    accepted: Device, server: DevServer, release: Callable[..., str]
) -> None:
    accepted.sub_updater()
    deployment = release()
    done = accepted.run("run", "--all", wrapper=redirected(">/dev/full"))
    one_sentence(done, 74, "Cannot write to stdout: No space left on device")
    assert server.status_history(deployment) == ["downloading", "installing"]
    assert accepted.handed_off == deployment


UNBUFFERED = [{}, {"PYTHONUNBUFFERED": "1"}]


@pytest.mark.parametrize("environment", UNBUFFERED, ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "words",
    [
        "run --json --force",
        "check-update",
        "status",
        "status --json",
        "show-artifact",
        "doctor",
        "doctor --json",
        "--help",
        "run --help",
        "--version",
    ],
)
def test_a_stdout_that_takes_nothing_is_told_once(
    accepted: Device, words: str, environment: dict[str, str]
) -> None:
    accepted.environment |= environment
    accepted.sub_updater()
    done = accepted.run(*words.split(), wrapper=redirected(">/dev/full"))
    one_sentence(done, 74, "Cannot write to stdout: No space left on device")
    # If stderr takes nothing either, the exit code has to do.
    assert accepted.run(*words.split(), wrapper=redirected(">/dev/full 2>&1")).code == 74


@pytest.mark.parametrize("environment", UNBUFFERED, ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize(
    ("words", "code"), [("status", 0), ("check-update", 0), ("download", 2), ("frobnicate", 64), ("", 64)]
)
def test_a_stderr_that_takes_nothing_changes_no_exit_code(
    accepted: Device, words: str, code: int, where: str, environment: dict[str, str]
) -> None:
    accepted.environment |= environment
    accepted.configure(Unknown=1)  # a warning
    assert accepted.run(*words.split(), wrapper=redirected(where)).code == code


@pytest.mark.parametrize(
    ("words", "code"), [("status", 0), ("run --force --all", 0), ("download --json", 2), ("--help", 0)]
)
def test_a_stdout_that_nobody_reads_changes_no_exit_code(accepted: Device, words: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = accepted.run(
            *words.split(), wrapper=("bash", "-c", f'exec "$@" >&{writer}', "bash"), pass_fds=(writer,)
        )
    finally:
        os.close(writer)
    assert done.code == code
    assert "stdout" not in done.err


@pytest.mark.parametrize(("words", "code"), [("download --json", 2), ("doctor", 78)])
def test_another_error_counts_more_than_a_stdout_that_takes_nothing(
    accepted: Device, words: str, code: int
) -> None:
    (accepted.data / "device_type").unlink()
    done = accepted.run(*words.split(), wrapper=redirected(">/dev/full"))
    assert done.code == code
    assert done.err.count("Cannot write to stdout") == 1


def test_a_log_file_that_takes_nothing_holds_nobody_up(accepted: Device) -> None:
    done = accepted.ok("-l", "error", "-L", "/dev/full", "check-update")
    assert (done.out, done.err) == ("There is no update for this device.\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_the_caller_has_closed_is_nothing_to_us(accepted: Device, closed: str) -> None:
    """Least of all the number of the next file: what is said would be written there."""
    accepted.configure(Unknown=1)  # a warning for stderr
    wrapper = ("sh", "-c", f'exec "$@" {closed}', "sh")
    for words in (["run", "--all", "--force"], ["status"], ["check-update"]):
        assert accepted.run(*words, wrapper=wrapper).code == 0
    assert (accepted.data / "mender-oneshot.lock").read_text() == "string"
    assert accepted.state["checked_at"]


def test_names_that_the_locale_cannot_spell(accepted: Device, release: Callable[..., str]) -> None:
    accepted.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    accepted.environment["PYTHONIOENCODING"] = (
        "ascii"  # else the locale "C" writes what it cannot spell as it is
    )
    release("ünï-€-☃")
    assert "\\u2603" in accepted.ok("check-update").out
    assert "\\u2603" in accepted.ok("status").out
    assert "Downloaded" in accepted.ok("download").out
    accepted.sub_updater()
    log = accepted.root / "log"
    assert "Handed" in accepted.ok("-l", "info", "-L", str(log), "install").out
    assert "☃" in log.read_text(encoding="utf-8")


def test_under_the_journal_lines_have_priorities(device: Device) -> None:
    reader, writer = os.pipe()
    pipe = os.fstat(writer)
    device.environment["JOURNAL_STREAM"] = f"{pipe.st_dev}:{pipe.st_ino}"
    import subprocess

    subprocess.run(
        [device.python, "-m", "mender_oneshot", "auth"],
        env=device.env(),
        stderr=writer,
        stdout=writer,
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader) as journal:
        assert journal.read().startswith("<3>")


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, chdir(path.parent):
        made.bind(path.name)


def a_directory(path: Path) -> None:
    path.mkdir()


def in_no_directory(path: Path) -> None:
    path.symlink_to("nowhere/log")


@pytest.mark.parametrize("make", [a_fifo, a_socket, a_directory, in_no_directory])
def test_a_log_file_that_cannot_be_one_is_told_at_once(
    accepted: Device, make: Callable[[Path], None]
) -> None:
    path = accepted.root / "log"
    make(path)
    done = accepted.run("--log-file", str(path), "--max-runtime", "60", "auth")
    one_sentence(done, 78, f"The log file {path} cannot be opened", "check --log-file")


def test_a_log_file_that_nobody_reads_any_more_holds_nothing_up(accepted: Device) -> None:
    """A FIFO with a reader that never reads: what does not fit into it is lost, and nothing waits."""
    path = accepted.root / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        full = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(full, bytes(4096))
        assert accepted.run("-L", str(path), "auth", "--fresh").code == 0
        os.close(full)
    finally:
        os.close(reader)


def test_a_log_file_may_be_a_device(accepted: Device) -> None:
    accepted.ok("--log-file", "/dev/null", "auth", "--fresh")
