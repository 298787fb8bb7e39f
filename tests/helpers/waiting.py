"""Wait for what only shows from outside: in files, in /proc, at a server."""

import time
from collections.abc import Callable
from pathlib import Path


def until(true: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Poll until a condition holds; raise `AssertionError` with `what` after so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie; it may sleep or compute."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until_size(path: Path, size: int) -> None:
    """Wait until a file has grown to a size in bytes."""
    until(lambda: path.exists() and path.stat().st_size >= size, f"{path} has {size} bytes", 30)
