"""Handle stdin, stdout and stderr that are closed, full or not read."""

import os
import sys


def open_missing() -> None:
    """Open /dev/null for each one that is closed, or the next file would get its number and its output."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")


def discard(descriptor: int) -> None:
    """Point stdout (1) or stderr (2) at /dev/null, so that later writes and the flush at exit do not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def finish(code: int) -> int:
    """Flush stdout and stderr and return the exit code: 74 instead of 0 if stdout cannot be written.

    If the interpreter's own flush at exit fails, the exit code is 120. An error of stderr does not change the
    exit code.
    """
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            discard(descriptor)
        except (OSError, ValueError):
            discard(descriptor)
            code = code or (os.EX_IOERR if descriptor == 1 else 0)
    return code
