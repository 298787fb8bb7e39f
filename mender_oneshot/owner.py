"""Whether the state belongs to this device: the identity, the key and the settings its token was asked with.

A copy of the data directory, as of an SD card or an image, must not act as the device it was copied from.
"""

import contextlib
import logging
import os

from . import credentials, deployment_log, disk, errors, identity, paths, plan, state
from .context import Context, Outcome
from .paths import ARTIFACT, PART, PROVIDES, UPDATE_LOCK
from .snapshot import Snapshot
from .state import Handoff, State

log = logging.getLogger(__name__)


def confirm(context: Context) -> Outcome | None:
    """Compare, once per invocation, this device with the one that the state belongs to.

    Drops a token that was asked for with another key or other settings. If the identity is another one, sets
    aside what belongs to the other device and returns an outcome that says so, else None.
    """
    if context.identity.has_run:
        return None
    store, settings = context.store, context.settings
    token = store.state.token
    used = credentials.current(settings)
    if token and not token.credentials:  # of an older version: whose it is nobody wrote down
        store.state = store.state._replace(token=token._replace(credentials=used))
    elif token and used not in (token.credentials, credentials.UNREADABLE):
        # Nothing to act on: what is wrong with the new key or settings is the authorization's to say.
        log.info(
            "The device key, TenantToken or DeviceTier is not the one that the token was issued for; "
            "authorizing again."
        )
        store.state = store.state._replace(token=None)
    try:
        found = identity.mark(context.identity.result())
    except (errors.SettingsError, errors.TemporaryError) as error:
        # An authorization ends with this error; other steps continue.
        if plan.token_is_good(store.state.token, settings.servers, context.now().time):
            log.warning("Cannot tell whether this is still the same device: %s", error)
        return None
    if store.state.owner not in ("", found):
        return _set_aside(context, found)
    store.state = store.state._replace(owner=found)
    return None


def _set_aside(context: Context, found: str) -> Outcome:
    """Start afresh: token, deployment, results and all else belong to another device.

    An identity that is back, as that of a network interface which came up late, gets its own state back.
    """
    store, now = context.store, context.now()
    aside = context.data(paths.STATE_OF_OTHER_DEVICE)
    known = _kept_for(found, aside)
    with contextlib.suppress(errors.DiskError, errors.NoSpace):  # only a copy for people
        disk.write_whole(aside, state.to_json(store.state._replace(token=None)))
    if now.lock is None:
        disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
        deployment_log.reset(context.settings.log_directory, context.settings.places.datastore)
    else:
        # The sub-updater may be at work: it finishes, but nobody reports for it.
        known, lock = _with_lock(known, store.state, now)
        disk.write_whole(context.data(UPDATE_LOCK), lock.encode())
    context.connection.close()
    starts = "continues with its own" if known.owner else "starts afresh"
    spread = draw_spread() if known.spread < 0 else known.spread
    form = store.state.identity_format
    store.save(known._replace(spread=spread, identity_format=form, owner=found))
    return Outcome(
        "other-device",
        f"The identity has changed, so the state belongs to another device; this one {starts}, and a copy of "
        f"the state is {aside}.",
    )


def _kept_for(found: str, aside: str) -> State:
    """Return the state that was set aside for the device with an identity, or an empty one."""
    try:
        known = state.load(aside)
    except (state.Unreadable, errors.DiskError, errors.SettingsError):
        return State()
    return known if known.owner == found else State()


def _with_lock(known: State, left: State, now: Snapshot) -> tuple[State, str]:
    """Say whose `update.lock` it is: return the state with the hand-off, and the deployment for the lock."""
    if known.handoff:
        return known, known.handoff.deployment
    another = left.handoff and left.handoff.deployment
    if known.last_result and not another:
        return known, known.last_result.deployment  # it was reported, and the lock not yet removed
    return known._replace(handoff=Handoff("", "", now.boot, now.uptime)), ""


def draw_spread() -> float:
    """Draw this device's place in the fleet, from 0 to 1."""
    return int.from_bytes(os.urandom(4)) / 2**32
