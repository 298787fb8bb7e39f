"""Many power cuts, one after the other or side by side: resumable, with progress and an estimate.

Of the cuts that leave the same state only one is tried.
"""

import json
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import expected, replay, write_log
from .build import Built
from .judge import judge
from .recording import Recording
from .server import BoardServer
from .states import Group
from .write_log import Entry


@dataclass
class Survey:
    """The cuts of one recorded update; what has been judged is in `results.jsonl` and not judged again."""

    built: Built
    recording: Recording
    course: expected.Course
    show: bool = False
    _until_wrong: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path:
        """The file with a line for each state that was judged."""
        return self.recording.directory / "results.jsonl"

    def results(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each state."""
        if not self.path.exists():
            return {}
        lines = [line for line in self.path.read_text().splitlines() if line.endswith("}")]
        return {found["state"]: found for found in map(json.loads, lines)}

    def run(self, groups: Sequence[Group], jobs: int, *, until_wrong: bool = False) -> list[dict[str, Any]]:
        """Judge one cut of each group, `jobs` at a time, and return what is known of them.

        With `until_wrong`, no more are tried after one that found something wrong.
        """
        self._until_wrong = until_wrong
        known = self.results()
        left: queue.SimpleQueue[Group] = queue.SimpleQueue()
        for group in groups:
            if group.state not in known:
                left.put(group)
        progress = _Progress(left.qsize(), len(groups), jobs)
        servers = [BoardServer(self.built.server) for _ in range(jobs)]
        workers = [
            threading.Thread(target=self._work, args=(number, server, left, progress))
            for number, server in enumerate(servers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        known = self.results()
        return [known[group.state] for group in groups if group.state in known]

    def _work(
        self, number: int, server: BoardServer, left: "queue.SimpleQueue[Group]", progress: "_Progress"
    ) -> None:
        self.recording.give_keys(server)
        log = write_log.read(self.recording.log)
        board = self.recording.directory / f"board-{number}.img"
        with server:
            while True:
                try:
                    group = left.get_nowait()
                except queue.Empty:
                    break
                began, cut = time.monotonic(), group.cuts[0]
                replay.replay(log, self.built.disk, board, cut)
                verdict, console = judge(
                    board,
                    self.built,
                    server,
                    self.recording.server_at(cut.point),
                    self.recording.deployment,
                    self._right(group, log.entries),
                    show=self.show,
                )
                seconds = time.monotonic() - began
                found = {
                    "state": group.state,
                    "cut": str(cut),
                    "cuts": len(group.cuts),
                    "phase": self.course.phase(cut.point),
                    **verdict._asdict(),
                    "seconds": round(seconds),
                }
                with self._lock:
                    self._note(found, console)
                    progress.print(found)
                if found["problems"] and self._until_wrong:
                    break
        board.unlink(missing_ok=True)

    def _right(self, group: Group, entries: Sequence[Entry]) -> frozenset[str]:
        """Return the statuses that are right after every cut of a group."""
        return frozenset.intersection(*(expected.statuses(self.course, entries, cut) for cut in group.cuts))

    def _note(self, found: dict[str, Any], console: str) -> None:
        if found["problems"]:
            path = self.recording.directory / "failures" / f"{found['cut']}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join([*found["problems"], "", console]))
        with self.path.open("a") as file:
            file.write(json.dumps(found) + "\n")


class _Progress:
    """Prints one line for each cut, with an estimate of the time that is left."""

    def __init__(self, left: int, total: int, jobs: int) -> None:
        self._left, self._total, self._jobs = left, total, jobs
        self._seconds: list[float] = []

    def print(self, found: dict[str, Any]) -> None:
        self._left -= 1
        self._seconds.append(found["seconds"])
        left = self._left * sum(self._seconds) / len(self._seconds) / self._jobs
        print(
            f"{self._total - self._left}/{self._total} {found['cut']} "
            f"({found['phase']}, stands for {found['cuts']}): {found['status']}, "
            f"{found['boots']} boots, {found['seconds']} s; about {left / 60:.0f} min left",
            flush=True,
        )
        for problem in found["problems"]:
            print(f"    WRONG: {problem}", flush=True)
