"""The order of an installation: which phase comes after which, also after an error and after a power cut.

Pure decisions. A phase is noted on disk before its work begins, so a phase that is found at the start of a
process was cut. The order is the Mender client's (update-modules.md section 4), with four exceptions, each in
favour of an update that has done nothing wrong:

* Until `ArtifactInstall_Enter` nothing on the device has changed, so a cut there begins the download again.
* A failure is noted before its `_Error` scripts run, so a cut in them cannot turn it into a success.
* A cut in `ArtifactCommit` does not roll back: the module is asked which of the two systems is there.
* An error in `Cleanup` changes no result.
"""

from typing import NamedTuple

REBOOTS_MAX = 10
"""Reboots of a rollback; then it ends, although the old system was not seen to run."""

CUTS_MAX = 20
"""Power cuts in one installation; then it rolls back, or ends at once if it was rolling back already."""

# What a phase does: call the module, run state scripts, ask the module, ask the server, or write a file.
CALL, SCRIPTS, QUESTION, SERVER, NOTE = "call", "scripts", "question", "server", "note"


class Phase(NamedTuple):
    """A phase, and where it leads: `after` on success, `error` on failure, `cut` if power was lost in it.

    `taints` marks a phase whose failure leaves the device inconsistent.
    """

    kind: str
    after: str
    error: str
    cut: str
    taints: bool = False


PHASES = {
    "Download": Phase(CALL, "Download_Leave", "Download_Error", "Download"),
    "Download_Leave": Phase(SCRIPTS, "ReportInstalling", "Download_Error", "Download"),
    "Download_Error": Phase(SCRIPTS, "Cleanup", "Cleanup", "Cleanup"),
    "ReportInstalling": Phase(SERVER, "ArtifactInstall_Enter", "Cleanup", "ReportInstalling"),
    "ArtifactInstall_Enter": Phase(SCRIPTS, "ArtifactInstall", "ArtifactInstall_Error", "SupportsRollback"),
    "ArtifactInstall": Phase(CALL, "ArtifactInstall_Leave", "ArtifactInstall_Error", "SupportsRollback"),
    "ArtifactInstall_Leave": Phase(
        SCRIPTS, "NeedsArtifactReboot", "ArtifactInstall_Error", "SupportsRollback"
    ),
    "ArtifactInstall_Error": Phase(SCRIPTS, "SupportsRollback", "SupportsRollback", "SupportsRollback"),
    "NeedsArtifactReboot": Phase(QUESTION, "ReportRebooting", "SupportsRollback", "NeedsArtifactReboot"),
    "ReportRebooting": Phase(SERVER, "ArtifactReboot_Enter", "SupportsRollback", "ReportRebooting"),
    "ArtifactReboot_Enter": Phase(SCRIPTS, "ArtifactReboot", "ArtifactReboot_Error", "ArtifactVerifyReboot"),
    "ArtifactReboot": Phase(CALL, "ArtifactVerifyReboot", "ArtifactReboot_Error", "ArtifactVerifyReboot"),
    "ArtifactVerifyReboot": Phase(CALL, "ArtifactReboot_Leave", "ArtifactReboot_Error", "SupportsRollback"),
    "ArtifactReboot_Leave": Phase(SCRIPTS, "Confirm", "ArtifactReboot_Error", "SupportsRollback"),
    "ArtifactReboot_Error": Phase(SCRIPTS, "SupportsRollback", "SupportsRollback", "SupportsRollback"),
    "Confirm": Phase(SERVER, "ArtifactCommit_Enter", "SupportsRollback", "SupportsRollback"),
    "ArtifactCommit_Enter": Phase(SCRIPTS, "ArtifactCommit", "ArtifactCommit_Error", "SupportsRollback"),
    "ArtifactCommit": Phase(CALL, "ArtifactCommit_Leave", "ArtifactCommit_Error", "IsNewSystem"),
    "ArtifactCommit_Error": Phase(SCRIPTS, "SupportsRollback", "SupportsRollback", "SupportsRollback"),
    # Cut in ArtifactCommit: the new system uncommitted, the old one, or the new one committed.
    "IsNewSystem": Phase(CALL, "ArtifactCommit", "IsOldSystem", "IsNewSystem"),
    "IsOldSystem": Phase(CALL, "SupportsRollback", "ArtifactCommit_Leave", "IsNewSystem"),
    "ArtifactCommit_Leave": Phase(
        SCRIPTS, "SaveProvides", "ArtifactCommit_Leave_Error", "ArtifactCommit_Leave", taints=True
    ),
    "ArtifactCommit_Leave_Error": Phase(SCRIPTS, "SaveProvides", "SaveProvides", "SaveProvides"),
    # By hand: who called decides, unless nothing could be rolled back.
    "CanRollBack": Phase(QUESTION, "Waiting", "SupportsRollback", "CanRollBack"),
    "Waiting": Phase(NOTE, "ArtifactCommit_Enter", "ArtifactRollback_Enter", "Waiting"),
    "SupportsRollback": Phase(
        QUESTION, "ArtifactRollback_Enter", "ArtifactFailure_Enter", "SupportsRollback", taints=True
    ),
    "ArtifactRollback_Enter": Phase(
        SCRIPTS, "ArtifactRollback", "ArtifactRollback", "ArtifactRollback_Enter", taints=True
    ),
    "ArtifactRollback": Phase(
        CALL, "ArtifactRollback_Leave", "ArtifactRollback_Failed", "ArtifactRollback_Enter", taints=True
    ),
    "ArtifactRollback_Leave": Phase(
        SCRIPTS, "NeedsRollbackReboot", "NeedsRollbackReboot", "ArtifactRollback_Enter", taints=True
    ),
    # The same scripts, where the module could not roll back: no reboot follows.
    "ArtifactRollback_Failed": Phase(
        SCRIPTS, "ArtifactFailure_Enter", "ArtifactFailure_Enter", "ArtifactRollback_Enter", taints=True
    ),
    "NeedsRollbackReboot": Phase(
        QUESTION, "ArtifactRollbackReboot_Enter", "ArtifactFailure_Enter", "NeedsRollbackReboot", taints=True
    ),
    "ArtifactRollbackReboot_Enter": Phase(
        SCRIPTS,
        "ArtifactRollbackReboot",
        "ArtifactRollbackReboot",
        "ArtifactVerifyRollbackReboot",
        taints=True,
    ),
    "ArtifactRollbackReboot": Phase(
        CALL, "ArtifactVerifyRollbackReboot", "ArtifactVerifyRollbackReboot", "ArtifactVerifyRollbackReboot"
    ),
    "ArtifactVerifyRollbackReboot": Phase(
        CALL, "ArtifactRollbackReboot_Leave", "ArtifactRollbackReboot", "ArtifactVerifyRollbackReboot"
    ),
    "ArtifactRollbackReboot_Leave": Phase(
        SCRIPTS,
        "ArtifactFailure_Enter",
        "ArtifactRollbackReboot_Error",
        "ArtifactVerifyRollbackReboot",
        taints=True,
    ),
    "ArtifactRollbackReboot_Error": Phase(
        SCRIPTS, "ArtifactFailure_Enter", "ArtifactFailure_Enter", "ArtifactFailure_Enter"
    ),
    "ArtifactFailure_Enter": Phase(
        SCRIPTS, "ArtifactFailure", "ArtifactFailure", "ArtifactFailure_Enter", taints=True
    ),
    "ArtifactFailure": Phase(
        CALL, "ArtifactFailure_Leave", "ArtifactFailure_Leave", "ArtifactFailure_Enter", taints=True
    ),
    "ArtifactFailure_Leave": Phase(
        SCRIPTS, "SaveProvides", "SaveProvides", "ArtifactFailure_Enter", taints=True
    ),
    "SaveProvides": Phase(NOTE, "Cleanup", "Cleanup", "SaveProvides"),
    "Cleanup": Phase(CALL, "Done", "Done", "Cleanup"),
    "Done": Phase(NOTE, "Done", "Done", "Done"),
}

COMMITTED = ("ArtifactCommit_Leave", "ArtifactCommit_Leave_Error", "SaveProvides", "Cleanup", "Done")
"""Phases that cannot lead back; the rollback ends in the last three as well."""

_ERROR_SCRIPTS = tuple(name for name in PHASES if name.endswith("_Error"))
_FAILS = (*_ERROR_SCRIPTS, "SupportsRollback", "ArtifactRollback_Enter")
"""To enter one of these is to have failed."""

_BY_HAND = {
    "ReportInstalling": "ArtifactInstall_Enter",
    "ReportRebooting": "CanRollBack",
    "Confirm": "CanRollBack",
    "NeedsRollbackReboot": "ArtifactFailure_Enter",
}
"""What replaces reboots and the server in an installation by hand, as in `mender-update`."""

OK, ERROR, CUT = "ok", "error", "cut"
EMPTY = "empty"
"""The outcome of `Download_Leave` for an artifact without a payload, which has nothing to install."""

_HARMLESS = ("Download", "Download_Leave", "ReportInstalling")
"""Until the end of these nothing on the device has changed."""


class Progress(NamedTuple):
    """How far an installation is: the phase under way, and what it has come to so far."""

    phase: str = "Download"
    reboot: str = ""  # the last answer to NeedsArtifactReboot: "No", "Yes" or "Automatic"
    failed: bool = False
    inconsistent: bool = False
    reboots: int = 0  # of a rollback
    cuts: int = 0
    by_hand: bool = False


def advance(progress: Progress, outcome: str) -> Progress:
    """Return the progress after a phase has ended with `ok`, an answer, `error` or `cut`."""
    phase = PHASES[progress.phase]
    if outcome == CUT:
        progress = progress._replace(cuts=progress.cuts + 1)
        if progress.cuts > CUTS_MAX:
            progress, target = _way_out(progress)
        else:
            target = phase.cut
    elif outcome == ERROR:
        target = phase.error
        if phase.taints:
            progress = progress._replace(inconsistent=True)
    else:
        target, progress = _answered(progress, phase, outcome)
    if progress.phase == "ArtifactVerifyRollbackReboot" and target == "ArtifactRollbackReboot":
        progress = progress._replace(reboots=progress.reboots + 1)
        if progress.reboots >= REBOOTS_MAX:
            target = "ArtifactFailure_Enter"
            progress = progress._replace(inconsistent=True)
    if progress.by_hand:
        target = _BY_HAND.get(target, target)
    aborted = progress.phase == "ReportInstalling" and target == "Cleanup"
    failed = progress.failed or aborted or target in _FAILS
    return progress._replace(phase=target, failed=failed)


def _answered(progress: Progress, phase: Phase, answer: str) -> tuple[str, Progress]:
    """Follow a phase that succeeded, or the answer to a question."""
    if progress.phase == "NeedsArtifactReboot":
        return ("Confirm" if answer == "No" else phase.after), progress._replace(reboot=answer)
    if progress.phase == "NeedsRollbackReboot":
        return (phase.error if answer == "No" else phase.after), progress._replace(reboot=answer)
    if progress.phase == "Download_Leave" and answer == EMPTY:
        return "SaveProvides", progress
    if progress.phase == "CanRollBack" and answer == "No":
        return "ArtifactCommit_Enter", progress
    if progress.phase == "SupportsRollback" and answer == "No":
        return phase.error, progress._replace(inconsistent=True)
    return phase.after, progress


def _way_out(progress: Progress) -> tuple[Progress, str]:
    """Return where an installation goes that was cut too often: back once, then to its end."""
    if progress.phase in COMMITTED:
        return progress, PHASES[progress.phase].after
    if progress.phase in _HARMLESS:
        return progress, "Download_Error"
    if not progress.failed:
        return progress._replace(cuts=0), "SupportsRollback"
    return progress._replace(inconsistent=True), "SaveProvides"
