"""Whether the system is shutting down, by the answers of its init process."""

from pathlib import Path

import pytest

from mender_oneshot.installer import reboot

# What the programs print; on each init system, others are asked.
DOWN = {"systemctl": "stopping", "busctl": "b true", "runlevel": "2 6"}
DELAYED = {"systemctl": "running", "busctl": "b true", "runlevel": "5 0"}
UP = {"systemctl": "running", "busctl": "b false", "runlevel": "N 2"}
BUSYBOX = {"runlevel": "unknown"}


@pytest.mark.parametrize(
    ("answers", "expected"), [(DOWN, True), (DELAYED, True), (UP, False), (BUSYBOX, False), ({}, False)]
)
def test_the_answers_of_init_tell_whether_it_is_shutting_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], expected: bool
) -> None:
    for name, answer in answers.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reboot.is_under_way() is expected
