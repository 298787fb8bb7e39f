"""A fleet of devices in simulated time, each with the real planning function, without disk or network.

A device jumps from one due step to the next, rounded up to its tick of a minute. Devices do not influence
each other, so that a sample stands for a larger fleet.
"""

import math
import multiprocessing
import random
from collections.abc import Iterable
from typing import NamedTuple

from mender_oneshot import plan
from mender_oneshot.paths import Places
from mender_oneshot.settings import Settings
from mender_oneshot.snapshot import Snapshot
from mender_oneshot.state import State, Token

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
WEEK = 7 * DAY
BEGIN = 1_750_000_000.0
SERVER = "https://server"
SETTINGS = Settings(Places("/c/mender.conf", "/d/mender.conf", False, "/c", "/s", "/d"), servers=(SERVER,))
SERVICES_START = 30.0
"""Seconds from the start of the kernel to the first tick, as in the timer's `OnBootSec=`."""


class Scenario(NamedTuple):
    """What happens to a fleet; times in seconds since the begin of the week."""

    name: str
    begins: float = 0
    lasts: float = 0
    fault: str = ""
    """Either "power": all devices are off; "connection": no answer; or "busy": the server answers 503."""
    retry_after: float = 0  # of the 503; 0: without that header
    limit: float = 0  # the server answers 429 to a check within so many seconds of the last one
    clock: bool = True  # False: the clock starts in 1970 at a boot, and is never set
    settings: Settings = SETTINGS

    @property
    def ends(self) -> float:
        """When the fault is over."""
        return self.begins + self.lasts

    def failing(self, at: float) -> bool:
        """Return whether the fault is there at a time."""
        return self.begins <= at < self.ends


class Answer(NamedTuple):
    """An answer to a request; `status` is 0 if there is none."""

    status: int
    retry_after: float = 0


class Life:
    """One device: its state, its clock, and the requests it sends."""

    def __init__(self, number: int, scenario: Scenario) -> None:
        draw = random.Random(number)  # noqa: S311 - each number is one device, the same in each run
        settings = scenario.settings
        issued = BEGIN - draw.uniform(0, WEEK)
        self.scenario = scenario
        self.state = State(
            spread=draw.random(),
            token=Token("t", SERVER, issued, WEEK, issued + WEEK),
            checked_at=BEGIN - draw.uniform(0, settings.update_poll_interval),
            inventory_at=BEGIN - draw.uniform(0, settings.inventory_poll_interval),
        )
        # A check without news is not saved, except the first after a boot; a boot forgets it.
        self._saved_check, self._next_is_saved = self.state.checked_at, False
        self.at = draw.uniform(0, MINUTE)
        self._tick_after_boot = SERVICES_START + draw.uniform(0, MINUTE)
        self._booted = -draw.uniform(HOUR, WEEK)
        self._boot, self._next_boot = (f"{draw.getrandbits(32):08x}-" for _ in range(2))
        self._rebooted = False
        self.asked: list[tuple[float, int]] = []
        self.checks: list[float] = []

    def until(self, end: float) -> "Life":
        """Live until `end`."""
        while True:
            if self.scenario.fault == "power" and self.at >= self.scenario.begins and not self._rebooted:
                self._booted, self._boot, self._rebooted = self.scenario.ends, self._next_boot, True
                self.state = self.state._replace(checked_at=self._saved_check)
                self._next_is_saved = True
                self.at = self._booted + self._tick_after_boot
            if self.at >= end:
                return self
            now = self._now()
            step, wait = plan.coming(self.state, self.scenario.settings, now)
            if wait > 0:
                self.at += MINUTE * math.ceil(wait / MINUTE)
            elif not self._perform(step, now.time):
                self.at += MINUTE  # the error ends the invocation

    def _now(self) -> Snapshot:
        uptime = self.at - self._booted
        in_1970 = self._rebooted and not self.scenario.clock
        return Snapshot(uptime if in_1970 else BEGIN + self.at, uptime, self._boot)

    def _perform(self, step: str, now: float) -> bool:
        """Send the request of a step, and keep what its answer means; return whether it worked."""
        answer, state = self._answer(step), self.state
        if answer.status:
            self.asked.append((self.at, answer.status))
        if answer.status != 200:
            failures = {**state.failures, step: plan.failed_again(state.failures.get(step), now)}
            self.state = state._replace(failures=failures)
            if answer.retry_after:
                self.state = plan.with_pause(self.state, step, "server", answer.retry_after, now)
            self._saved_check = self.state.checked_at
            return False
        if state.failures:
            left = {name: failure for name, failure in state.failures.items() if name != step}
            state = state._replace(failures=left)
        if step == "auth":
            issued = BEGIN + self.at
            state = state._replace(token=Token("t", SERVER, now, WEEK, issued + WEEK))
        elif step == "check-update":
            state = state._replace(checked_at=now)
            self.checks.append(self.at)
        else:
            state = state._replace(inventory_at=now)
        changed = state._replace(checked_at=0) != self.state._replace(checked_at=0)
        if changed or self._next_is_saved or not 0 <= now - self._saved_check < DAY:
            self._saved_check, self._next_is_saved = state.checked_at, False
        self.state = state
        return True

    def _answer(self, step: str) -> Answer:
        scenario = self.scenario
        if scenario.failing(self.at):
            return Answer(503, scenario.retry_after) if scenario.fault == "busy" else Answer(0)
        if scenario.limit and step == "check-update" and self.checks:
            left = self.checks[-1] + scenario.limit - self.at
            if left > 0:
                return Answer(429, math.ceil(left))
        return Answer(200)

    def worst_gap(self, end: float) -> tuple[float, float]:
        """Return the longest time without a check, and the longest that is not the fault's, in seconds."""
        times = [0.0, *self.checks, end]
        gaps = list(zip(times, times[1:], strict=False))
        begins, ends = self.scenario.begins, self.scenario.ends
        own = max(until - since - max(0, min(until, ends) - max(since, begins)) for since, until in gaps)
        return max(until - since for since, until in gaps), own


class Seen(NamedTuple):
    """What the server and the devices saw: requests in each minute, and gaps between checks in seconds."""

    answered: list[int]
    rejected: list[int]
    gap: float
    starved: int

    def mean(self, scenario: Scenario) -> float:
        """Return the answered requests per minute, without the time in which none could be."""
        return sum(self.answered) / (len(self.answered) - scenario.lasts / MINUTE)

    def peak(self) -> int:
        """Return the answered requests in the busiest minute."""
        return max(self.answered)


def watch(scenario: Scenario, numbers: Iterable[int], end: float = WEEK) -> Seen:
    """Let devices live, and return what was seen of them."""
    minutes = int(end / MINUTE)
    answered, rejected, worst, starved = [0] * minutes, [0] * minutes, 0.0, 0
    for number in numbers:
        life = Life(number, scenario).until(end)
        for at, status in life.asked:
            (answered if status == 200 else rejected)[int(at / MINUTE)] += 1
        gap, own = life.worst_gap(end)
        worst = max(worst, gap)
        starved += own > DAY
    return Seen(answered, rejected, worst, starved)


def watch_in_parallel(scenario: Scenario, numbers: list[int], end: float = WEEK) -> Seen:
    """Do the same on all cores."""
    with multiprocessing.Pool() as pool:
        size = multiprocessing.cpu_count() * 4
        parts = pool.starmap(watch, [(scenario, numbers[part::size], end) for part in range(size)])
    return Seen(
        [sum(column) for column in zip(*(part.answered for part in parts), strict=True)],
        [sum(column) for column in zip(*(part.rejected for part in parts), strict=True)],
        max(part.gap for part in parts),
        sum(part.starved for part in parts),
    )


SCENARIOS = (
    Scenario("a quiet week"),
    Scenario("power back after 10 minutes", 6 * HOUR, 600, "power"),
    Scenario("power back after 12 hours", 6 * HOUR, 12 * HOUR, "power"),
    Scenario("the same, clocks in 1970", 6 * HOUR, 12 * HOUR, "power", clock=False),
    Scenario("no connection for half an hour", 6 * HOUR, HOUR / 2, "connection"),
    Scenario("no connection for an hour", 6 * HOUR, HOUR, "connection"),
    Scenario("503 for an hour", 6 * HOUR, HOUR, "busy"),
    Scenario("503 for an hour, Retry-After: 3600", 6 * HOUR, HOUR, "busy", retry_after=HOUR),
    Scenario("certificate expired for a day", 6 * HOUR, DAY, "connection"),
    Scenario("hosted Mender's limit", limit=1800),
    Scenario(
        "the same, polling every 600 s", limit=1800, settings=SETTINGS._replace(update_poll_interval=600)
    ),
)
