"""`make board` and `make board-cut`: one update on the virtual board, or many with their power cut."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence

from . import (
    broken,
    disk,
    expected,
    failing,
    failing_cuts,
    poor_network,
    replay,
    states,
    time_line,
    write_log,
)
from .build import NEW, Built, build
from .layout import REPO
from .machine import Machine, cpu_seconds
from .recording import Recording, environments, record, requests
from .server import BoardServer
from .slots import problems_of
from .survey import Survey
from .update import update

LEAST_WRITES = 60
"""An update with fewer writes between its offer and its end was not recorded as a whole."""
LEAST_CUTS = 10

_PROGRAMS = (
    "qemu-system-x86_64",
    "grub-mkimage",
    "mmdebstrap",
    "mender-artifact",
    "busybox",
    "mke2fs",
    "sfdisk",
)


def main(words: Sequence[str]) -> int:
    """Run a command, and return its exit code."""
    parser = argparse.ArgumentParser(prog="board", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("update")
    cut = commands.add_parser("cut")
    cut.add_argument("--all", action="store_true")
    cut.add_argument("--sample", type=int, default=24)
    cut.add_argument("--seed", type=int, default=1)
    cut.add_argument("--jobs", type=int, default=1)
    cut.add_argument("--phase", choices=expected.PHASES)
    cut.add_argument("--only", help="one cut by its name, with its console")
    cut.add_argument("--broken", choices=sorted(broken.CLIENTS))
    fail = commands.add_parser("fail")
    fail.add_argument("--only", choices=failing.RELEASES)
    fail.add_argument("--cuts", type=int, default=0, help="cut the power this often in a return instead")
    fail.add_argument("--seed", type=int, default=1)
    commands.add_parser("poor-network")
    commands.add_parser("picture")
    options = parser.parse_args(words)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [program for program in _PROGRAMS if not shutil.which(program, path=path)]:
        print(f"The board needs programs that are not installed: {', '.join(missing)} (docs/board.md).")
        return 69
    if options.command == "fail":
        if options.cuts:
            return failing_cuts.run(build(), options.cuts, options.seed)
        return failing.run(build(), [options.only] if options.only else list(failing.RELEASES))
    if options.command == "poor-network":
        return poor_network.run(build())
    if options.command == "picture":
        return _picture()
    return _update() if options.command == "update" else _cut(options)


def _update() -> int:
    """Run one whole update, with the console on stdout."""
    built = build()
    board = built.directory / "board.img"
    disk.copy(built.disk, board)
    with BoardServer(built.server) as server:
        with Machine(board, server.ports, show=True) as machine:
            deployment = update(server, machine, built.artifact(NEW))
        status = server.status(deployment)
        history = server.status_history(deployment)
        log = server.log(deployment)
    problems = problems_of(board, built, status)
    print(f"\nThe server received {', '.join(history)}; {cpu_seconds():.0f} s of CPU time.")
    for line in (log or []) if status != "success" else []:
        print(line.get("message", ""))
    for problem in problems:
        print(problem)
    return 0 if status == "success" and not problems else 1


def _cut(options: argparse.Namespace) -> int:
    """Cut the power at many points of an update."""
    client = broken.CLIENTS.get(options.broken)
    built = build(client.change, options.broken) if client else build()
    recording = record(built)
    log = write_log.read(recording.log)
    course = _course(built, recording, log)
    inside = list(range(recording.offered, recording.idle + 1))
    counts = expected.require_enough(course, inside, LEAST_WRITES)
    print(f"The update has {len(inside)} writes and flushes: {counts}.")
    found = list(replay.cuts(log.entries, recording.offered, recording.idle, options.seed))
    phase = options.phase or (client and client.phase)
    if phase:
        found = [cut for cut in found if course.phase(cut.point) == phase]
    print(f"The power can be cut in {len(found)} ways that leave different disks.", flush=True)
    if options.only:
        chosen = [cut for cut in found if str(cut) == options.only]
    elif options.all:
        chosen = found
    else:
        at_flushes = [cut for cut in found if replay.at_flush(log.entries, cut)]
        chosen = replay.sample(at_flushes, options.sample, options.seed, course.phase)
    if not (phase or options.only):
        expected.require_enough(course, [cut.point for cut in chosen], LEAST_CUTS)
    if not chosen:
        print("There is no such cut.")
        return 64
    groups = states.groups(built, recording, log, chosen)
    if client:
        # Late in its phase the fault has happened.
        groups.reverse()
    print(f"{len(chosen)} of them are tried; they leave {len(groups)} different boards.", flush=True)
    survey = Survey(built, recording, course, show=bool(options.only))
    results = survey.run(groups, options.jobs, until_wrong=bool(client))
    wrong = [result for result in results if result["problems"]]
    if not client and len(results) < len(groups):
        print(f"{len(groups) - len(results)} cuts were not judged; the reason is above.")
        return 1
    survived = len(results) - len(wrong)
    print(
        f"{len(chosen)} cuts, {len(results)} different boards, {survived} survived, "
        f"{sum(result['boots'] for result in results)} boots."
    )
    for result in wrong:
        print(f"{result['cut']} ({result['phase']}): {'; '.join(result['problems'])}")
    if client:
        print("The broken client was caught." if wrong else "The broken client was NOT caught.")
    return int(bool(wrong) != bool(client))


def _picture() -> int:
    """Draw the recorded update for the documents."""
    built = build()
    recording = record(built)
    log = write_log.read(recording.log)
    course, changes = _course(built, recording, log), environments(built.disk, log)
    path = REPO / "docs/pictures/writes.svg"
    path.write_text(time_line.draw(log.entries, recording.offered, recording.idle, course, changes))
    return 0


def _course(built: Built, recording: Recording, log: write_log.WriteLog) -> expected.Course:
    (recording.directory / "requests.txt").write_text(requests(recording.moments))
    installing, rebooting = (recording.reported(status) for status in ("installing", "rebooting"))
    if installing is None or rebooting is None:
        raise LookupError("the recorded update was not installed")
    return expected.course(installing, rebooting, environments(built.disk, log))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
