"""Devices whose invocations cost little, and days of their life in simulated time.

The timer of the contract ticks every minute. To let a minute pass, every time stamp in the state is put back.
Ticks with nothing due are skipped; test_life.py shows that such a tick is silent and sends nothing.
"""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers.device import REPO, Device, Run, checked
from helpers.readable import readable
from mender_oneshot import settings, status
from mender_oneshot.devserver import DevServer
from mender_oneshot.paths import Places

TICK = 60.0
HOUR = 3600.0
DAY = 24 * HOUR

FORK_SERVER = """
import gc, json, os, sys, traceback
import mender_oneshot.artifact.verify, mender_oneshot.app, mender_oneshot.keys
import mender_oneshot.server, mender_oneshot.cli
from mender_oneshot import steps
from mender_oneshot.__main__ import main
for name in steps.FILES:
    steps.load(name)
import mender_oneshot.steps.report
gc.freeze()  # or every fork would copy all that the collector visits
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        for descriptor, path in ((0, "/dev/null"), (1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
        os.environ.clear()
        os.environ.update(job["env"])
        os.umask(job["umask"])
        sys.argv = ["mender-oneshot", *job["words"]]
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
        code = 1
        try:
            code = main()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """Forks invocations from a process that has done all imports, for stories that need hundreds of them."""

    def __init__(self) -> None:
        self._start()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORK_SERVER],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "PYTHONWARNINGS": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )

    def run(self, device: Device, words: tuple[str, ...], umask: int, seconds: float = 60) -> Run:
        """Run one invocation to its end, in a process of its own."""
        process = self._process
        assert process.stdin
        assert process.stdout
        out, err = device.root / "invocation.out", device.root / "invocation.err"
        job = {"words": words, "env": device.env(), "out": str(out), "err": str(err), "umask": umask}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        if not readable(process.stdout.fileno(), seconds):
            self.stop()
            self._start()
            raise AssertionError(f"{words} has not ended within {seconds} s: {err.read_text()}")
        code = int(process.stdout.readline())
        return Run(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def stop(self) -> None:
        """End the server and the invocation that it runs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


class Prompt(Device):
    """A device whose `run` does not pay for the interpreter's start each time; `start` does."""

    def __init__(self, root: Path, server: DevServer, fork_server: ForkServer) -> None:
        super().__init__(root, sys.executable)
        self._fork_server = fork_server
        self.use_server(server)
        # Reading the system's list of CAs takes longer than all the rest; the server's CA is configured.
        self.environment |= {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/no/such/directory"}

    def run(self, *words: str, wrapper: tuple[str, ...] = (), **options: Any) -> Run:
        if wrapper:
            return super().run(*words, wrapper=wrapper, **options)
        done = self._fork_server.run(self, words, **({"umask": 0o022} | options))
        return checked(done)


def let_in(device: Device, server: DevServer) -> Device:
    """Accept a device at its first request; devices that come later stay pending."""
    server.accept_all = True
    device.ok("auth")
    server.accept_all = False
    return device


class Asked(NamedTuple):
    """One request as the server saw it, in simulated seconds."""

    at: float
    what: str  # "PUT status", "GET next", ...
    status: int
    body: bytes


class Days:
    """The life of a device under a timer that ticks every minute."""

    def __init__(self, device: Device, server: DevServer, *words: str) -> None:
        self.device = device
        self.server = server
        self.words = words or ("run", "--all")
        self.now = 0.0
        self.asked: list[Asked] = []
        self.runs: list[tuple[float, Run]] = []
        self._known = len(server.requests)

    def live(self, seconds: float, before_each: Callable[[], object] = lambda: None) -> "Days":
        """Let so much time pass, tick by tick; `before_each` happens before each tick that matters."""
        end = self.now + seconds
        while self.now < end:
            before_each()
            self.tick()
            wait = self.next_in()
            # Whole ticks, so that the next phase of a story begins on one, too.
            self.sleep(min(TICK * max(1, math.ceil(wait / TICK - 0.01)), max(end - self.now, TICK)))
        return self

    def next_in(self) -> float:
        """Return the `next_in_seconds` of `status --json`, without a process; a day if there is none."""
        device = self.device
        places = Places(
            f"{device.conf}/mender.conf", "/no/file", True, str(device.conf), "/no", str(device.data)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MENDER_RUN_DIR", device.env()["MENDER_RUN_DIR"])
            wait: int | None = status.describe(settings.load(places))["next_in_seconds"]
        return DAY if wait is None else wait

    def tick(self) -> Run:
        """Run one invocation, as the timer does."""
        done = self.device.run(*self.words)
        self.runs.append((self.now, done))
        self.note()
        return done

    def note(self) -> None:
        """Record the requests that the server got since the last call."""
        seen = self.server.requests
        for one in seen[self._known :]:
            what = f"{one.method} {one.path.rpartition('/')[2] if one.origin == 'api' else 'artifact'}"
            self.asked.append(Asked(self.now, what, one.status, one.body))
        self._known = len(seen)

    def sleep(self, seconds: float) -> None:
        """Let time pass by putting back every stamp in the state."""
        self.now += seconds
        self.device.let_time_pass(seconds)

    def times(self, *what: str) -> list[float]:
        """Return the times of the requests of these kinds; of all requests if no kind is given."""
        return [one.at for one in self.asked if not what or one.what in what]

    def said(self) -> set[str]:
        """Return the sentences on stderr, each once."""
        return {line for _, done in self.runs for line in done.err.splitlines()}

    def busiest_hour(self) -> int:
        """Return the largest number of requests in 60 minutes."""
        times = self.times()
        return max((sum(start <= at < start + HOUR for at in times) for start in times), default=0)


def contract(interval: float, until: float) -> list[float]:
    """Return the earliest times that the contract allows for attempts: back-off, then the usual interval."""
    times, at = [], 0.0
    pauses = [60.0] * 3 + [120.0] * 3 + [240.0] * 3 + [300.0] * 3
    while at < until:
        times.append(at)
        at += pauses.pop(0) if pauses else interval
    return times


def keeps_to(attempts: list[float], interval: float, steps: int = 1) -> None:
    """Check that no attempt is earlier than the contract allows; those within one invocation count as one.

    If several steps fail, each has its own back-off.
    """
    attempts = sorted(set(attempts))
    allowed = contract(interval, 10 * DAY)
    early = [at for number, at in enumerate(attempts) if at < attempts[0] + allowed[number // steps]]
    assert not early, f"attempts before their time: {early[:5]} of {attempts[:20]}"
