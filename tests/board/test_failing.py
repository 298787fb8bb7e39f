"""The releases that must fail, and what must hold of a board that has tried one."""

import shutil
from pathlib import Path

import pytest

from board import failing, failing_cuts
from board.boot_loader import Environment
from board.layout import HERE

GOOD = "The update to bad-check failed: The health check /etc/mender/checks.d/pump failed: no answer."


@pytest.mark.parametrize("name", failing.RELEASES)
def test_a_release_that_must_fail_differs_from_a_good_one(tmp_path: Path, name: str) -> None:
    shutil.copytree(HERE / "root", tmp_path, dirs_exist_ok=True)
    kernel = tmp_path / "boot/vmlinuz"
    kernel.parent.mkdir()
    kernel.write_bytes(b"kernel" * 10_000)
    before = _files(tmp_path)
    failing.RELEASES[name].change(tmp_path)
    assert _files(tmp_path) != before


def _files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("log", "problems"), [([], 1), ([GOOD], 0), (["first", GOOD], 0), ([GOOD, "something else"], 1)]
)
def test_the_last_line_of_the_log_gives_the_reason(log: list[str], problems: int) -> None:
    assert len(failing.log_problems(log, "checks.d/pump failed")) == problems


@pytest.mark.parametrize(
    ("statuses", "problems"), [([204], 0), ([204, 204], 0), ([204, 200], 1), ([401, 204], 0)]
)
def test_a_release_that_has_failed_is_not_offered_again(statuses: list[int], problems: int) -> None:
    assert len(failing.offer_problems(statuses)) == problems


NOTED, TRIED, RETURNED = Environment(3, True, 0), Environment(3, True, 1), Environment(2, False, 0)


def test_the_trial_begins_when_grub_has_noted_it() -> None:
    assert failing_cuts.tried([(5, NOTED), (7, TRIED), (9, RETURNED)]) == 7


@pytest.mark.parametrize("changes", [[], [(5, NOTED)], [(5, NOTED), (7, TRIED)], [(5, NOTED), (9, RETURNED)]])
def test_an_update_that_was_not_tried_or_not_rolled_back_is_rejected(
    changes: list[tuple[int, Environment]],
) -> None:
    with pytest.raises(LookupError):
        failing_cuts.tried(changes)
