"""Try each mutant in a copy of the tree, by the tests that run the changed line."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import plugin
import pytest
from mutate import Mutant

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "mutants"

SECONDS = 90.0
"""Of the tests that run a line, those that take so long in all judge it; the fastest first."""
LIMIT = 240.0
"""Time limit for one mutant; one that exceeds it is killed."""


Job = TypeVar("Job")


class Tests(NamedTuple):
    """What the tests do on the unchanged tree."""

    seconds: dict[str, float]
    lines: dict[str, dict[str, set[int]]]

    def for_mutant(self, mutant: Mutant) -> dict[str, float]:
        """Return the tests that run the changed line, as far as the time allows, with their durations."""
        ran = [
            test
            for test, files in self.lines.items()
            if test in self.seconds
            and mutant.path in files
            and (not mutant.lines or not files[mutant.path].isdisjoint(mutant.lines))
        ]
        chosen: dict[str, float] = {}
        for test in sorted(ran, key=lambda test: self.seconds[test]):
            if sum(chosen.values()) + self.seconds[test] > SECONDS and chosen:
                break
            chosen[test] = self.seconds[test]
        return chosen


class Worker:
    """A copy of the tree, in which one mutant after the other is tried."""

    def __init__(self, number: int) -> None:
        self.tree = BUILD / f"tree-{number}"
        self.temporary = Path(tempfile.gettempdir(), f"mutants-{os.getpid()}-{number}")
        self._time = time.time()
        shutil.rmtree(self.tree, ignore_errors=True)
        leave = shutil.ignore_patterns(
            ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
        )
        shutil.copytree(ROOT, self.tree, ignore=leave, symlinks=True)

    def record(self, file: str, report: Path) -> None:
        """Run a test file on the unchanged tree."""
        (self.tree / "sitecustomize.py").write_text(plugin.TRACER.format(here=str(HERE)))
        code = self._fork(report, [file], None, 1200.0)
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:  # all of them need a real program
            for path in (report, Path(f"{report}.lines")):
                path.touch()
        for name in ("sitecustomize.py", "trace.json"):
            (self.tree / name).unlink(missing_ok=True)

    def judge(self, mutant: Mutant, tests: dict[str, float]) -> str:
        """Return "killed", "timed out" or "survived"."""
        if not tests:
            return "survived"
        path = self.tree / "mender_oneshot" / mutant.path
        original = path.read_text()
        self._write(path, mutant.text)
        try:
            files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
            code = self._fork(BUILD / f"{self.tree.name}.jsonl", files, tests, LIMIT)
        finally:
            self._write(path, original)
        if code is None:
            return "timed out"
        return "survived" if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else "killed"

    def control(self, tests: dict[str, float]) -> None:
        """Raise `RuntimeError` if tests fail on the unchanged tree: every mutant would look killed."""
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        report = BUILD / f"{self.tree.name}.jsonl"
        if self._fork(report, files, tests, LIMIT) != pytest.ExitCode.OK:
            raise RuntimeError(f"Tests fail without a mutant; see {report}.out")

    def _write(self, path: Path, text: str) -> None:
        """Write a file with a time that it has not had before, which tells it from its byte code."""
        path.write_text(text)
        self._time += 2
        os.utime(path, (self._time, self._time))

    def _fork(
        self, report: Path, files: list[str], wanted: dict[str, float] | None, limit: float
    ) -> int | None:
        report.unlink(missing_ok=True)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 3
            try:
                os.setsid()
                output = os.open(f"{report}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(output, 1)
                os.dup2(output, 2)
                code = plugin.run(self.tree, report, files, wanted, self.temporary)
            except BaseException:  # noqa: BLE001  # ends a process
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        end = time.monotonic() + limit
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                self._kill(child)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        self._kill(child)
        os.waitpid(child, 0)
        return None

    @staticmethod
    def _kill(group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return


def share(workers: list[Worker], jobs: Sequence[Job], do: Callable[[Worker, Job], object]) -> None:
    """Let each worker, in a process of its own, take one job after the other."""
    numbers, queue = os.pipe()
    fcntl.fcntl(queue, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(queue, b"".join(b"%7d\n" % number for number in range(len(jobs))))
    os.close(queue)
    children = []
    for worker in workers:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                while number := os.read(numbers, 8):
                    do(worker, jobs[int(number)])
                    sys.stdout.flush()
                code = 0
            except BaseException:  # noqa: BLE001  # ends a process
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    os.close(numbers)
    for child in children:
        if os.waitpid(child, 0)[1]:
            sys.exit("A worker has failed.")


def record(workers: list[Worker], files: list[Path]) -> Tests:
    """Record which lines each test runs; again only if its file, a helper or the client has changed."""
    common = hashlib.sha256()
    for path in sorted(
        [*ROOT.glob("mender_oneshot/**/*.py"), *ROOT.glob("tests/helpers/*.py"), ROOT / "tests/conftest.py"]
    ):
        common.update(path.read_bytes())
    reports = {}
    for path in files:
        digest = common.copy()
        digest.update(path.read_bytes())
        reports[str(path.relative_to(ROOT))] = BUILD / f"{path.stem}-{digest.hexdigest()[:12]}.jsonl"
    todo = [file for file, report in reports.items() if not report.exists()]
    print(f"Recording which lines {len(todo)} of {len(files)} test files run ...", flush=True)

    def one(worker: Worker, file: str) -> None:
        new = BUILD / f"{worker.tree.name}-new.jsonl"
        Path(f"{new}.lines").unlink(missing_ok=True)
        worker.record(file, new)
        if not new.exists():
            raise RuntimeError(f"{file} cannot be run; see {new}.out")
        Path(f"{new}.lines").replace(f"{reports[file]}.lines")
        new.replace(reports[file])
        print(f"  {file}")

    share(workers, todo, one)
    return _read(report for report in reports.values() if report.exists())


def _read(reports: Iterable[Path]) -> Tests:
    seconds: dict[str, float] = {}
    failed: set[str] = set()
    lines: dict[str, dict[str, set[int]]] = {}
    for report in reports:
        for line in map(json.loads, report.read_text().splitlines()):
            seconds[line["test"]] = seconds.get(line["test"], 0) + line["seconds"]
            if line["outcome"] != "passed":
                failed.add(line["test"])
        for line in map(json.loads, Path(f"{report}.lines").read_text().splitlines()):
            files = lines.setdefault(line["test"], {})
            for name, numbers in line["lines"].items():
                files.setdefault(name, set()).update(numbers)
    usable, took = len(seconds) - len(failed), sum(seconds.values())
    print(f"{usable} tests take {took:.0f} s; {len(failed)} fail while they are recorded, and are not used.")
    return Tests({test: took for test, took in seconds.items() if test not in failed}, lines)


def try_all(workers: list[Worker], tests: Tests, chosen: list[Mutant]) -> dict[str, str]:
    """Judge each mutant that was not killed before."""
    store = BUILD / "results.jsonl"
    killed = {key for key, result in _results(store).items() if result != "survived"}
    todo = [mutant for mutant in chosen if mutant.key not in killed]
    print(f"{len(chosen)} mutants, {len(chosen) - len(todo)} of them killed before.", flush=True)

    share(workers, [tests.for_mutant(mutant) for mutant in todo[:: len(todo) // 3 or 1]], Worker.control)

    def one(worker: Worker, mutant: Mutant) -> None:
        began = time.monotonic()
        for_it = tests.for_mutant(mutant)
        result = worker.judge(mutant, for_it)
        took = time.monotonic() - began
        print(f"{took:5.1f} s  {result:9}  {mutant.path}:{(mutant.lines or (0,))[0]}, {len(for_it)} tests")
        if result == "survived":
            print(mutant.diff)
        with store.open("a") as file:
            file.write(json.dumps([mutant.key, result]) + "\n")

    share(workers, todo, one)
    return _results(store)


def _results(store: Path) -> dict[str, str]:
    return dict(map(json.loads, store.read_text().splitlines())) if store.exists() else {}
