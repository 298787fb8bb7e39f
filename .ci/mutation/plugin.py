"""The pytest plugin of a mutation run: the tests of one mutant, the fastest first, with cheap invocations."""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from forge import Forge, Lines

SPECIAL = ("PYTHON", "LC_", "LANG")
"""Variables that act when an interpreter starts: such an invocation needs one of its own."""


class Plugin:
    """Selects and orders tests, or without a selection records durations and lines of all."""

    def __init__(self, forge: Forge, report: Path, wanted: dict[str, float] | None) -> None:
        self.forge = forge
        self.report = report
        self.wanted = wanted
        self.test = ""
        self.lines = "" if wanted is not None else f"{report}.lines"

    def pytest_configure(self, config: pytest.Config) -> None:
        """Let the devices of the tests run their commands in forked processes."""
        from helpers import device, simulated_days

        usual, run_in_forge = device.Device.run, self._run

        def run(self: Any, *words: str, wrapper: tuple[str, ...] = (), **options: Any) -> Any:
            special = any(name.startswith(SPECIAL) for name in self.environment)
            if wrapper or special or set(options) - {"umask"}:
                return usual(self, *words, wrapper=wrapper, **options)
            return device.checked(run_in_forge(self, words, **options))

        device.Device.run = run
        simulated_days.Prompt.run = run

    def _run(self, device: Any, words: tuple[str, ...], umask: int = 0o022) -> Any:
        from helpers.device import Run

        out, err = device.root / "said.out", device.root / "said.err"
        job = {
            "words": words, "env": device.env(), "out": str(out), "err": str(err), "umask": umask,
            "test": self.test, "lines": self.lines,
        }  # fmt: skip
        code = self.forge.run(job)
        return Run(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests of this mutant, the fastest first."""
        if self.wanted is not None:
            wanted = self.wanted
            kept = [item for item in items if item.nodeid in wanted]
            items[:] = sorted(kept, key=lambda item: wanted[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Record the lines that a test runs, in this process and in those that it starts."""
        self.test = item.nodeid
        if not self.lines:
            return (yield)
        Path(self.forge.tree, "trace.json").write_text(json.dumps([self.lines, self.test]))
        lines = Lines(self.forge.tree, self.lines, self.test)
        lines.start()
        try:
            return (yield)
        finally:
            lines.stop()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write how long a test took, and how it ended."""
        line = {
            "test": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "seconds": report.duration,
        }
        with self.report.open("a") as file:
            file.write(json.dumps(line) + "\n")


TRACER = """
import atexit, json, pathlib, sys
place = pathlib.Path(__file__).parent
if (place / "trace.json").exists():
    sys.path.append({here!r})
    from forge import Lines
    sys.path.pop()
    lines = Lines(str(place), *json.loads((place / "trace.json").read_text()))
    atexit.register(lines.stop)
    lines.start()
"""
"""`sitecustomize` of a tree whose tests are recorded: the same for processes that tests start themselves."""


def run(tree: Path, report: Path, files: list[str], wanted: dict[str, float] | None, temporary: Path) -> int:
    """Run tests in this process, a fork of the warm one, and return pytest's exit code."""
    os.chdir(tree)
    forge = Forge(str(tree))
    import sys

    sys.path[:0] = [str(tree), str(tree / "tests")]
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-m", "not long and not real"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the warm process has imported hypothesis
    options += [f"--basetemp={temporary}", f"--rootdir={tree}", "-c", str(tree / "pyproject.toml")]
    if wanted is not None:
        options.append("-x")
    before = time.monotonic()
    code = pytest.main([*options, *files], plugins=[Plugin(forge, report, wanted)])
    print(f"{time.monotonic() - before:.1f} s")
    return int(code)
