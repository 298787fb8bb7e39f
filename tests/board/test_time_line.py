"""The picture of one update."""

import re
from xml.etree import ElementTree

import pytest

from board import time_line
from board.boot_loader import Environment
from board.expected import PHASES, Course
from board.layout import DATA, LOADER, MIB, ROOT_A, ROOT_B
from board.time_line import Span
from board.write_log import FLUSH, Entry

COURSE = Course(installing=10, rebooting=20, trial=30, committed=40)
CHANGES = [
    (15, Environment(3, True, 0)),
    (30, Environment(3, True, 1)),
    (40, Environment(3, False, 1)),
]
PLACES = {15: LOADER.start, 30: LOADER.start, 40: LOADER.start}
ENTRIES = [
    Entry(0, 0, FLUSH, 0)
    if number % 5 == 4
    else Entry(PLACES.get(number, (ROOT_B if number < 15 else DATA).start), 4096, 0, 0)
    for number in range(60)
]


@pytest.mark.parametrize(
    ("environment", "slot"),
    [
        (Environment(2, False, 0), 2),
        (Environment(3, True, 0), 3),
        (Environment(3, True, 1), 2),
        (Environment(2, True, 1), 3),
        (Environment(3, False, 1), 3),
    ],
)
def test_grub_ends_a_trial_at_its_second_boot(environment: Environment, slot: int) -> None:
    assert time_line.boots(environment) == slot


def test_the_new_system_comes_up_from_its_installation_to_its_trial_and_from_its_commit() -> None:
    assert time_line.spans(CHANGES, 5, 50, 3) == [
        Span(5, 15, False),
        Span(16, 30, True),
        Span(31, 40, False),
        Span(41, 50, True),
    ]


def test_the_picture_has_a_line_for_each_write_and_flush_of_the_update() -> None:
    picture = ElementTree.fromstring(time_line.draw(ENTRIES, 5, 50, COURSE, CHANGES))  # noqa: S314
    paths = {
        kind: "".join(path.get("d", "") for path in picture.iter() if path.get("class") == kind).count("M")
        for kind in ("write", "flush")
    }
    assert paths == {"write": 36, "flush": 9}


def test_the_picture_names_the_phases_and_the_moments_in_their_order() -> None:
    picture = time_line.draw(ENTRIES, 5, 50, COURSE, CHANGES)
    assert re.findall(r'class="phase".*>(.*)</text>', picture) == list(PHASES)
    assert re.findall(r'class="next".*>(.*)</text>', picture) == ["old", "new", "old", "new"]
    assert re.findall(r"Write (\d+), (\S+)", picture) == [
        ("10", "upgrade_available=1:"),
        ("25", "GRUB"),
        ("35", "upgrade_available=0:"),
    ]


def test_a_write_is_as_high_as_its_place_in_the_partition() -> None:
    low, high = (
        time_line.draw([Entry(ROOT_A.start + at, 512, 0, 0)], 0, 1, COURSE, CHANGES) for at in (0, 28 * MIB)
    )
    at_low, at_high = (float(re.findall(r'd="M126.0 ([\d.]+)v5', picture)[0]) for picture in (low, high))
    assert at_high > at_low
