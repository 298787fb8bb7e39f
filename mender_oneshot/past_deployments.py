"""What `history` and `log` print; reads files only, without lock and network."""

import time
from typing import Any

from . import deployment_log, errors, history, paths, state, state_store
from .settings import Settings

Shown = tuple[dict[str, Any], list[str]]
"""Facts for `--json`, and lines for people."""

_ALL_BYTES = 4 << 20


def history_of(settings: Settings) -> Shown:
    """Return the last deployments; raises `errors.DiskError` if they cannot be read."""
    entries = history.load(settings)
    facts = {"deployments": [entry._asdict() for entry in reversed(entries)]}
    return facts, history.lines(entries) or ["No deployment has ended on this device yet."]


def log_of(settings: Settings, wanted: str) -> Shown:
    """Return the log of a deployment: "" is the current one, or else the last.

    Raises `errors.NothingInProgress` if there is none, and `errors.DiskError` if it cannot be read.
    """
    current = _current(settings)
    if current and (not wanted or wanted == current[1] or current[0].startswith(wanted)):
        messages = deployment_log.collect(
            settings.log_directory, settings.places.datastore, time.time(), _ALL_BYTES
        )
        deployment = current[0]
    else:
        entry = history.find(settings, wanted)
        if entry is None:
            which = f"no deployment {wanted} in the history" if wanted else "no deployment yet"
            raise errors.NothingInProgress(f"There is {which}; mender-oneshot history lists them.")
        deployment, messages = entry.deployment, history.messages(settings, entry.deployment)
    return {"deployment": deployment, "log": messages}, history.log_lines(messages)


def _current(settings: Settings) -> tuple[str, str] | None:
    """Return the id and the artifact name of the deployment under way."""
    try:
        known = state_store.load(settings.places.data(paths.STATE))
    except state.Unreadable:
        return None
    if known.handoff:
        return known.handoff.deployment, known.handoff.artifact_name
    return (known.deployment.id, known.deployment.artifact_name) if known.deployment else None
