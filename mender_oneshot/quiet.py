"""The invocation that finds nothing due: by far the most frequent, so it imports next to nothing.

Reads without the lock, writes nothing, says nothing. Whatever looks odd is left to the full invocation.
"""

from . import errors, moment, plan, settings, state
from .request import Request


def nothing_due(request: Request) -> bool:
    """Say whether `run` can end right here."""
    if request.command != "run":
        return False
    try:
        chosen = settings.load(settings.find_places(request.config, request.fallback_config, request.data))
        known = state.load(chosen.places.data(state.FILE))
    except (errors.Error, state.Unreadable):
        return False
    if chosen.warnings or known.damaged or not chosen.servers or known.spread < 0:
        return False
    return plan.next_step(known, chosen, moment.look(chosen.places), request.only) is None
