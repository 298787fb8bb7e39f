"""Counts what processes write to files below a directory, by strace."""

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.waiting import until

_CALLS = "write,pwrite64,writev,sendfile,copy_file_range,fsync,fdatasync"
# copy_file_range(3</source>, NULL, 4</target>, ...): the last descriptor with a path is the one written to.
_CALL = re.compile(r"^(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>\d+)$")
_PATH = re.compile(r"\d<(/[^>]*)>")


class Written(NamedTuple):
    """The number of files that were written to, the bytes, and the calls of fsync."""

    files: int
    bytes: int
    syncs: int


class Trace:
    """Processes under strace; `written` evaluates the trace after they have ended."""

    def __init__(self, log: Path, directories: tuple[Path, ...]) -> None:
        self._log = log
        self._directories = tuple(f"{directory}/" for directory in directories)

    def words(self) -> list[str]:
        """Return a command that precedes the one to trace; strace ends with the last of its processes."""
        strace = shutil.which("strace") or "strace"
        return [strace, "-f", "-y", "-qq", "-s", "0", "-e", f"trace={_CALLS}", "-o", str(self._log)]

    @contextlib.contextmanager
    def attached(self, pid: int) -> Iterator[None]:
        """Trace a running process, and what it starts, until the end of the block."""
        process = subprocess.Popen([*self.words(), "-p", str(pid)], stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{pid}/status")
        try:
            until(lambda: "TracerPid:\t0" not in status.read_text(), "strace is attached")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()

    def written(self) -> Written:
        """Return what was written below the directories."""
        files, size, syncs = set(), 0, 0
        for line in self._whole_calls():
            found = _CALL.match(line)
            paths = _PATH.findall(found["arguments"]) if found else []
            if not found or not paths or not paths[-1].startswith(self._directories):
                continue
            if "sync" in found["call"]:
                syncs += 1
            else:
                files.add(paths[-1])
                size += int(found["result"])
        return Written(len(files), size, syncs)

    def _whole_calls(self) -> Iterator[str]:
        """Return the lines of the trace without pids; a call that another thread interrupted is one line."""
        begun: dict[str, str] = {}
        for line in self._log.read_text(errors="replace").splitlines():
            pid, _, call = line.partition(" ")
            call = call.lstrip()
            if call.endswith(" <unfinished ...>"):
                begun[pid] = call.removesuffix(" <unfinished ...>")
            elif call.startswith("<... "):
                yield begun.pop(pid, "") + call.partition(" resumed>")[2]
            else:
                yield call
