"""What `status` and `show-artifact` print; reads files only, without lock and network."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from . import credentials, device, errors, paths, plan, snapshot, state, state_store
from .installer import description
from .settings import Settings
from .state import State

_YES_OR_NO = {True: "yes", False: "no", None: "unknown"}


def describe(settings: Settings) -> dict[str, Any]:
    """Return the facts about this device, without secrets, for `--json` and for `lines`."""
    now = snapshot.look(settings.places)
    hidden = False  # only root can read the state, and this is another user
    try:
        known, trouble = state_store.load(settings.places.data(paths.STATE)), ""
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
    installing = None if hidden else handoff.deployment if handoff else now.lock
    reported = None if handoff or not now.lock else state.final_result(known, now.lock)
    failing = {name: failure for name, failure in known.failures.items() if failure.failed}
    device_type, no_device_type = _read(device.device_type, settings)
    installation = None
    try:
        installation = description.describe(settings)
    except errors.DiskError as error:
        trouble = trouble or str(error)
    return {
        "device_type": device_type,
        "device_type_problem": no_device_type,
        "artifact_name": _read(lambda s: device.provides(s)["artifact_name"], settings)[0],
        "servers": list(settings.servers),
        "authorized": None if hidden else credentials.token_is_good(known.token, settings, now),
        "deployment": deployment and {"id": deployment.id, "artifact_name": deployment.artifact_name},
        "downloaded_bytes": _size(settings, now) if deployment else 0,
        "artifact_bytes": deployment.size if deployment and deployment.size >= 0 else None,
        "installing": installing,
        "installation": installation,
        "reported": reported.status if reported else None,
        "paused": [_paused(settings, step, gate) for step, gate in known.gates.items()],
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
    """Return the facts of `describe` as lines for people."""
    output = [
        f"device type     {facts['device_type'] or 'not set: ' + facts['device_type_problem']}",
        f"artifact        {facts['artifact_name'] or 'unknown'}",
        f"server          {', '.join(facts['servers']) or 'none configured'}",
        f"authorized      {_YES_OR_NO[facts['authorized']]}",
    ]
    output += _update(facts)
    for paused in facts["paused"]:
        output.append(f"paused          {paused['step']}, {description.pause(paused)}")
    for result in facts["queued_results"]:
        output.append(f"pending result  {result['status']} of deployment {result['deployment']}")
    if facts["last_result"] and not facts["queued_results"]:
        output.append(f"last result     {_last_result(**facts['last_result'])}")
    for step, times in facts["failures"].items():
        why = facts["failure_reasons"].get(step)
        attempts = "1 failed attempt" if times == 1 else f"{times} failed attempts"
        output.append(f"retrying        {step}, {attempts}" + (f": {why}" if why else ""))
    if facts["trouble"]:
        output.append(f"problem         {facts['trouble']}")
    step, wait = facts["next_step"], facts["next_in_seconds"]
    soon = "unknown" if wait is None else f"in {wait} s"
    output.append(f"next            {step}, now" if step else f"next            {soon}")
    return output


def _update(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the lines about the deployment that is under way, or the installation by hand."""
    if facts["deployment"]:
        done, size = facts["downloaded_bytes"], facts["artifact_bytes"]
        progress = "download not started"
        if done or size is not None:
            progress = f"{done} of {'an unknown number of' if size is None else size} bytes downloaded"
        yield f"update          {facts['deployment']['artifact_name']}, {progress}"
    if facts["reported"]:
        yield (
            f"reported        {facts['reported']} of deployment {facts['installing']}; waiting for its "
            "sub-updater to remove update.lock"
        )
    elif facts["installation"]:
        yield f"installing      {description.sentence(facts['installation'])}"
    elif facts["installing"] is not None:
        yield f"installing      deployment {facts['installing'] or 'unknown'}; waiting for its sub-updater"


def _paused(settings: Settings, step: str, gate: state.Gate) -> dict[str, Any]:
    """Return what is known of a state script of the device that has asked for a pause."""
    return {
        "step": step,
        "paused_by": gate.script,
        "asked_again_at": gate.at + settings.state_script_retry_interval,
        "paused_until": gate.at + max(settings.state_script_retry_timeout - gate.waited, 0),
    }


def _last_result(deployment: str, status: str, outcome: str | None) -> str:
    if outcome == state.ABORTED:
        return f"deployment {deployment} aborted by the server ({status} was reported)"
    if outcome == state.UNKNOWN:
        return f"{status}, but the server does not know deployment {deployment}"
    return status


def _read(read: Callable[[Settings], str], settings: Settings) -> tuple[str | None, str | None]:
    """Return the value and None, or None and why it cannot be read."""
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
