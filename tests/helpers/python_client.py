"""The daemon of a mender-python-client checkout, whose compiled-in paths lead to a test's directory."""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.device import SYSTEM_PYTHON
from helpers.installed_device import PATH, Starter
from helpers.measured_daemon import DAY, Field, MeasuredDaemon, Part
from helpers.real_daemon import mounted

VARIABLE = "MENDER_PYTHON_CLIENT"
"""Its value is the path of the checkout."""

TITLE = "(its daemon; installing is left to a sub-updater and not measured)"

TIMEOUT = ("/usr/bin/timeout", "300")
"""A daemon whose download fails would otherwise wait for its next poll, a day later."""


class PythonClient(MeasuredDaemon):
    """mender-python-client, with a sub-updater that installs nothing and reports success."""

    def __init__(self, field: Field) -> None:
        super().__init__(field)
        checkout = Path(os.environ[VARIABLE]).resolve()
        own = checkout / ".venv/bin/python"
        self.python = str(own) if own.exists() else SYSTEM_PYTHON
        self.environment = {"PATH": PATH, "PYTHONPATH": str(checkout / "src")}
        self._check_import(checkout)
        device = self.device
        self.world = _world({device.conf: "/etc/mender", device.scripts: "/usr/share/mender"})
        # Without this file, some versions end with an AttributeError as soon as they are authorized.
        (device.conf / "mender-connect.conf").write_text('{"RemoteTerminal": false}')
        report, lock = shlex.join(self._command("report", "--success")), device.data / "update.lock"
        device.script("install", f"#!/bin/sh\n{report} && rm {lock}\n")

    def _check_import(self, checkout: Path) -> None:
        command = [self.python, "-c", "import mender.mender"]
        tried = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if tried.returncode:
            reason = tried.stderr.strip().rpartition("\n")[2]
            pytest.skip(f"{self.python} cannot import it from {checkout}/src: {reason}")

    def _command(self, *words: str) -> list[str]:
        start = "from mender.mender import main; main()"
        return [self.python, "-c", start, "--no-syslog", "--data", str(self.device.data), *words]

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Run the daemon until the end of the block; provide its pid."""
        log = self.device.root / "daemon.log"
        with log.open("wb") as output:
            # The wrapper becomes the daemon, so it has the same pid.
            process = subprocess.Popen(
                [*self.world, *self._command("daemon")],
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield process.pid
        except Exception:
            print(log.read_text()[-5000:])
            raise
        finally:
            process.kill()
            process.wait()

    def update(self, what: str, count: int) -> Part:
        """Have it update to release-2 and release-3, the second time under strace.

        The daemon ends with each update, so an update costs a start, an authorization, an inventory and a
        poll as well.
        """
        self.device.configure(UpdatePollIntervalSeconds=DAY, InventoryPollIntervalSeconds=DAY)
        command = [*TIMEOUT, *self._command("daemon")]
        # The wrapper starts the starter, so that the cost of mounting is not measured.
        with Starter(self.world) as starter:
            wire, deployment = self.field.wire(), self.server.deploy("release-2")
            cost = starter.cost(command, self.environment)
            wire = self.field.wire() - wire
            traced, trace = self.server.deploy("release-3"), self.trace()
            starter.cost([*trace.words(), *command], self.environment)
        assert [self.server.status(each) for each in (deployment, traced)] == ["success"] * 2
        return Part(what, count, cost.cpu, 0, cost.peak, wire, trace.written())


def _world(mounts: dict[Path, str]) -> list[str]:
    missing = [path for path in mounts.values() if not Path(path).is_dir()]
    if missing:
        pytest.skip(f"{' and '.join(missing)} must exist, to be mounted over; create the missing directories")
    return mounted(mounts)
