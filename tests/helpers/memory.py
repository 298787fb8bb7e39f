"""Measure the memory of an invocation or of a process."""

import contextlib
import sys
from pathlib import Path

PEAK_MEMORY = (
    sys.executable,
    "-c",
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)",
)
"""A wrapper of a command that prints the command's peak memory, in KiB, as the last line on stderr."""


def proportional(pid: int) -> int:
    """Return the proportional share of memory (PSS) of a process, in KiB; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
