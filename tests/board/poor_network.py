"""One good update in 1970, over a slow network that is cut, and with a power cut in the download."""

import re
import time
from collections.abc import Sequence

from . import disk, slots
from .build import NEW, Built
from .judge import at_rest
from .link import Link
from .machine import Machine, cpu_seconds
from .server import BoardServer
from .update import UPDATE_SECONDS, add_artifact, checks_for_updates, deploy, wait_final, wait_idle

CLOCK = "1970-01-01T00:00:00"
RATE = 1e6
MOST = 1.2
"""Bytes that the board may have been sent in all, as a multiple of the size of the artifact."""


def run(built: Built) -> int:
    """Run the update, with the console on stdout; return an exit code."""
    board = built.directory / "board.img"
    disk.copy(built.disk, board)
    size = built.artifact(NEW).stat().st_size
    with BoardServer(built.server) as server, Link(server.ports[1], RATE) as link:
        ports = (server.ports[0], link.port)
        add_artifact(server, built.artifact(NEW))
        with Machine(board, ports, show=True, clock=CLOCK) as machine:
            deployment = deploy(server, NEW)
            link.wait(size // 3, UPDATE_SECONDS)
            link.cut()
            print("\nThe network is cut.", flush=True)
            machine.wait("board: run ended", UPDATE_SECONDS, after=len(machine.console))
            link.restore()
            link.wait(size * 2 // 3, UPDATE_SECONDS)
        print("\nThe power is cut.", flush=True)
        with Machine(board, ports, show=True, clock=CLOCK) as machine:
            status = wait_final(server, deployment, machine, UPDATE_SECONDS)
            _, year = machine.ask("date +%Y")
            machine.ask(f"date -s @{time.time():.0f}")  # doctor rejects the other one
            seen = len(server.requests)
            machine.wait_until(
                lambda _: checks_for_updates(server, seen), "check for an update", UPDATE_SECONDS
            )
            wait_idle(machine)
            problems = at_rest(machine)
        history = server.status_history(deployment)
        ranges = [seen.headers.get("range") for seen in server.requests if seen.origin == "storage"]
        sent = link.forwarded
    problems += download_problems(ranges, sent, size) + slots.problems_of(board, built, status)
    problems += [] if status == "success" else [f"the final status is {status}: {server.log(deployment)}"]
    problems += [] if year == "1970" else [f"the year is {year}"]
    print(f"\nThe server received {', '.join(history)}; {cpu_seconds():.0f} s of CPU time.")
    print(
        f"It sent {sent} bytes of an artifact of {size}, from {', '.join(str(begin(r)) for r in ranges)} on."
    )
    print("\n".join(problems))
    return 1 if problems else 0


def download_problems(ranges: Sequence[str | None], sent: int, size: int) -> list[str]:
    """Return what is wrong with a download that was cut twice.

    `ranges` are the Range headers of its requests, `sent` the bytes that the board was sent in all.
    """
    starts = [begin(value) for value in ranges]
    problems = []
    if len(starts) < 3 or 0 in starts[1:] or starts != sorted(starts):
        problems.append(f"the download was not resumed twice, but began at {starts}")
    if sent > MOST * size:
        problems.append(f"{sent} bytes were sent of an artifact of {size}")
    return problems


def begin(value: str | None) -> int:
    """Return the first byte that a Range header asks for, 0 without one."""
    found = re.fullmatch(r"bytes=(\d+)-\d*", value or "")
    return int(found[1]) if found else 0
