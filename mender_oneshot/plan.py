"""Which step is due, and when the next one will be: pure functions, without disk, network or clock.

The fast path, for an invocation that finds nothing due, imports this module; so it imports little itself.
"""

import math

from .settings import Settings
from .snapshot import Snapshot
from .state import Deployment, Failure, Handoff, Pause, Result, State, Token, final_result
from .units import duration, when
from .url import host

SMALLEST_BACKOFF = 60.0
USES_OF_AN_INTERVAL = 3
LONGEST_PAUSE = 86400.0
MOST_PAUSES = 20
HOST_LENGTH = 300
INVENTORY_MAX_AGE = 86400.0
SWEEP_GRACE = 60.0
TOKEN_MARGIN = 300.0
LONGEST_REASON = 300
FIRST_SPREAD = 300.0  # after a boot of a device that never checked: a person may be setting it up
PATIENCE = 6
"""How many times `InstallTimeoutSeconds` a sub-updater that is still running may take."""


def next_step(state: State, settings: Settings, now: Snapshot, only: str = "") -> str | None:
    """Return the step that is due, or None; `only` restricts it to the steps of "update" or "inventory".

    A queued result comes first, because the server fails a deployment if a device with new software asks for
    the next one (device-api.md section 3.3); then install, download, check and inventory.
    """
    return due(state, settings, now, only)[0]


def due(state: State, settings: Settings, now: Snapshot, only: str = "") -> tuple[str | None, float]:
    """Return the step that is due, or None, and the seconds until one may be due."""
    name, wait = coming(state, settings, now, only)
    return (name, 0) if wait <= 0 else (None, wait)


def coming(state: State, settings: Settings, now: Snapshot, only: str = "") -> tuple[str, float]:
    """Return the step that will be due next, and the seconds until then, 0 or less if it is due."""
    if only == "inventory":
        name, wait = "send-inventory", _inventory_remaining(state, settings, now)
    else:
        name, wait = _wanted(state, settings, now, with_inventory=only != "update")
    if wait <= 0 and name in NEEDS_TOKEN and not token_is_good(state.token, settings.servers, now.time):
        return "auth", _blocked(state, settings, "auth", now.time)
    return name, wait


NEEDS_TOKEN = ("deliver", "check-update", "download", "send-inventory", "terminal")
"""Steps that are useless without a token; `install` is not: it reports its status only if it can."""


def _wanted(state: State, settings: Settings, now: Snapshot, *, with_inventory: bool) -> tuple[str, float]:
    """Return the next step in the order of an update, and the seconds that it must wait."""
    inventory_in = _inventory_remaining(state, settings, now) if with_inventory else math.inf
    if state.results:
        return "deliver", _blocked(state, settings, "deliver", now.time)
    if may_resume(state, settings, now):
        return "resume", resume_remaining(state, settings, now)
    if state.handoff or now.lock is not None:
        return _or_inventory("tidy", tidy_remaining(state, settings, now), inventory_in)
    if state.deployment:
        name = "install" if now.artifact else "download"
        return _or_inventory(name, _blocked(state, settings, name, now.time), inventory_in)
    if now.artifact:
        return "tidy", backoff_remaining(state, settings, "tidy", now.time)
    check_in = max(
        remaining(state.checked_at, settings.update_poll_interval, now.time),
        _blocked(state, settings, "check-update", now.time),
        spread_remaining(state, settings, now, state.checked_at, settings.update_poll_interval),
    )
    if not state.checked_at and check_in > 0:
        # The first inventory follows the first check that worked, as in the reference client.
        inventory_in = max(inventory_in, check_in)
    if check_in == inventory_in == 0 and _check_had_its_turn(state, settings, now):
        return "send-inventory", 0
    return ("check-update", check_in) if check_in <= inventory_in else ("send-inventory", inventory_in)


def _or_inventory(name: str, wait: float, inventory_in: float) -> tuple[str, float]:
    """Return the step that is due first; an inventory is sent while the other step waits."""
    return (name, wait) if wait <= inventory_in else ("send-inventory", inventory_in)


def _check_had_its_turn(state: State, settings: Settings, now: Snapshot) -> bool:
    """Return whether a check was tried after the inventory became due, and after the last inventory.

    If both steps are always due, neither may starve the other, whether they succeed or fail.
    """
    checked = _tried("check-update", state.checked_at, state, now.time)
    due = not remaining(state.inventory_at, settings.inventory_poll_interval, checked)
    inventoried = _tried("send-inventory", state.inventory_at, state, now.time)
    return bool(state.checked_at) and due and inventoried < checked


def _tried(step: str, worked_at: float, state: State, now: float) -> float:
    """Return when a step was last tried, in seconds since 1970; 0: never, or by a clock that was wrong."""
    failed = state.failures.get(step)
    return max((at for at in (worked_at, failed.at if failed else 0) if at <= now), default=0)


def _inventory_remaining(state: State, settings: Settings, now: Snapshot) -> float:
    return max(
        remaining(state.inventory_at, settings.inventory_poll_interval, now.time),
        _blocked(state, settings, "send-inventory", now.time),
        spread_remaining(state, settings, now, state.inventory_at, settings.inventory_poll_interval),
    )


def remaining(since: float, interval: float, now: float) -> float:
    """Return the seconds until `interval` has passed; 0 if it has, never began, or began in the future.

    A timestamp in the future means that the clock was wrong then, or is wrong now; it must not block a step.
    """
    if not since or now < since:
        return 0
    return max(0.0, since + interval - now)


def _blocked(state: State, settings: Settings, step: str, now: float) -> float:
    """Return the seconds that a step must still wait, after a failure, a `Retry-After` or a pause."""
    return max(
        backoff_remaining(state, settings, step, now),
        pause_remaining(state, settings, step, now) if state.pauses else 0,
        gate_remaining(state, settings, step, now),
    )


def gate_remaining(state: State, settings: Settings, step: str, now: float) -> float:
    """Return the seconds until a state script that asked for a pause is asked again."""
    gate = state.gates.get(step)
    return remaining(gate.at, settings.state_script_retry_interval, now) if gate else 0


def pause_remaining(state: State, settings: Settings, step: str, now: float) -> float:
    """Return the seconds left of the pauses of the hosts that a step would connect to, at most a day.

    A pause applies to the step that got it, and to the host that sent it. A pause of `auth` also applies to
    every step that sends a token to that host. With several servers, the shortest pause counts.
    """
    if step == "auth":
        return min((asked_pause(state, "auth", url, now) for url in settings.servers), default=0)
    if step not in NEEDS_TOKEN:
        return 0
    own = step
    if step == "download":
        # A pause of the server applies to the status only; the artifact comes from the host of the link.
        own = "auth"
    token = state.token
    servers = (token.server,) if token and token.server in settings.servers else settings.servers
    wait = min(
        (max(asked_pause(state, "auth", url, now), asked_pause(state, own, url, now)) for url in servers),
        default=0,
    )
    if step == "download" and state.deployment:
        wait = max(wait, asked_pause(state, "download", state.deployment.uri, now))
    return wait


def asked_pause(state: State, step: str, url: str, now: float) -> float:
    """Return the seconds left of the pause that the host of a URL requested of one step."""
    where = host(url)[:HOST_LENGTH]
    return max(
        (pause_left(pause, now) for pause in state.pauses if (pause.step, pause.host) == (step, where)),
        default=0,
    )


def pause_in_words(state: State, wait: float, now: float) -> str:
    """Return the message for a pause of which `wait` seconds are left."""
    asked = next((pause for pause in state.pauses if pause_left(pause, now) == wait), None)
    where, step = (asked.host, asked.step) if asked else ("The server", "this step")
    return f"{where} asked for a pause in answer to {step}; {until(wait, now)} are left."


def until(seconds: float, now: float) -> str:
    """Return a number of seconds as text for people, with the time at which they end."""
    whole = math.ceil(min(seconds, LONGEST_PAUSE))
    return f"{duration(whole)} (until {when(now + whole)})"


def pause_left(pause: Pause, now: float) -> float:
    """Return the seconds left of a pause."""
    return remaining(pause.at, min(pause.seconds, LONGEST_PAUSE), now)


def with_pause(state: State, step: str, where: str, seconds: float, now: float) -> State:
    """Return the state with a pause added, unless a longer one is in force; expired ones are dropped."""
    pause = Pause(step, where[:HOST_LENGTH], now, seconds)
    kept = [known for known in state.pauses if pause_left(known, now) > 0]
    rival = next((known for known in kept if known[:2] == pause[:2]), None)
    if rival:
        kept.remove(rival)
        pause = max(rival, pause, key=lambda known: pause_left(known, now))
    return state._replace(pauses=(*kept, pause)[-MOST_PAUSES:])


def backoff(failures: int, longest: float, count: int = 0) -> float | None:
    """Return the seconds to wait after so many failures in a row, or None if no retry is left.

    The rule of the reference client (device-api.md section 6): 60 s three times, then doubled every third
    time, up to `longest`, which is used three times itself. A `count` other than 0 limits the retries to that
    number.
    """
    interval, tries = min(SMALLEST_BACKOFF, longest), 0
    while True:
        tries += USES_OF_AN_INTERVAL
        if failures <= tries or (count and interval >= longest):
            break
        if interval >= longest:
            return None
        interval = min(interval * 2, longest)
    return None if count and failures > count else interval


def backoff_remaining(state: State, settings: Settings, step: str, now: float) -> float:
    """Return the seconds that a failed step must still wait; its usual interval if no retry is left."""
    failed = state.failures.get(step)
    if not failed:
        return 0
    wait = backoff(failed.times, settings.retry_poll_interval, settings.retry_poll_count)
    if wait is None:
        usual = {
            "auth": settings.update_poll_interval,
            "check-update": settings.update_poll_interval,
            "send-inventory": settings.inventory_poll_interval,
        }
        wait = max(settings.retry_poll_interval, usual.get(step, 0))
    return remaining(failed.at, wait, now)


def retry_remaining(failed: Result, now: float) -> float:
    """Return the seconds until a failed deployment that is offered again is tried again."""
    wait = min(SMALLEST_BACKOFF * 2.0 ** min(failed.attempts - 1, 20), LONGEST_PAUSE)
    return remaining(failed.at, wait, now)


OPEN_LINK = (
    "the server uses https, but the link to its artifact uses plain http, and no ArtifactVerifyKey is set, "
    "so the artifact can be replaced on the network; set ArtifactVerifyKey, or use https for the storage."
)


def link_is_open(deployment: Deployment, settings: Settings) -> bool:
    """Return whether neither TLS nor a signature protects an artifact that an https server offers."""
    secure = deployment.server.lower().startswith("https:")
    return secure and deployment.uri.lower().startswith("http:") and not settings.artifact_verify_keys


def failed_again(before: Failure | None, now: float, why: str = "", *, failed: bool = True) -> Failure:
    """Return the count after one more failure, or after one more wait if `failed` is false."""
    short = why if len(why) <= LONGEST_REASON else why[: LONGEST_REASON - 3] + "..."
    times, since = (before.times + 1, before.since) if before else (1, now)
    return Failure(times, now, short, failed, since)


def spread_remaining(state: State, settings: Settings, now: Snapshot, since: float, interval: float) -> float:
    """Return the seconds left of the random delay after a boot, for a step that succeeded last at `since`.

    It spreads the requests of a fleet whose power returns at once; a step not yet due at the boot needs none.
    """
    if remaining(since, interval, now.time - now.uptime):
        return 0
    longest = min(settings.start_spread, interval, math.inf if state.checked_at else FIRST_SPREAD)
    return max(0.0, longest * spread_share(state, now) - now.uptime)


def spread_share(state: State, now: Snapshot) -> float:
    """Return the share of the longest random delay that the device waits after this boot, from 0 to 1.

    It differs from boot to boot, because a device that is never on for long would otherwise never check.
    """
    if state.spread < 0:
        return 0
    try:
        drawn = int(now.boot[:8], 16) / 2**32
    except ValueError:  # without /proc
        drawn = 0
    return min(state.spread, 1) if not drawn else (state.spread + drawn) % 1


def tidy_remaining(state: State, settings: Settings, now: Snapshot) -> float:
    """Return the seconds until `tidy` is due while `update.lock` exists; infinite if it never will be.

    A lock that is not in the state is adopted immediately. The lock of an update that was reported is removed
    after `SWEEP_GRACE`, unless the sub-updater removes it first. A sub-updater times out if it has not
    reported within `InstallTimeoutSeconds` of the hand-off, or of the boot after it.
    """
    blocked = backoff_remaining(state, settings, "tidy", now.time)
    if state.handoff is None or lock_is_over(state, now):
        final = None if now.lock is None else final_result(state, now.lock)
        return max(blocked, remaining(final.at, SWEEP_GRACE, now.time)) if final else blocked
    if never_started(state, now):
        return blocked
    if not settings.install_timeout:
        return float("inf")
    return max(blocked, settings.install_timeout - installing_for(state.handoff, now), 0)


def may_resume(state: State, settings: Settings, now: Snapshot) -> bool:
    """Return whether the built-in installer was interrupted and may continue.

    It has as long as a running sub-updater, and as long again as a state script may pause it; one that cannot
    be started does not delay updates forever.
    """
    if state.handoff is None or now.interrupted is None or never_started(state, now):
        return False
    limit = settings.install_timeout * PATIENCE
    longest = limit + settings.state_script_retry_timeout
    return not limit or installing_for(state.handoff, now) < longest


def resume_remaining(state: State, settings: Settings, now: Snapshot) -> float:
    """Return the seconds until an interrupted installation is resumed: 0, or the rest of a script's pause."""
    asked = now.interrupted or 0
    pause = asked + settings.state_script_retry_interval - now.uptime if asked else 0
    return max(backoff_remaining(state, settings, "resume", now.time), min(pause, LONGEST_PAUSE), 0)


def installing_for(handoff: Handoff, now: Snapshot) -> float:
    """Return the seconds since the hand-off, or since the boot after it, without suspended time."""
    return now.uptime - (handoff.uptime if handoff.boot == now.boot else 0)


def lock_is_over(state: State, now: Snapshot) -> bool:
    """Return whether an adopted lock without an id has been removed, or has an id by now.

    No report can come for a lock without an id, so there is nothing left to wait for.
    """
    return state.handoff is not None and not state.handoff.deployment and now.lock != ""


def never_started(state: State, now: Snapshot) -> bool:
    """Return whether power failed after a hand-off was saved, but before the sub-updater was started.

    The deployment is removed from the state after the start, and `sub-updater.log` is created, durably, just
    before it. So if the deployment is still in the state and the file is missing, nothing has been started.
    """
    return state.handoff is not None and state.deployment is not None and not now.begun


def token_is_good(token: Token | None, servers: tuple[str, ...], now: float) -> bool:
    """Return whether a token may be sent: a configured server issued it, and it does not expire soon.

    It may be, if either its age by our clock or its `exp` is within the limit: if our clock is in 1970 or
    2099, one of the two is still right, and if both are wrong, the server rejects the token.
    """
    if token is None or token.server not in servers:
        return False
    if not token.lifetime and not token.expires:
        return True
    margin = min(TOKEN_MARGIN, token.lifetime / 10)
    young = token.at <= now < token.at + token.lifetime - margin
    if token.at <= now < token.expires - token.lifetime:
        # The server issued it at a time that our clock has not reached, so only its age is meaningful.
        return young
    return young or now < token.expires - margin
