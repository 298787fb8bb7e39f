"""A device and a server for the tests: real processes, real sockets, real files."""

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.artifacts import make_artifact
from helpers.descriptors import left_open, open_descriptors
from helpers.device import REPO, SYSTEM_PYTHON, Device, Release, need_libraries
from hypothesis import HealthCheck
from hypothesis import settings as examples

from mender_oneshot.devserver import DevServer

# How long a generated example takes says more about the machine than about the test.
examples.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("any machine")


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    """Fail a test that leaves descriptors open; fixtures of a module or of the session may hold some."""
    before = open_descriptors()
    yield
    left = left_open(before)
    assert not left, f"the test left descriptors open: {left}"


@pytest.fixture(params=["newest", pytest.param("debian", marks=pytest.mark.real)])
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter of the client: with the newest libraries from PyPI, and with Debian 12's own."""
    if request.param == "newest":
        return sys.executable
    need_libraries(SYSTEM_PYTHON)
    return SYSTEM_PYTHON


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DevServer]:
    """A development server that accepts no device by itself."""
    with DevServer(tmp_path / "server") as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: DevServer, python: str) -> Device:
    """A fresh device, configured for the server."""
    made = Device(tmp_path / "device", python)
    made.use_server(server)
    return made


@pytest.fixture
def accepted(device: Device, server: DevServer) -> Device:
    """A device that the server has accepted and that has its token."""
    assert device.run("auth").code == 77
    server.accept()
    device.ok("auth")
    return device


@pytest.fixture
def release(tmp_path: Path, server: DevServer) -> Release:
    """A function that uploads a release with some payload and deploys it; returns the deployment's id."""

    def make(name: str = "release-2", size: int = 1000, **options: Any) -> str:
        content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        options = {"compression": "none", "payload": {"app": content}} | options
        server.upload(make_artifact(tmp_path / f"{name}.mender", name=name, **options))
        return server.deploy(name)

    return make


KEPT = re.compile("PATH|HOME|TMPDIR|REQUIRE_REAL|PEER_SECONDS|(COV|COVERAGE|PIP|PYTEST)_.*")
"""Variables that the tests keep; pip needs its own to find its packages."""


def pytest_configure() -> None:
    """Give the tests, and every program they start, the environment of a device.

    A build machine sets variables that no device has (PYTHONUNBUFFERED, SSL_CERT_FILE, LANG, proxies), and
    each can hide a bug.
    """
    for name in [name for name in os.environ if not KEPT.fullmatch(name)]:
        del os.environ[name]
    # nohup, and a shell's `&`, have these ignored, by the programs under test as well.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests of whole systems first, so that they overlap with the rest under xdist."""
    items.sort(key=lambda item: "tests/system/" not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose real program is missing if REQUIRE_REAL is set, as in CI."""
    report = yield
    if report.skipped and item.get_closest_marker("real") and os.environ.get("REQUIRE_REAL"):
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_REAL is set, and this test was skipped: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what the skipped tests lack, and the command that installs it."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
        terminalreporter.section("what the skipped tests lack")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4} {reason}")
        packages = " ".join((REPO / ".ci" / "packages").read_text().split())
        terminalreporter.line(f"On Debian, as root: apt-get install --no-install-recommends {packages}")
