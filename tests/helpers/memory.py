"""Measure the memory of an invocation."""

import sys

PEAK_MEMORY = (
    sys.executable,
    "-c",
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)",
)
"""A wrapper of a command that prints the command's peak memory, in KiB, as the last line on stderr."""
