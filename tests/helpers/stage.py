"""Whole installations with a scripted update module, with faults and power cuts on demand."""

import contextlib
import fnmatch
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers.artifacts import make_artifact
from helpers.cases import Course, in_full, joined
from helpers.device import Device, Run
from helpers.update_module import SCRIPT, Recorder, device_script
from helpers.waiting import until
from mender_oneshot import pidfile
from mender_oneshot.devserver import DevServer, Seen

DAY = 86400.0
STEPS_MAX = 40
FINAL = ("success", "failure", "aborted")

# `system` is what the module has made of the device: old, new (to be committed) or kept.
MODULE = """#!/bin/sh
call=$1
at() {{ [ ! -e {faults}/$1 ] || . {faults}/$1; }}
case $call in
NeedsArtifactReboot) echo {reboot}; at $call; exit 0 ;;
SupportsRollback) echo {rollback}; at $call; exit 0 ;;
esac
echo $call >>{log}
at $call
case $call in
ProvidePayloadFileSizes) echo {sizes} ;;
ArtifactInstall) echo new >{system} ;;
ArtifactVerifyReboot) grep -q new {system} || exit 1 ;;
ArtifactCommit) echo kept >{system} ;;
ArtifactRollback) echo old >{system} ;;
ArtifactVerifyRollbackReboot) grep -q old {system} || exit 1 ;;
DownloadWithFileSizes)
    while read -r file size <stream-next && [ -n "$file" ]; do cat "$file" >tmp/file; done ;;
esac
at $call.done
exit 0
"""
FAULTS = {
    "fails-once": "exit 1",
    "fails-always": "exit 1",
    "hangs": "sleep 60",
    "power-cut-once": "kill -9 $PPID $$",  # the installer, or the invocation that runs the script, and itself
    "waits": "exit 21",
}


class Stage:
    """A device without a sub-updater, which one case after the other begins as it was when it was new."""

    def __init__(self, directory: Path) -> None:
        self._match, self._requests, self._done = "", 0, threading.Event()
        self._act: Callable[[], None] = self._end_processes
        self.server = DevServer(directory / "server", on_seen=self._seen, accept_all=True)
        self.device = Device(directory / "device", sys.executable)
        self.module = Recorder(self.device)
        self.deployment = ""
        self.system = self.device.root / "system"
        self._reached, self._go = self.device.root / "reached", self.device.root / "go"
        self._fresh = directory / "fresh"

    def begin(self) -> None:
        """Make the device known to the server, and keep a copy of both for `reset`."""
        self.device.use_server(self.server)
        self.device.configure(
            # Uptime counts as the time since the boot, and the machine of the tests may be up for days.
            InstallTimeoutSeconds=0,
            InventoryPollIntervalSeconds=2**31,
        )
        self.system.write_text("old\n")
        for action in ("Enter", "Leave", "Error"):
            self.device_script(f"Download_{action}")
        self.device.ok("run", "--all")
        self.upload("release-2", self.module.name)
        shutil.copytree(self.device.root, self._fresh)
        self._of_server = self.server.snapshot()

    def upload(self, name: str, payload_type: str | None, **options: Any) -> None:
        """Upload an artifact; one without a payload if the type is None."""
        path = self.device.root / f"{name}.mender"
        scripts = self.module.scripts() if payload_type else {}
        payload = {"file": b"of release-2\n"} if payload_type else {}
        make_artifact(path, name, payload_type=payload_type, payload=payload, scripts=scripts, **options)
        self.server.upload(path)

    def device_script(self, name: str) -> None:
        """Add a state script of the device, which records its call."""
        text = SCRIPT.format(name=name, log=self.module.log, faults=self.module.faults)
        device_script(self.device, f"{name}_00", text)

    def frame_checks(self) -> None:
        """Add the state scripts of a check for updates."""
        for name in ("Idle_Enter", "Idle_Leave", "Sync_Enter", "Sync_Leave", "Sync_Error"):
            self.device_script(name)

    def reset(self, *, reboot: str, rollback: str, sizes: str = "") -> None:
        """Make the device new, with a module that gives these answers, and forget what the server knows."""
        shutil.rmtree(self.device.root)
        shutil.copytree(self._fresh, self.device.root)
        self._requests = 0
        self._done.set()
        self.server.faults.clear()
        self.server.restore(self._of_server)
        self.deployment = ""
        self.module.program.write_text(
            MODULE.format(
                log=self.module.log,
                faults=self.module.faults,
                system=self.system,
                reboot=reboot,
                rollback=rollback,
                sizes=sizes,
            )
        )

    def fault(self, mark: str, kind: str) -> None:
        """Have a call, by its abbreviation, go wrong; "C." is the end of the call C, after its work."""
        self.module.at(self.fault_file(mark), FAULTS[kind], once=kind != "fails-always")

    def fault_file(self, mark: str) -> str:
        """Return the name of the file that holds what goes wrong in a call."""
        return in_full(mark.removesuffix(".")) + (".done" if mark.endswith(".") else "")

    def hold(self, mark: str) -> None:
        """Have a call wait until `let_go`."""
        wait = f"touch {self._reached}; while [ ! -e {self._go} ]; do sleep 0.02; done"
        self.module.at(in_full(mark), wait)

    def let_go(self, act: Callable[[], None]) -> None:
        """Wait until the call is there that `hold` has named, do something, and end its wait."""
        until(self._reached.exists, "the call is made")
        act()
        self._go.touch()

    def cut_at(self, match: str, nth: int, processed: bool) -> None:
        """Cut the power at the nth request that matches, before the server's answer is there.

        `match` is a glob pattern over "METHOD path".
        """
        self.at_request(match, nth, self._end_processes)
        if not processed:
            self.answer(match, nth, status=503)

    def at_request(self, match: str, nth: int, act: Callable[[], None]) -> None:
        """Do something at the nth request that matches, when the server has processed it."""
        self._match, self._requests, self._act = match, nth, act
        self._done.clear()

    def answer(self, match: str, nth: int, **fault: Any) -> None:
        """Have a fault at the nth request that matches."""
        if nth > 1:
            self.server.faults.add(match, nth - 1)
        self.server.faults.add(match, **fault)

    def _seen(self, seen: Seen) -> None:
        if self._requests and fnmatch.fnmatchcase(f"{seen.method} {seen.path}", self._match):
            self._requests -= 1
            if not self._requests:
                self._act()
                self._done.set()

    def deploy(self, name: str = "release-2") -> None:
        """Deploy a release."""
        self.deployment = self.server.deploy(name)

    def abort(self) -> None:
        """Abort the deployment, unless it is over."""
        if self.result not in FINAL:
            self.server.abort(self.deployment)

    def run(self) -> Run:
        """Let time pass, and run what is due."""
        self.device.let_time_pass(DAY, expire=False)
        self.device.end_pause_of_script()
        done = self.device.run("run", "--all")
        assert done.code in (0, 65, 69, 75, -signal.SIGKILL), done
        return done

    def wait(self) -> None:
        """Wait until no installer runs."""
        lock = self.device.data / "sub-updater.lock"
        until(lambda: not (lock.exists() and pidfile.is_running(lock.read_bytes())), "the installer ends", 60)

    def _end_processes(self) -> None:
        """Kill every process of the device."""
        mark = f"MENDER_DATASTORE_DIR={self.device.data}\0".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environment.read_bytes():
                    os.kill(int(environment.parent.name), signal.SIGKILL)

    def carry_out(self, *, reboots: bool = True) -> Course:
        """Run what is due until the update is over; return its course.

        A process that ended before has ended with a power cut, unless `reboots` is false.
        """
        for _ in range(STEPS_MAX):
            self.run()
            self.wait()
            if not self._requests:
                assert self._done.wait(60)
            if self.is_over:
                return self.course
            if reboots:
                self.device.reboot()
        raise AssertionError(f"the update is not over: {self.course}")

    @property
    def faults_left(self) -> list[str]:
        """What was to go wrong and has not, because it did not come to that."""
        return [*os.listdir(self.module.faults), *([self._match] if self._requests else [])]

    @property
    def is_over(self) -> bool:
        """Whether the server has the result and nothing of the update is left on the device."""
        data = self.device.data
        left = [
            name for name in ("installer.json", "installer.reserve", "update.lock") if (data / name).exists()
        ]
        return not left and not self.device.queued_results and self.result in FINAL

    @property
    def result(self) -> str:
        """The status of the deployment."""
        return self.server.status(self.deployment)

    @property
    def course(self) -> Course:
        """What has happened so far."""
        statuses = " ".join(self.server.status_history(self.deployment))
        return Course(joined(self.module.calls), statuses, self.name)

    @property
    def name(self) -> str:
        """What is installed, as the device reports it."""
        info = (self.device.conf / "artifact_info").read_text()
        name = info.splitlines()[0].removeprefix("artifact_name=")
        return {"release-1": "old"}.get(name) or ("inconsistent" if name.endswith("_INCONSISTENT") else "new")


@contextlib.contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """Return a stage and its server, which ends with the block."""
    stage = Stage(directory)
    with stage.server:
        stage.begin()
        yield stage
