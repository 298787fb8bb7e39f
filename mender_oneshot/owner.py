"""Whether the state belongs to this device: the identity, the key and the settings its token was asked with.

A copy of the data directory, as of an SD card or an image, must not act as the device it was copied from.
"""

import contextlib
import logging
import os

from . import credentials, deployment_log, disk, errors, state
from .context import Context, Outcome
from .state import ARTIFACT, PART, UPDATE_LOCK, Handoff, State

ASIDE = f"{state.FILE}.other-device"

log = logging.getLogger(__name__)


def confirm(context: Context) -> Outcome | None:
    """Compare, once per invocation, this device with the one that the state belongs to.

    Drops a token that was asked for with another key or other settings. If the identity is another one, sets
    aside what belongs to the other device and returns an outcome that says so, else None.
    """
    if context.confirmed:
        return None
    context.confirmed = True
    store, settings = context.store, context.settings
    token = store.state.token
    used = credentials.current(settings)
    if token and not token.credentials:  # of an older version: whose it is nobody wrote down
        store.update(token=token._replace(credentials=used))
    elif token and used not in (token.credentials, credentials.UNREADABLE):
        # Nothing to act on: what is wrong with the new key or settings is the authorization's to say.
        log.info(
            "The device key, TenantToken or DeviceTier is not the one that the token was issued for; "
            "authorizing again."
        )
        store.update(token=None)
    try:
        context.identity = credentials.identity(settings, store.state)
    except (errors.SettingsError, errors.TryLater) as error:
        log.warning("Cannot tell whether this is still the same device: %s", error)
        return None
    found = credentials.mark(context.identity)
    if store.state.owner not in ("", found):
        return _set_aside(context, found)
    store.update(owner=found)
    return None


def _set_aside(context: Context, found: str) -> Outcome:
    """Start afresh: token, deployment, results and all else belong to another device."""
    store, now = context.store, context.now()
    aside = context.data(ASIDE)
    with contextlib.suppress(errors.DiskError, errors.NoSpace):  # only a copy for people
        disk.write_whole(aside, state.to_json(store.state._replace(token=None)))
    handoff = None
    if now.lock is None:
        disk.remove(context.data(ARTIFACT), context.data(PART))
        deployment_log.reset(context.settings.log_directory, context.settings.places.datastore)
    else:
        # The sub-updater may be at work: it finishes, but nobody reports for it.
        disk.write_whole(context.data(UPDATE_LOCK), b"")
        handoff = Handoff("", "", now.boot, now.uptime)
    context.close()
    store.save(
        **State._field_defaults
        | {
            "spread": draw_spread(),
            "identity_format": store.state.identity_format,
            "owner": found,
            "handoff": handoff,
        }
    )
    return Outcome(
        "other-device",
        "The identity has changed, so the state belongs to another device; this one starts afresh, and a "
        f"copy of the state is {aside}.",
    )


def draw_spread() -> float:
    """Draw this device's place in the fleet, from 0 to 1."""
    return int.from_bytes(os.urandom(4)) / 2**32
