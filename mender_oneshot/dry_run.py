"""What `run --dry-run` prints: what a run would do now, and what is due when; reads files only."""

import math
import sys
from typing import Any, NamedTuple

from . import pacing, paths, plan, snapshot, state, state_store
from .options import Options
from .settings import Settings, no_server
from .snapshot import Snapshot
from .state import State
from .units import duration

_VERBS = {
    "auth": "authorize with the server",
    "check-update": "check for an update",
    "download": "download {name}",
    "install": "start the installation of {name}",
    "deliver": "send a queued result",
    "tidy": "clean up after the last update",
    "resume": "resume the installation",
    "send-inventory": "send the inventory",
}
_NOUNS = {
    "auth": "The authorization",
    "check-update": "The check for an update",
    "download": "The download of {name}",
    "install": "The installation of {name}",
    "deliver": "The queued result",
    "tidy": "The clean-up after the last update",
    "resume": "The rest of the installation",
    "send-inventory": "The inventory",
}


class Due(NamedTuple):
    """A step, and the seconds until it is due: 0 is now, infinite if it has to wait for a result."""

    step: str
    wait: float


def describe(options: Options, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Return the facts for `--json`, and lines for people.

    Raises `errors.SettingsError` if no server is configured, and `errors.DiskError`.
    """
    if not settings.servers:
        raise no_server(settings)
    try:
        known = state_store.load(settings.places.data(paths.STATE))
    except state.Unreadable:
        known = State()  # as the run
    if options.force:
        known, settings = pacing.forced(known, settings)
    if sys.stdout.isatty():
        known, settings = pacing.by_hand(known, settings)
    now = snapshot.look(settings.places)
    step, due = decide(known, settings, now, options.only)
    facts = {
        "would_run": step,
        "due": [
            {"step": one.step, "in_seconds": math.ceil(one.wait) if math.isfinite(one.wait) else None}
            for one in due
        ],
    }
    return facts, lines(known, step, due, every_step=options.every_step)


def decide(known: State, settings: Settings, now: Snapshot, only: str) -> tuple[str | None, list[Due]]:
    """Return the step that a run would perform, or None, and what is due of the update and the inventory."""
    step = plan.next_step(known, settings, now, only)
    due: list[Due] = []
    for part in [only] if only else ["update", "inventory"]:
        name, wait = plan.coming(known, settings, now, part)
        if name not in [one.step for one in due]:
            due.append(Due(name, max(wait, 0.0)))
    return step, due


def lines(known: State, step: str | None, due: list[Due], *, every_step: bool) -> list[str]:
    """Return the facts as sentences."""
    name = known.deployment.artifact_name if known.deployment else ""
    others = [one for one in due if one.step != step]
    first = _VERBS[step].format(name=name) if step else "do nothing"
    rest = ""
    if every_step and step == "auth":
        rest = ", then what is due after that"
    elif every_step and step:
        also = [one for one in others if not one.wait]
        others = [one for one in others if one.wait]
        first += "".join(f" and {_VERBS[one.step].format(name=name)}" for one in also)
    return [f"Would {first} now{rest}.", *(_sentence(one, known, name) for one in others)]


def _sentence(one: Due, known: State, name: str) -> str:
    if one.step == "tidy" and known.handoff:
        limit = f", for {duration(math.ceil(one.wait))} at most" if math.isfinite(one.wait) else ""
        return f"An update is being installed; every run waits for its result{limit}."
    noun = _NOUNS[one.step].format(name=name)
    if not one.wait:
        return f"{noun} is due as well; with --all, the same run continues with it."
    return f"{noun} is due in {duration(math.ceil(one.wait))}."
