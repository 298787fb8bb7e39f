"""The board itself: QEMU without KVM, its serial console, and a network that leads to one server only."""

import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .layout import API_PORT, GUEST_SERVER, STORAGE_PORT

MEMORY = "256M"
Found = TypeVar("Found")
_MAC = "52:54:00:12:34:56"


class TimedOut(Exception):
    """The board has not done in time what was expected of it."""


class Machine:
    """`with Machine(disk, ports) as machine:` switches the power on, and the end cuts it.

    `ports` are the server's two ports on the host. With `log`, every write and flush of the board is recorded
    there. With `show`, the console is copied to stdout. With `watchdog`, the board has one, which resets it.
    The board survives its own reboots.
    """

    def __init__(
        self,
        disk: Path,
        ports: tuple[int, int],
        *,
        log: Path | None = None,
        show: bool = False,
        clock: str = "utc",
        watchdog: bool = False,
    ) -> None:
        self._words = [*_computer(clock), *_storage(disk, log), *_network(ports)]
        if watchdog:
            self._words += ["-device", "i6300esb,addr=0x10", "-action", "watchdog=reset"]
        self._show = show
        self._changed = threading.Condition()
        self._console = ""
        self._ended = False

    def __enter__(self) -> "Machine":
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    @property
    def console(self) -> str:
        """All that the board has printed since the power is on."""
        with self._changed:
            return self._console

    def _read(self) -> None:
        assert self._process.stdout
        while piece := self._process.stdout.read(4096):
            text = piece.decode("utf-8", "replace").replace("\r", "")
            if self._show:
                sys.stdout.write(text)
                sys.stdout.flush()
            with self._changed:
                self._console += text
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, pattern: str, seconds: float, *, after: int = 0) -> "re.Match[str]":
        """Return the first match on the console from a position on; raise TimedOut."""
        compiled = re.compile(pattern, re.MULTILINE)
        return self.wait_until(lambda console: compiled.search(console, after), pattern, seconds)

    def wait_until(self, found: Callable[[str], Found | None], what: str, seconds: float) -> Found:
        """Return what a function finds on the console; raise TimedOut."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                result = found(self._console)
                if result:
                    return result
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    raise TimedOut(
                        f"no {what} in {seconds:.0f} s; the console ends:\n{self._console[-3000:]}"
                    )
                self._changed.wait(left)

    def ask(self, command: str, seconds: float = 600.0) -> tuple[int, str]:
        """Run a command in the shell of the console; return its exit code and what it printed."""
        assert self._process.stdin
        at = len(self.console)
        line = (
            f"( {command} ) >/tmp/answer 2>&1; echo code=$? >>/tmp/answer; sed 's/^/ans''wer /' /tmp/answer\n"
        )
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        self.wait(r"^answer code=\d+$", seconds, after=at)
        lines = re.findall(r"^answer (.*)$", self.console[at:], re.MULTILINE)
        return int(lines[-1].partition("=")[2]), "\n".join(lines[:-1])


def cpu_seconds() -> float:
    """Return the CPU time of all machines that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _computer(clock: str) -> list[str]:
    return [
        # QEMU must not outlive the process that watches it.
        *("setpriv", "--pdeathsig", "KILL", "nice", "-n", "10", "qemu-system-x86_64"),
        # A newer processor has instructions that are slow to emulate, and libraries use them.
        *("-accel", "tcg", "-cpu", "Nehalem", "-m", MEMORY, "-rtc", f"base={clock}"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-serial", "stdio"),
    ]


def _storage(disk: Path, log: Path | None) -> list[str]:
    words = ["-blockdev", f"driver=file,node-name=file,filename={disk},cache.no-flush=on"]
    below = "file"
    if log:
        words += [
            *("-blockdev", f"driver=file,node-name=log,filename={log},cache.no-flush=on"),
            "-blockdev",
            "driver=blklogwrites,node-name=recorded,file=file,log=log,log-super-update-interval=1",
        ]
        below = "recorded"
    return [
        *(*words, "-blockdev", f"driver=raw,node-name=disk,file={below}"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
    ]


def _network(ports: tuple[int, int]) -> list[str]:
    forwards = "".join(
        f",guestfwd=tcp:{GUEST_SERVER}:{inside}-cmd:busybox nc 127.0.0.1 {outside}"
        for inside, outside in zip((API_PORT, STORAGE_PORT), ports, strict=True)
    )
    return [
        *("-netdev", f"user,id=net,restrict=on{forwards}"),
        *("-device", f"virtio-net-pci,netdev=net,mac={_MAC},romfile="),
    ]
