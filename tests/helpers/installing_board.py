"""A board that installs updates itself: update modules, state scripts, a boot loader, and a power switch."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from helpers.artifacts import make_artifact
from helpers.power_cut import FINAL, Field
from helpers.real_daemon import need
from helpers.update_module import SCRIPT, STATES
from mender_oneshot.devserver import DevServer

OLD, NEW, NEXT = "release-1", "release-2", "release-3"

_TRACER = Path(__file__).with_name("tracer.py")
# A boot id of its own, and no systemd, which would start the installer where it is not traced. The last mount
# hides nothing from a process that has its root already, but names the slot in the table of mounts.
_WORLD = """
mount --bind "$1" /proc/sys/kernel/random/boot_id || exit
[ ! -d /run/systemd ] || mount -t tmpfs none /run/systemd || exit
mount -t tmpfs "slot-$2" / || exit
shift 2
exec "$@"
"""

_NOTED = """#!/bin/sh
board={board}
note() {{ echo "$1" >>{log}; }}
set_file() {{
    echo "$2" >"$1.new" && sync "$1.new" && mv "$1.new" "$1" && sync {board}
}}
"""
# Two slots and a boot loader. `env`: the slot to boot, whether it is on trial, how often it was booted so.
SLOTS = f"""{_NOTED}
other() {{{{ [ "$1" = A ] && echo B || echo A; }}}}
read part trial count <$board/env
read running <$board/running
case $1 in
SupportsRollback) echo Yes; exit ;;
NeedsArtifactReboot) [ "$running" = "$part" ] || echo Automatic; exit ;;
ProvidePayloadFileSizes) exit ;;
esac
note "$1"
case $1 in
Download)
    while read -r next <stream-next && [ "$next" ]; do
        cat "$next" >"$board/slot-$(other "$running")" || exit
    done
    sync "$board/slot-$(other "$running")"
    ;;
ArtifactInstall) [ "$trial" = 0 ] && set_file $board/env "$(other "$running") 1 0" ;;
ArtifactVerifyReboot) [ "$trial" = 1 ] && [ "$running" = "$part" ] ;;
ArtifactCommit) [ "$trial" = 1 ] && [ "$running" = "$part" ] && set_file $board/env "$part 0 0" ;;
ArtifactRollback) [ "$trial" = 0 ] || set_file $board/env "$(other "$part") 0 0" ;;
ArtifactVerifyRollbackReboot) [ "$trial" = 0 ] && [ "$running" = "$part" ] ;;
Cleanup) rm -f $board/env.new ;;
esac && note "$1.ok"
"""
# One file, which is replaced at once.
APP = f"""{_NOTED}
case $1 in
SupportsRollback) echo Yes; exit ;;
NeedsArtifactReboot | ProvidePayloadFileSizes) exit ;;
esac
note "$1"
case $1 in
Download)
    while read -r next <stream-next && [ "$next" ]; do
        cat "$next" >tmp/new || exit
    done
    sync tmp/new
    ;;
ArtifactInstall)
    cp $board/app tmp/old.new && sync tmp/old.new && mv tmp/old.new tmp/old && sync tmp &&
    set_file $board/app "$(cat tmp/new)"
    ;;
ArtifactRollback) [ ! -e tmp/old ] || set_file $board/app "$(cat tmp/old)" ;;
Cleanup) rm -f $board/app.new ;;
esac && note "$1.ok"
"""


class Stop(NamedTuple):
    """A system call that a process is about to make."""

    process: str
    words: tuple[str, ...]
    call: str
    target: str

    @property
    def program(self) -> str:
        """What the process is: a command of the client, or a program with its first argument."""
        if self.is_ours:
            rest = [word for word in self.words[3:] if not word.startswith(("-", "/", "import "))]
            return " ".join(rest)
        return " ".join(os.path.basename(word) for word in self.words[:2])

    @property
    def is_ours(self) -> bool:
        """Whether it is a process of the client, as opposed to a module's or a script's."""
        return "mender_oneshot" in " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.call} ({self.target}) in {self.program}"


Decide = Callable[[Stop], str]
"""Answers a stop: "go", "kill" for the process, or "cut" for the power."""


class Invocation:
    """An invocation and all that comes of it, traced."""

    def __init__(self, process: "subprocess.Popen[str]", output: Path) -> None:
        self._process = process
        self._output = output
        self._end: dict[str, Any] = {}

    def until_killed(self, decide: Decide) -> bool:
        """Answer its stops until a process is killed; return False if all ended before it came to that."""
        assert self._process.stdin
        assert self._process.stdout
        for line in self._process.stdout:
            event = json.loads(line)
            if "process" not in event:
                self._end = event
                continue
            answer = decide(Stop(event["process"], tuple(event["words"]), event["call"], event["target"]))
            self._process.stdin.write(f"{answer}\n")
            self._process.stdin.flush()
            if answer == "kill":
                return True
        return False

    def wait(self) -> None:
        """Wait until every process has ended."""
        if not self._end:
            out, _ = self._process.communicate(timeout=60)
            self._end = json.loads(out)
        self._process.communicate()

    def stop(self) -> None:
        """End what still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    @property
    def rebooted(self) -> bool:
        """Whether one of the processes started `reboot`, which ends them all."""
        return "reboot" in self._end

    @property
    def code(self) -> int | None:
        """The exit code of the invocation, None after a power cut."""
        code: int | None = self._end.get("code")
        return code

    @property
    def err(self) -> str:
        return Path(f"{self._output}.err").read_text()

    @property
    def steps(self) -> list[tuple[str, str]]:
        """The steps of a `run --json` and their outcomes."""
        text = self._output.read_text()
        return [(step["step"], step["outcome"]) for step in json.loads(text)["steps"]] if text else []


class Board(Field):
    """A device without a sub-updater, and what its update modules install."""

    def __init__(self, directory: Path, server: DevServer) -> None:
        super().__init__(directory, server)
        self.root = self.device.root
        self.log = self.root / "calls"
        self.faults = self.root / "faults"
        self.faults.mkdir()
        self.parts = self.root / "board"
        self.parts.mkdir()
        self._boot_id = self.root / "boot_id"
        (self.device.scripts / "install").unlink()
        modules = self.device.scripts / "modules" / "v3"
        modules.mkdir(parents=True)
        for name, text in (("slots", SLOTS), ("app", APP)):
            (modules / name).write_text(text.format(board=self.parts, log=self.log))
            (modules / name).chmod(0o755)
        (self.parts / "env").write_text("A 0 0\n")
        (self.parts / "slot-A").write_text(OLD)
        (self.parts / "app").write_text(OLD)
        self._invocations = 0
        # Whatever happens, no time limit has to help.
        self.device.configure(InstallTimeoutSeconds=0)
        self.check("true")
        self.power_on()

    def check(self, code: str) -> None:
        """Install a health check."""
        path = self.device.conf / "checks.d" / "check"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)

    def make_release(self, name: str, payload_type: str) -> None:
        """Upload a release for one of the modules, with a state script for each state."""
        payload = {
            "app": name.encode(),
        }
        if payload_type == "single-file":
            payload |= {"dest_dir": str(self.parts).encode(), "filename": b"app", "permissions": b"600"}
        states = [f"{state}_{action}" for state in STATES for action in ("Enter", "Leave", "Error")]
        scripts = {f"{s}_00": SCRIPT.format(name=s, log=self.log, faults=self.faults) for s in states}
        path = self.directory / f"{name}-{payload_type}.mender"
        make_artifact(path, name=name, payload=payload, payload_type=payload_type, scripts=scripts)
        self.server.upload(path)

    def power_on(self) -> None:
        """Boot: the loader goes back from a slot that is on trial for the second time."""
        part, trial, count = (self.parts / "env").read_text().split()
        if trial == "1" and count == "0":
            count = "1"
        elif trial == "1":
            part, trial, count = "AB"[part == "A"], "0", "0"
        (self.parts / "env").write_text(f"{part} {trial} {count}\n")
        (self.parts / "running").write_text(f"{part}\n")
        self._boot_id.write_text(f"{uuid.uuid4()}\n")

    def start(self, *words: str, asks: bool = True) -> Invocation:
        """Start an invocation in the world of the board; it stops at system calls if it `asks`."""
        need("unshare")
        self._invocations += 1
        output = self.directory / f"output-{self._invocations % 4}"
        client = (sys.executable, "-m", "mender_oneshot", *words)
        slot = (self.parts / "running").read_text().strip()
        world = ("unshare", "--mount", "sh", "-c", _WORLD, "sh", str(self._boot_id), slot)
        return Invocation(
            subprocess.Popen(
                [*world, sys.executable, str(_TRACER), "ask" if asks else "wait", str(output), *client],
                env=self.device.env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ),
            output,
        )

    def run(self, *words: str, decide: Decide | None = None) -> Invocation:
        """Run an invocation, and wait for all that comes of it."""
        invocation = self.start(*words, asks=decide is not None)
        try:
            if decide:
                invocation.until_killed(decide)
            invocation.wait()
        finally:
            invocation.stop()
        return invocation

    def carry_on(self, decide: Decide | None = None) -> None:
        """Let a timer start `run`, a day between, through every reboot, until a check finds no update."""
        story: list[Any] = []
        for _ in range(12):
            self.a_day_passes()
            done = self.run("run", "--all", "--json", decide=decide)
            if done.rebooted:
                story.append("reboot")
                self.power_on()
                continue
            story.append((done.steps, done.code, done.err))
            assert "Traceback" not in done.err, story
            assert done.code in (0, 65, 69, 75), story
            if self.server.status(self.deployment) in FINAL and done.steps[-1:] == [
                ("check-update", "nothing")
            ]:
                return
        raise AssertionError(f"the device has not come to rest: {story}")

    @property
    def calls(self) -> list[str]:
        """The calls of the module and the state scripts; "X.ok" where the call X has succeeded."""
        return self.log.read_text().split() if self.log.exists() else []

    @property
    def phase(self) -> str:
        """Return the phase that `installer.json` names, "" without it."""
        try:
            found = json.loads((self.data / "installer.json").read_text())
        except FileNotFoundError:
            return ""
        return str(found["progress"]["phase"])

    def installed(self, payload_type: str) -> str:
        """Return what is installed: the content of the slot that runs and is not on trial, or of the file."""
        if payload_type != "slots":
            return (self.parts / "app").read_text().strip()
        part, trial, _ = (self.parts / "env").read_text().split()
        assert (part, trial) == ((self.parts / "running").read_text().strip(), "0")
        return (self.parts / f"slot-{part}").read_text()

    @property
    def is_on_trial(self) -> bool:
        """Whether the next boot returns to the old slot, because this one was not committed."""
        return (self.parts / "env").read_text().split()[1:] == ["1", "1"]

    def digest(self, lost: Collection[str] = ()) -> str:
        """Return a digest of all that the next invocation finds, the files and the server.

        The files in `lost` count as empty.
        """
        found = hashlib.sha256(repr([self.history(), self.server.log(self.deployment) is None]).encode())
        for directory, names, files in os.walk(self.root):
            names.sort()
            for name in sorted({*files, *names} - IDLE):
                path = f"{directory}/{name}"
                try:
                    mode = os.lstat(path).st_mode
                    is_empty = os.path.relpath(path, self.root) in lost or not stat.S_ISREG(mode)
                    content = b"" if is_empty else Path(path).read_bytes()
                except FileNotFoundError:
                    continue
                found.update(repr((path, mode, content)).encode())
        return found.hexdigest()

    def debris(self) -> set[str]:
        """Return what an idle device does not need: files of the data directory, FIFOs, unfinished files."""
        usual = {"installer.lock", "module.pid", "provides.json", "history.json", "logs"}
        found = self.left_behind() - usual
        for directory, names, files in os.walk(self.root):
            for name in (*names, *files):
                path = f"{directory}/{name}"
                if name.endswith(".new") or stat.S_ISFIFO(os.lstat(path).st_mode):
                    found.add(os.path.relpath(path, self.data))
        return {name for name in found if not (name == "modules" and not any(self._trees()))}

    def _trees(self) -> list[Path]:
        return [path for path in (self.data / "modules").rglob("*") if path.name == "tree"]


IDLE = {"calls", "sub-updater.log", "deployment.log", "sub-updater.lock", "module.pid"}
"""Files whose content decides nothing after a boot: logs, and the processes of the boot before."""
