"""The log that update modules and state scripts write to directly: kept short, whatever they print."""

import contextlib
import fcntl
import os

from ..paths import SUB_UPDATER_LOG

LIMIT = 1 << 20
"""Bytes of `sub-updater.log` from which on its middle is removed; the server takes no longer logs."""
HEAD = LIMIT // 4
TAIL = LIMIT // 4
_LAST, _SHOWN = 4096, 400
"""Bytes at the end of the log in which the last line is searched; letters of it that are shown."""

_MARK = b"\n[The output is too long; a part of it was removed here.]\n"


def position() -> int:
    """Return the size of `sub-updater.log` if that is our stderr; -1 if it is not."""
    with contextlib.suppress(OSError):
        if os.path.basename(os.readlink("/proc/self/fd/2")) == SUB_UPDATER_LOG:
            return os.fstat(2).st_size
    return -1


def reason(since: int) -> str:
    """Return the end of a sentence about a process that failed: the last line that it printed, if known.

    `since` is the `position` before the process was started.
    """
    with contextlib.suppress(OSError):
        if 0 <= since != (size := position()) >= 0:
            since = since if since < size else 0  # `shorten` may have made it shorter
            begin = max(size - _LAST, since)
            with open("/proc/self/fd/2", "rb") as file:
                file.seek(begin)
                printed = file.read(size - begin).decode("utf-8", "replace").split("\n")
            if begin > since:
                printed = printed[1:]  # the beginning of that line is not known
            last = next((line.strip() for line in reversed(printed) if line.strip()), "")
            if last:
                printable = "".join(char if char.isprintable() else "?" for char in last[:_SHOWN])
                return f": {printable.removesuffix('.')}."
    return "; its output is in the log."


def shorten() -> bool:
    """Remove the middle of `sub-updater.log` if it is our stderr and too long; return whether it was.

    Whatever else has the file open continues at its new end, because everything appends to it.
    """
    with contextlib.suppress(OSError):
        found = os.fstat(2)
        if found.st_size <= LIMIT or not fcntl.fcntl(2, fcntl.F_GETFL) & os.O_APPEND:
            return False
        path = os.readlink("/proc/self/fd/2")
        if os.path.basename(path) != SUB_UPDATER_LOG:
            return False  # it belongs to the caller
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not os.path.samestat(found, os.fstat(descriptor)):
                return False
            size = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, TAIL, size - TAIL)
            tail += os.pread(descriptor, TAIL, size)  # written in the meantime
            os.ftruncate(descriptor, HEAD)
            os.write(descriptor, _MARK + tail)
        finally:
            os.close(descriptor)
        return True
    return False
