"""Stdin, stdout and stderr as the caller left them: closed, full, or with nobody reading."""

import os
import sys


def open_missing() -> None:
    """Open the ones that the caller has closed, or the next file would get their number and their text."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")


def discard(descriptor: int) -> None:
    """Lead stdout (1) or stderr (2) nowhere, so that nobody tries to write there again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def finish(code: int) -> int:
    """Write out what is still buffered and return the exit code: 74 in place of 0 if stdout took nothing.

    The interpreter would do it after us, and replace our exit code with 120 if it failed. A stderr that takes
    nothing changes no exit code.
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
