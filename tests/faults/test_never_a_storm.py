"""A fleet in trouble must not storm its server: days of it, told by the server's record.

Time is simulated: the timer of the contract ticks every minute, and to let a minute pass is to put every
stamp in the state a minute further back. Ticks at which nothing is due are skipped; that such a tick is
silent and asks nothing is shown in test_life.py.
"""

import atexit
import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import REPO, Device, Run

from mender_oneshot import settings, status
from mender_oneshot.devserver import DevServer
from mender_oneshot.settings import Places

Release = Callable[..., str]

TICK = 60.0
HOUR = 3600.0
DAY = 24 * HOUR

FORGE = """
import gc, json, os, sys, traceback
import mender_oneshot.artifact, mender_oneshot.cli, mender_oneshot.keys
import mender_oneshot.server, mender_oneshot.words
from mender_oneshot import steps
from mender_oneshot.__main__ import main
for name in steps.FILES:
    steps.load(name)
import mender_oneshot.steps.report
gc.freeze()  # or every fork would copy all that the collector looks at
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


class Forge:
    """Makes processes that have their imports behind them: invocations for stories that need hundreds."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, device: Device, words: tuple[str, ...], umask: int, seconds: float = 60) -> Run:
        """Run one invocation to its end, in a process of its own."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", FORGE],
                env=device.env() | {"PYTHONPATH": str(REPO)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd="/",
                start_new_session=True,
            )
            atexit.register(self.stop)
        process = self._process
        assert process.stdin
        assert process.stdout
        out, err = device.root / "said.out", device.root / "said.err"
        job = {"words": words, "env": device.env(), "out": str(out), "err": str(err), "umask": umask}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            self.stop()
            raise AssertionError(f"{words} has not ended within {seconds} s: {err.read_text()}")
        code = int(process.stdout.readline())
        return Run(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def stop(self) -> None:
        """End it, and what it runs."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


FORGE_FOR_ALL = Forge()


class Prompt(Device):
    """A device whose `run` does not pay for the interpreter's start each time; `start` does."""

    def __init__(self, root: Path, server: DevServer) -> None:
        super().__init__(root, sys.executable)
        self.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
        # To read the system's list of CAs takes longer than all the rest, and ours is named above.
        self.environment |= {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/no/such/directory"}

    def run(self, *words: str, wrapper: tuple[str, ...] = (), **options: Any) -> Run:
        if wrapper:
            return super().run(*words, wrapper=wrapper, **options)
        done = FORGE_FOR_ALL.run(self, words, **({"umask": 0o022} | options))
        assert "Traceback" not in done.err, done.err
        return done


@pytest.fixture
def device(tmp_path: Path, server: DevServer) -> Device:
    return Prompt(tmp_path / "device", server)


@pytest.fixture
def accepted(device: Device, server: DevServer) -> Device:
    return let_in(device, server)


def let_in(device: Device, server: DevServer) -> Device:
    """Have a device accepted at its first word; later ones have to wait for somebody's hand again."""
    server.world.accept_all = True
    device.ok("auth")
    server.world.accept_all = False
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
        """What `status --json` says of the time until something is due, without a process for it."""
        device = self.device
        places = Places(
            f"{device.conf}/mender.conf", "/no/file", True, str(device.conf), "/no", str(device.data)
        )
        wait: int | None = status.describe(settings.load(places))["next_in_seconds"]
        return DAY if wait is None else wait

    def tick(self) -> Run:
        """The timer ticks: one invocation."""
        done = self.device.run(*self.words)
        self.runs.append((self.now, done))
        self.note()
        return done

    def note(self) -> None:
        """Take down what the server was asked since the last time."""
        seen = self.server.requests
        for one in seen[self._known :]:
            what = f"{one.method} {one.path.rpartition('/')[2] if one.origin == 'api' else 'artifact'}"
            self.asked.append(Asked(self.now, what, one.status, one.body))
        self._known = len(seen)

    def sleep(self, seconds: float) -> None:
        """Let time pass: every stamp in the state lies further back."""
        self.now += seconds
        known = self.device.state
        moved: dict[str, Any] = {}
        for name in ("checked_at", "inventory_at", "inventory_sent_at"):
            if name in known:
                moved[name] = known[name] - seconds
        for name, stamps in (
            ("token", ("at", "expires")),
            ("deployment", ("expires",)),
            ("handoff", ("uptime",)),
            ("hold", ("at",)),
            ("last_result", ("at",)),
        ):
            if name in known:
                part = known[name]
                moved[name] = part | {stamp: part[stamp] - seconds for stamp in stamps if part.get(stamp)}
        if "results" in known:
            moved["results"] = [one | {"at": one["at"] - seconds} for one in known["results"]]
        if "failures" in known:
            moved["failures"] = {
                step: one | {"at": one["at"] - seconds} for step, one in known["failures"].items()
            }
        self.device.alter_state(**moved)

    def times(self, *what: str) -> list[float]:
        """When the server was asked one of these; every request, where none is named."""
        return [one.at for one in self.asked if not what or one.what in what]

    def said(self) -> set[str]:
        """Every sentence on stderr, once."""
        return {line for _, done in self.runs for line in done.err.splitlines()}

    def busiest_hour(self) -> int:
        """The most requests that fell into the 60 minutes after any request."""
        times = self.times()
        return max((sum(start <= at < start + HOUR for at in times) for start in times), default=0)


def contract(interval: float, until: float) -> list[float]:
    """The earliest times of the attempts that the contract allows: its back-off, then the usual interval."""
    times, at = [], 0.0
    pauses = [60.0] * 3 + [120.0] * 3 + [240.0] * 3 + [300.0] * 3
    while at < until:
        times.append(at)
        at += pauses.pop(0) if pauses else interval
    return times


def keeps_to(attempts: list[float], interval: float, steps: int = 1) -> None:
    """No attempt comes before the contract's time for it; those within one invocation count as one.

    Where several steps fail, each has its own back-off.
    """
    attempts = sorted(set(attempts))
    allowed = contract(interval, 10 * DAY)
    early = [at for number, at in enumerate(attempts) if at < attempts[0] + allowed[number // steps]]
    assert not early, f"attempts before their time: {early[:5]} of {attempts[:20]}"


def answers(server: DevServer, what: str) -> str:
    """The sentence for an answer such as "500"."""
    return f"{server.url[8:]} answered {what}; the next run tries again."


def test_a_server_in_trouble_all_day(accepted: Device, server: DevServer) -> None:
    server.faults.add(count=None, status=500)
    days = Days(accepted, server).live(DAY)
    assert {done.code for _, done in days.runs} == {75}
    assert days.said() == {answers(server, "500")}
    keeps_to(days.times(), interval=1800)
    assert len(days.asked) <= len(contract(1800, DAY)) == 59
    assert days.busiest_hour() <= 14
    # It has not given up: the server recovers, and the device is back within the interval.
    server.faults.clear()
    days.live(1800)
    assert days.asked[-1].status in (200, 204)


def test_a_device_that_nobody_accepts_all_day(device: Device, server: DevServer) -> None:
    days = Days(device, server).live(DAY)
    assert {done.code for _, done in days.runs} == {77}
    assert len(days.said()) == 1
    assert "accept it under Devices > Pending, the next run goes on by itself" in days.said().pop()
    assert set(days.times()) == set(days.times("POST auth_requests"))
    keeps_to(days.times(), interval=1800)
    assert len(days.asked) <= 59
    # One device, one key, however often it asked.
    assert len(server.device().auth_sets) == 1


def test_a_token_revoked_before_every_step(accepted: Device, server: DevServer, release: Release) -> None:
    """Each step costs one refusal and one authorization more, and goes on."""
    accepted.sub_updater()
    deployment = release()
    days = Days(accepted, server, "run").live(HOUR, before_each=server.revoke_tokens)
    accepted.ok("report", "--success")
    (accepted.data / "update.lock").unlink()
    days.live(6 * HOUR, before_each=server.revoke_tokens)
    assert {done.code for _, done in days.runs} == {0}
    assert days.said() == set()
    assert server.status_history(deployment) == ["downloading", "installing", "success"]
    refused = [one for one in days.asked if one.status == 401]
    assert len(days.times("POST auth_requests")) <= len(refused) <= len(days.runs) + 2
    # In the busiest hour: the update, and after it two checks.
    assert days.busiest_hour() <= 24
    assert len(days.asked) <= 70


LOOPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "auth says yes": ({}, {"status": 401}),
    "auth says no": ({"status": 401}, {"status": 401}),
    "auth is broken": ({"status": 500}, {"status": 401}),
    "forbidden": ({}, {"status": 403}),
}


@pytest.mark.parametrize(("auth", "others"), LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("in_hand", ["nothing", "a deployment", "an artifact", "a result"])
def test_a_token_that_is_never_good(
    accepted: Device,
    server: DevServer,
    release: Release,
    auth: dict[str, Any],
    others: dict[str, Any],
    in_hand: str,
) -> None:
    """The 401 loop: the server gives tokens, or not, and the API takes none, whatever the device is at."""
    accepted.sub_updater()
    has_in_hand(accepted, release, in_hand)
    server.faults.add(match="POST */auth_requests", count=None, **auth)
    server.faults.add(match="*/api/*", count=None, **others)
    days = Days(accepted, server).live(HOUR / 2)
    # The inventory goes its own way meanwhile, so that there are two that fail.
    keeps_to(days.times(), interval=300, steps=2)
    # At most five requests for each attempt: two refusals, two tokens, and a second form of the question.
    assert days.busiest_hour() <= 5 * 2 * 12
    assert len(days.said()) <= 3
    assert not (accepted.data / "update.lock").exists()


def test_a_link_that_has_expired_while_nobody_renews_it(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """The download needs a new link, the server has none to give: neither step may come more often for it."""
    release()
    accepted.ok("check-update")
    held = accepted.state["deployment"]
    accepted.alter_state(deployment=held | {"expires": 1.0}, checked_at=1.0)
    server.faults.add(match="* */next", count=None, status=500)
    days = Days(accepted, server).live(HOUR / 2)
    keeps_to(days.times("GET next"), interval=300)
    assert days.said() == {answers(server, "500")}
    # A new link comes, and the download goes on.
    server.faults.clear()
    accepted.sub_updater()
    days.live(600)
    assert server.status(held["id"]) == "installing"


def has_in_hand(device: Device, release: Release, what: str) -> str:
    """Bring a device to some point of an update; returns the deployment."""
    deployment = "" if what == "nothing" else release()
    if what in ("a deployment", "an artifact", "a result"):
        device.ok("check-update")
    if what == "an artifact":
        device.ok("download")
    if what == "a result":
        (device.data / "update.lock").write_text(deployment)
        device.alter_state(
            deployment=None,
            results=[{"deployment": deployment, "status": "failure", "at": 1.0}],
            last_result={"deployment": deployment, "status": "failure", "at": 1.0},
        )
        (device.data / "update.lock").unlink()
    return deployment


def test_the_same_failing_deployment_offered_fifty_times(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """A server that has lost what it was told gets the same result again, and ever more time; no more."""
    accepted.configure(UpdatePollIntervalSeconds=60)
    accepted.sub_updater()
    deployment = release()
    accepted.ok("check-update")
    held = accepted.state["deployment"]
    offer = {
        "id": deployment,
        "artifact": {
            "id": held["artifact_id"],
            "artifact_name": held["artifact_name"],
            "source": {"uri": held["uri"]},
        },
    }
    days = Days(accepted, server)
    days.tick()
    accepted.ok("report", "--failure")
    (accepted.data / "update.lock").unlink()
    server.faults.add(match="GET */next", count=50, status=200, body=json.dumps(offer))
    days.live(contract(300, DAY)[50] + 10 * TICK)
    assert len([one for one in days.asked if (one.what, one.status) == ("GET next", 200)]) == 50
    # Downloaded once, handed off once, failed once, and said again for each time it was asked.
    assert len(days.times("GET artifact")) == 1
    history = server.status_history(deployment)
    assert history[:2] == ["downloading", "installing"]
    assert history[2:] == ["failure"] * 51
    keeps_to([at for at in days.times("GET next") if at][:50], interval=300)
    # After that it polls again as configured: once a minute, by two forms of the question at most.
    assert days.asked[-1].what == "GET next"
    assert accepted.ok("status", "--json").json["failures"] == {}


REFUSED_LOGS: dict[str, dict[str, Any]] = {
    "too large": {"status": 413},
    "server error": {"status": 500},
    "bad request": {"status": 400},
    "cut off": {"drop_before": True, "reset": True},
    "a portal": {"status": 200, "body": "<html>Log in</html>"},
}


@pytest.mark.parametrize("fault", REFUSED_LOGS.values(), ids=REFUSED_LOGS)
def test_a_log_that_the_server_never_takes(
    accepted: Device, server: DevServer, release: Release, fault: dict[str, Any]
) -> None:
    """The result counts: it goes once, and its log holds up the next update for some hours at most."""
    accepted.configure(InstallTimeoutSeconds=0)
    deployment = release()
    server.faults.add(match="PUT */log", count=None, **fault)
    days = Days(accepted, server)
    first = days.tick()  # there is no sub-updater: the update fails at the hand-off
    assert first.code == 69
    accepted.sub_updater()
    following = release("release-3")
    days.live(6 * HOUR)
    assert server.status_history(deployment)[-1] == "failure"
    assert server.status_history(deployment).count("failure") == 1
    keeps_to(days.times("PUT log"), interval=300)
    assert 1 <= len(days.times("PUT log")) <= 60
    assert server.status_history(following) == ["downloading", "installing"]
    assert days.busiest_hour() <= 30


def test_a_hand_off_that_fails_for_ten_deployments(
    accepted: Device, server: DevServer, release: Release
) -> None:
    """A fleet without a sub-updater: each deployment costs seven requests, and the poll interval of time."""
    days, deployments = Days(accepted, server), []
    for number in range(10):
        deployments.append(release(f"release-{number + 2}"))
        days.live(1800)
    days.live(HOUR)
    assert [server.status_history(one) for one in deployments] == [["downloading", "failure"]] * 10
    assert {done.code for _, done in days.runs} <= {0, 69}
    sentence = (
        f"The sub-updater {accepted.scripts}/install is missing or not executable; the update has failed."
    )
    assert days.said() == {sentence}
    assert sum(sentence in done.err for _, done in days.runs) == 10
    assert not (accepted.data / "update.lock").exists()
    assert len(days.times("GET artifact")) == 10
    assert len(days.asked) <= 10 * 7 + 10
    assert days.busiest_hour() <= 21


def test_a_status_that_hangs(accepted: Device, server: DevServer, release: Release) -> None:
    """The answer to `downloading` never comes: each run ends in time, and the next keeps its distance."""
    deployment = release()
    server.faults.add(match="PUT */status", count=None, status=200, body="never", stall_after=0)
    days = Days(accepted, server, "--max-runtime", "1", "run", "--all").live(HOUR / 2)
    server.faults.release()
    days.note()
    in_trouble = [(at, done) for at, done in days.runs if done.err]
    assert {done.code for _, done in in_trouble} == {75}
    assert all("time limit of 1 s is over; the next run goes on" in line for line in days.said())
    keeps_to([at for at, _ in in_trouble], interval=300)
    assert server.status(deployment) == "pending"
    # No attempt to download was made, so none is counted: with the server back, all goes on.
    server.faults.clear()
    accepted.sub_updater()
    days.words = ("run", "--all")
    days.live(600)
    assert server.status(deployment) == "installing"


def test_rejected_and_accepted_again(accepted: Device, server: DevServer, release: Release) -> None:
    accepted.sub_updater()
    accepted.ok("run", "--all")
    server.reject()
    days = Days(accepted, server).live(DAY / 4)
    assert {done.code for _, done in days.runs} <= {0, 77}
    assert days.asked[0].status == 401
    keeps_to(days.times("POST auth_requests"), interval=1800)
    assert len(days.asked) <= len(contract(1800, DAY / 4)) + 1
    assert len(days.said()) == 1
    server.accept(server.device().id)
    deployment = release()
    days.live(2 * 1800 + TICK)
    assert server.status(deployment) == "installing"


@pytest.mark.parametrize("in_hand", ["nothing", "a deployment", "an artifact", "a result"])
def test_decommissioned_in_the_middle(
    accepted: Device, server: DevServer, release: Release, in_hand: str
) -> None:
    """The server forgets the device: it becomes one that waits to be accepted, and what it held is void."""
    accepted.sub_updater()
    has_in_hand(accepted, release, in_hand)
    server.decommission()
    days = Days(accepted, server).live(2 * HOUR)
    assert {done.code for _, done in days.runs} == {77}
    # An artifact that is here is tried again every five minutes; all else waits for the usual interval.
    keeps_to(days.times(), interval=300 if in_hand == "an artifact" else 1800)
    assert server.device().status == "pending"
    # Accepted once more, it is a new device: what it held of the old one is dropped, not installed.
    server.accept()
    days.live(2 * 1800 + TICK)
    assert not (accepted.data / "update.lock").exists()
    assert "deployment" not in accepted.state
    assert "results" not in accepted.state
    assert not list(accepted.data.glob("artifact.*"))
    following = release("release-3")
    days.live(1800 + TICK)
    assert server.status(following) == "installing"
