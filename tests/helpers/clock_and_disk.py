"""Wrong clocks (libfaketime) and bad disks (a small tmpfs, system calls that fail) for the field stories."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from helpers.device import Device
from mender_oneshot.devserver import DevServer

PAGE = 4096
"""tmpfs gives and takes space by the page."""

RESERVE = 1 << 20
"""What a download leaves free for the state."""


class Traffic:
    """The requests that the server got since the last call."""

    def __init__(self, server: DevServer) -> None:
        self._server = server
        self._looked_at = len(server.requests)

    def new(self) -> list[str]:
        """Return the last parts of the requested paths, such as "next"; "artifact" for the storage."""
        seen = self._server.requests[self._looked_at :]
        self._looked_at += len(seen)
        return [
            "artifact" if request.origin == "storage" else request.path.rpartition("/")[2] for request in seen
        ]


# Clocks.

FAKETIME = shutil.which("faketime")

needs_faketime = pytest.mark.skipif(FAKETIME is None, reason="Debian's faketime is not installed")


def today(**later: float) -> datetime:
    """Return the right time, or one some `days`, `hours`, `minutes` away from it."""
    return datetime.now(UTC) + timedelta(**later)


def without_clock(**later: float) -> datetime:
    """Return the time of a board without a battery some time after it was powered on."""
    return datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC) + timedelta(**later)


def far_ahead(**later: float) -> datetime:
    """Return the time of a clock that was set wrongly by hand."""
    return datetime(2099, 6, 1, 12, tzinfo=UTC) + timedelta(**later)


def set_clock(device: Device, now: datetime) -> None:
    """Set the device's clock to `now`; it runs from there, and the uptime stays true."""
    device.environment |= {
        "LD_PRELOAD": _library(),
        "FAKETIME": f"{now.timestamp() - time.time():+.3f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def set_clock_from(device: Device, file: Path) -> None:
    """Let the device's clock follow a file that `write_clock` writes, even during an invocation."""
    device.environment |= {
        "LD_PRELOAD": _library(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    device.environment.pop("FAKETIME", None)


def write_clock(file: Path, now: datetime) -> None:
    """Put the clock of `set_clock_from` to another time, at once."""
    beside = file.with_suffix(".new")
    beside.write_text(f"{now.timestamp() - time.time():+.3f}\n")
    beside.rename(file)


@cache
def _library() -> str:
    """Return the library that the `faketime` of this system preloads."""
    command = [FAKETIME or "faketime", "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# Disks.


class Disk:
    """The data directory of a device on a small file system of its own; only root can mount one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "another-programs-file"
        self._crowd = path / "another-programs-directory"

    @property
    def free(self) -> int:
        """Bytes that are left."""
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def leave(self, size: int) -> None:
        """Fill the disk from outside; `size` bytes, in pages, stay free."""
        self._filler.unlink(missing_ok=True)
        with self._filler.open("wb") as file:
            while self.free > size:
                os.posix_fallocate(file.fileno(), file.tell(), self.free - size)
                file.seek(0, os.SEEK_END)

    def use_up_inodes(self) -> None:
        """Create files from outside until no further one can be created."""
        self._crowd.mkdir()
        number = 0
        with suppress(OSError):
            while True:
                (self._crowd / str(number)).touch()
                number += 1
        assert os.statvfs(self.path).f_favail == 0

    def relieve(self) -> None:
        """Remove what was created from outside."""
        self._filler.unlink(missing_ok=True)
        shutil.rmtree(self._crowd, ignore_errors=True)

    def remount(self, how: str) -> None:
        """Make it read-only ("ro") or writable again ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[Disk]:
    """Mount a tmpfs on a directory, which is empty then, for the length of a test."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


STRACE = shutil.which("strace")

needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def failing(calls: str, path: Path, error: int = errno.EIO) -> tuple[str, ...]:
    """Return the wrapper of a command whose system `calls` on `path` fail."""
    name = errno.errorcode[error]
    what = ("-e", f"trace={calls}", "-e", f"inject={calls}:error={name}")
    return (STRACE or "strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-P", str(path), *what)
