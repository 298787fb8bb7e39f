"""Push the inventory."""

import hashlib
import json
import logging

from .. import attributes, deployments, errors
from ..attributes import Inventory
from ..context import Context, Outcome
from ..plan import INVENTORY_MAX_AGE, remaining

PATIENCE = 3
"""Attempts in a row that wait for a script to be startable again; the next goes without it."""

log = logging.getLogger(__name__)


def run(context: Context) -> Outcome:
    """Run the scripts and send what they say."""
    return _send(context, collect(context))


def run_paced(context: Context) -> Outcome:
    """The same for `run`, which does not send what the server had word for word within the last day."""
    inventory, state, now = collect(context), context.store.state, context.now().time
    unchanged = digest(inventory) == state.inventory_digest
    if unchanged and remaining(state.inventory_sent_at, INVENTORY_MAX_AGE, now):
        # Once a day is enough for the problems, too, to appear in a journal.
        _tell(inventory, logging.INFO)
        context.store.update(inventory_at=now)
        return Outcome(
            "unchanged",
            "The inventory has not changed; nothing sent.",
            {"attributes": len(inventory.attributes)},
        )
    return _send(context, inventory)


def collect(context: Context) -> Inventory:
    """Gather the attributes; what we know ourselves wins over a script of the same name.

    A script that cannot be started just now is waited for, but not for long.
    """
    settings, failed = context.settings, context.store.state.failures.get("send-inventory")
    patient = failed is None or failed.times < PATIENCE
    return attributes.collect(settings, attributes.own(settings), patient=patient)


def digest(inventory: Inventory) -> str:
    """Sum up an inventory, so that the next invocation can tell whether it has changed."""
    return hashlib.sha256(json.dumps(inventory.attributes, sort_keys=True).encode()).hexdigest()


def _send(context: Context, inventory: Inventory) -> Outcome:
    try:
        deployments.connect(context).put_inventory(inventory.attributes)
    except errors.Error:
        _tell(inventory, logging.INFO)  # the attempt is repeated soon, and would repeat them
        raise
    _tell(inventory, logging.WARNING)
    now, count = context.now().time, len(inventory.attributes)
    context.store.update(inventory_at=now, inventory_sent_at=now, inventory_digest=digest(inventory))
    return Outcome("sent", f"Sent the inventory: {count} attributes.", {"attributes": count})


def _tell(inventory: Inventory, level: int) -> None:
    for problem in inventory.problems:
        log.log(level, "%s", problem)
