"""Which final status is right after a power cut, and the count that fails."""

import pytest

from board import boot_loader, expected
from board.boot_loader import Environment
from board.expected import EITHER, SUCCESS, Course, TooFew
from board.judge import boots, history_problems
from board.replay import LOST_ALL, RECORDED, TORN, Cut
from board.write_log import FLUSH, Entry

COURSE = Course(installing=10, rebooting=20, trial=30, committed=40)
WRITE, FLUSHED = Entry(0, 4096, 0, 0), Entry(0, 0, FLUSH, 0)
ENTRIES = [FLUSHED if number % 5 == 4 else WRITE for number in range(60)]


@pytest.mark.parametrize(
    ("point", "phase", "statuses"),
    [
        (0, "download", SUCCESS),
        (10, "download", SUCCESS),
        (11, "install", EITHER),
        (19, "install", EITHER),
        (20, "reboot", SUCCESS),
        (30, "reboot", SUCCESS),
        (31, "trial", EITHER),
        (40, "trial", EITHER),
        (41, "end", SUCCESS),
    ],
)
def test_a_cut_may_fail_the_update_only_in_the_installation_and_on_trial(
    point: int, phase: str, statuses: frozenset[str]
) -> None:
    assert COURSE.phase(point) == phase
    assert expected.statuses(COURSE, ENTRIES, Cut(point, RECORDED)) == statuses


def test_a_torn_write_counts_as_written_or_not() -> None:
    assert expected.statuses(COURSE, ENTRIES, Cut(30, TORN)) == EITHER
    assert expected.statuses(COURSE, ENTRIES, Cut(29, TORN)) == SUCCESS


def test_a_lost_cache_counts_as_a_cut_at_any_point_since_the_last_flush() -> None:
    assert expected.statuses(COURSE, ENTRIES, Cut(42, LOST_ALL)) == EITHER
    assert expected.statuses(COURSE, ENTRIES, Cut(49, LOST_ALL)) == SUCCESS


def test_the_course_is_read_from_the_environment() -> None:
    changes = [
        (12, Environment(3, True, 0)),
        (30, Environment(3, True, 1)),
        (40, Environment(3, False, 1)),
    ]
    assert expected.course(10, 20, changes) == COURSE


@pytest.mark.parametrize(
    "changes",
    [[], [(12, Environment(3, True, 0))], [(15, Environment(3, True, 1)), (40, Environment(3, False, 1))]],
)
def test_an_update_without_a_trial_after_its_reboot_is_none(changes: list[tuple[int, Environment]]) -> None:
    with pytest.raises(LookupError):
        expected.course(10, 20, changes)


def test_enough_cuts_are_counted_by_phase() -> None:
    counts = expected.require_enough(COURSE, [5, 15, 16, 25, 35, 45], 6)
    assert counts == {"download": 1, "install": 2, "reboot": 1, "trial": 1, "end": 1}


@pytest.mark.parametrize("points", [[], [5, 15, 25, 35, 45], [5, 6, 7, 8, 9, 10], [5, 15, 16, 25, 35, 36]])
def test_too_few_cuts_or_none_in_a_phase_fail(points: list[int]) -> None:
    with pytest.raises(TooFew):
        expected.require_enough(COURSE, points, 6)


def test_an_environment_block_is_read_as_it_is_packed() -> None:
    values = {"mender_boot_part": "3", "upgrade_available": "1", "bootcount": "0"}
    block = boot_loader.pack(values)
    assert len(block) == boot_loader.BLOCK
    assert boot_loader.parse(block) == Environment(3, True, 0)


@pytest.mark.parametrize(
    "block", [b"", bytes(1024), boot_loader.pack({}), boot_loader.pack({"mender_boot_part": "x"})]
)
def test_anything_else_is_no_environment(block: bytes) -> None:
    assert boot_loader.parse(block) is None


BOOT, UP = "\x1b[1;1Hboard: GRUB boots slot 2\n", "board: up slot=2\n"


@pytest.mark.parametrize(
    ("console", "wanted"),
    [("", (0, None)), (BOOT, (1, None)), (BOOT + UP, (1, 1)), (BOOT + BOOT + UP + BOOT + UP, (3, 2))],
)
def test_boots_are_counted_until_the_first_system_is_up(console: str, wanted: tuple[int, int | None]) -> None:
    assert boots(console) == wanted


@pytest.mark.parametrize(
    ("history", "right", "has_log", "problems"),
    [
        (["downloading", "installing", "success"], SUCCESS, False, 0),
        (["installing", "success", "success"], SUCCESS, False, 0),
        (["installing", "failure"], EITHER, True, 0),
        (["installing", "failure"], EITHER, False, 1),
        (["installing", "failure"], SUCCESS, True, 1),
        (["installing", "failure", "success"], EITHER, True, 1),
        (["installing"], SUCCESS, False, 1),
        (["installing", "success", "downloading"], SUCCESS, False, 1),
    ],
)
def test_a_device_reports_one_final_status_and_the_right_one(
    history: list[str], right: frozenset[str], has_log: bool, problems: int
) -> None:
    assert len(history_problems(history, right, has_log)) == problems
