"""Files, readers and answers of other users must not cost a secret, a file, or a clean terminal."""

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device, Release, Run
from helpers.simulated_days import ForkServer, Prompt

from mender_oneshot.devserver import DevServer

STORAGE = "GET /storage/*"
PRECIOUS = b"artifact_name=precious\nnot ours to touch\n" + b"x" * 5000
KNOWN_CODES = {0, 2, 65, 69, 73, 74, 75, 76, 77, 78}
LIMIT = 8


@pytest.fixture
def offered(accepted: Device, release: Release) -> Device:
    """A device with an update in hand and a sub-updater that says a word."""
    accepted.sub_updater("echo a word from the sub-updater\n")
    release()
    accepted.ok("check-update")
    return accepted


def one_sentence_at_most(done: Run) -> None:
    assert done.code in KNOWN_CODES, done
    assert len(done.err.splitlines()) <= 1, done.err


class Trap:
    """Something prepared in the data directory under a name that we use, and the victim behind it."""

    def __init__(self, device: Device, name: str, kind: str) -> None:
        self.path = device.data / name
        self.victim = device.root / "victim"
        self.victim.write_bytes(PRECIOUS)
        self.victim.chmod(0o644)
        if self.path.exists():
            self.path.unlink()
        getattr(self, kind.replace(" ", "_"))()
        self.before = self.victim.stat()

    def link(self) -> None:
        self.path.symlink_to(self.victim)

    def dangling_link(self) -> None:
        self.path.symlink_to(self.victim.with_name("not-there"))

    def second_name(self) -> None:
        os.link(self.victim, self.path)

    def fifo(self) -> None:
        os.mkfifo(self.path, 0o666)

    def directory(self) -> None:
        self.path.mkdir()
        (self.path / "precious").write_bytes(PRECIOUS)

    def open_to_all(self) -> None:
        self.path.write_bytes(b"written by another user\n")
        self.path.chmod(0o666)

    def has_harmed_nobody(self) -> None:
        assert self.victim.read_bytes() == PRECIOUS
        after = self.victim.stat()
        assert (after.st_mode, after.st_uid) == (self.before.st_mode, self.before.st_uid)
        assert not self.victim.with_name("not-there").exists(), "a link was followed to make a file elsewhere"
        if self.path.is_dir():
            assert (self.path / "precious").read_bytes() == PRECIOUS


def secrets_of(device: Device) -> set[str]:
    """The token, the private key line by line, and the signature in the artifact's link."""
    found = set()
    state, key = device.data / "mender-oneshot.json", device.data / "mender-agent.pem"
    if state.is_file():
        known = json.loads(state.read_text()) if state.read_bytes().startswith(b"{") else {}
        found |= {known[name][member] for name, member in (("token", "jwt"),) if name in known}
        uri = known.get("deployment", {}).get("uri", "")
        found |= {part for part in uri.partition("Signature=")[2:] if part}
    if key.is_file() and "PRIVATE KEY" in key.read_text():
        found |= {line for line in key.read_text().splitlines() if len(line) > 40}
    return found


def nothing_secret_lies_open(device: Device, secrets: set[str]) -> None:
    """No file that others can read holds a secret."""
    for path in device.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o077:
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


NAMES = (
    "mender-oneshot.json",
    "mender-oneshot.json.new",
    "mender-oneshot.lock",
    "mender-agent.pem",
    "mender-agent.pem.new",
    "artifact.part",
    "artifact.mender",
    "update.lock",
    "update.lock.new",
    "deployment.log",
    "sub-updater.log",
    "sub-updater.lock",
    "artifact.provides",
    "history.json",
    "logs",
)
KINDS = ("link", "dangling link", "second name", "fifo", "directory", "open to all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_what_somebody_prepared_in_the_data_directory(offered: Device, name: str, kind: str) -> None:
    """The update continues or is rejected in one sentence; no other file changes, no secret leaks."""
    trap, secrets = Trap(offered, name, kind), secrets_of(offered)
    for words in (["run", "--all"], ["bootstrap"], ["report", "--failure"]):
        began = time.monotonic()
        one_sentence_at_most(offered.run("--max-runtime", str(LIMIT), *words))
        assert time.monotonic() - began < LIMIT - 2, f"{words} hung until its time limit"
        secrets |= secrets_of(offered)
    trap.has_harmed_nobody()
    nothing_secret_lies_open(offered, secrets)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["artifact.mender", "sub-updater.log", "update.lock", "update.lock.new"])
def test_what_somebody_prepared_just_before_the_hand_off(
    offered: Device, server: DevServer, name: str, kind: str
) -> None:
    offered.ok("download")
    deployment = offered.deployment
    trap = Trap(offered, name, kind)
    for words in (["install"], ["report", "--failure"], ["run", "--all"]):
        began = time.monotonic()
        done = offered.run("--max-runtime", str(LIMIT), *words)
        if kind != "directory":  # a second one says that it could not be cleared away
            one_sentence_at_most(done)
        assert time.monotonic() - began < LIMIT - 2, f"{words} hung until its time limit"
    trap.has_harmed_nobody()
    # Nothing that another user prepared is installed.
    history = server.status_history(deployment)
    assert history.count("installing") <= 1


def test_a_part_file_that_is_a_second_name_of_another_is_not_written_to(
    offered: Device, server: DevServer, tmp_path: Path
) -> None:
    """O_NOFOLLOW does not detect a hard link: no byte may be written to another user's file."""
    trap = Trap(offered, "artifact.part", "second name")
    offered.ok("download")
    trap.has_harmed_nobody()
    assert (offered.data / "artifact.mender").read_bytes() == (tmp_path / "release-2.mender").read_bytes()
    assert (offered.data / "artifact.mender").stat().st_nlink == 1


def test_a_part_file_open_to_all_becomes_ours(offered: Device, tmp_path: Path) -> None:
    """What is handed off must be what was verified: no other user may write to it."""
    Trap(offered, "artifact.part", "open to all")
    offered.ok("download")
    assert stat.S_IMODE((offered.data / "artifact.mender").stat().st_mode) == 0o600
    assert (offered.data / "artifact.mender").read_bytes() == (tmp_path / "release-2.mender").read_bytes()


def test_under_no_umask_at_all_every_file_is_private(
    tmp_path: Path, server: DevServer, release: Release, fork_server: ForkServer
) -> None:
    class Careless(Prompt):
        def run(self, *words: str, wrapper: tuple[str, ...] = (), **options: Any) -> Run:
            return super().run(*words, wrapper=wrapper, umask=0, **options)

    device = Careless(tmp_path / "careless", server, fork_server)
    device.sub_updater("echo a word\n")
    ours: dict[str, int] = {}

    def look() -> None:
        for path in device.data.iterdir():
            if path.name != "device_type":
                ours[path.name] = ours.get(path.name, 0) | stat.S_IMODE(path.stat().st_mode)

    device.run("auth")
    server.accept()
    release(size=100_000)
    server.faults.add(match=STORAGE, cut_after=50_000)
    for words in (
        ["auth"],
        ["check-update"],
        ["download"],
        ["download"],
        ["install"],
        ["report", "--failure"],
        ["send-inventory"],
    ):
        device.run(*words)
        look()
    (device.data / "mender-oneshot.json").write_bytes(b"ruins")
    (device.data / "mender-oneshot.json").chmod(0o600)
    device.run("auth")
    look()
    expected = set(NAMES) - {name for name in NAMES if name.endswith(".new")} | {
        "mender-oneshot.json.unreadable"
    }
    assert ours == dict.fromkeys(expected, 0o600) | {"logs": 0o700}


DUMP = "#!/bin/sh\n{ env; tr '\\0' ' ' < /proc/$PPID/cmdline; } >> '%s'\necho mac=de:ad:be:ef:00:01\n"


@pytest.mark.parametrize("result", ["success", "failure"])
def test_no_secret_is_told_in_the_whole_of_an_update(
    device: Device, server: DevServer, release: Release, tmp_path: Path, result: str
) -> None:
    """Not in what we say at the lowest level, not in what we show, upload or hand to scripts."""
    told, log = tmp_path / "told", tmp_path / "log"
    device.configure(TenantToken="tenants-secret")
    device.script("identity/mender-device-identity", DUMP % told)
    device.script("inventory/mender-inventory-mac", DUMP % told)
    device.sub_updater(
        f"env >> {told}; echo installing\n$ONESHOT -l debug report --{result} >> {told} 2>&1\n"
    )
    assert device.run("auth").code == 77
    server.accept()
    deployment = release(size=300_000)
    secrets, said = {"tenants-secret", "Bearer "}, ""
    server.faults.add(match=STORAGE, cut_after=100_000)
    server.faults.add(match=STORAGE, expired=True)
    server.faults.add(match=STORAGE, redirect=server.storage_url + "{target}&hop=hops-secret")
    server.faults.add(match="* */next", status=500)
    server.faults.add(match="PUT */status", status=401)
    for words in (
        ["auth"],
        ["check-update"],
        ["check-update"],
        ["send-inventory"],
        ["download"],
        ["status"],
        ["status", "--json"],
        ["download"],
        ["install", "--json"],
    ):
        done = device.run("-l", "debug", "-L", str(log), *words)
        assert done.code in (0, 75), done
        said += done.out + done.err
        secrets |= secrets_of(device)
    server.wait_for(
        lambda seen: (
            seen.path.endswith("/log" if result == "failure" else "/status")
            and (result == "failure" or b"success" in seen.body)
        )
    )
    secrets |= {seen.query["X-Amz-Signature"] for seen in server.requests if seen.origin == "storage"}
    secrets |= {
        seen.headers["X-MEN-Signature"] for seen in server.requests if "X-MEN-Signature" in seen.headers
    }
    assert len(secrets) >= 7
    uploaded = json.dumps(server.log(deployment))
    said += log.read_text() + told.read_text() + uploaded + (device.data / "deployment.log").read_text()
    said += (device.data / "sub-updater.log").read_text()
    assert not [secret for secret in secrets | {"hops-secret"} if secret in said]
    assert "Signature" not in said
    if result == "failure":
        assert "installing" in uploaded


def test_no_secret_in_the_process_list(offered: Device, server: DevServer) -> None:
    """What `ps` shows of us and of our children while we work."""
    secrets = secrets_of(offered)
    server.faults.add(match=STORAGE, stall_after=100)
    process = offered.start("-l", "debug", "download")
    server.faults.wait_for_stall()
    shown = b""
    for name in ("cmdline", "environ", "comm", "status"):
        shown += Path(f"/proc/{process.pid}/{name}").read_bytes()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        shown += Path(f"/proc/{child}/cmdline").read_bytes()
    server.faults.release()
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert len(secrets) >= 3
    assert not [secret for secret in secrets if secret.encode() in shown]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[DevServer]:
    """A server of another operator, with a certificate that the device trusts."""
    with DevServer(tmp_path / "server") as other:
        yield other


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_api_is_never_followed_elsewhere(
    accepted: Device, server: DevServer, elsewhere: DevServer, status: int
) -> None:
    server.faults.add(count=None, redirect=elsewhere.url + "{target}", status=status)
    for words in (["auth", "--fresh"], ["check-update"], ["send-inventory"]):
        done = accepted.run(*words)
        assert done.code == 76
        assert f"redirects ({status}) to {elsewhere.url}; " in done.err
        assert len(done.err.splitlines()) == 1
    assert not elsewhere.requests


def test_the_artifact_elsewhere_learns_nothing(
    offered: Device, server: DevServer, elsewhere: DevServer
) -> None:
    hop = {"redirect": elsewhere.url + "/of-others{target}", "headers": {"Set-Cookie": "id=1"}}
    server.faults.add(match=STORAGE, count=None, **hop)
    assert offered.run("download").code == 75
    assert elsewhere.requests
    told = {name.lower() for seen in elsewhere.requests for name in seen.headers}
    assert told == {"host", "accept-encoding", "user-agent"}


EVIL = "\x1b[2J\x1b]0;owned\x07 evil\r\n<0>forged line\u202e\x00\x9b31m end"
EVIL_BYTES = "\x1b[2Jevil\x07"


def is_harmless(done: Run) -> None:
    """One line, and every character of it a visible one."""
    assert len(done.err.splitlines()) <= 1, done.err
    for text in (done.err, done.out):
        assert all(character.isprintable() or character == "\n" for character in text), repr(text)


ENDPOINTS = {
    "POST */auth_requests": ["auth", "--fresh"],
    "* */next": ["check-update"],
    "PUT */attributes": ["send-inventory"],
    "PUT */status": ["download"],
    STORAGE: ["download"],
}


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 429, 500])
@pytest.mark.parametrize(
    ("match", "words"), ENDPOINTS.items(), ids=[name.split("/")[-1] for name in ENDPOINTS]
)
def test_what_a_hostile_server_says_is_made_harmless(
    offered: Device, server: DevServer, match: str, words: list[str], status: int
) -> None:
    body = json.dumps({"error": EVIL, "request_id": EVIL})
    headers = {
        "Content-Type": EVIL_BYTES,
        "X-Evil": EVIL_BYTES,
        "Retry-After": EVIL_BYTES,
        "ETag": EVIL_BYTES,
    }
    server.faults.add(match=match, count=None, status=status, body=body, headers=headers)
    done = offered.run(*words)
    assert done.code in KNOWN_CODES
    is_harmless(done)
    for line in (offered.data / "deployment.log").read_text().splitlines():
        assert json.loads(line)["message"].isprintable()


HOSTILE_HEADERS: dict[str, dict[str, Any]] = {
    "a huge header": {"extra_headers": {"X-Huge": "x" * 100_000}},
    "many headers": {"extra_headers": {f"X-{number}": "x" for number in range(500)}},
    "a folded header": {"extra_headers": {"ETag": '"a\r\n b"'}},
    "a line that is no header": {"extra_headers": {"X": "y\r\nno header at all"}},
    "a location with escapes": {"redirect": f"https://127.0.0.1:9/{EVIL_BYTES}"},
    "a host with escapes": {"redirect": f"https://{EVIL_BYTES}.invalid/"},
    "a host with a login": {"redirect": "https://user:tops3cret@127.0.0.1:9/x"},
    "no location": {"status": 302},
    "a length with escapes": {"extra_headers": {"Content-Length": EVIL_BYTES}},
    "a range with escapes": {"status": 206, "headers": {"Content-Range": EVIL_BYTES}},
    "an encoding with escapes": {"extra_headers": {"Content-Encoding": EVIL_BYTES}},
    "an unknown transfer encoding": {"extra_headers": {"Transfer-Encoding": "evil"}},
}


@pytest.mark.parametrize("fault", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
@pytest.mark.parametrize("match", ["* */next", STORAGE], ids=["api", "storage"])
def test_hostile_headers(offered: Device, server: DevServer, match: str, fault: dict[str, Any]) -> None:
    server.faults.add(match=match, count=None, **fault)
    secrets = secrets_of(offered)
    words = ["download"] if match == STORAGE else ["check-update"]
    done = offered.run("--max-runtime", "3", "-l", "info", *words)
    assert done.code in KNOWN_CODES
    for text in (done.err, done.out):
        assert all(character.isprintable() or character == "\n" for character in text), repr(text)
        assert not [secret for secret in {*secrets, "tops3cret"} if secret in text]
    # What was remembered of it does no harm to the next request either.
    server.faults.clear()
    assert offered.run(*words).code == 0


@pytest.mark.parametrize("member", ["id", "artifact.id", "artifact.artifact_name", "artifact.source.uri"])
@pytest.mark.parametrize(
    "value", [f"a{EVIL}", "a\r\nX-Injected: yes", "https://127.0.0.1:9/\r\nX-Injected: yes", "../x"]
)
def test_hostile_instructions(accepted: Device, server: DevServer, member: str, value: str) -> None:
    """Ids become paths, names become lines and variables, links become requests."""
    accepted.sub_updater()
    answer: dict[str, Any] = {
        "id": "0b66857d-6ced-4d67-90fd-1635c1a0dc4f",
        "artifact": {"id": "a", "artifact_name": "b", "source": {"uri": "https://127.0.0.1:9/x"}},
    }
    *path, last = member.split(".")
    place = answer
    for name in path:
        place = place[name]
    place[last] = value
    server.faults.add(match="* */next", status=200, body=json.dumps(answer))
    is_harmless(accepted.run("check-update"))
    is_harmless(accepted.run("download"))
    is_harmless(accepted.run("status"))
    assert not [seen for seen in server.requests if "X-Injected" in seen.headers]
    assert not list(accepted.root.rglob("x"))


def test_a_hostile_name_inside_the_artifact(offered: Device, server: DevServer, tmp_path: Path) -> None:
    """The server calls it release-2; it calls itself something that a terminal would obey."""
    evil = make_artifact(tmp_path / "evil.mender", name=f"evil{EVIL}", device_types=("board", EVIL))
    server.change(offered.artifact_id, evil.read_bytes())
    offered.ok("download")
    done = offered.run("-l", "info", "install")
    assert done.code in (0, 65)
    for text in (done.err, done.out):
        assert all(character.isprintable() or character == "\n" for character in text), repr(text)


def test_scripts_that_talk_to_the_terminal(accepted: Device) -> None:
    """What a script complains of is shown to people, too."""
    accepted.script("inventory/mender-inventory-evil", "#!/bin/sh\nprintf '\\033[2Jevil\\007' >&2\nexit 3\n")
    done = accepted.run("send-inventory")
    assert done.code == 0
    assert "evil" in done.err
    is_harmless(done)


def test_the_login_of_a_link_is_not_logged(offered: Device) -> None:
    offered.change_link("https://user:tops3cret@127.0.0.1:9/x?Signature=tops3cret")
    done = offered.run("-l", "debug", "download")
    assert done.code == 75
    assert "GET https://127.0.0.1:9/x\n" in done.err
    assert "tops3cret" not in done.err
