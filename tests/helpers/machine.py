"""A machine for one test: a Debian that systemd-nspawn boots, on the host's loopback, seen from outside."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from helpers.debian import need_root
from helpers.waiting import until

BOOT_SECONDS = 60.0
REBOOT = 133


class Machine:
    """`with Machine(root, log) as machine:` boots it; a reboot from inside works, the end powers it off."""

    def __init__(self, root: Path, log: Path, network: tuple[str, ...] = ()) -> None:
        """`network` is a command prefix that enters another network than the host's."""
        need_root("systemd-nspawn", "nsenter")
        self.root = root
        self._log = log
        self._network = network

    def __enter__(self) -> "Machine":
        self._switch_on()
        try:
            self.wait_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        init = self._init()
        if init:
            os.kill(init, signal.SIGKILL)  # ends all its processes, as a power cut does
        self._process.kill()
        self._process.wait()
        print(self._log.read_text("utf-8", "replace")[-5000:])  # pytest shows it when the test fails

    def _switch_on(self) -> None:
        # Not registered with a machined and in no unit of its own: the host need not run systemd.
        words = [
            *self._network,
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*words, "-D", str(self.root), "--boot"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _keep_on(self) -> None:
        """Restart systemd-nspawn if its exit code is 133, as a supervisor does."""
        code = self._process.poll()
        if code == REBOOT:
            self._switch_on()
        assert code in (None, REBOOT), self._log.read_text("utf-8", "replace")[-3000:]

    def _init(self) -> int | None:
        """Return the pid of the machine's first process on the host; None between two boots."""
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
            # Its own idea of its number is the last one.
            if pid != self._process.pid and status.partition("NSpid:")[2].split("\n")[0].split()[-1] == "1":
                return pid
        return None

    def wait_booted(self) -> None:
        """Wait until systemd has started all units."""
        until(
            lambda: self._try("systemctl", "is-system-running", "--wait"), "the machine is up", BOOT_SECONDS
        )

    def _try(self, *words: str) -> bool:
        time.sleep(0.05)
        done = self.run(*words, check=False)
        return done.stdout.strip() in ("running", "degraded")

    def run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command in the machine."""
        self._keep_on()
        command = ["nsenter", "--all", "-t", str(self._init() or 0), "--", *words]
        process = subprocess.Popen(
            command,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while True:
            try:
                output = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                # A shutdown stops all processes of the machine before it kills them. nsenter, which is
                # outside, then stops itself, and is not continued.
                process.send_signal(signal.SIGCONT)
        done = subprocess.CompletedProcess(command, process.returncode, *output)
        assert not check or done.returncode == 0, done
        return done

    def boot_id(self) -> str:
        """Return the boot id."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id").stdout

    def failed(self) -> str:
        """Return the failed units and the end of the journal; "" if no unit has failed."""
        failed = self.run("systemctl", "--failed", "--no-legend", "--plain").stdout
        return failed and failed + self.run("journalctl", "--no-pager", "--lines=30", "--boot").stdout

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """Entries of the journal, of all boots."""
        done = self.run("journalctl", "--output=json", "--quiet", *words)
        return [json.loads(line) for line in done.stdout.splitlines()]


def have_journal_kept(root: Path) -> None:
    """Let the journal outlive a boot."""
    (root / "var/log/journal").mkdir(parents=True, exist_ok=True)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Put a file into a machine that is not running."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def copy(source: Path, target: Path) -> None:
    """Copy a file into a machine that is not running."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
