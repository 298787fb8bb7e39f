"""What `status` and `show-artifact` print; reads files only, without lock and network."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from . import credentials, device, errors, history, paths, plan, snapshot, state, state_store
from .installer import description
from .settings import Settings
from .state import State
from .units import duration, when

_YES_OR_NO = {True: "yes", False: "no", None: "unknown"}
_STEPS = {"tidy": "clean-up", "deliver": "sending the result", "resume": "resuming the installation"}
"""Names for people of the steps that are no commands."""


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
    coming, wait = (None, None) if hidden else plan.coming(known, settings, now)
    step = coming if wait is not None and wait <= 0 else None
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
        "last_update": _last_update(settings),
        "checked_at": known.checked_at or None,
        "inventory_sent_at": known.inventory_sent_at or None,
        "next_step": step,
        "coming_step": coming,
        "next_in_seconds": None if wait is None else round(max(wait, 0)),
        "failures": {name: failure.times for name, failure in failing.items()},
        "failure_reasons": {name: failure.why for name, failure in failing.items() if failure.why},
        "failing_since": {name: failure.since for name, failure in failing.items() if failure.since},
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
    for name, at in (("last check", facts["checked_at"]), ("last inventory", facts["inventory_sent_at"])):
        if at:
            output.append(f"{name:<15} {when(at)}")
    output += _update(facts)
    for paused in facts["paused"]:
        output.append(f"paused          {paused['step']}, {description.pause(paused)}")
    for result in facts["queued_results"]:
        output.append(f"pending result  {result['status']} of deployment {result['deployment']}")
    if _adds_to_last_update(facts):
        output.append(f"last result     {_last_result(**facts['last_result'])}")
    if facts["last_update"]:
        output.append(f"last update     {_ended(**facts['last_update'])}")
    for step, times in facts["failures"].items():
        why, since = facts["failure_reasons"].get(step), facts["failing_since"].get(step)
        attempts = "1 failed attempt" if times == 1 else f"{times} failed attempts"
        attempts += f" since {when(since)}" if since else ""
        output.append(f"retrying        {_STEPS.get(step, step)}, {attempts}" + (f": {why}" if why else ""))
    if facts["trouble"]:
        output.append(f"problem         {facts['trouble']}")
    output.append(f"next            {_next(facts)}")
    return output


def _next(facts: dict[str, Any]) -> str:
    wait = facts["next_in_seconds"]
    if wait is None:
        return "unknown"
    step = _STEPS.get(facts["coming_step"], facts["coming_step"])
    if facts["next_step"]:
        return f"{step}, now"
    if facts["installing"] is None:
        return f"{step} in {duration(wait)} (at once: mender-oneshot run --all --force)"
    if facts["coming_step"] == "tidy" and not facts["reported"]:
        return (
            f"the update fails in {duration(wait)} if nothing is reported (at once: mender-oneshot report "
            "--failure)"
        )
    return f"{step} in {duration(wait)}"


def _adds_to_last_update(facts: dict[str, Any]) -> bool:
    """Return whether the last result is worth a line beside that of the last update."""
    last, update = facts["last_result"], facts["last_update"]
    if not last or facts["queued_results"]:
        return False
    same = update and update["deployment"] == last["deployment"] and update["status"] == last["status"]
    return not same or last["outcome"] in (state.ABORTED, state.UNKNOWN)


def _ended(artifact_name: str, deployment: str, status: str, ended: float, why: str, **_more: Any) -> str:
    """Return what became of the last update, and the command that shows its log."""
    reason = f": {why}" if why else ""
    return f"{artifact_name or deployment}, {status}, {when(ended)}{reason} (mender-oneshot log)"


def _last_update(settings: Settings) -> dict[str, Any] | None:
    """Return the newest deployment of the history; None if there is none, or it cannot be read."""
    try:
        entries = history.load(settings)
    except errors.DiskError:
        return None
    return entries[-1]._asdict() if entries else None


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
