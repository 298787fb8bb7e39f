"""Which step is due, in every situation: values in, values out."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot import plan
from mender_oneshot.paths import Places
from mender_oneshot.plan import backoff, due, next_step, token_is_good
from mender_oneshot.settings import Settings
from mender_oneshot.snapshot import Snapshot
from mender_oneshot.state import Deployment, Failure, Handoff, Pause, Result, State, Token

NOW = 1_750_000_000.0
HOUR, DAY, WEEK, YEAR = 3600.0, 86400.0, 604800.0, 31536000.0
SERVER = "https://server"
IN_1970, IN_2099 = 100.0, 4_090_000_000.0

PLACES = Places("/c/mender.conf", "/d/mender.conf", False, "/c", "/s", "/d")
SETTINGS = Settings(PLACES, servers=(SERVER,), start_spread=0)
MOMENT = Snapshot(time=NOW, uptime=DAY, boot="this")

TOKEN = Token("j.w.t", SERVER, at=NOW - HOUR, lifetime=WEEK, expires=NOW - HOUR + WEEK)
IDLE = State(spread=0.5, token=TOKEN, checked_at=NOW - 600, inventory_at=NOW - HOUR)
UPDATE = Deployment("d1", "a1", "release-2", "https://storage/a")
SUCCESS, FAILURE = Result("d0", "success", NOW - 30), Result("d0", "failure", NOW - 30)
HANDOFF = Handoff("d1", "release-2", boot="this", uptime=DAY - HOUR)
NAMELESS = Handoff("", "", boot="this", uptime=DAY - HOUR)

CHECK_IN, INVENTORY_IN = 1200, 25200  # of IDLE


def failed(step: str, times: int = 1, at: float = NOW) -> dict[str, Failure]:
    return {step: Failure(times, at)}


def paused(step: str, host: str = "server") -> tuple[Pause, ...]:
    """A pause of 700 s, 100 s ago."""
    return (Pause(step, host, NOW - 100, 700),)


class Case(NamedTuple):
    """A situation, the step that is due in it, and the seconds until one is."""

    situation: str
    state: State
    now: dict[str, Any]
    step: str | None
    wait: float = 0
    settings: dict[str, Any] = {}


def idle(**changes: Any) -> State:
    return IDLE._replace(**changes)


# fmt: off
TABLE = [
    # A device with nothing in hand.
    Case("fresh device authorizes", State(spread=0.5), {}, "auth"),
    Case("fresh device, authorized, checks", State(spread=0.5, token=TOKEN), {}, "check-update"),
    Case("first inventory after the first check", idle(checked_at=NOW, inventory_at=0), {}, "send-inventory"),
    Case("first inventory waits for the first check", State(token=TOKEN, failures=failed("check-update")),
         {}, None, 60),
    Case("first inventory waits for the first check, half a second",
         State(token=TOKEN, failures=failed("check-update", 1, NOW - 59.5)), {}, None, 0.5),
    Case("nothing due", IDLE, {}, None, CHECK_IN),
    Case("check due", idle(checked_at=NOW - 1800), {}, "check-update"),
    Case("inventory due", idle(inventory_at=NOW - 28800), {}, "send-inventory"),
    Case("both due: check first", idle(checked_at=NOW - 1800, inventory_at=NOW - 28800), {}, "check-update"),
    Case("inventory sooner than check", idle(inventory_at=NOW - 28795), {}, None, 5),
    Case("other intervals", idle(), {}, "check-update", 0, {"update_poll_interval": 600}),
    Case("check fails, inventory is next",
         idle(checked_at=1, inventory_at=1, failures=failed("check-update")), {}, "send-inventory"),
    Case("inventory fails, check is next",
         idle(checked_at=1, inventory_at=1, failures=failed("send-inventory")), {}, "check-update"),
    Case("check used up its retries", idle(checked_at=1, failures=failed("check-update", 13, NOW - 300)),
         {}, None, 1500),
    Case("inventory used up its retries",
         idle(checked_at=NOW, inventory_at=1, failures=failed("send-inventory", 13)), {}, None, 1800),
    Case("leftover artifact", IDLE, {"artifact": True}, "tidy"),
    Case("leftover artifact that cannot go", idle(failures=failed("tidy")), {"artifact": True}, None, 60),

    # Results before everything.
    Case("queued result", idle(results=(SUCCESS,)), {}, "deliver"),
    Case("queued result before a check", idle(results=(SUCCESS,), checked_at=1), {}, "deliver"),
    Case("queued result before a download", idle(results=(SUCCESS,), deployment=UPDATE), {}, "deliver"),
    Case("queued result before an install", idle(results=(SUCCESS,), deployment=UPDATE),
         {"artifact": True}, "deliver"),
    Case("queued result before the sweep", idle(results=(SUCCESS,), last_result=SUCCESS),
         {"lock": "d0", "artifact": True}, "deliver"),
    Case("queued result before giving up", idle(results=(SUCCESS,), handoff=HANDOFF._replace(uptime=0)),
         {}, "deliver"),
    Case("queued result, no token", idle(results=(SUCCESS,), token=None), {}, "auth"),
    Case("queued result in its back-off holds up the rest",
         idle(results=(SUCCESS,), checked_at=1, inventory_at=1, failures=failed("deliver")), {}, None, 60),
    Case("queued result, back-off over", idle(results=(SUCCESS,), failures=failed("deliver", 1, NOW - 60)),
         {}, "deliver"),
    Case("queued result is never given up",
         idle(results=(SUCCESS,), failures=failed("deliver", 1000, NOW - 100)), {}, None, 200),

    # A deployment in hand.
    Case("download", idle(deployment=UPDATE), {}, "download"),
    Case("download before check and inventory", idle(deployment=UPDATE, checked_at=1, inventory_at=1),
         {}, "download"),
    Case("download without a token", idle(deployment=UPDATE, token=None), {}, "auth"),
    Case("download in its back-off", idle(deployment=UPDATE, failures=failed("download", 4, NOW - 20)),
         {}, None, 100),
    Case("install", idle(deployment=UPDATE), {"artifact": True}, "install"),
    Case("install needs no token", idle(deployment=UPDATE, token=None), {"artifact": True}, "install"),
    Case("install is not kept back by a failed download",
         idle(deployment=UPDATE, failures=failed("download")), {"artifact": True}, "install"),
    Case("install in its back-off", idle(deployment=UPDATE, failures=failed("install")),
         {"artifact": True}, None, 60),

    # An update in other hands.
    Case("unknown lock", IDLE, {"lock": "d9"}, "tidy"),
    Case("unknown lock without an id", IDLE, {"lock": ""}, "tidy"),
    Case("unknown lock before our own deployment", idle(deployment=UPDATE),
         {"lock": "d9", "artifact": True}, "tidy"),
    Case("unknown lock after another result", idle(last_result=SUCCESS), {"lock": "d9"}, "tidy"),
    Case("hand-off: no check, no install", idle(handoff=HANDOFF, checked_at=1),
         {"lock": "d1", "artifact": True}, None, 10800),
    Case("hand-off: the inventory is still sent", idle(handoff=HANDOFF, inventory_at=1), {"lock": "d1"},
         "send-inventory"),
    Case("hand-off: the lock is gone, the report is not here", idle(handoff=HANDOFF), {}, None, 10800),
    # The built-in installer: interrupted, or paused by a state script an hour ago.
    Case("interrupted installation", idle(handoff=HANDOFF), {"lock": "d1", "interrupted": 0.0}, "resume"),
    Case("interrupted installation after a reboot", idle(handoff=HANDOFF, checked_at=1, inventory_at=1),
         {"lock": "d1", "interrupted": 0.0, "boot": "next", "uptime": 60.0}, "resume"),
    Case("installation in a pause", idle(handoff=HANDOFF), {"lock": "d1", "interrupted": DAY - 20}, None, 40),
    Case("installation in a pause longer than installations may take",
         idle(handoff=HANDOFF._replace(uptime=0)), {"lock": "d1", "interrupted": 2 * DAY - 60,
         "uptime": 2 * DAY}, "resume", 0, {"state_script_retry_timeout": int(WEEK)}),
    Case("installation that is never resumed", idle(handoff=HANDOFF._replace(uptime=0)),
         {"lock": "d1", "interrupted": 0.0, "uptime": 2 * DAY}, "tidy"),
    Case("hand-off too old, same boot", idle(handoff=HANDOFF._replace(uptime=DAY - 14400)), {"lock": "d1"},
         "tidy"),
    Case("hand-off, same boot, one second left", idle(handoff=HANDOFF._replace(uptime=DAY - 14399)),
         {"lock": "d1"}, None, 1),
    Case("hand-off, after a reboot", idle(handoff=HANDOFF), {"lock": "d1", "boot": "next", "uptime": 60.0},
         None, 14340),
    Case("hand-off, silent since the reboot", idle(handoff=HANDOFF),
         {"lock": "d1", "boot": "next", "uptime": 14400.0}, "tidy"),
    Case("hand-off, other time limit", idle(handoff=HANDOFF), {"lock": "d1"}, "tidy", 0,
         {"install_timeout": 3600}),
    Case("hand-off, no time limit", idle(handoff=HANDOFF._replace(uptime=0)), {"lock": "d1", "uptime": YEAR},
         None, INVENTORY_IN, {"install_timeout": 0}),
    Case("hand-off, no time limit, inventory", idle(handoff=HANDOFF, inventory_at=1), {"lock": "d1"},
         "send-inventory", 0, {"install_timeout": 0}),
    Case("stale lock inside its grace", idle(last_result=SUCCESS), {"lock": "d0"}, None, 30),
    Case("stale lock after its grace", idle(last_result=SUCCESS._replace(at=NOW - 60)), {"lock": "d0"},
         "tidy"),
    Case("stale lock, result from the future", idle(last_result=SUCCESS._replace(at=NOW + YEAR)),
         {"lock": "d0"}, "tidy"),
    Case("stale lock of a failure", idle(last_result=FAILURE._replace(at=NOW - 60)), {"lock": "d0"}, "tidy"),

    # A lock without an id.
    Case("lock without an id, after another was given up", idle(last_result=Result("", "failure", NOW - 30)),
         {"lock": ""}, "tidy"),
    Case("lock without an id is waited for", idle(handoff=NAMELESS), {"lock": ""}, None, 10800),
    Case("lock without an id, silent for long", idle(handoff=NAMELESS._replace(uptime=DAY - 14400)),
         {"lock": ""}, "tidy"),
    Case("lock without an id is gone", idle(handoff=NAMELESS), {}, "tidy"),
    Case("lock without an id is gone, no time limit", idle(handoff=NAMELESS), {}, "tidy", 0,
         {"install_timeout": 0}),
    Case("lock without an id has got one", idle(handoff=NAMELESS), {"lock": "d9"}, "tidy"),
    Case("lock without an id has got one that is over", idle(handoff=NAMELESS, last_result=SUCCESS),
         {"lock": "d0"}, None, 30),

    # The token.
    Case("token missing", idle(token=None, checked_at=1), {}, "auth"),
    Case("token missing, nothing due", idle(token=None), {}, None, CHECK_IN),
    Case("token expired", idle(token=TOKEN._replace(at=NOW - WEEK, expires=NOW), checked_at=1), {}, "auth"),
    Case("token about to expire",
         idle(token=TOKEN._replace(at=NOW - WEEK + 299, expires=NOW + 299), checked_at=1), {}, "auth"),
    Case("token of another server", idle(checked_at=1), {}, "auth", 0, {"servers": ("https://other",)}),
    Case("token of the second server", idle(checked_at=1), {}, "check-update", 0,
         {"servers": ("https://other", SERVER)}),
    Case("token that says nothing of its end", idle(token=Token("j.w.t", SERVER, 1), checked_at=1), {},
         "check-update"),
    Case("not accepted yet", idle(token=None, checked_at=1, failures=failed("auth", 1, NOW - 10)), {},
         None, 50),
    Case("not accepted for long",
         idle(token=None, checked_at=1, failures=failed("auth", 50, NOW - 10)), {}, None, 1790),

    # A host wants a pause.
    Case("pause", idle(checked_at=1, pauses=paused("check-update")), {}, None, 600),
    Case("pause of the inventory", idle(checked_at=1, inventory_at=1, pauses=paused("send-inventory")), {},
         "check-update"),
    Case("pause of the check, inventory due",
         idle(checked_at=1, inventory_at=1, pauses=paused("check-update")), {}, "send-inventory"),
    Case("pause of the check, download due", idle(deployment=UPDATE, pauses=paused("check-update")), {},
         "download"),
    Case("pause of a result", idle(results=(SUCCESS,), pauses=paused("deliver")), {}, None, 600),
    Case("pause of another step, result due", idle(results=(SUCCESS,), pauses=paused("send-inventory")), {},
         "deliver"),
    Case("pause of the storage", idle(deployment=UPDATE, pauses=paused("download", "storage")), {}, None,
         600),
    Case("pause of the storage, inventory due",
         idle(deployment=UPDATE, inventory_at=1, pauses=paused("download", "storage")), {}, "send-inventory"),
    Case("pause of the status in a download", idle(deployment=UPDATE, pauses=paused("download")), {},
         "download"),
    Case("pause of another storage", idle(deployment=UPDATE, pauses=paused("download", "elsewhere")), {},
         "download"),
    Case("pause of the status in an install", idle(deployment=UPDATE, pauses=paused("install")),
         {"artifact": True}, "install"),
    Case("pause of auth, no token", idle(token=None, checked_at=1, pauses=paused("auth")), {}, None, 600),
    Case("pause of auth, token shown to that server", idle(checked_at=1, pauses=paused("auth")), {}, None,
         600),
    Case("pause of auth by another server", idle(checked_at=1, pauses=paused("auth", "other")), {},
         "check-update"),
    Case("pause of auth by one of two servers",
         idle(token=None, checked_at=1, pauses=paused("auth")), {}, "auth", 0,
         {"servers": (SERVER, "https://other")}),
    Case("pause of auth by both servers",
         idle(token=None, checked_at=1, pauses=(*paused("auth"), *paused("auth", "other"))), {}, None, 600,
         {"servers": (SERVER, "https://other")}),
    Case("pause of auth, artifact here", idle(deployment=UPDATE, pauses=paused("auth")), {"artifact": True},
         "install"),
    Case("pause of auth, stale lock", idle(last_result=SUCCESS._replace(at=NOW - 60), pauses=paused("auth")),
         {"lock": "d0"}, "tidy"),
    Case("pause of auth, silent sub-updater",
         idle(handoff=HANDOFF._replace(uptime=DAY - 14400), pauses=paused("auth")), {"lock": "d1"}, "tidy"),
    Case("pause is over", idle(checked_at=1, pauses=(Pause("check-update", "server", NOW - 700, 700),)), {},
         "check-update"),
    Case("pause of a year is one of a day",
         idle(results=(SUCCESS,), pauses=(Pause("deliver", "server", NOW, YEAR),)), {}, None, DAY),
    Case("pause from the future",
         idle(checked_at=1, pauses=(Pause("check-update", "server", NOW + 10, 700),)), {}, "check-update"),
    Case("pause of less than nothing",
         idle(checked_at=1, pauses=(Pause("check-update", "server", NOW, -700),)), {}, "check-update"),

    # The fleet after a power cut.
    Case("start spread", idle(checked_at=1), {"uptime": 10.0}, None, 140, {"start_spread": 300}),
    Case("start spread is over", idle(checked_at=1), {"uptime": 150.0}, "check-update", 0,
         {"start_spread": 300}),
    Case("start spread is another one after each boot", idle(checked_at=1),
         {"uptime": 10.0, "boot": "c0000000-"}, None, 65, {"start_spread": 300}),
    Case("start spread never longer than the interval", idle(checked_at=1), {"uptime": 10.0}, None, 20,
         {"start_spread": 300, "update_poll_interval": 60}),
    Case("start spread of the inventory", idle(inventory_at=1), {"uptime": 10.0}, None, 140,
         {"start_spread": 300}),
    Case("start spread does not hold up a result", idle(results=(SUCCESS,)), {"uptime": 10.0}, "deliver", 0,
         {"start_spread": 300}),
    Case("start spread does not hold up a download", idle(deployment=UPDATE), {"uptime": 10.0}, "download", 0,
         {"start_spread": 300}),
    Case("start spread of a check not due at the boot", idle(checked_at=NOW - 1750), {"uptime": 100.0},
         None, 50, {"start_spread": 3600}),
    Case("start spread of a check due at the boot", idle(checked_at=NOW - 1950), {"uptime": 100.0},
         None, 800, {"start_spread": 3600}),
    Case("start spread of an inventory is longer", idle(inventory_at=1, checked_at=NOW), {"uptime": 10.0},
         None, 1790, {"start_spread": 3600}),
    Case("start spread of a device that never checked", State(spread=0.5, token=TOKEN), {"uptime": 10.0},
         None, 140, {"start_spread": 3600}),
    Case("start spread while the clock is in 1970", idle(checked_at=NOW), {"time": 110.0, "uptime": 10.0},
         None, 890, {"start_spread": 3600}),
    Case("start spread not drawn yet", idle(checked_at=1, spread=-1), {"uptime": 10.0}, "check-update", 0,
         {"start_spread": 300}),

    # Clocks.
    Case("clock fell back to 1970", idle(), {"time": IN_1970}, "check-update"),
    Case("clock fell back to 1970, results", idle(results=(SUCCESS,), failures=failed("deliver", 9)),
         {"time": IN_1970}, "deliver"),
    Case("clock fell back to 1970, update", idle(deployment=UPDATE, failures=failed("download", 9)),
         {"time": IN_1970}, "download"),
    Case("clock fell back to 1970, no token", idle(token=None, failures=failed("auth", 50)),
         {"time": IN_1970}, "auth"),
    Case("clock fell back to 1970, pause", idle(pauses=paused("check-update")), {"time": IN_1970},
         "check-update"),
    Case("clock fell back to 1970, hand-off", idle(handoff=HANDOFF, inventory_at=0),
         {"time": IN_1970, "lock": "d1"}, "send-inventory"),
    Case("clock in 2099, token got before", idle(), {"time": IN_2099}, "auth"),
    Case("clock in 2099, token got just now", idle(token=TOKEN._replace(at=IN_2099)), {"time": IN_2099},
         "check-update"),
    Case("clock came back from 2099", idle(checked_at=IN_2099, inventory_at=IN_2099), {}, "check-update"),
    Case("clock stays in 1970", idle(checked_at=IN_1970, inventory_at=IN_1970), {"time": IN_1970 + 60},
         None, 1740),
    Case("a wrong clock does not shorten an installation", idle(handoff=HANDOFF, inventory_at=IN_2099),
         {"time": IN_2099, "lock": "d1"}, None, 10800),
]
# fmt: on


@pytest.mark.parametrize("case", TABLE, ids=[case.situation for case in TABLE])
def test_the_step_that_is_due(case: Case) -> None:
    settings, now = SETTINGS._replace(**case.settings), MOMENT._replace(**case.now)
    assert due(case.state, settings, now) == (case.step, case.wait)
    assert next_step(case.state, settings, now) == case.step


@pytest.mark.parametrize("lifetime", [WEEK, 60.0], ids=["a week", "a minute"])
@pytest.mark.parametrize(
    ("elapsed", "good"), [(0.0, True), (0.5, True), (0.91, True), (1.0, False), (9, False)]
)
@pytest.mark.parametrize(
    ("clock", "issued"),
    [(NOW, NOW), (IN_2099, NOW), (NOW, NOW - YEAR), (IN_1970, NOW)],
    ids=["clock right", "clock ahead", "server behind", "clock behind"],
)
def test_a_token_is_shown_until_shortly_before_its_end(
    lifetime: float, elapsed: float, good: bool, clock: float, issued: float
) -> None:
    token = Token("j.w.t", SERVER, at=clock, lifetime=lifetime, expires=issued + lifetime)
    now = clock + elapsed * lifetime
    if elapsed == 0.91:
        now = min(now, clock + lifetime - min(300, lifetime / 10) - 1)
    assert token_is_good(token, (SERVER,), now) == good


MINUTES = [60.0] * 3 + [120.0] * 3 + [240.0] * 3 + [300.0] * 3


@pytest.mark.parametrize(
    ("longest", "count", "expected"),
    [
        (300, 0, [*MINUTES, None, None]),
        (300, 15, [*MINUTES, 300.0, 300.0, 300.0, None, None]),
        (300, 12, [*MINUTES, None]),
        (300, 5, [*MINUTES[:5], None]),
        (300, 1, [60.0, None]),
        (60, 0, [60.0] * 3 + [None]),
        (20, 0, [20.0] * 3 + [None]),
        (20, 5, [20.0] * 5 + [None]),
        (100, 0, [60.0] * 3 + [100.0] * 3 + [None]),
        (240, 0, [60.0] * 3 + [120.0] * 3 + [240.0] * 3 + [None]),
    ],
)
def test_the_backoff_is_that_of_the_reference_client(
    longest: int, count: int, expected: list[float | None]
) -> None:
    assert [backoff(failures, longest, count) for failures in range(1, len(expected) + 1)] == expected


@given(st.integers(1, 10**9), st.integers(0, 2**31), st.integers(0, 2**31))
@examples(deadline=None)
def test_no_backoff_is_longer_than_the_longest(failures: int, longest: int, count: int) -> None:
    wait = backoff(failures, longest, count)
    assert wait is None or 0 <= wait <= longest


def test_a_failure_counts_on() -> None:
    once = plan.failed_again(None, 5)
    assert once == Failure(1, 5, since=5)
    assert plan.failed_again(once, 7) == Failure(2, 7, since=5)


# What a state may hold after years of wrong clocks. The state's border lets no larger number in.
stamps = st.sampled_from([0, -1, 1, IN_1970, NOW, NOW + 1, IN_2099, -1e14, 9e14]) | st.floats(-9e14, 9e14)
clocks = st.sampled_from([0.0, IN_1970, NOW, IN_2099]) | st.floats(0, 9e9)
intervals = st.integers(1, 10**6)
hosts = st.sampled_from(["server", "storage"])
STEPS = ("auth", "check-update", "send-inventory", "tidy", "download", "install", "deliver")
tokens = st.builds(
    Token, st.just("j.w.t"), st.sampled_from([SERVER, "https://x"]), stamps, st.floats(0, 9e9), stamps
)
pauses = st.tuples(st.sampled_from(STEPS), hosts, stamps, stamps).map(Pause._make)
failures = st.dictionaries(st.sampled_from(STEPS), st.builds(Failure, st.integers(1, 99), stamps), max_size=3)


def state_of(members: dict[str, Any]) -> State:
    return State(**members)


def settings_of(members: dict[str, Any]) -> Settings:
    return SETTINGS._replace(**members)


empty_handed = st.fixed_dictionaries(
    {
        "spread": st.floats(0, 1),
        "token": st.none() | tokens,
        "checked_at": stamps,
        "inventory_at": stamps,
        "last_result": st.none() | stamps.map(lambda at: Result("d0", "success", at)),
        "failures": failures,
        "pauses": st.lists(pauses, max_size=3).map(tuple),
    }
).map(state_of)
configured = st.fixed_dictionaries(
    {
        "update_poll_interval": intervals,
        "inventory_poll_interval": intervals,
        "retry_poll_interval": intervals,
        "retry_poll_count": st.integers(0, 100),
        "start_spread": st.integers(0, 10**6),
    }
).map(settings_of)


def longest_pause(settings: Settings) -> float:
    return max(
        settings.update_poll_interval, settings.inventory_poll_interval, settings.retry_poll_interval, DAY
    )


@given(empty_handed, configured, clocks, st.floats(0, 1e8))
@examples(deadline=None, max_examples=300)
def test_a_device_with_nothing_in_hand_is_never_stuck(
    state: State, settings: Settings, clock: float, uptime: float
) -> None:
    now = Snapshot(clock, uptime, "this")
    for _ in range(5):  # one wait can hide another: pause, interval, back-off of the step, of auth
        step, wait = due(state, settings, now)
        if step:
            return
        assert 0 < wait <= longest_pause(settings)
        now = now._replace(time=now.time + wait + 0.001, uptime=now.uptime + wait + 0.001)
    pytest.fail("nothing is ever due")


@given(empty_handed, configured, clocks, st.sampled_from([None, "d1"]))
@examples(deadline=None, max_examples=300)
def test_two_timers_do_between_them_what_one_does(
    state: State, settings: Settings, clock: float, lock: str | None
) -> None:
    now = Snapshot(clock, DAY, "this", lock=lock)
    whole, update, inventory = (next_step(state, settings, now, only) for only in ("", "update", "inventory"))
    assert update != "send-inventory"
    assert inventory in (None, "auth", "send-inventory")
    if whole:
        assert whole in (update, inventory)


@given(empty_handed, configured, st.lists(clocks, min_size=2, max_size=6))
@examples(deadline=None)
def test_a_clock_that_jumps_never_blocks_longer_than_one_that_runs(
    state: State, settings: Settings, jumps: list[float]
) -> None:
    for clock in jumps:
        assert due(state, settings, Snapshot(clock, DAY, "this"))[1] <= longest_pause(settings)
        state = state._replace(checked_at=clock, failures={"check-update": Failure(1, clock)})


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**6))
@examples(deadline=None)
def test_two_devices_of_a_fleet_begin_at_different_times(one: float, other: float, spread: int) -> None:
    settings = SETTINGS._replace(
        start_spread=spread, update_poll_interval=10**6, inventory_poll_interval=10**6
    )
    first, second = (
        due(State(spread=place, token=TOKEN, checked_at=1), settings, MOMENT._replace(uptime=0.0))[1]
        for place in (one, other)
    )
    assert first == pytest.approx(one * spread)
    assert (first < second) == (one * spread < other * spread)


def steps_of(settings: Settings, runs: int, failing: str = "") -> list[str | None]:
    """The steps of so many invocations of `run`, one a minute; all work but those of one name."""
    state, now, done = IDLE, MOMENT, []
    for _ in range(runs):
        step = next_step(state, settings, now)
        done.append(step)
        if step and step == failing:
            failure = plan.failed_again(state.failures.get(step), now.time)
            state = state._replace(failures={step: failure})
        elif step == "check-update":
            state = state._replace(checked_at=now.time)
        elif step == "send-inventory":
            state = state._replace(inventory_at=now.time)
        now = now._replace(time=now.time + 60, uptime=now.uptime + 60)
    return done


def test_a_timer_every_minute_does_both_at_their_intervals() -> None:
    done = steps_of(SETTINGS, runs=24 * 60)
    assert done.count("check-update") == 48
    assert done.count("send-inventory") == 3


@pytest.mark.parametrize("interval", [5, 30, 60])
def test_checks_more_often_than_the_timer_leave_room_for_the_inventory(interval: int) -> None:
    # 5 s is mender-python-client's own default, and 5 s and 30 s are those of the demo profile.
    done = steps_of(SETTINGS._replace(update_poll_interval=interval), runs=24 * 60)
    assert done.count("send-inventory") == 3


@pytest.mark.parametrize(
    ("failing", "other"), [("send-inventory", "check-update"), ("check-update", "send-inventory")]
)
def test_a_step_that_always_fails_leaves_room_for_the_other(failing: str, other: str) -> None:
    often = SETTINGS._replace(update_poll_interval=5, inventory_poll_interval=5, retry_poll_interval=5)
    assert steps_of(often, runs=100, failing=failing).count(other) >= 49


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s (until 2025-06-15 15:06:41 UTC)"),
        (119, "119 s (until 2025-06-15 15:08:39 UTC)"),
        (119.5, "2 min 0 s (until 2025-06-15 15:08:40 UTC)"),
        (7199, "119 min 59 s (until 2025-06-15 17:06:39 UTC)"),
        (7200, "2 h 0 min (until 2025-06-15 17:06:40 UTC)"),
        (86399, "23 h 59 min (until 2025-06-16 15:06:39 UTC)"),
        (YEAR, "24 h 0 min (until 2025-06-16 15:06:40 UTC)"),
    ],
)
def test_the_words_for_a_pause(seconds: float, words: str) -> None:
    assert plan.until(seconds, NOW) == words


def test_the_words_for_a_pause_name_the_host_and_the_step() -> None:
    state = idle(pauses=(*paused("auth"), Pause("deliver", "other", NOW, 60)))
    assert plan.pause_in_words(state, 60, NOW).startswith(
        "other asked for a pause in answer to deliver; 60 s"
    )
    assert plan.pause_in_words(state, 600, NOW).startswith(
        "server asked for a pause in answer to auth; 10 min"
    )


@pytest.mark.parametrize(("seconds", "kept"), [(599, NOW - 100), (601, NOW)])
def test_of_two_pauses_of_one_step_and_host_the_longer_stays(seconds: float, kept: float) -> None:
    state = plan.with_pause(idle(pauses=paused("auth")), "auth", "server", seconds, NOW)
    (pause,) = state.pauses
    assert pause.at == kept


@pytest.mark.parametrize(("step", "host"), [("deliver", "server"), ("auth", "other")])
def test_a_pause_changes_no_pause_of_another_step_or_host(step: str, host: str) -> None:
    state = plan.with_pause(idle(pauses=paused("auth")), step, host, 5, NOW)
    assert state.pauses == (*paused("auth"), Pause(step, host, NOW, 5))


def test_pauses_that_are_over_are_dropped_when_another_begins() -> None:
    pauses = (Pause("auth", "over", NOW - 700, 700), Pause("auth", "one second left", NOW - 699, 700))
    state = plan.with_pause(idle(pauses=pauses), "deliver", "server", 5, NOW)
    assert [pause.host for pause in state.pauses] == ["one second left", "server"]


def test_the_twenty_newest_pauses_are_kept() -> None:
    state = IDLE
    for number in range(21):
        state = plan.with_pause(state, "auth", f"host-{number}", 700, NOW)
    assert [pause.host for pause in state.pauses] == [f"host-{number}" for number in range(1, 21)]


def test_a_pause_of_a_host_with_a_long_name_is_found_again() -> None:
    state = plan.with_pause(IDLE, "auth", "h" * 301, 700, NOW)
    assert state.pauses[0].host == "h" * 300
    assert plan.asked_pause(state, "auth", f"https://{'h' * 301}/path", NOW) == 700


@pytest.mark.parametrize(
    ("server", "uri", "keys", "is_open"),
    [
        ("https://server", "http://storage/a", (), True),
        ("HTTPS://server", "HTTP://storage/a", (), True),
        ("https://server", "https://storage/a", (), False),
        ("http://server", "http://storage/a", (), False),
        ("https://server", "http://storage/a", ("key.pem",), False),
    ],
)
def test_a_link_without_tls_or_signature_is_open(
    server: str, uri: str, keys: tuple[str, ...], is_open: bool
) -> None:
    settings = SETTINGS._replace(artifact_verify_keys=keys)
    assert plan.link_is_open(UPDATE._replace(server=server, uri=uri), settings) is is_open


@pytest.mark.parametrize(("lifetime", "margin"), [(WEEK, 300), (3000, 300), (2000, 200), (60, 6)])
def test_a_token_ends_300_s_or_a_tenth_of_its_life_early(lifetime: float, margin: float) -> None:
    token = Token("j.w.t", SERVER, at=NOW, lifetime=lifetime, expires=NOW + lifetime)
    assert token_is_good(token, (SERVER,), NOW + lifetime - margin - 1)
    assert not token_is_good(token, (SERVER,), NOW + lifetime - margin)


@pytest.mark.parametrize(("attempts", "wait"), [(1, 60), (2, 120), (11, 61440), (12, DAY), (5000, DAY)])
def test_the_pause_before_an_attempt_is_a_day_at_most(attempts: int, wait: float) -> None:
    result = Result("d1", "failure", NOW - 10, attempts=attempts)
    assert plan.retry_remaining(result, NOW) == wait - 10


def test_without_a_server_no_pause_is_waited_for() -> None:
    assert plan.pause_remaining(IDLE, SETTINGS._replace(servers=()), "auth", NOW) == 0
