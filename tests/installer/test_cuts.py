"""Power cuts in every state in which the Mender client was killed, some of which it does not survive."""

from collections.abc import Iterator

import pytest
from helpers.cases import Course, Cut, cases, cuts
from helpers.stage import Stage, staged


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("cuts")) as made:
        yield made


def marks(cut: Cut) -> list[pytest.MarkDecorator]:
    """Return the mark of a power cut that the table of cases has as well."""
    faults = dict.fromkeys(cut.failed, "fails-once") | {cut.at: "power-cut-once"}
    known = [(case.faults, case.reboot) for case in cases() if case.rollback == "Yes"]
    return [pytest.mark.long] if (faults, cut.reboot) in known else []


@pytest.mark.parametrize("cut", [pytest.param(cut, id=cut.name, marks=marks(cut)) for cut in cuts()])
def test_an_update_survives_a_power_cut(stage: Stage, cut: Cut) -> None:
    stage.reset(reboot=cut.reboot, rollback="Yes")
    for mark in cut.failed:
        stage.fault(mark, "fails-once")
    if cut.at.startswith(("Idle", "Sync")):
        stage.frame_checks()
    if cut.request:
        stage.cut_at(*cut.request)
    else:
        stage.fault(cut.at, "power-cut-once")
    stage.deploy()
    assert stage.carry_out() == cut.course
    assert not stage.faults_left


def test_provides_that_are_saved_twice_after_a_power_cut_stay_the_same(stage: Stage) -> None:
    """The provides are saved, and the power fails before that is recorded."""
    stage.reset(reboot="No", rollback="Yes")
    record = stage.device.data / "installer.json"
    stage.module.at("Cleanup", f'sed -i \'s/: "Cleanup"/: "SaveProvides"/\' {record}; kill -9 $PPID $$')
    stage.deploy()
    course = stage.carry_out()
    assert course == Course(
        "D< S D D> I< I I> C< C C> X X", "downloading installing installing success", "new"
    )


def test_no_pattern_of_cleared_provides_makes_a_committed_update_fail(stage: Stage) -> None:
    """Patterns that are longer than a key crash the Mender client after the commit, and at every start."""
    stage.reset(reboot="No", rollback="Yes")
    patterns = ["*longerthanakey", "x*longerthanakey", "ab"]
    stage.upload("release-3", stage.module.name, provides={"new": "1"}, clears=patterns)
    installed = ["abab=2", "abxab=3", "x=4"]
    info = stage.device.conf / "artifact_info"
    info.write_text("\n".join(["artifact_name=release-1", "ab=1", *installed, ""]))
    for at in ("C>", "X"):
        stage.fault(at, "power-cut-once")
    stage.deploy("release-3")
    assert stage.carry_out().statuses == "downloading installing installing success"
    assert sorted(info.read_text().splitlines()) == sorted(["artifact_name=release-3", "new=1", *installed])
