"""The Mender client's own table of cases, each with the real installer and a real server."""

from collections.abc import Callable, Iterator

import pytest
from helpers.cases import DOCUMENT, Case, cases, document
from helpers.stage import Stage, staged

SCRIPTED = {"fails-once", "fails-always", "power-cut-once", "hangs"}
STATUS = "PUT */status"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("cases")) as made:
        made.upload("empty", None)
        yield made


def two_checks(stage: Stage) -> None:
    """Check for an update without a result, with the state scripts of the device."""
    stage.frame_checks()
    stage.run()


def three_checks(stage: Stage) -> None:
    """Fail before a check, then after one that has found the update, then check without a result."""
    stage.frame_checks()
    stage.run()
    stage.deploy()
    stage.run()
    found = stage.server.snapshot()
    stage.server.restore(found._replace(deployments={}))
    stage.run()
    stage.server.restore(found)


def another_device_type(stage: Stage) -> None:
    """Have the device change its type after the server has chosen an artifact for it."""
    stage.module.at("Download_Enter", f"echo device_type=other >{stage.device.data}/device_type")


def lost_statuses(stage: Stage) -> None:
    """Answer neither `installing` before the installation nor the first one before the commit."""
    for status in (None, 500, None, 500):
        stage.server.faults.add(STATUS, status=status)


def unwritable_record(stage: Stage) -> None:
    """Let a directory stand where the record is to be written, until the next boot."""
    record = stage.device.data / "installer.json"
    stage.module.at("Download_Leave", f"mv {record} {record}.kept; mkdir {record}")


def writable_record(stage: Stage) -> None:
    record = stage.device.data / "installer.json"
    record.rmdir()
    record.with_suffix(".json.kept").rename(record)


def members_of_a_newer_release(stage: Stage) -> None:
    """Have the record hold members that this release does not have, as after a rollback to an older one."""
    record = stage.device.data / "installer.json"
    stage.module.at(
        "ArtifactReboot",
        f'sed -i \'2i "update_control": "", "newer": {{"schema": 2}},\' {record}; kill -9 $PPID $$',
    )


PREPARE: dict[str, Callable[[Stage], None]] = {
    "Normal_flow_Idle_Sync_Idle": two_checks,
    "Idle_Leave_Error": two_checks,
    "Sync_Leave_Error_multiple_deployments": three_checks,
    "Error_in_ArtifactInstall_depends_check": another_device_type,
    "Temporary_failure_in_report_sending_after_reboot": lost_statuses,
    "Non_writable_database_in_ArtifactInstall_Enter": unwritable_record,
    "Killed_in_ArtifactReboot_with_schema_update": members_of_a_newer_release,
    "Deployment_with_empty_Update_Control": members_of_a_newer_release,
}
"""What a row needs besides faults of the module and of the state scripts."""


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_an_installation_takes_the_course_of_the_table(stage: Stage, case: Case) -> None:
    stage.reset(reboot=case.reboot, rollback=case.rollback, sizes=case.faults.get("S", ""))
    for mark, kind in case.faults.items():
        if kind in SCRIPTED:
            stage.fault(mark, kind)
    if "hangs" in case.faults.values():
        stage.device.configure(ModuleTimeoutSeconds=1)
    if case.name in PREPARE:
        PREPARE[case.name](stage)
    if not stage.deployment:
        stage.deploy("empty" if case.name == "Empty_payload_artifact" else "release-2")
    aborted = {"installing": "D>", "rebooting": "I>"}.get(case.injected.removeprefix("server-aborts-at "), "")
    if aborted:
        stage.hold(aborted)
        stage.run()
        stage.let_go(stage.abort)
    if case.name == "Non_writable_database_in_ArtifactInstall_Enter":
        stage.run()
        stage.wait()
        writable_record(stage)
        stage.device.reboot()
    course = stage.carry_out()
    expected = case.expected
    if aborted:  # the server keeps its own final status
        expected = expected._replace(statuses=expected.statuses.replace("failure", "aborted"))
    assert course == expected


def test_the_page_of_all_cases_is_that_of_the_tables() -> None:
    again = "run PYTHONPATH=tests .venv/bin/python -m helpers.cases"
    assert DOCUMENT.read_text() == document(), again
