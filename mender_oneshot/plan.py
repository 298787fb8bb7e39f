"""Which step is next, and when: pure functions of values, with no disk, no network and no clock of their own.

Imported by the quickest invocation of all, the one that finds nothing due, so it stands on the state and the
settings alone.
"""

import math
import time

from .settings import Settings
from .snapshot import Snapshot
from .state import Deployment, Failure, Handoff, Pause, Result, State, Token, final_result
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
PATIENCE = 6
"""How many times `InstallTimeoutSeconds` a sub-updater that is still running may take."""


def next_step(state: State, settings: Settings, now: Snapshot, only: str = "") -> str | None:
    """Name the step that is due, or None; of the "update" or the "inventory" only, where that is said.

    A queued result comes before everything, for the server marks a deployment failed that is asked about
    with new software already running (device-api.md 3.3); then install, download, check, inventory.
    """
    return due(state, settings, now, only)[0]


def due(state: State, settings: Settings, now: Snapshot, only: str = "") -> tuple[str | None, float]:
    """Name the step that is due, or None, and the seconds until it is worth asking again."""
    if only == "inventory":
        name, wait = "send-inventory", _inventory_remaining(state, settings, now)
    else:
        name, wait = _wanted(state, settings, now, with_inventory=only != "update")
    if wait > 0:
        return None, wait
    if name in NEEDS_TOKEN and not token_is_good(state.token, settings.servers, now.time):
        name, wait = "auth", _blocked(state, settings, "auth", now.time)
    return (name, 0) if wait <= 0 else (None, wait)


NEEDS_TOKEN = ("deliver", "check-update", "download", "send-inventory", "terminal")
"""Steps that cannot do anything without a token; `install` can: it reports on the way, if it can."""


def _wanted(state: State, settings: Settings, now: Snapshot, *, with_inventory: bool) -> tuple[str, float]:
    """Pick the step by the order of things, and the seconds it must still wait."""
    inventory_in = _inventory_remaining(state, settings, now) if with_inventory else math.inf
    if state.results:
        return "deliver", _blocked(state, settings, "deliver", now.time)
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
        spread_remaining(state, settings, now),
    )
    if not state.checked_at and check_in > 0:
        # The first inventory follows the first check that worked, as in the reference client.
        inventory_in = max(inventory_in, check_in)
    if check_in == inventory_in == 0 and _check_had_its_turn(state, settings, now):
        return "send-inventory", 0
    return ("check-update", check_in) if check_in <= inventory_in else ("send-inventory", inventory_in)


def _or_inventory(name: str, wait: float, inventory_in: float) -> tuple[str, float]:
    """Let the inventory go on while another step waits: an operator wants to see such a device above all."""
    return (name, wait) if wait <= inventory_in else ("send-inventory", inventory_in)


def _check_had_its_turn(state: State, settings: Settings, now: Snapshot) -> bool:
    """Say whether a check was tried since the inventory fell due, and since the inventory was tried itself.

    Of two steps that are always due neither may starve the other, whether they work or fail.
    """
    checked = _tried("check-update", state.checked_at, state, now.time)
    due = not remaining(state.inventory_at, settings.inventory_poll_interval, checked)
    inventoried = _tried("send-inventory", state.inventory_at, state, now.time)
    return bool(state.checked_at) and due and inventoried < checked


def _tried(step: str, worked_at: float, state: State, now: float) -> float:
    """Say when a step was last tried; 0: never, or by a clock that was wrong."""
    failed = state.failures.get(step)
    return max((at for at in (worked_at, failed.at if failed else 0) if at <= now), default=0)


def _inventory_remaining(state: State, settings: Settings, now: Snapshot) -> float:
    return max(
        remaining(state.inventory_at, settings.inventory_poll_interval, now.time),
        _blocked(state, settings, "send-inventory", now.time),
        spread_remaining(state, settings, now),
    )


def remaining(since: float, interval: float, now: float) -> float:
    """Seconds until `interval` has passed; 0 where it has, never began, or began in the future.

    A time stamp from the future is the trace of a clock that was wrong, then or now: it must not block.
    """
    if not since or now < since:
        return 0
    return max(0.0, since + interval - now)


def _blocked(state: State, settings: Settings, step: str, now: float) -> float:
    """Seconds that a step's own failures, or a `Retry-After` that it got, still keep it back."""
    return max(backoff_remaining(state, settings, step, now), pause_remaining(state, settings, step, now))


def pause_remaining(state: State, settings: Settings, step: str, now: float) -> float:
    """Seconds that the hosts which a step would ask still want it to wait, at most a day.

    A pause is kept by the step that got it, towards the host that asked for it. A refused authorization keeps
    back every step that shows a token to that host. With several servers, the first that is free counts.
    """
    if step == "auth":
        return min((asked_pause(state, "auth", url, now) for url in settings.servers), default=0)
    if step not in NEEDS_TOKEN:
        return 0
    own = step
    if step == "download":
        # A pause of the server concerns the status alone; the bytes come from the host of the link.
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
    """Seconds that the host of a URL still wants one step to wait."""
    where = host(url)[:HOST_LENGTH]
    return max(
        (pause_left(pause, now) for pause in state.pauses if (pause.step, pause.host) == (step, where)),
        default=0,
    )


def pause_in_words(state: State, wait: float, now: float) -> str:
    """Say which host wants the pause that still lasts `wait` seconds."""
    asked = next((pause for pause in state.pauses if pause_left(pause, now) == wait), None)
    where, step = (asked.host, asked.step) if asked else ("The server", "this step")
    return f"{where} asked for a pause in answer to {step}; {until(wait, now)} are left."


def until(seconds: float, now: float) -> str:
    """Write a length of time for people, with its end by this device's clock."""
    whole = math.ceil(min(seconds, LONGEST_PAUSE))
    if whole < 120:
        length = f"{whole} s"
    elif whole < 7200:
        length = f"{whole // 60} min {whole % 60} s"
    else:
        length = f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{length} (until {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now + whole))} UTC)"


def pause_left(pause: Pause, now: float) -> float:
    """Seconds of a pause that are left."""
    return remaining(pause.at, min(pause.seconds, LONGEST_PAUSE), now)


def with_pause(state: State, step: str, where: str, seconds: float, now: float) -> State:
    """Add a pause; a longer one in force stays, and pauses that are over are dropped."""
    pause = Pause(step, where[:HOST_LENGTH], now, seconds)
    kept = [known for known in state.pauses if pause_left(known, now) > 0]
    rival = next((known for known in kept if known[:2] == pause[:2]), None)
    if rival:
        kept.remove(rival)
        pause = max(rival, pause, key=lambda known: pause_left(known, now))
    return state._replace(pauses=(*kept, pause)[-MOST_PAUSES:])


def backoff(failures: int, longest: float, count: int = 0) -> float | None:
    """Seconds to wait after so many failures in a row, or None when the retries are used up.

    The reference client's rule (device-api.md section 6): 60 s three times, then doubled every third time, up
    to `longest`, which is used three times itself; with a `count`, that many retries.
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
    """Seconds that a step's failures still keep it back; the step's own interval when retries are used up."""
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
    """Seconds until a deployment that failed here, and is offered again, is tried again."""
    wait = min(SMALLEST_BACKOFF * 2.0 ** min(failed.attempts - 1, 20), LONGEST_PAUSE)
    return remaining(failed.at, wait, now)


OPEN_LINK = (
    "the server is asked by https, but links to its artifact by plain http, and no ArtifactVerifyKey is set, "
    "so anybody in between can replace the artifact; set ArtifactVerifyKey, or give the storage https."
)


def link_is_open(deployment: Deployment, settings: Settings) -> bool:
    """Say whether neither TLS nor a signature protects an artifact that an https server offers."""
    secure = deployment.server.lower().startswith("https:")
    return secure and deployment.uri.lower().startswith("http:") and not settings.artifact_verify_keys


def failed_again(before: Failure | None, now: float, why: str = "", *, failed: bool = True) -> Failure:
    """Count one more failure, or with `failed=False` one more time that a step only has to wait."""
    short = why if len(why) <= LONGEST_REASON else why[: LONGEST_REASON - 3] + "..."
    return Failure(before.times + 1 if before else 1, now, short, failed)


def spread_remaining(state: State, settings: Settings, now: Snapshot) -> float:
    """Seconds after power-up that this device leaves to the others of its fleet.

    Counted from the start of the kernel, so that a street whose power comes back does not ask as one; after
    that the intervals keep the devices apart by themselves.
    """
    spread = min(settings.start_spread, settings.update_poll_interval) * min(max(state.spread, 0), 1)
    return max(0.0, spread - now.uptime)


def tidy_remaining(state: State, settings: Settings, now: Snapshot) -> float:
    """Seconds until an update in other hands becomes our business again; infinite: never by itself.

    A lock that the state does not know of is taken over at once, one of an update that was reported is swept
    away after a grace (its sub-updater removes it itself), and a sub-updater that has not reported within
    `InstallTimeoutSeconds` of the hand-off, or of the boot that followed it, is looked for.
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


def installing_for(handoff: Handoff, now: Snapshot) -> float:
    """Seconds since the hand-off, or since the boot that followed it; time asleep does not count."""
    return now.uptime - (handoff.uptime if handoff.boot == now.boot else 0)


def lock_is_over(state: State, now: Snapshot) -> bool:
    """Say whether a lock without an id, taken over before, is gone or has an id by now.

    Nobody can report for such a one, so there is no more to wait for.
    """
    return state.handoff is not None and not state.handoff.deployment and now.lock != ""


def never_started(state: State, now: Snapshot) -> bool:
    """Say whether the power failed between the record of a hand-off and the start of the sub-updater.

    The deployment is forgotten only after the start, and `sub-updater.log` is made, durably, just before it:
    with the one in the state and the other missing, nothing can have run, and the next start is the first.
    """
    return state.handoff is not None and state.deployment is not None and not now.begun


def token_is_good(token: Token | None, servers: tuple[str, ...], now: float) -> bool:
    """Say whether a token is worth showing: from a server we still use, and shortly before its end at most.

    Its age by our own clock counts as much as its `exp`: with a clock that stands in 1970 or 2099 one of the
    two is still right, and where both err the server says 401.
    """
    if token is None or token.server not in servers:
        return False
    if not token.lifetime and not token.expires:
        return True
    margin = min(TOKEN_MARGIN, token.lifetime / 10)
    young = token.at <= now < token.at + token.lifetime - margin
    if token.at <= now < token.expires - token.lifetime:
        # The server gave it at a time that our clock has not reached: only its age can say when it ends.
        return young
    return young or now < token.expires - margin
