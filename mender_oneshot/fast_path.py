"""The invocation that finds nothing due: by far the most frequent, so it imports next to nothing.

Reads without the lock, writes nothing, says nothing. Whatever looks odd is left to the full invocation.
"""

from . import errors, plan, settings, snapshot, state
from .options import Options


def nothing_due(options: Options) -> bool:
    """Say whether `run` can end right here."""
    if options.command != "run":
        return False
    try:
        chosen = settings.load(settings.find_places(options.config, options.fallback_config, options.data))
        known = state.load(chosen.places.data(state.FILE))
    except (errors.Error, state.Unreadable):
        return False
    if chosen.warnings or known.damaged or not chosen.servers or known.spread < 0:
        return False
    return plan.next_step(known, chosen, snapshot.look(chosen.places), options.only) is None
