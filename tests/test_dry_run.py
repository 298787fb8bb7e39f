"""`run --dry-run`: what a run would do now and what is due when; nothing is requested and nothing written."""

import math
import os
import pty
import subprocess
from pathlib import Path

import pytest
from helpers.device import Device, Release, newest_only

from mender_oneshot.devserver import DevServer
from mender_oneshot.dry_run import Due, lines
from mender_oneshot.state import Deployment, Handoff, State

UPDATE = Deployment("1", "a", "release-2", "")


def files(device: Device) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in device.root.rglob("*")
        if path.is_file()
    }


@newest_only
@pytest.mark.parametrize(
    "words", ["", "--all", "--force --all", "--only update", "--only inventory", "--json"]
)
def test_nothing_is_requested_and_nothing_written(device: Device, server: DevServer, words: str) -> None:
    before = files(device)
    server.stop()
    done = device.ok("run", "--dry-run", *words.split())
    assert done.err == ""
    assert "authorize" in done.out or "auth" in done.out
    assert files(device) == before


@newest_only
def test_what_is_due_and_when(accepted: Device, release: Release) -> None:
    assert accepted.ok("run", "--dry-run").out == (
        "Would check for an update now.\n"
        "The inventory is due as well; with --all, the same run continues with it.\n"
    )
    accepted.ok("run", "--all")
    first, *rest = accepted.ok("run", "--dry-run", "--all").out.splitlines()
    assert first == "Would do nothing now."
    assert [line.rpartition(" in ")[0] for line in rest] == [
        "The check for an update is due",
        "The inventory is due",
    ]
    assert accepted.ok("run", "--dry-run", "--all", "--force").out == (
        "Would check for an update and send the inventory now.\n"
    )
    assert accepted.ok("run", "--dry-run", "--force", "--only", "inventory").out == (
        "Would send the inventory now.\n"
    )
    answer = accepted.ok("run", "--dry-run", "--json").json
    assert answer["would_run"] is None
    assert [one["step"] for one in answer["due"]] == ["check-update", "send-inventory"]
    assert 1700 < answer["due"][0]["in_seconds"] <= 1800
    release()
    accepted.ok("check-update")
    assert accepted.ok("run", "--dry-run").out.splitlines()[0] == "Would download release-2 now."


@newest_only
def test_a_dry_run_agrees_with_the_run_that_follows(accepted: Device, release: Release) -> None:
    accepted.sub_updater()
    release()
    for _ in range(8):
        wanted = accepted.ok("run", "--dry-run", "--json").json["would_run"]
        steps = [step["step"] for step in accepted.ok("run", "--json").json["steps"]]
        assert steps == ([wanted] if wanted else [])


@newest_only
def test_a_person_is_shown_what_a_person_may_do(device: Device) -> None:
    """The back-off after a device was not accepted holds up a timer alone."""
    assert device.run("run").code == 77
    assert device.ok("run", "--dry-run").out.splitlines()[0] == "Would do nothing now."
    upper, lower = pty.openpty()
    command = [device.python, "-m", "mender_oneshot", "run", "--dry-run"]
    subprocess.run(command, env=device.env(), stdout=lower, check=True, cwd="/")
    os.close(lower)
    assert os.read(upper, 1000).startswith(b"Would authorize with the server now.")
    os.close(upper)


@newest_only
def test_without_a_server_it_fails_as_the_run(device: Device) -> None:
    device.configure(ServerURL="")
    assert device.run("run", "--dry-run").code == 78


@pytest.mark.parametrize(
    ("state", "step", "due", "all_steps", "wanted"),
    [
        (State(), "auth", [Due("auth", 0)], True,
         ["Would authorize with the server now, then what is due after that."]),
        (State(), "check-update", [Due("check-update", 0), Due("send-inventory", 0)], True,
         ["Would check for an update and send the inventory now."]),
        (State(), "check-update", [Due("check-update", 0), Due("send-inventory", 10800)], True,
         ["Would check for an update now.", "The inventory is due in 3 h 0 min."]),
        (State(deployment=UPDATE), "install", [Due("install", 0), Due("send-inventory", 60)], False,
         ["Would start the installation of release-2 now.", "The inventory is due in 60 s."]),
        (State(deployment=UPDATE), None, [Due("download", 59.2)], False,
         ["Would do nothing now.", "The download of release-2 is due in 60 s."]),
        (State(handoff=Handoff("1", "release-2", "boot", 0)), None, [Due("tidy", math.inf)], False,
         ["Would do nothing now.", "An update is being installed; every run waits for its result."]),
        (State(handoff=Handoff("1", "release-2", "boot", 0)), None, [Due("tidy", 14000)], False,
         ["Would do nothing now.",
          "An update is being installed; every run waits for its result, for 3 h 53 min at most."]),
    ],
)  # fmt: skip
def test_the_sentences(
    state: State, step: str | None, due: list[Due], all_steps: bool, wanted: list[str]
) -> None:
    assert lines(state, step, due, every_step=all_steps) == wanted
