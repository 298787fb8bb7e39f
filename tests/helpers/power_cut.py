"""A device in the field whose power fails: at any system call, or with a file system that had not flushed.

Kills at system calls with `strace` and lets a device's life continue; the tests judge the outcome.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from helpers.artifacts import make_artifact
from helpers.device import REPO, Device, Run
from helpers.real_daemon import need
from helpers.waiting import until
from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.operations import Snapshot

STATE = "mender-oneshot.json"
LOCK = "update.lock"
PART = "artifact.part"
ARTIFACT = "artifact.mender"
FINAL = {"success", "failure"}
DAY = 86400.0

SMALL = 300_000
"""Bytes of the payload where size does not matter: ten or so writes to `artifact.part`."""
LARGE = 1_200_000
"""Bytes of the payload that make a download sync in its middle."""

SILENT = """
echo "$MENDER_DEPLOYMENT_ID $(sha256sum < "$1")" >> {root}/starts
echo "writing $MENDER_ARTIFACT_NAME"
echo >> {root}/ends
"""
"""A sub-updater that never reports; like the other one it takes down what it was started with."""

WORKING = """
echo "$MENDER_DEPLOYMENT_ID $(sha256sum < "$1")" >> {root}/starts
echo artifact_name=$MENDER_ARTIFACT_NAME > "$MENDER_CONF_DIR/artifact_info"
$ONESHOT report --success
rm "$MENDER_DATASTORE_DIR/update.lock"
echo >> {root}/ends
"""


class Call(NamedTuple):
    """One system call of the main thread: the `nth` of its name, and what it acts upon."""

    name: str
    nth: int
    target: str

    def __str__(self) -> str:
        return f"{self.name} #{self.nth} ({self.target})"


class CutPoint(NamedTuple):
    """A copy of the device and of the server's state, to return to."""

    directory: Path
    server: Snapshot
    deployment: str


class Field:
    """One device and its server, in a private copy of the client.

    The copy keeps the count of system calls the same from run to run, even if the checkout is edited.
    """

    def __init__(self, directory: Path, server: DevServer) -> None:
        self.directory = directory
        self.server = server
        self.deployment = ""
        self.device = Device(directory / "device", sys.executable)
        code = directory / "code"
        shutil.copytree(REPO / "mender_oneshot", code / "mender_oneshot")
        subprocess.run([sys.executable, "-m", "compileall", "-q", code], check=True)
        self.device.environment |= {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
        self.device.configure(
            ServerURL=server.url, ServerCertificate=str(server.ca), InventoryPollIntervalSeconds=2**31
        )
        self.device.script("inventory/mender-inventory-board", "#!/bin/sh\necho board=one\n")
        self._held: TextIO | None = None
        self.sub_updater(WORKING)
        self._moments = 0

    @property
    def data(self) -> Path:
        """Return the data directory."""
        return self.device.data

    def sub_updater(self, text: str) -> None:
        """Install one of the sub-updaters above."""
        self.device.sub_updater(text.format(root=self.device.root))

    def hold_sub_updater(self, hold: bool) -> None:
        """Keep the sub-updater open for writing, so that it cannot be started, or close it again."""
        if self._held:
            self._held.close()
        self._held = (self.device.scripts / "install").open("a") if hold else None

    def release(self, name: str, size: int, **options: Any) -> Path:
        """Upload a release whose bytes repeat nowhere, so that any splice shows."""
        path = self.directory / f"{name}.mender"
        payload = {"app": random.Random(name).randbytes(size)}
        make_artifact(path, name=name, payload=payload, compression="none", **options)
        self.server.upload(path)
        return path

    def deploy(self, name: str) -> None:
        """Deploy a release to the device."""
        self.deployment = self.server.deploy(name)

    def keep(self) -> CutPoint:
        """Copy the device and the server's state; no process of the device may be running."""
        self._moments += 1
        directory = self.directory / f"moment-{self._moments}"
        shutil.copytree(self.device.root, directory, symlinks=True, copy_function=_copy)
        return CutPoint(directory, self.server.snapshot(), self.deployment)

    def back_to(self, moment: CutPoint) -> None:
        """Restore a copy."""
        shutil.rmtree(self.device.root)
        shutil.copytree(moment.directory, self.device.root, symlinks=True, copy_function=_copy)
        self.device.settings = json.loads((self.device.conf / "mender.conf").read_text())
        self.deployment = moment.deployment
        self.server.faults.clear()
        self.server.restore(moment.server)

    def history(self) -> list[str]:
        """Return every status of the deployment, in order."""
        return self.server.status_history(self.deployment) if self.deployment else []

    def finals(self) -> list[str]:
        """Return the final ones among them."""
        return [status for status in self.history() if status in FINAL]

    def starts(self) -> list[str]:
        """Return a line for each start of the sub-updater: the deployment and the artifact's SHA-256."""
        path = self.device.root / "starts"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_sub_updater(self, starts: int) -> None:
        """Wait until it was started so many times and every one has ended."""
        ends = self.device.root / "ends"
        until(lambda: len(self.starts()) >= starts, "the sub-updater has been started", 60)
        until(
            lambda: len(self.starts()) == (len(ends.read_text()) if ends.exists() else 0),
            "the sub-updater has ended",
            60,
        )

    def a_day_passes(self) -> None:
        """Move every time stamp of the state a day back; a state that cannot be read has none."""
        self.device.let_time_pass(DAY, expire=False)

    def reboot(self) -> None:
        """Make the boot of the state the one before."""
        self.device.reboot()

    def life_goes_on(self) -> None:
        """Let timers run `run --all`, a day between them, until a poll finds that all is well.

        No person helps the device; on the server, a pending device is accepted once.
        """
        story: list[Any] = []
        for _ in range(10):
            before = len(self.starts())
            self.a_day_passes()
            done = self.device.run("run", "--all", "--json")
            steps = [(step["step"], step["outcome"]) for step in done.json["steps"]]
            story.append((steps, done.code, done.err))
            assert done.code in (0, 65, 69, 75, 77), story
            if done.code == 77:
                self.server.accept()
            if not self.deployment and self.server.device().status == "accepted":
                self.deploy("release-2")
            self.wait_for_sub_updater(before + ("handed-off" in [outcome for _, outcome in steps]))
            if self.server.status(self.deployment) in FINAL and steps[-1:] == [("check-update", "nothing")]:
                return
        raise AssertionError(f"the device has not come to rest: {story}")

    def left_behind(self) -> set[str]:
        """Return the files in the data directory that an idle device does not need."""
        usual = {STATE, "mender-oneshot.lock", "sub-updater.lock", "mender-agent.pem", "device_type"}
        return set(os.listdir(self.data)) - usual - {"deployment.log", "sub-updater.log"}


def _copy(source: str, target: str) -> None:
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(target)
    else:
        shutil.copy2(source, target)


def sha256(path: Path) -> str:
    """Return the line that `sha256sum < file` prints."""
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  -"


# --- strace

_FILES = ("openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "flock")
_NAMES = ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "link", "symlink")
_PROCESSES = ("fork", "vfork", "clone", "clone3")
_NETWORK = ("connect", "sendto", "sendmsg")
TRACED = (*_FILES, *_NAMES, *_PROCESSES, *_NETWORK)


def calls(field: Field, *words: str) -> tuple[list[Call], Run]:
    """Run an invocation and list the system calls of its main thread that a power cut could fall before.

    All that change files or start processes; all that send something to the server, for between two writes it
    may have heard of the first; and the words to us, the last thing that an invocation does.
    """
    need("strace")
    log = field.directory / "calls"
    # Without -f only the main thread is seen: neither the watchdog's nor what scripts do is counted.
    done = field.device.run(
        *words, wrapper=("strace", "-o", str(log), *_SHOW, "-e", f"trace={','.join(TRACED)}")
    )
    return list(_read(log, field.data)), done


def kill(field: Field, call: Call, *words: str, wrapper: tuple[str, ...] = ()) -> None:
    """Run an invocation and kill it with SIGKILL on its way into this call, which is not carried out.

    Fails when the invocation ends by itself, or dies elsewhere: then the list of calls is not true any more.
    """
    need("strace")
    log = field.directory / "killed"
    inject = f"inject={call.name}:signal=SIGKILL:when={call.nth}"
    done = field.device.run(
        *words,
        wrapper=(*wrapper, "strace", "-o", str(log), *_SHOW, "-e", f"trace={','.join(TRACED)}", "-e", inject),
    )
    assert done.code in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{call} did not come up: {done}"
    last = list(_read(log, field.data))[-1]
    assert last == call, f"killed at {last} in place of {call}"


_SHOW = ("-y", "-s", "0", "-e", "signal=none")
_LINE = re.compile(r"(\w+)\((.*?)\)? += ")
_DESCRIPTOR = re.compile(r"\d+<(.*?)>")
_PATH = re.compile(r'"(.*?)"')


def unsynced(log: Path, before: int) -> tuple[int, int]:
    """Return how many bytes of `artifact.part` were unsynced, at most and at the end.

    `before` is their number at the beginning.
    """
    most = left = before
    for line in log.read_text().splitlines():
        found = re.match(rf"(\w+)\(\d+<[^>]*/{PART}>.* = (\d+)$", line)
        if found and found[1] == "write":
            left += int(found[2])
            most = max(most, left)
        elif found and found[1] == "fsync":
            left = 0
    return most, left


def _read(log: Path, data: Path) -> Iterator[Call]:
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        name, arguments = found.groups()
        counts[name] = counts.get(name, 0) + 1
        target = _target(name, arguments, f"{data}/")
        if target:
            yield Call(name, counts[name], target)


def _target(name: str, arguments: str, data: str) -> str:
    """Return what a call acts upon, "" if it does not matter here."""
    if name in _PROCESSES:
        return "" if "CLONE_THREAD" in arguments else "a new process"
    if name in _NETWORK:
        return "" if "AF_UNIX" in arguments else "the server"
    paths: list[str] = _PATH.findall(arguments)
    if name in _NAMES:
        return paths[-1].removeprefix(data)
    if name == "openat":
        path = paths[0]
        writes = re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", arguments)
        return path.removeprefix(data) if writes and not path.startswith("/dev/") else ""
    found = _DESCRIPTOR.match(arguments)
    path = found[1] if found else ""
    if path.startswith("socket:"):
        return "the server"
    if path.startswith("pipe:"):
        return "its words"
    if path + "/" == data:
        return "the data directory"
    return path.removeprefix(data) if path.startswith("/") and not path.startswith("/dev/") else ""


# --- a thin link

MTU = 1400


class ThinLink:
    """Serves one file at so many bytes per second, packet by packet, and counts what went out.

    The development server's own `slow` sends fifty milliseconds' worth at once and notices a client's death
    two such pieces later, which with two hundred deaths would be all one measured. Here it is one packet.
    """

    def __init__(self, path: Path, rate: float) -> None:
        content = path.read_bytes()
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        link = self
        self.rate = rate
        self.sent = 0
        self.asked = threading.Semaphore(0)
        self.ranges: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                link.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                if asked and self.headers.get("If-Range") != etag:
                    start, asked = 0, ""
                self.send_response(206 if asked else 200)
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("ETag", etag)
                self.end_headers()
                link.asked.release()
                link.trickle(self, content[start:])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def trickle(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        """Send packet by packet until all is out or the client has gone."""
        began = time.monotonic()
        for at in range(0, len(content), MTU):
            time.sleep(max(0.0, began + at / self.rate - time.monotonic()))
            packet = content[at : at + MTU]
            try:
                handler.connection.sendall(packet)
            except OSError:
                return
            self.sent += len(packet)

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
