"""Check that the state belongs to this device: its identity, and the key and settings of its token.

A copy of a data directory, such as a cloned SD card or image, must not impersonate the original device.
"""

import contextlib
import logging
import os

from . import credentials, deployment_log, disk, errors, identity, paths, plan, state, state_store
from .context import Context, Outcome
from .paths import ARTIFACT, PART, PROVIDES, UPDATE_LOCK
from .snapshot import Snapshot
from .state import Handoff, State

log = logging.getLogger(__name__)


def confirm(context: Context) -> Outcome | None:
    """Compare this device with the one that the state belongs to, once per invocation.

    Discards a token that was issued for another key or other settings. If the identity is a different one,
    saves a copy of the state, removes what belongs to the other device, and returns an outcome that describes
    this; otherwise returns None.
    """
    if context.identity.has_run:
        return None
    store, settings = context.store, context.settings
    token = store.state.token
    used = credentials.current(settings)
    if token and not token.credentials:  # an older version, which did not record the credentials
        store.state = store.state._replace(token=token._replace(credentials=used))
    elif token and used not in (token.credentials, credentials.UNREADABLE):
        # Only information: the authorization reports what is wrong with the new key or settings.
        log.info("The token was issued for another device key, TenantToken or DeviceTier; authorizing again.")
        store.state = store.state._replace(token=None)
    try:
        found = identity.mark(context.identity.result())
    except (errors.SettingsError, errors.TemporaryError) as error:
        # An authorization fails with this error; other steps continue.
        if plan.token_is_good(store.state.token, settings.servers, context.now().time):
            log.warning("Cannot check whether this is still the same device: %s", error)
        return None
    if store.state.owner not in ("", found):
        return _set_aside(context, found)
    store.state = store.state._replace(owner=found)
    return None


def _set_aside(context: Context, found: str) -> Outcome:
    """Start over, because token, deployment, results and everything else belong to another device.

    If an earlier identity returns, such as that of a network interface that came up late, its state is
    restored.
    """
    store, now = context.store, context.now()
    aside = context.data(paths.STATE_OF_OTHER_DEVICE)
    known = _kept_for(found, aside)
    with contextlib.suppress(errors.DiskError, errors.NoSpace):  # the copy is optional
        disk.write_whole(aside, state.to_json(store.state._replace(token=None)))
    if now.lock is None:
        disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
        deployment_log.reset(context.settings.log_directory, context.settings.places.datastore)
    else:
        # The sub-updater may be running: let it finish, but report nothing for the other device.
        known, lock = _with_lock(known, store.state, now)
        disk.write_whole(context.data(UPDATE_LOCK), lock.encode())
    context.connection.close()
    how = "continues with its own state" if known.owner else "starts over"
    spread = draw_spread() if known.spread < 0 else known.spread
    form = store.state.identity_format
    store.save(known._replace(spread=spread, identity_format=form, owner=found))
    return Outcome(
        "other-device",
        f"The identity has changed, so the state belongs to another device; this one {how}, and {aside} is a "
        "copy of the other state.",
    )


def _kept_for(found: str, aside: str) -> State:
    """Return the saved state of the device with the identity digest `found`, or an empty state."""
    try:
        known = state_store.load(aside)
    except (state.Unreadable, errors.DiskError, errors.SettingsError):
        return State()
    return known if known.owner == found else State()


def _with_lock(known: State, left: State, now: Snapshot) -> tuple[State, str]:
    """Return the new state, with the hand-off for an existing `update.lock`, and the lock's deployment."""
    if known.handoff:
        return known, known.handoff.deployment
    another = left.handoff and left.handoff.deployment
    if known.last_result and not another:
        return known, known.last_result.deployment  # reported, but the lock was not yet removed
    return known._replace(handoff=Handoff("", "", now.boot, now.uptime)), ""


def draw_spread() -> float:
    """Return a random number from 0 to 1: this device's offset when a fleet powers up together."""
    return int.from_bytes(os.urandom(4)) / 2**32
