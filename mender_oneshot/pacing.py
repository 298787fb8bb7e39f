"""Who need not wait for our own intervals: a user of `--force`, and a person at a terminal."""

from .settings import Settings
from .state import State


def forced(known: State, settings: Settings) -> tuple[State, Settings]:
    """Return state and settings with which every step is due, unless a host has asked for a pause."""
    return known._replace(checked_at=0, inventory_at=0, failures={}), settings._replace(start_spread=0)


def by_hand(known: State, settings: Settings) -> tuple[State, Settings]:
    """Return state and settings for a person, who may have just accepted this device on the server."""
    failures = {step: one for step, one in known.failures.items() if step != "auth"}
    return known._replace(failures=failures), settings._replace(start_spread=0)
