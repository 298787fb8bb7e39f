"""`make board`: one update on the virtual board."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence

from . import disk
from .build import build
from .machine import Machine, cpu_seconds
from .server import BoardServer
from .slots import problems_of
from .update import update

_PROGRAMS = (
    *("busybox", "grub-mkimage", "mender-artifact", "mke2fs"),
    *("mmdebstrap", "qemu-system-x86_64", "sfdisk"),
)


def main(words: Sequence[str]) -> int:
    """Run a command, and return its exit code."""
    parser = argparse.ArgumentParser(prog="board", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("update")
    parser.parse_args(words)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [program for program in _PROGRAMS if not shutil.which(program, path=path)]:
        print(f"The board needs programs that are not installed: {', '.join(missing)} (docs/board.md).")
        return 69
    return _update()


def _update() -> int:
    """Run one whole update, with the console on stdout."""
    built = build()
    board = built.directory / "board.img"
    disk.copy(built.disk, board)
    with BoardServer(built.server) as server:
        with Machine(board, server.ports, show=True) as machine:
            deployment = update(server, machine, built)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
