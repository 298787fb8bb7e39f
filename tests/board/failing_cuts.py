"""Power cuts while a board returns from a release that fails its health check."""

from collections.abc import Sequence

from . import failing, replay, write_log
from .boot_loader import Environment
from .build import Built
from .judge import judge
from .machine import cpu_seconds
from .recording import environments, record
from .server import BoardServer

RELEASE = "check"


def run(built: Built, size: int, seed: int) -> int:
    """Cut the power at a seeded choice of points from the trial on, and return an exit code."""
    directory = failing.build(built, [RELEASE])
    recording = record(built, bad=directory / f"bad-{RELEASE}.mender")
    log = write_log.read(recording.log)
    changes = environments(built.disk, log)
    found = list(replay.cuts(log.entries, tried(changes), recording.idle, seed))
    chosen = replay.sample(found, size, seed, lambda point: str(sum(n < point for n, _ in changes)))
    print(f"From the trial on, the power can be cut in {len(found)} ways that leave different disks.")
    wrong = 0
    server = BoardServer(directory / "server")
    recording.give_keys(server)
    board = recording.directory / "board.img"
    with server:
        for cut in chosen:
            replay.replay(log, built.disk, board, cut)
            snapshot = recording.server_at(cut.point)
            verdict, console = judge(board, built, server, snapshot, recording.deployment, failing.FAILURE)
            print(f"{cut}: {verdict.status} after {verdict.boots} boots", flush=True)
            if verdict.problems:
                wrong += 1
                (recording.directory / f"{cut}.txt").write_text(console)
                print("".join(f"    WRONG: {problem}\n" for problem in verdict.problems), end="", flush=True)
    board.unlink(missing_ok=True)
    print(f"{len(chosen)} cuts, {len(chosen) - wrong} survived, {cpu_seconds():.0f} s of CPU time.")
    return 1 if wrong or not chosen else 0


def tried(changes: Sequence[tuple[int, Environment]]) -> int:
    """Return the entry by which GRUB noted the trial; raise LookupError if there was no return from it."""
    trial = next((n for n, env in changes if env.upgrade_available and env.bootcount), None)
    if trial is None or not any(n > trial and not env.upgrade_available for n, env in changes):
        raise LookupError(f"this was no update that was tried and rolled back: {changes}")
    return trial
