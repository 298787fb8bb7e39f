"""Change one thing of the core at a time, and see whether a test fails: `make mutants`.

The mutants are those of mutmut's operators. Each is written into a copy of the tree, so that the processes of
the client run it as well. The tests that run the changed line judge it, the fastest first. Results are kept
in build/mutants: an interrupted run continues, and a killed mutant is not run again until its file changes.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from forge import warm_up
from judge import BUILD, HERE, ROOT, Worker, record, try_all
from mutate import PACKAGE, Mutant, mutants_of

MODULES = {
    "plan": ["plan.py"],
    "resume": ["resume.py"],
    "state": ["state.py"],
    "server": ["server.py", "answers.py"],
    "artifact": ["artifact/verify.py", "artifact/header_json.py"],
    "tar": ["artifact/tar.py", "artifact/tar_header.py"],
    "steps": ["steps/*.py", "partial_download.py"],
}
"""The mutated files of each module."""

TESTS = {
    "plan": "plan pauses",
    "resume": "resume download",
    "state": "state report check authorize",
    "server": "answers authorize check download inventory reply report",
    "artifact": "artifact/*",
    "tar": "artifact/*",
    "steps": "authorize check download identity install inventory liveness owner pauses report storages",
}
"""The test files that belong to each module."""


def tests_of(modules: Iterable[str]) -> list[Path]:
    """List the test files of some modules, each once."""
    names = [name for module in modules for name in TESTS[module].split()]
    directories_and_names = [name.rpartition("/")[::2] for name in names]
    return found_by(
        ROOT / "tests", [f"**/{place or '.'}/test_{name}.py" for place, name in directories_and_names]
    )


def found_by(directory: Path, patterns: Iterable[str]) -> list[Path]:
    """List the files that match; raises `SystemExit` for a pattern without any, because of a file renamed."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        some = sorted(directory.glob(pattern))
        if not some:
            raise SystemExit(f"There is no {directory}/{pattern}; correct the tables in .ci/mutation/run.py.")
        found |= dict.fromkeys(some)
    return list(found)


def known_equivalent() -> dict[tuple[str, str], str]:
    """Read the mutants that change nothing a user can see, with the reason of each."""
    found = {}
    for part in (HERE / "equivalent").read_text().split("\n\n"):
        rows = [row for row in part.splitlines() if row and not row.startswith("#")]
        if rows:
            change = [row for row in rows[1:] if row[:1] in "+-"]
            reason = " ".join(row.strip() for row in rows[1:] if row[:1] == " ")
            found[rows[0], "\n".join(_plain(change))] = reason
    return found


def _plain(diff: Iterable[str]) -> list[str]:
    return [f"{row[0]} {row[1:].strip()}" for row in diff]


def main() -> int:
    """Run what was asked for, and print the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="mutants of each module; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="modules, separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    chosen: list[Mutant] = []
    made: dict[str, int] = {}
    modules = asked.only.split(",") if asked.only else list(MODULES)
    for module in modules:
        files = found_by(PACKAGE, MODULES[module])
        made[module], found = mutants_of(module, files, asked.sample, asked.seed)
        chosen += found
    warm_up()
    workers = [Worker(number) for number in range(asked.jobs)]
    tests = record(workers, tests_of(modules))
    results = try_all(workers, tests, chosen)
    report(made, chosen, results)
    for worker in workers:
        shutil.rmtree(worker.temporary, ignore_errors=True)
    return 0


def report(made: dict[str, int], chosen: list[Mutant], results: dict[str, str]) -> None:
    """Print each survivor, then the table."""
    equivalent = known_equivalent()
    rows: list[tuple[str, list[int]]] = []
    for module, count in made.items():
        tried = [mutant for mutant in chosen if mutant.module == module]
        left = [mutant for mutant in tried if results[mutant.key] == "survived"]
        excused = [m for m in left if (m.path, "\n".join(_plain(m.diff.splitlines()))) in equivalent]
        for mutant in left:
            if mutant not in excused:
                print(f"\nSURVIVED  {mutant.path}:{(mutant.lines or (0,))[0]}\n{mutant.diff}")
        rows.append(
            (module, [count, len(tried), len(tried) - len(left), len(left) - len(excused), len(excused)])
        )
    rows.append(("all", [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]))
    print("\n| module | mutants | tried | killed | survived | equivalent | score |")
    print("|---|---|---|---|---|---|---|")
    for module, numbers in rows:
        score = 100 * numbers[2] / max(numbers[2] + numbers[3], 1)
        print(f"| {module} | {' | '.join(map(str, numbers))} | {score:.0f} % |")


if __name__ == "__main__":
    sys.exit(main())
