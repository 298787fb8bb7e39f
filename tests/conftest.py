"""A device and a server for the tests: real processes, real sockets, real files."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from artifacts import make_artifact
from hypothesis import HealthCheck
from hypothesis import settings as examples

from mender_oneshot.devserver import DevServer

if TYPE_CHECKING:
    from terminalpeer import Conversation, Served

# How long a generated example takes says more about the machine than about the test.
examples.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("any machine")

SYSTEM_PYTHON = "/usr/bin/python3"

REPO = Path(__file__).parent.parent

MENDERS = '{"error": "as the test wants it", "request_id": "1"}'
"""An error in the form of the Mender server's own; another may be anybody's who stands in between."""

IDENTITY = "#!/bin/sh\necho mac=de:ad:be:ef:00:01\n"


class Run(NamedTuple):
    """What a finished invocation left: the code, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out)
        return answer


class Device:
    """A device of its own: its directories, its scripts, and the command run against them."""

    def __init__(self, root: Path, python: str) -> None:
        self.root = root
        self.python = python
        self.conf = root / "etc"
        self.scripts = root / "share"
        self.data = root / "lib"
        self.settings: dict[str, Any] = {"StartSpreadSeconds": 0}
        self.environment: dict[str, str] = {}
        for directory in (self.conf, self.data, self.scripts / "identity", self.scripts / "inventory"):
            directory.mkdir(parents=True)
        self.script("identity/mender-device-identity", IDENTITY)
        (self.data / "device_type").write_text("device_type=board\n")
        (self.conf / "artifact_info").write_text("artifact_name=release-1\n")
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Change `mender.conf`."""
        self.settings |= changes
        (self.conf / "mender.conf").write_text(json.dumps(self.settings))

    def script(self, name: str, text: str, mode: int = 0o755) -> Path:
        """Put a script into the scripts' directory."""
        path = self.scripts / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def sub_updater(self, text: str = "exit 0\n") -> None:
        """Install a sub-updater; `$ONESHOT` in it is the client, with the variables that a checkout needs."""
        self.script("install", f"#!/bin/sh\nONESHOT='{self.command()}'\n{text}")

    def command(self) -> str:
        """Return the client as a shell command that also works without the variables of a checkout."""
        env = self.env()
        needed = " ".join(f"{name}={env[name]}" for name in ("PYTHONPATH", "PYTHONWARNINGS"))
        return f"env {needed} {self.python} -m mender_oneshot"

    def env(self) -> dict[str, str]:
        """Return the environment of an invocation: a device's, with nothing of the caller's but PATH."""
        return (
            {"PATH": os.environ["PATH"]}
            | {
                "MENDER_CONF_DIR": str(self.conf),
                "MENDER_DATA_DIR": str(self.scripts),
                "MENDER_DATASTORE_DIR": str(self.data),
                "PYTHONPATH": str(REPO),
                "PYTHONWARNINGS": "error",
            }
            | self.environment
        )

    def start(self, *words: str, wrapper: tuple[str, ...] = (), **options: Any) -> "subprocess.Popen[str]":
        """Start an invocation and leave it running."""
        return subprocess.Popen(
            [*wrapper, self.python, "-m", "mender_oneshot", *words],
            env=self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            **options,
        )

    def run(self, *words: str, wrapper: tuple[str, ...] = (), **options: Any) -> Run:
        """Run one invocation to its end; a traceback fails the test, unless the test is about one."""
        process = self.start(*words, wrapper=wrapper, **options)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert "Traceback" not in err, err
        return Run(process.returncode, out, err)

    def ok(self, *words: str) -> Run:
        """Run one invocation that has to end well."""
        done = self.run(*words)
        assert done.code == 0, done
        return done

    @property
    def state(self) -> dict[str, Any]:
        """The state file."""
        known: dict[str, Any] = json.loads((self.data / "mender-oneshot.json").read_text())
        return known

    def alter_state(self, **changes: Any) -> None:
        """Write members of the state file, as another invocation (or time) would have; None removes."""
        known = self.state | changes
        known = {name: value for name, value in known.items() if value is not None}
        (self.data / "mender-oneshot.json").write_text(json.dumps(known))


def spoil(device: Device, code: str) -> None:
    """Have the system answer a device's Python otherwise than this one does: `code` is run at its start."""
    place = device.root / "spoilt"
    place.mkdir()
    (place / "sitecustomize.py").write_text(code)
    device.environment["PYTHONPATH"] = f"{place}:{REPO}"


@contextlib.contextmanager
def spoilt(device: Device, code: str) -> Iterator[None]:
    """The same for a while."""
    spoil(device, code)
    try:
        yield
    finally:
        del device.environment["PYTHONPATH"]


def need_libraries(python: str) -> None:
    """Skip the test unless an interpreter has the libraries of the client."""
    command = [python, "-c", "import click, urllib3, cryptography"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("not installed: python3-click, python3-urllib3 and python3-cryptography")


@pytest.fixture(params=["newest", pytest.param("debian", marks=pytest.mark.real)])
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter of the client: with the newest libraries from PyPI, and with Debian 12's own."""
    if request.param == "newest":
        return sys.executable
    need_libraries(SYSTEM_PYTHON)
    return SYSTEM_PYTHON


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DevServer]:
    """A development server that accepts nobody by itself."""
    with DevServer(tmp_path / "server") as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: DevServer, python: str) -> Device:
    """A fresh device, configured for the server."""
    made = Device(tmp_path / "device", python)
    made.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
    return made


@pytest.fixture
def accepted(device: Device, server: DevServer) -> Device:
    """A device that the server has accepted and that has its token."""
    assert device.run("auth").code == 77
    server.accept()
    device.ok("auth")
    return device


@pytest.fixture
def release(tmp_path: Path, server: DevServer) -> Callable[..., str]:
    """A function that uploads a release with some payload and deploys it; returns the deployment's id."""

    def make(name: str = "release-2", size: int = 1000, **options: Any) -> str:
        content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        options = {"compression": "none", "payload": {"app": content}} | options
        server.upload(make_artifact(tmp_path / f"{name}.mender", name=name, **options))
        return server.deploy(name)

    return make


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator["Served"]:
    """A device whose terminal talks to the test itself."""
    from terminalpeer import serving  # it needs the libraries of the extra

    with serving(Device(tmp_path / "device", sys.executable)) as served:
        yield served


@pytest.fixture
def either(tmp_path: Path, python: str) -> Iterator["Served"]:
    """The same with the newest libraries and with Debian's."""
    from terminalpeer import serving

    with serving(Device(tmp_path / "device", python)) as served:
        yield served


@pytest.fixture
def line(terminal: "Served") -> Iterator["Conversation"]:
    """Its first connection."""
    with terminal.connect() as conversation:
        yield conversation


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
    """Begin with whole systems, whose minutes pass by themselves: last, everybody would wait for them."""
    items.sort(key=lambda item: "tests/system/" not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where REQUIRE_REAL is set, as in CI, a real program that is missing is a failure, not a skip."""
    report = yield
    if report.skipped and item.get_closest_marker("real") and os.environ.get("REQUIRE_REAL"):
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_REAL is set, and this test was skipped: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what the skipped tests lack, and how to get it."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
        terminalreporter.section("what the skipped tests lack")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4} {reason}")
        packages = " ".join((REPO / ".ci" / "packages").read_text().split())
        terminalreporter.line(f"On Debian, as root: apt-get install --no-install-recommends {packages}")
