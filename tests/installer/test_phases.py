"""The order of an installation, against the Mender client's own table of cases and at random."""

import csv
import re
from typing import NamedTuple

import pytest
from helpers.device import REPO
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot.installer import phases
from mender_oneshot.installer.phases import Progress, advance

SHORT = {
    "Download": "D",
    "ArtifactInstall": "I",
    "ArtifactReboot": "B",
    "ArtifactVerifyReboot": "V",
    "ArtifactCommit": "C",
    "ArtifactRollback": "R",
    "ArtifactRollbackReboot": "RB",
    "ArtifactVerifyRollbackReboot": "RV",
    "ArtifactFailure": "F",
    "Cleanup": "X",
    "IsNewSystem": "V",
    "IsOldSystem": "RV",
}
ENDS = {"_Enter": "<", "_Leave": ">", "_Error": "!"}


def short(phase: str) -> str:
    """The abbreviation of a phase in the table, "" for one that the table does not show."""
    if phase == "ArtifactRollback_Failed":
        return "R>"
    if phase == "ArtifactCommit_Leave_Error":
        return "C!"
    for end, mark in ENDS.items():
        if phase.endswith(end):
            return SHORT[phase.removesuffix(end)] + mark
    return SHORT.get(phase, "")


class Trace(NamedTuple):
    calls: str
    statuses: str
    name: str


class Play:
    """One course through the phases, with faults: by the mark of a call or a status, what happens there."""

    def __init__(self, injected: dict[str, str], rollback: str, reboot: str) -> None:
        self.calls, self.statuses = ["D<"], ["downloading"]  # the step `download` has done these
        self._left = dict(injected)
        self._sizes = injected.get("S")
        self._answers = {
            "SupportsRollback": rollback,
            "NeedsArtifactReboot": reboot,
            "NeedsRollbackReboot": reboot,
        }

    def outcome(self, phase: str) -> str:
        """Do a phase, and return what comes of it."""
        if phase in self._answers:
            return self._answers[phase]
        if phase in ("ReportInstalling", "ReportRebooting", "Confirm"):
            return self._report("rebooting" if phase == "ReportRebooting" else "installing")
        mark = short(phase)
        if phase == "Download":
            self.calls.append("S")
            mark = "DS" if self._sizes == "yes" else mark
        if not mark:
            return phases.OK
        self.calls.append(mark)
        return {"error": phases.ERROR, "errors": phases.ERROR, "cut": phases.CUT}.get(
            self._strike(mark), phases.OK
        )

    def _report(self, status: str) -> str:
        if self._strike(status) == "abort":
            return phases.ERROR
        self.statuses.append(status)
        return phases.OK

    def _strike(self, mark: str) -> str:
        fault = self._left.get(mark, "")
        if fault and fault != "errors":
            del self._left[mark]
        return fault


def play(injected: dict[str, str], rollback: str, reboot: str) -> Trace:
    """Play a course to its end."""
    course, progress = Play(injected, rollback, reboot), Progress()
    for _ in range(200):
        if progress.phase == "Done":
            break
        progress = advance(progress, course.outcome(progress.phase))
    assert progress.phase == "Done", (course.calls, progress)
    statuses = [*course.statuses, "failure" if progress.failed else "success"]
    name = "inconsistent" if progress.inconsistent else "old" if progress.failed else "new"
    return Trace(" ".join(course.calls), " ".join(statuses), name)


# Where we do not follow, and what happens instead.
OURS = {
    # A cut before anything was changed is no failure: the download begins again from the verified artifact.
    "Killed_in_Download_Leave_00_state__no_rollback": Trace(
        "D< S D D> S D D> I< I I> B< B V B> C< C C> X",
        "downloading installing rebooting installing success",
        "new",
    ),
    # A cut in the commit does not roll it back: the module is asked which system runs.
    "Killed_in_ArtifactCommit": Trace(
        "D< S D D> I< I I> B< B V B> C< C V C C> X",
        "downloading installing rebooting installing success",
        "new",
    ),
    "Killed_in_ArtifactCommit__no_reboot": Trace(
        "D< S D D> I< I I> C< C V C C> X", "downloading installing installing success", "new"
    ),
    # The loop of a rollback that never verifies has a limit of its own, after which the failure is handled.
    "Break_out_of_error_loop": Trace(
        "D< S D D> I< I I> B< B V B! R< R R> RB< " + "RB RV " * 10 + "F< F F> X",
        "downloading installing rebooting failure",
        "inconsistent",
    ),
}
# Decided by the steps around the installer, or by what is on the disk: tests of real processes have these.
ELSEWHERE = {
    "Normal_flow_Idle_Sync_Idle",
    "Idle_Leave_Error",
    "Sync_Leave_Error_multiple_deployments",
    "Error_in_Download_Enter_00_state__no_rollback",
    "Killed_in_Download_Enter_00_state__no_rollback",
    "Error_in_ArtifactInstall_depends_check",
    "Temporary_failure_in_report_sending_after_reboot",
    "Non_writable_database_in_ArtifactInstall_Enter",
    "Empty_payload_artifact",
}


def cases() -> list[dict[str, str]]:
    with (REPO / "docs" / "reference" / "update-modules-cases.tsv").open() as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if row["case"] not in ELSEWHERE]


def faults(injected: str) -> dict[str, str]:
    """Read the column `injected`."""
    found: dict[str, str] = {}
    for part in injected.split("; "):
        if match := re.fullmatch(r"fails-once (\S+)|hangs (\S+)", part):
            found[match[1] or match[2]] = "error"
        elif match := re.fullmatch(r"fails-always (\S+)", part):
            found[match[1]] = "errors"
        elif match := re.fullmatch(r"power-cut-once (\S+)", part):
            found[match[1]] = "cut"
        elif match := re.fullmatch(r"server-aborts-at (\S+)", part):
            found[match[1]] = "abort"
        elif match := re.fullmatch(r"file-sizes (\S+)", part):
            found["S"] = match[1]
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["case"])
def test_an_installation_takes_the_course_of_the_table(case: dict[str, str]) -> None:
    expected = OURS.get(case["case"], Trace(case["calls"], case["statuses"], case["name_after"]))
    reboot = "Yes" if case["reboot"] == "yes" else "No"
    rollback = "Yes" if case["rollback"] == "yes" else "No"
    assert play(faults(case["injected"]), rollback, reboot) == expected


outcomes = st.sampled_from(["ok", "ok", "ok", "error", "cut"])


@given(
    st.lists(outcomes, max_size=300),
    st.sampled_from(["Yes", "No"]),
    st.sampled_from(["Yes", "No", "Automatic"]),
)
def test_any_faults_end_in_one_result(course: list[str], rollback: str, reboot: str) -> None:
    progress, done = Progress(), []
    for outcome in [*course, *["ok"] * 60]:
        answer = {"SupportsRollback": rollback, "NeedsArtifactReboot": reboot, "NeedsRollbackReboot": reboot}
        done.append(progress.phase)
        before = progress
        progress = advance(progress, answer.get(progress.phase, outcome) if outcome == "ok" else outcome)
        # A failure is never forgotten, and a device that is inconsistent has failed.
        assert progress.failed or not before.failed
        assert progress.failed or not progress.inconsistent
    assert progress.phase == "Done"
    # What changes the device before the commit is done once.
    assert done.count("ArtifactInstall") <= 1
    assert done.count("ArtifactInstall_Enter") <= 1
    assert done.count("ArtifactReboot_Enter") <= 1
    if not progress.failed:
        assert "ArtifactCommit_Leave" in done
