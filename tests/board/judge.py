"""What must hold after a power cut, without a hand."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.artifacts import make_artifact

from mender_oneshot.devserver.operations import Snapshot

from . import slots
from .build import DEVICE_TYPE, Built
from .machine import Machine, TimedOut
from .server import BoardServer
from .update import FINAL, add_artifact, wait_final, wait_idle

BOOT_SECONDS = 300.0
SETTLE_SECONDS = 600.0
BOOTS = 2
APP = "app-1"

_EMPTY_AT_REST = ("deployment", "installing", "installation", "failures", "queued_results", "trouble")


class Verdict(NamedTuple):
    """What became of a board: the final status, the boots until it was up and in all, and what is wrong."""

    status: str
    boots_until_up: int
    boots: int
    problems: tuple[str, ...]


class Boots(NamedTuple):
    """The boots that a console shows: how many in all, and how many until the first system was up."""

    total: int
    until_up: int | None


def boots(console: str) -> Boots:
    """Count the boots on a console."""
    found = re.findall(r"^.*board: (GRUB boots|up )", console, re.MULTILINE)
    until_up = found[: found.index("up ")].count("GRUB boots") if "up " in found else None
    return Boots(found.count("GRUB boots"), until_up)


def history_problems(history: Sequence[str], right: frozenset[str], has_log: bool) -> list[str]:
    """Return what is wrong with the statuses that a device reported for one deployment."""
    finals = [status for status in history if status in FINAL]
    problems = []
    if len(set(finals)) != 1:
        problems.append(f"not one final status: {list(history)}")
    elif finals[0] not in right:
        problems.append(f"the final status is {finals[0]}, right is {' or '.join(sorted(right))}")
    # A status whose answer was lost in the cut is sent again; nothing else may follow it.
    first = next((n for n, status in enumerate(history) if status in FINAL), len(history))
    if any(status not in FINAL for status in history[first:]):
        problems.append(f"something was reported after the final status: {list(history)}")
    if finals[-1:] == ["failure"] and not has_log:
        problems.append("a failure without a log")
    return problems


def judge(
    board: Path,
    built: Built,
    server: BoardServer,
    snapshot: Snapshot,
    deployment: str,
    right: frozenset[str],
    *,
    show: bool = False,
) -> tuple[Verdict, str]:
    """Switch a board on and return the verdict, and its console; the disk is changed."""
    server.restore(snapshot)
    problems: list[str] = []
    with Machine(board, server.ports, show=show) as machine:
        try:
            machine.wait("board: up ", BOOT_SECONDS)
            wait_final(server, deployment, machine, SETTLE_SECONDS)
            wait_idle(machine)
            problems += at_rest(machine)
            problems += _update_again(server, machine, built)
        except TimedOut as error:
            problems.append(str(error).splitlines()[0])
        console = machine.console
    counted = boots(console)
    if counted.until_up is None or counted.until_up > BOOTS:
        problems.append(f"{counted.until_up or counted.total} boots until it was up")
    history = server.status_history(deployment) if snapshot.deployments[deployment].devices else []
    problems += history_problems(history, right, bool(history) and server.log(deployment) is not None)
    status = history[-1] if history else "none"
    problems += slots.problems_of(board, built, status)
    if "Traceback" in console:
        problems.append("a traceback on the console")
    return Verdict(status, counted.until_up or 0, counted.total, tuple(problems)), console


def at_rest(machine: Machine) -> list[str]:
    """Return what the board's own commands find wrong."""
    problems = []
    code, answer = machine.ask("mender-oneshot status --json")
    if code or not answer.startswith("{"):
        problems.append(f"status ends with {code}: {answer[-300:]}")
    else:
        known = json.loads(answer)
        left = {name: known[name] for name in _EMPTY_AT_REST if known[name]}
        problems += [f"status has {left}"] if left else []
    code, answer = machine.ask("mender-oneshot doctor")
    if code:
        wrong = [line for line in answer.splitlines() if not line.startswith("ok")]
        problems.append(f"doctor ends with {code}: {' '.join(wrong)[:600]}")
    _, reported = machine.ask("mender-oneshot show-artifact")
    _, runs = machine.ask("sed s/artifact_name=// /etc/mender/artifact_info")
    if reported != runs:
        problems.append(f"{reported!r} is reported, but {runs!r} runs")
    return problems


def _update_again(server: BoardServer, machine: Machine, built: Built) -> list[str]:
    """Deploy a small update, and return what is wrong with it."""
    artifact = built.directory / f"{APP}.mender"
    if not artifact.exists():
        payload = {
            "dest_dir": b"/var/lib/mender",
            "filename": b"app",
            "permissions": b"644",
            "app": b"app-1\n",
        }
        make_artifact(
            artifact, name=APP, device_types=(DEVICE_TYPE,), payload=payload, payload_type="single-file"
        )
    add_artifact(server, artifact)
    deployment = server.deploy(APP)
    status = wait_final(server, deployment, machine, SETTLE_SECONDS)
    return [] if status == "success" else [f"the next update ended with {status}: {server.log(deployment)}"]
