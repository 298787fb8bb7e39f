"""Describe the installation under way: the part of `status` that comes from `installer.json`."""

import time
from typing import Any

from .. import paths
from ..pidfile import boot_id
from ..settings import Settings
from . import record
from .record import Record

_PHASES = {
    "Download": "giving the payload to the update module",
    "ReportInstalling": "reporting to the server",
    "ArtifactInstall": "the update module is installing it",
    "ReportRebooting": "reporting to the server",
    "ArtifactReboot": "rebooting",
    "ArtifactVerifyReboot": "checking the new system after the reboot",
    "Confirm": "logging in again and running the health checks",
    "ArtifactCommit": "committing",
    "IsNewSystem": "checking after a power cut which system is running",
    "IsOldSystem": "checking after a power cut which system is running",
    "ArtifactRollback": "rolling back",
    "ArtifactRollbackReboot": "rebooting to the old system",
    "ArtifactVerifyRollbackReboot": "checking the old system after the reboot",
    "ArtifactFailure": "the update module is cleaning up after the failure",
    "SaveProvides": "storing what the device provides",
    "Cleanup": "cleaning up",
    "Done": "reporting the result",
}


def describe(settings: Settings) -> dict[str, Any] | None:
    """Return the facts about the installation under way; None if there is none, or it is another program's.

    Times are in seconds since 1970. Raises `errors.DiskError` if its record cannot be read.
    """
    found = record.load(settings.places.data(paths.INSTALLER))
    if found is None:
        return None
    pause = found.pause if found.stopped else None
    left = settings.state_script_retry_timeout - pause.waited if pause else 0
    return {
        "artifact_name": found.artifact_name,
        "deployment": found.deployment or None,
        "phase": found.progress.phase,
        "state": _state(settings, found),
        "since": found.at or None,
        "reboot_needed": _needs_reboot(found),
        "paused_by": pause and pause.script,
        "asked_again_at": pause and pause.at + settings.state_script_retry_interval,
        "paused_until": pause and pause.at + max(left, 0),
        "failed": found.progress.failed,
        "reason": found.why or None,
    }


def _state(settings: Settings, found: Record) -> str:
    if found.progress.phase == "Waiting":
        return "waiting"
    if found.pause and found.stopped:
        return "paused"
    if record.is_worked_on(settings.places.data(paths.INSTALLER_LOCK)):
        return "running"
    if found.stopped and found.by_hand:
        return "stopped"
    return "interrupted" if found.boot else "starting"


def _needs_reboot(found: Record) -> bool:
    """Return whether the installation continues only after a reboot that has not happened yet."""
    if found.progress.phase in ("ArtifactReboot", "ArtifactRollbackReboot"):
        return True
    wanted = found.progress.reboot in ("Yes", "Automatic")
    return found.progress.phase == "Waiting" and wanted and found.boot == boot_id()


def sentence(facts: dict[str, Any]) -> str:
    """Return the facts of `describe` as text for people."""
    name, deployment = facts["artifact_name"], facts["deployment"]
    what = f"{name} of deployment {deployment}" if deployment else f"{name} by hand"
    since = f" since {_time(facts['since'])}" if facts["since"] else ""
    return f"{what}: {_progress(facts, since)}" + (
        f"; it failed: {facts['reason']}" if facts["reason"] else ""
    )


def _progress(facts: dict[str, Any], since: str) -> str:
    phase = _PHASES.get(facts["phase"]) or _of_scripts_or_question(facts["phase"])
    resume = "run mender-oneshot resume" if facts["deployment"] is None else "the next run will resume it"
    if facts["state"] == "waiting":
        first = "reboot, then run" if facts["reboot_needed"] else "run"
        return f"waiting{since}; {first} mender-oneshot commit, or rollback to go back"
    if facts["state"] == "paused":
        if facts["deployment"]:
            return f"paused{since} {pause(facts)}"
        return f"paused{since} by the state script {facts['paused_by']}; {resume} to ask it again"
    if facts["state"] == "stopped":
        return f"stopped{since} before {facts['phase']}; {resume}"
    if facts["state"] == "interrupted":
        return f"interrupted, last seen {phase}{since}; {resume}"
    return f"{phase}{since}"


def pause(facts: dict[str, Any]) -> str:
    """Return which script has asked for a pause, and for how long it may do so."""
    return (
        f"by the state script {facts['paused_by']}; asked again at {_time(facts['asked_again_at'])}, until "
        f"{_time(facts['paused_until'])} at the latest"
    )


def _of_scripts_or_question(phase: str) -> str:
    if phase.endswith(("_Enter", "_Leave", "_Error")):
        return f"running the state scripts {phase}"
    return "asking the update module what it needs"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
