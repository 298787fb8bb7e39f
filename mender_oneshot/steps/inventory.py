"""Push the inventory."""

import hashlib
import json
import logging

from .. import attributes, deployments, device_configuration, errors
from ..attributes import Inventory
from ..context import Context, Outcome
from ..plan import INVENTORY_MAX_AGE, remaining

PATIENCE = 3
"""Failed attempts in a row after which the inventory is sent without a script that cannot be started."""

log = logging.getLogger(__name__)


def run(context: Context, *, paced: bool) -> Outcome:
    """Run the scripts and send their attributes; if `paced`, not those that were sent within the last day."""
    inventory, store, now = collect(context), context.store, context.now().time
    unchanged = digest(inventory) == store.state.inventory_digest
    if paced and unchanged and remaining(store.state.inventory_sent_at, INVENTORY_MAX_AGE, now):
        # The journal gets the problems once a day, too.
        _log_problems(inventory, logging.INFO)
        store.state = store.state._replace(inventory_at=now)
        return Outcome(
            "unchanged",
            "The inventory has not changed; nothing sent.",
            {"attributes": len(inventory.attributes)},
        )
    return _send(context, inventory)


def collect(context: Context) -> Inventory:
    """Return the attributes; the client's own ones override those of a script.

    Raises `errors.TemporaryError` if a script temporarily cannot be started, at most `PATIENCE` times in a
    row.
    """
    settings, failed = context.settings, context.store.state.failures.get("send-inventory")
    patient = failed is None or failed.times < PATIENCE
    return attributes.collect(settings, attributes.own(settings), patient=patient)


def digest(inventory: Inventory) -> str:
    """Return a digest by which the next invocation can find out whether the inventory has changed."""
    return hashlib.sha256(json.dumps(inventory.attributes, sort_keys=True).encode()).hexdigest()


def _send(context: Context, inventory: Inventory) -> Outcome:
    try:
        deployments.ask(context, lambda server: server.put_inventory(inventory.attributes))
    except errors.Error:
        _log_problems(inventory, logging.INFO)  # a retry follows soon, and would repeat them
        raise
    _log_problems(inventory, logging.WARNING)
    store, now, count = context.store, context.now().time, len(inventory.attributes)
    store.state = store.state._replace(
        inventory_at=now, inventory_sent_at=now, inventory_digest=digest(inventory)
    )
    device_configuration.report(context)
    return Outcome("sent", f"Sent the inventory: {count} attributes.", {"attributes": count})


def _log_problems(inventory: Inventory, level: int) -> None:
    for problem in inventory.problems:
        log.log(level, "%s", problem)
