"""The order of an installation, against the Mender client's own table of cases and at random."""

import pytest
from helpers.cases import Case, Course, abbreviated, cases
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot.installer import phases
from mender_oneshot.installer.phases import Progress, advance

QUESTIONS = {"IsNewSystem": "V", "IsOldSystem": "RV"}
"""Phases in which the module is asked which system runs, by a call of the table."""


def short(phase: str) -> str:
    """The abbreviation of a phase in the table, "" for one that the table does not show."""
    if phase == "ArtifactRollback_Failed":
        return "R>"
    if phase == "ArtifactCommit_Leave_Error":
        return "C!"
    return QUESTIONS.get(phase) or abbreviated(phase)


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
            mark = "DS" if self._sizes == "Yes" else mark
        if not mark:
            return phases.OK
        self.calls.append(mark)
        fault = self._strike(mark)
        if fault == "power-cut-once":
            return phases.CUT
        return phases.ERROR if fault else phases.OK

    def _report(self, status: str) -> str:
        if self._strike(status):
            return phases.ERROR
        self.statuses.append(status)
        return phases.OK

    def _strike(self, mark: str) -> str:
        fault = self._left.get(mark, "")
        if fault and fault != "fails-always":
            del self._left[mark]
        return fault


def play(injected: dict[str, str], rollback: str, reboot: str) -> Course:
    """Play a course to its end."""
    course, progress = Play(injected, rollback, reboot), Progress()
    for _ in range(200):
        if progress.phase == "Done":
            break
        progress = advance(progress, course.outcome(progress.phase))
    assert progress.phase == "Done", (course.calls, progress)
    statuses = [*course.statuses, "failure" if progress.failed else "success"]
    name = "inconsistent" if progress.inconsistent else "old" if progress.failed else "new"
    return Course(" ".join(course.calls), " ".join(statuses), name)


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


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.name not in ELSEWHERE], ids=lambda case: case.name
)
def test_an_installation_takes_the_course_of_the_table(case: Case) -> None:
    assert play(case.faults, case.rollback, case.reboot) == case.expected


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
