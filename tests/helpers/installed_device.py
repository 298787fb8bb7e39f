"""A device with the program as `make install` puts it there, and what one of its invocations costs."""

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.device import REPO, Device
from mender_oneshot.devserver import DevServer

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A process inherits the peak memory of the process that starts it, so a small one starts the commands. It
# adopts processes that outlive a command (PR_SET_CHILD_SUBREAPER), and waits for them too.
_STARTER = """
import ctypes, json, os, sys, time
ctypes.CDLL(None).prctl(36, 1)
for line in sys.stdin:
    words, environment = json.loads(line)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.chdir("/")
        os.execve(words[0], words, environment)
    cpu = peak = code = 0
    while True:
        try:
            ended, status, used = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu, peak = cpu + used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
    print(json.dumps([time.monotonic() - began, cpu, peak, code]), flush=True)
"""


class Cost(NamedTuple):
    """Seconds by the clock, seconds of CPU with all children, and peak memory of one process in KiB."""

    wall: float
    cpu: float
    peak: float


class Starter:
    """Runs commands one after the other and returns what each of them cost."""

    def __init__(self, wrapper: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*wrapper, "/usr/bin/python3", "-ISc", _STARTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *reason: object) -> None:
        self._process.communicate()

    def cost(self, words: list[str], environment: dict[str, str], code: int = 0) -> Cost:
        """Run a command to its end, which must be with this exit code."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([words, environment]) + "\n")
        self._process.stdin.flush()
        *cost, ended = json.loads(self._process.stdout.readline())
        assert ended == code, (words, ended)
        return Cost(*cost)


def medians(runs: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    """Run several things in turns, so that a busy machine is busy for all alike; the median of each."""
    samples: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(run())
    return {
        name: Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))
        for name, costs in samples.items()
    }


class InstalledDevice(Device):
    """A device that is accepted by a server, whose program is installed under `root`/usr."""

    def __init__(self, root: Path, python: str, server: DevServer) -> None:
        super().__init__(root, python)
        self.server = server
        self.prefix = root / "usr"
        places = {"PREFIX": self.prefix, "SYSCONFDIR": root / "etc", "PYTHON": python}
        settings = [f"{name}={value}" for name, value in places.items()]
        subprocess.run(
            ["make", "-s", "-C", str(REPO), "install", *settings], check=True, stdout=subprocess.DEVNULL
        )
        self.program = str(self.prefix / "bin/mender-oneshot")
        self.use_server(server)
        self.call("auth", code=77)
        server.accept()
        self.call("auth")
        self.call("run", "--all")

    def env(self) -> dict[str, str]:
        """Return the environment of cron, with the places of this device."""
        own = ("MENDER_CONF_DIR", "MENDER_DATA_DIR", "MENDER_DATASTORE_DIR", "MENDER_RUN_DIR")
        known = super().env()
        return {name: known[name] for name in own} | {"PATH": PATH} | self.environment

    def call(self, *words: str, code: int = 0) -> str:
        """Run a command of the client; its stdout."""
        done = subprocess.run(
            [self.program, *words], env=self.env(), cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done
        return done.stdout

    def tick(self) -> list[str]:
        """Return a tick as cron and the units start it."""
        idle = self.prefix / "share/mender-oneshot/idle.sh"
        return ["/bin/sh", "-c", f". {idle} && idle all || exec {self.program} --syslog run --all"]

    def make_check_due(self) -> None:
        """Let the last check be two hours ago."""
        self.make_hours_old("check-update", 2)

    def make_inventory_due(self) -> None:
        """Let the last inventory be two days ago."""
        self.make_hours_old("send-inventory", 48)
        self.age_sent_inventory()

    def make_idle(self) -> None:
        """Let a run leave its note, which it does only if no file has changed in the last seconds."""
        past = time.time() - 60
        for path in (*self.data.iterdir(), *self.conf.iterdir(), self.data, self.conf):
            os.utime(path, (past, past))
        self.call("run", "--all")
        assert list((self.root / "run").rglob("all.until")), "the run has left no note"

    def snapshot(self) -> Path:
        """Copy the data directory, for `restore`; return the path of the copy."""
        kept = self.root / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.data, kept)
        return kept

    def restore(self, kept: Path) -> None:
        """Return the data directory to what it was."""
        shutil.rmtree(self.data)
        shutil.copytree(kept, self.data)

    def written(self, words: list[str]) -> tuple[int, int]:
        """Run a command; how many files on flash it has written or replaced, and their bytes."""

        def seen() -> dict[Path, tuple[int, int]]:
            files = [path for place in (self.data, self.conf, self.scripts) for path in place.rglob("*")]
            return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.is_file()}

        before = seen()
        subprocess.run(words, env=self.env(), cwd="/", check=True, stdout=subprocess.DEVNULL)
        changed = [path for path, known in seen().items() if before.get(path) != known]
        return len(changed), sum(path.stat().st_size for path in changed)
