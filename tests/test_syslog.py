"""`--syslog`: everything to the system's log with its priority, and nothing that cron would mail."""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.device import Device, Run, patch_python
from helpers.real_daemon import need
from helpers.update_module import Recorder
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

DAEMON = 3 << 3
"""The facility, as it stands in a message (syslog(3))."""


class Syslog:
    """A syslog daemon, and a /dev of our own where invocations find it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))
        dev = f"mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3; ln -s {path} /dev/log"
        self.wrapper = ("unshare", "-m", "sh", "-euc", f'{dev}; exec "$@"', "sh")

    def said(self) -> list[tuple[int, str]]:
        """Priority and words of each message that came."""
        messages: list[tuple[int, str]] = []
        while True:
            try:
                message = self.socket.recv(65536).decode()
            except BlockingIOError:
                return messages
            number, _, rest = message.removeprefix("<").partition(">")
            assert int(number) & ~7 == DAEMON
            assert "mender-oneshot[" in rest
            assert len(message.encode()) <= 1024
            # As syslog(3) writes it, and busybox syslogd, rsyslog and the journal read it.
            assert re.match(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d mender-oneshot\[\d+\]: ", rest), rest
            messages.append((int(number) & 7, rest.partition("]: ")[2]))


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[Syslog]:
    need("unshare")
    if os.geteuid():
        pytest.skip("a /dev of one's own needs root")
    made = Syslog(tmp_path / "log")
    yield made
    made.socket.close()


def test_a_run_says_its_sentences_there_and_nothing_elsewhere(
    accepted: Device, server: DevServer, syslog: Syslog
) -> None:
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    said = syslog.said()
    assert [priority for priority, _ in said] == [5, 5]
    assert said[0][1] == "There is no update for this device."
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    assert syslog.said() == []


def test_a_run_that_fails_writes_one_line_to_the_syslog_and_nothing_elsewhere(
    device: Device, syslog: Syslog
) -> None:
    done = device.run("--syslog", "run", "--all", wrapper=syslog.wrapper)
    assert done == Run(77, "", "")
    ((priority, sentence),) = syslog.said()[-1:]
    assert priority == 3
    assert "not accepted" in sentence


def test_without_a_syslog_only_problems_are_printed(accepted: Device, server: DevServer) -> None:
    need("unshare")
    if os.geteuid():
        pytest.skip("a /dev of one's own needs root")
    dev = "mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3"
    bare = ("unshare", "-m", "sh", "-euc", f'{dev}; exec "$@"', "sh")
    assert accepted.run("--syslog", "run", "--all", wrapper=bare) == Run(0, "", "")
    server.stop()
    accepted.make_due("check-update")
    done = accepted.run("--syslog", "run", "--all", wrapper=bare)
    assert (done.code, done.out) == (75, "")
    assert "Connection refused" in done.err


def test_json_is_an_answer_all_the_same(accepted: Device) -> None:
    assert accepted.run("--syslog", "send-inventory", "--json").json["outcome"] == "sent"


def test_no_secret_and_no_argument_goes_there(device: Device, syslog: Syslog) -> None:
    device.configure(TenantToken="s3cret-tenant")
    device.run("--syslog", "-l", "debug", "run", "--all", wrapper=syslog.wrapper)
    said = syslog.said()
    assert said
    assert not [words for _, words in said if "s3cret" in words]


def test_it_costs_no_import_of_sockets_and_pickles(device: Device, syslog: Syslog) -> None:
    """The standard library's handler for syslog would bring them."""
    code = "import sys; sys.argv[1:] = ['--syslog', 'run']; from mender_oneshot.__main__ import main; main()"
    probe = code + "; print([name for name in ('pickle', 'logging.handlers') if name in sys.modules])"
    command = [*syslog.wrapper, device.python, "-c", probe]
    done = subprocess.run(command, env=device.env(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert syslog.said()


CRASH = (
    "import os\ndef look(*words, **options):\n    raise RuntimeError('a bug of ours')\nos.makedirs = look\n"
)
NO_OPENSSL = """
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.exceptions import InternalError
class Key:
    def generate():
        raise InternalError("Unknown OpenSSL error", [])
ed25519.Ed25519PrivateKey = Key
"""
PANIC = """
import sys
class PanicException(BaseException):
    pass
PanicException.__module__ = "pyo3_runtime"
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cryptography"):
            raise PanicException("Python API call failed")
sys.meta_path.insert(0, Finder())
"""


def library(name: str, code: str) -> str:
    """Put a library's place-holder, whose code fails as a corrupt one's does, before the real one."""
    return (
        "import os, sys\n"
        f"place = os.path.dirname(__file__) + '/{name}'\n"
        "os.makedirs(place, exist_ok=True)\n"
        f"open(place + '/__init__.py', 'w').write({code!r})\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "patch", "sentence"),
    [
        ("bootstrap -F", 78, library("cryptography", "raise ImportError('x')"), "cryptography is installed"),
        ("bootstrap -F", 78, library("cryptography", "import _cffi_backends"), "cryptography is installed"),
        ("bootstrap -F", 78, library("cryptography", "from . import gone"), "cryptography is installed"),
        ("bootstrap -F", 78, library("cryptography", "def x(:"), "cryptography is installed"),
        ("bootstrap -F", 78, library("cryptography", "raise OSError('libssl.so.3')"), "libssl.so.3"),
        ("bootstrap -F", 78, NO_OPENSSL, "Unknown OpenSSL error"),
        ("bootstrap -F", 78, PANIC, "Python API call failed"),
        ("bootstrap -F", 78, "import sys; sys.modules['cryptography'] = None", "cryptography is missing"),
        ("auth --json", 78, "import sys; sys.modules['click'] = None", "click is missing"),
        ("check-update", 78, "import sys; sys.modules['ssl'] = None", "standard library"),
        ("check-update", 75, "import os\ndef no(*w, **o): raise MemoryError\nos.makedirs = no", "memory"),
        ("check-update", 78, "", "No server is configured"),
        ("frobnicate", 64, "", "No such command"),
        ("run --only nothing", 64, "", "nothing"),
    ],
)  # fmt: skip
def test_whatever_ends_it_is_one_line_there(
    accepted: Device, syslog: Syslog, words: str, code: int, patch: str, sentence: str
) -> None:
    if patch:
        patch_python(accepted, patch)
    else:
        accepted.settings.pop("ServerURL")
        accepted.configure()
    accepted.environment["PYTHONWARNINGS"] = "error,ignore::ResourceWarning"
    done = accepted.run("--syslog", *words.split(), wrapper=syslog.wrapper)
    assert (done.code, done.err) == (code, "")
    ((priority, said),) = syslog.said()
    assert priority == 3
    assert sentence in said
    # The same, without a syslog.
    done = accepted.run(*words.split())
    assert done.code == code
    assert sentence in done.err


def test_a_bug_is_one_line_in_the_syslog_with_its_place(accepted: Device, syslog: Syslog) -> None:
    patch_python(accepted, CRASH)
    done = accepted.run("--syslog", "check-update", wrapper=syslog.wrapper)
    assert done == Run(1, "", "")
    ((priority, said),) = syslog.said()
    assert priority == 3
    assert "RuntimeError: a bug of ours (sitecustomize.py:3, disk.py:" in said


@pytest.mark.parametrize("words", ["run --all", "run --all --json", "check-update", "frobnicate"])
@pytest.mark.parametrize("trouble", ["its queue is full", "nobody is bound", "none", "no socket"])
def test_a_syslog_that_takes_nothing_holds_nothing_up(
    device: Device, syslog: Syslog, trouble: str, words: str
) -> None:
    """Problems go to stderr, which cron mails."""
    if trouble == "its queue is full":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.connect(str(syslog.path))
            with suppress(BlockingIOError):
                while True:
                    sender.send(b"<13>filler")
    elif trouble == "nobody is bound":
        syslog.socket.close()
    else:
        syslog.path.unlink()
        if trouble == "no socket":
            syslog.path.write_text("")
    done = device.run("--syslog", *words.split(), wrapper=syslog.wrapper)
    assert done.code == (64 if words == "frobnicate" else 77)
    assert ("No such command" if words == "frobnicate" else "not accepted") in done.err
    if trouble == "no socket":
        assert syslog.path.read_text() == ""


def test_a_syslog_that_reads_a_stream_is_written_to(device: Device, tmp_path: Path, syslog: Syslog) -> None:
    syslog.path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(syslog.path))
        listener.listen()
        assert device.run("--syslog", "frobnicate", wrapper=syslog.wrapper) == Run(64, "", "")
        connection, _ = listener.accept()
        with connection:
            said = connection.recv(65536)
    assert said.startswith(b"<27>")
    assert said.endswith(b"No such command 'frobnicate'.\0")


def test_a_long_line_is_cut_between_two_characters(device: Device, syslog: Syslog) -> None:
    for name in ("\u20ac" * 1000, "a" + "\u20ac" * 1000, "ab" + "\u20ac" * 1000):
        assert device.run("--syslog", name, wrapper=syslog.wrapper).code == 64
        ((_, said),) = syslog.said()
        assert said.endswith("\u20ac...")


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize(("status", "priority"), [("success", 5), ("failure", 4)])
def test_the_result_of_an_update_goes_where_the_run_that_handed_it_off_wrote(
    accepted: Device, release: Callable[..., str], syslog: Syslog, tmp_path: Path, status: str,
    priority: int, reboot: bool,
) -> None:  # fmt: skip
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    words = ":" if reboot else f"$ONESHOT report --{status}"
    accepted.sub_updater(f"echo the flash is worn out; {words}; echo > {gate}\n")
    deployment = release()
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    gate.read_text()
    if reboot:
        done = accepted.run("report", f"--{status}", wrapper=syslog.wrapper)
        assert f"Reported {status}" in done.out
    said = [one for one in syslog.said() if deployment in one[1]]
    why = ": the flash is worn out" if status == "failure" else ""
    assert said[-1] == (priority, f"Reported {status} for deployment {deployment}{why}.")
    # The lock that was left is swept away with a word of how it ended.
    accepted.age_last_result()
    assert accepted.run("--syslog", "run", wrapper=syslog.wrapper) == Run(0, "", "")
    assert f"ended with {status}" in syslog.said()[-1][1]


def test_a_report_that_fails_is_a_line_there_too(
    accepted: Device, release: Callable[..., str], syslog: Syslog, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    words = "MENDER_DEPLOYMENT_ID=another $ONESHOT report --success"
    accepted.sub_updater(f"{words}; echo $? > {gate}\n")
    release()
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    assert gate.read_text() == "2\n"
    priority, said = syslog.said()[-1]
    assert (priority, said.startswith("MENDER_DEPLOYMENT_ID is another, but")) == (3, True)


def test_a_person_reads_the_result_of_an_update_alone(
    accepted: Device, release: Callable[..., str], syslog: Syslog, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(f"$ONESHOT report --success; echo > {gate}\n")
    release()
    assert accepted.run("run", "--all", wrapper=syslog.wrapper).code == 0
    gate.read_text()
    assert syslog.said() == []


@pytest.mark.parametrize("status", ["success", "failure"])
def test_a_result_that_waits_for_the_server_is_told_with_its_reason(
    accepted: Device, server: DevServer, release: Callable[..., str], syslog: Syslog, tmp_path: Path,
    status: str,
) -> None:  # fmt: skip
    gate, go = tmp_path / "gate", tmp_path / "go"
    os.mkfifo(gate)
    os.mkfifo(go)
    accepted.sub_updater(f"read x < {go}; echo broken; $ONESHOT report --{status}; echo > {gate}\n")
    deployment = release()
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    server.faults.add(match="PUT */status", count=1, status=503)
    go.write_text("\n")
    gate.read_text()
    priority, said = syslog.said()[-1]
    assert priority == (4 if status == "failure" else 5)
    why = ": broken" if status == "failure" else ""
    assert said.startswith(f"Deployment {deployment} ended with {status}{why}. A later run reports it: ")
    # Then it is delivered, with a word of that as well.
    assert accepted.run("--syslog", "run", "--force", wrapper=syslog.wrapper) == Run(0, "", "")
    assert (5, f"Reported {status} for deployment {deployment}{why}.") in syslog.said()


def test_a_failure_without_a_reason_is_given_none(
    accepted: Device, release: Callable[..., str], syslog: Syslog, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(f"$ONESHOT report --failure > /dev/null; echo > {gate}\n")
    deployment = release()
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    gate.read_text()
    assert syslog.said()[-1] == (4, f"Reported failure for deployment {deployment}.")


@pytest.mark.parametrize("fault", ["", "echo no room >&2; exit 1"])
def test_the_built_in_installer_ends_its_story_there(
    accepted: Device, server: DevServer, syslog: Syslog, fault: str
) -> None:
    module = Recorder(accepted)
    if fault:
        module.at("ArtifactInstall", fault)
    server.upload(Path(module.artifact(accepted)))
    deployment = server.deploy("release-2")
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    said: list[str] = []
    last = "The installation of release-2 failed and was undone: " if fault else "Installed release-2."

    def has_ended() -> bool:
        said.extend(words for _, words in syslog.said())
        return any(words.startswith(last) for words in said)

    until(has_ended, f"the syslog has {last}")
    if not fault:
        assert f"Reported success for deployment {deployment}." in said
        return
    assert any(words.startswith("The update to release-2 failed: ") for words in said)
    assert any(f"Reported failure for deployment {deployment}: " in words for words in said)
    log = "".join(line["message"] for line in server.log(deployment) or [])
    assert "The update to release-2 failed: " in log


def test_an_installer_that_no_cron_started_writes_nothing_there(
    accepted: Device, server: DevServer, syslog: Syslog
) -> None:
    server.upload(Path(Recorder(accepted).artifact(accepted)))
    server.deploy("release-2")
    assert accepted.run("run", "--all", wrapper=syslog.wrapper).code == 0
    log = accepted.data / "sub-updater.log"
    until(lambda: "Installed release-2." in log.read_text(), "the installer ends")
    assert syslog.said() == []
