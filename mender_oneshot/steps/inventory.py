"""Push the inventory."""

import hashlib
import json

from .. import __version__, device, session
from ..context import Context, Outcome
from ..plan import INVENTORY_MAX_AGE, remaining

PATIENCE = 3
"""Attempts in a row that wait for a script to be startable again; the next goes without it."""


def run(context: Context) -> Outcome:
    """Run the scripts and send what they say."""
    attributes = collect(context)
    return _send(context, attributes, digest(attributes))


def run_paced(context: Context) -> Outcome:
    """The same for `run`, which does not send what the server had word for word within the last day."""
    attributes, state, now = collect(context), context.store.state, context.now().time
    mark = digest(attributes)
    if mark == state.inventory_digest and remaining(state.inventory_sent_at, INVENTORY_MAX_AGE, now):
        context.store.update(inventory_at=now)
        return Outcome(
            "unchanged", "The inventory has not changed; nothing sent.", {"attributes": len(attributes)}
        )
    return _send(context, attributes, mark)


def collect(context: Context) -> dict[str, str | list[str]]:
    """Gather the attributes; what we know ourselves wins over a script of the same name.

    A script that cannot be started just now is waited for, but not for long.
    """
    settings, failed = context.settings, context.store.state.failures.get("send-inventory")
    attributes = device.inventory(settings, patient=failed is None or failed.times < PATIENCE)
    attributes |= device.provides(settings)
    attributes["device_type"] = device.device_type(settings)
    attributes["mender_client_version"] = f"mender-oneshot {__version__}"
    # The server refuses the whole batch for one name that is too long (device-api.md section 2).
    return {name: value for name, value in attributes.items() if len(name.encode()) <= 1024}


def digest(attributes: dict[str, str | list[str]]) -> str:
    """Sum up an inventory, so that the next invocation can tell whether it has changed."""
    return hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()


def _send(context: Context, attributes: dict[str, str | list[str]], mark: str) -> Outcome:
    session.connect(context).put_inventory(attributes)
    now = context.now().time
    context.store.update(inventory_at=now, inventory_sent_at=now, inventory_digest=mark)
    return Outcome(
        "sent", f"Sent the inventory: {len(attributes)} attributes.", {"attributes": len(attributes)}
    )
