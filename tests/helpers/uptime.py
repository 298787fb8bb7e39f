"""Kernels that started at another time: options of `unshare` (time_namespaces(7)).

A boot that a test only pretends would otherwise have the uptime of this machine, which may be days.
"""

import time
from pathlib import Path


def up_for(seconds: float) -> tuple[str, ...]:
    """Return the options for a kernel that started so many seconds ago, without suspended time."""
    later = seconds - time.clock_gettime(time.CLOCK_MONOTONIC)
    return later_by(monotonic=later, boottime=later)


def later_by(monotonic: float = 0, boottime: float = 0) -> tuple[str, ...]:
    """Return the options for clocks that are ahead of ours by so many seconds."""
    # The kernel counts from the clocks of its first namespace, which ours need not be.
    ours = {name: int(offset) for name, offset, _ in map(str.split, _offsets())}
    shifts = {"monotonic": monotonic, "boottime": boottime}
    return ("--time", "--fork", *(f"--{name}={ours[name] + shifts[name]:.0f}" for name in shifts))


def _offsets() -> list[str]:
    try:
        return Path("/proc/self/timens_offsets").read_text().splitlines()
    except FileNotFoundError:  # a kernel without such namespaces
        return ["monotonic 0 0", "boottime 0 0"]
