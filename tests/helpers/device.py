"""A device in a temporary directory, and its client run as a real process."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers import json_contract
from helpers.state_file import StateFile
from mender_oneshot.devserver import DevServer

SYSTEM_PYTHON = "/usr/bin/python3"

REPO = Path(__file__).parent.parent.parent

MENDERS = '{"error": "as the test wants it", "request_id": "1"}'
"""An error in the form of the Mender server; one in another form may be a gateway's."""

newest_only = pytest.mark.parametrize("python", ["newest"], indirect=True)
"""Runs a test that takes long with the newest libraries only, not with Debian's as well."""

Release = Callable[..., str]
"""The fixture `release`: uploads a release, deploys it and returns the id of the deployment."""

IDENTITY = "#!/bin/sh\necho mac=de:ad:be:ef:00:01\n"


class Run(NamedTuple):
    """The exit code and the output of a finished invocation."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out)
        return answer


def one_sentence(done: Run, codes: int | tuple[int, ...], *words: str) -> None:
    """Check the exit code, and that stderr is one line that contains all words."""
    assert done.code in ((codes,) if isinstance(codes, int) else codes), done
    assert len(done.err.splitlines()) == 1, done.err
    for word in words:
        assert word in done.err


def checked(done: Run) -> Run:
    """Return an invocation; fail the test for a traceback, or for a sentence that lacks one of its parts."""
    assert "Traceback" not in done.err, done.err
    assert not re.search(r"\bNone\b(?! in sys\.modules)", done.err), done.err
    return done


class Device(StateFile):
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

    def use_server(self, server: DevServer) -> None:
        """Configure a development server as the device's server."""
        self.configure(ServerURL=server.url, ServerCertificate=str(server.ca))

    def script(self, name: str, text: str, mode: int = 0o755) -> Path:
        """Write a script into the scripts' directory."""
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
        """Return the environment of an invocation: the device's, and PATH of the caller."""
        return (
            {"PATH": os.environ["PATH"]}
            | {
                "MENDER_CONF_DIR": str(self.conf),
                "MENDER_DATA_DIR": str(self.scripts),
                "MENDER_DATASTORE_DIR": str(self.data),
                "MENDER_RUN_DIR": str(self.root / "run"),
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
        done = checked(Run(process.returncode, out, err))
        if "--json" in words and out:
            json_contract.check(words, done.code, out)
        return done

    def ok(self, *words: str) -> Run:
        """Run one invocation, and check that it ends with 0."""
        done = self.run(*words)
        assert done.code == 0, done
        return done


def patch_python(device: Device, code: str) -> None:
    """Run `code` at the start of each Python of a device, to replace functions of the system."""
    place = device.root / "patch"
    place.mkdir()
    (place / "sitecustomize.py").write_text(code)
    device.environment["PYTHONPATH"] = f"{place}:{REPO}"


@contextlib.contextmanager
def patched_python(device: Device, code: str) -> Iterator[None]:
    """Patch the Python of a device until the end of the block."""
    patch_python(device, code)
    try:
        yield
    finally:
        del device.environment["PYTHONPATH"]


def need_libraries(python: str) -> None:
    """Skip the test unless an interpreter has the libraries of the client."""
    command = [python, "-c", "import click, urllib3, cryptography"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("not installed: python3-click, python3-urllib3 and python3-cryptography")
