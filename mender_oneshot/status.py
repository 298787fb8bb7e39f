"""Where the device stands: `status` and `show-artifact`. Reads files only; no lock, no network."""

import os
from typing import Any

from . import device, errors, moment, plan, state
from .settings import Settings
from .state import State


def describe(settings: Settings) -> dict[str, Any]:
    """Return everything known of this device, without its secrets, for `--json` and for `lines`."""
    now = moment.look(settings.places)
    try:
        known, trouble = state.load(settings.places.data(state.FILE)), ""
    except state.Unreadable as error:
        known, trouble = State(), f"the state file is unreadable: {error}"
    step, wait = plan.due(known, settings, now)
    deployment, handoff, last = known.deployment, known.handoff, known.last_result
    in_hands = handoff.deployment if handoff else now.lock
    return {
        "device_type": _or_none(device.device_type, settings),
        "artifact_name": _or_none(lambda s: device.provides(s)["artifact_name"], settings),
        "servers": list(settings.servers),
        "authorized": plan.token_is_good(known.token, settings.servers, now.time),
        "deployment": deployment and {"id": deployment.id, "artifact_name": deployment.artifact_name},
        "downloaded_bytes": _size(settings, now) if deployment else 0,
        "artifact_bytes": deployment.size if deployment and deployment.size >= 0 else None,
        "installing": in_hands,
        "queued_results": [
            {"deployment": result.deployment, "status": result.status} for result in known.results
        ],
        "last_result": last and {"deployment": last.deployment, "status": last.status},
        "next_step": step,
        "next_in_seconds": round(wait),
        "failures": {name: failure.times for name, failure in known.failures.items()},
        "trouble": trouble or None,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """Put what `describe` found into lines for people."""
    said = [
        f"device type     {facts['device_type'] or 'not set: there is no device_type file'}",
        f"artifact        {facts['artifact_name'] or 'unknown'}",
        f"server          {', '.join(facts['servers']) or 'none configured'}",
        f"authorized      {'yes' if facts['authorized'] else 'no'}",
    ]
    if facts["deployment"]:
        size = facts["artifact_bytes"]
        done = f"{facts['downloaded_bytes']} of {'unknown' if size is None else size} bytes downloaded"
        said.append(f"update          {facts['deployment']['artifact_name']}, {done}")
    if facts["installing"] is not None:
        said.append(
            f"installing      deployment {facts['installing'] or 'unknown'}, in the sub-updater's hands"
        )
    for result in facts["queued_results"]:
        said.append(f"to be reported  {result['status']} of deployment {result['deployment']}")
    if facts["last_result"] and not facts["queued_results"]:
        said.append(f"last result     {facts['last_result']['status']}")
    for step, times in facts["failures"].items():
        said.append(f"failing         {step}, {times} in a row")
    if facts["trouble"]:
        said.append(f"trouble         {facts['trouble']}")
    step, wait = facts["next_step"], facts["next_in_seconds"]
    said.append(f"next            {step}, now" if step else f"next            in {wait} s")
    return said


def _or_none(read: Any, settings: Settings) -> str | None:
    try:
        found: str = read(settings)
    except errors.SettingsError:
        return None
    return found


def _size(settings: Settings, now: moment.Moment) -> int:
    name = state.ARTIFACT if now.artifact else state.PART
    try:
        return os.stat(settings.places.data(name)).st_size
    except OSError:
        return 0
