"""Where the device stands: `status` and `show-artifact`. Reads files only; no lock, no network."""

import os
from collections.abc import Callable
from typing import Any

from . import credentials, device, errors, paths, plan, snapshot, state
from .settings import Settings
from .state import State

_YES_OR_NO = {True: "yes", False: "no", None: "unknown"}


def describe(settings: Settings) -> dict[str, Any]:
    """Return everything known of this device, without its secrets, for `--json` and for `lines`."""
    now = snapshot.look(settings.places)
    hidden = False  # the state is root's alone, and this user is another
    try:
        known, trouble = state.load(settings.places.data(paths.STATE)), ""
    except state.Unreadable as error:
        known, trouble = State(), f"the state file is unreadable: {error}"
    except errors.DiskError as error:
        if os.geteuid() == 0:
            raise
        known, trouble, hidden = State(), str(error), True
    if known.damaged:
        trouble = f"members of the state file are unreadable: {', '.join(known.damaged[:10])}"
    step, wait = (None, None) if hidden else plan.due(known, settings, now)
    deployment, handoff, last = known.deployment, known.handoff, known.last_result
    in_hands = None if hidden else handoff.deployment if handoff else now.lock
    reported = None if handoff or not now.lock else state.final_result(known, now.lock)
    failing = {name: failure for name, failure in known.failures.items() if failure.failed}
    device_type, no_device_type = _read(device.device_type, settings)
    return {
        "device_type": device_type,
        "device_type_problem": no_device_type,
        "artifact_name": _read(lambda s: device.provides(s)["artifact_name"], settings)[0],
        "servers": list(settings.servers),
        "authorized": None if hidden else credentials.token_is_good(known.token, settings, now),
        "deployment": deployment and {"id": deployment.id, "artifact_name": deployment.artifact_name},
        "downloaded_bytes": _size(settings, now) if deployment else 0,
        "artifact_bytes": deployment.size if deployment and deployment.size >= 0 else None,
        "installing": in_hands,
        "reported": reported.status if reported else None,
        "queued_results": [
            {"deployment": result.deployment, "status": result.status} for result in known.results
        ],
        "last_result": last
        and {"deployment": last.deployment, "status": last.status, "outcome": last.answer or None},
        "next_step": step,
        "next_in_seconds": None if wait is None else round(wait),
        "failures": {name: failure.times for name, failure in failing.items()},
        "failure_reasons": {name: failure.why for name, failure in failing.items() if failure.why},
        "trouble": trouble or None,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """Put what `describe` found into lines for people."""
    said = [
        f"device type     {facts['device_type'] or 'not set: ' + facts['device_type_problem']}",
        f"artifact        {facts['artifact_name'] or 'unknown'}",
        f"server          {', '.join(facts['servers']) or 'none configured'}",
        f"authorized      {_YES_OR_NO[facts['authorized']]}",
    ]
    if facts["deployment"]:
        size = facts["artifact_bytes"]
        done = f"{facts['downloaded_bytes']} of {'unknown' if size is None else size} bytes downloaded"
        said.append(f"update          {facts['deployment']['artifact_name']}, {done}")
    if facts["reported"]:
        said.append(
            f"reported        {facts['reported']} of deployment {facts['installing']}; waiting for its "
            "sub-updater to remove update.lock"
        )
    elif facts["installing"] is not None:
        said.append(
            f"installing      deployment {facts['installing'] or 'unknown'}, in the sub-updater's hands"
        )
    for result in facts["queued_results"]:
        said.append(f"to be reported  {result['status']} of deployment {result['deployment']}")
    if facts["last_result"] and not facts["queued_results"]:
        said.append(f"last result     {_last_result(**facts['last_result'])}")
    for step, times in facts["failures"].items():
        why = facts["failure_reasons"].get(step)
        said.append(f"failing         {step}, {times} in a row" + (f": {why}" if why else ""))
    if facts["trouble"]:
        said.append(f"trouble         {facts['trouble']}")
    step, wait = facts["next_step"], facts["next_in_seconds"]
    soon = "unknown" if wait is None else f"in {wait} s"
    said.append(f"next            {step}, now" if step else f"next            {soon}")
    return said


def _last_result(deployment: str, status: str, outcome: str | None) -> str:
    if outcome == state.ABORTED:
        return f"deployment {deployment} aborted by the server ({status} was reported)"
    if outcome == state.UNKNOWN:
        return f"{status}, but the server does not know deployment {deployment}"
    return status


def _read(read: Callable[[Settings], str], settings: Settings) -> tuple[str | None, str | None]:
    """Return what was read and None, or None and why it cannot be read."""
    try:
        return read(settings), None
    except errors.SettingsError as error:
        return None, str(error)


def _size(settings: Settings, now: snapshot.Snapshot) -> int:
    name = paths.ARTIFACT if now.artifact else paths.PART
    try:
        return os.stat(settings.places.data(name)).st_size
    except OSError:
        return 0
