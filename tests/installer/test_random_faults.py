"""Installations in which random calls fail, pause or are killed, and the server answers badly, at random.

Whatever happens: one final status, the right one; the reported name is what is installed; and no call is
repeated that must not be.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from helpers.cases import Course
from helpers.stage import Stage, staged

STATUS = "PUT */status"
DOWNLOAD = ["D<", "S", "D", "D>"]
FORWARD = ["I<", "I", "I.", "I>", "N?", "B<", "B", "V", "B>", "C<", "C", "C.", "C>"]
BACK = [
    "D!",
    "I!",
    "B!",
    "C!",
    "R?",
    "R<",
    "R",
    "R.",
    "R>",
    "RB<",
    "RB",
    "RV",
    "RB>",
    "RB!",
    "F<",
    "F",
    "F>",
    "X",
]
GOES_BACK = {"I<", "I", "I.", "I>", "V", "B>", "C<"}
"""A process that is killed in one of these rolls the update back."""
ONCE = {"I<", "I", "I>", "B<", "V", "B>", "C<"}
SEEDS = 12


class Example(NamedTuple):
    """What goes wrong in one installation."""

    reboot: str
    rollback: str
    reboots: bool  # after a kill; otherwise only processes are killed
    faults: dict[str, str]  # by the call
    server: str  # "", or what goes wrong at the nth status
    nth: int


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("random")) as made:
        yield made


def example(seed: int) -> Example:
    """Return the example of a seed."""
    rng = random.Random(seed)
    faults = {}
    for _ in range(rng.choice([0, 1, 1, 2, 3, 4])):
        mark = rng.choice(rng.choice([DOWNLOAD, FORWARD, FORWARD, BACK]))
        pauses = ["waits"] if mark[-1] in "<>!" else []
        faults[mark] = rng.choice(["fails-once", "power-cut-once", *pauses])
    if not {"C", "C."}.isdisjoint(faults):  # the module must answer truly which system runs
        faults = {mark: kind for mark, kind in faults.items() if mark not in ("V", "RV")}
    return Example(
        reboot=rng.choice(["Yes", "No"]),
        rollback=rng.choice(["Yes", "Yes", "No"]),
        reboots=rng.choice([True, False]),
        faults=faults,
        server=rng.choice(["", "", "error", "no answer", "abort", "cut before", "cut after"]),
        nth=rng.randint(1, 5),
    )


def prepare(stage: Stage, chosen: Example) -> None:
    stage.reset(reboot=chosen.reboot, rollback=chosen.rollback)
    # One attempt to reach the server before the commit: the pause between two takes longer.
    stage.device.configure(CommitTimeoutSeconds=5)
    for mark, kind in chosen.faults.items():
        stage.fault(mark, kind)
    stage.deploy()
    if chosen.server == "error":
        stage.answer(STATUS, chosen.nth, status=500)
    elif chosen.server == "no answer":
        stage.answer(STATUS, chosen.nth, drop_before=True)
    elif chosen.server == "abort":
        stage.at_request(STATUS, chosen.nth, stage.abort)
    elif chosen.server:
        stage.cut_at(STATUS, chosen.nth, chosen.server == "cut after")


def check(stage: Stage, chosen: Example, course: Course) -> None:
    calls, statuses = course.calls.split(), course.statuses.split()
    happened = {mark: kind for mark, kind in chosen.faults.items() if has_happened(stage, mark)}
    # One final status.
    finals = {status for status in statuses if status in ("success", "failure")}
    assert len(finals) == (0 if stage.result == "aborted" else 1)
    # The right one: a failure is not forgotten, and an update that has done nothing wrong succeeds.
    failed = [mark for mark, kind in happened.items() if kind == "fails-once" and mark not in BACK]
    went_back = [m for m, kind in happened.items() if kind == "power-cut-once" and m in GOES_BACK]
    if failed:
        assert course.name != "new"
    elif not went_back and not chosen.server:
        assert course.name == "new"
    if stage.result != "aborted":
        assert (course.name == "new") == (finals == {"success"})
    # The name is what is installed.
    system = stage.system.read_text().strip()
    if course.name != "inconsistent":
        assert system == {"new": "kept", "old": "old"}[course.name]
    # Nothing is repeated that must not be.
    for mark in ONCE:
        again = happened.get(mark) == "waits" or (mark == "V" and not {"C", "C."}.isdisjoint(happened))
        assert calls.count(mark) <= 1 + again, mark
    assert calls.count("B") <= 1 + (not chosen.reboots and not {"B<", "B"}.isdisjoint(happened))
    assert calls.count("C") <= 1 + ("C" in happened)


def has_happened(stage: Stage, mark: str) -> bool:
    return stage.fault_file(mark) not in stage.faults_left


@pytest.mark.parametrize(
    "seed", [*range(SEEDS), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(SEEDS, 400))]
)
def test_an_installation_keeps_its_promises_whatever_happens(stage: Stage, seed: int) -> None:
    chosen = example(seed)
    prepare(stage, chosen)
    course = stage.carry_out(reboots=chosen.reboots)
    check(stage, chosen, course)
