"""List the processes of this system, by the names of their programs."""

import os
from collections.abc import Iterator
from typing import NamedTuple

PROC = "/proc"

_RUN_OTHERS = ("sh", "ash", "bash", "dash", "busybox", "env", "python")
"""The beginnings of programs that run the program in their next argument."""


class Process(NamedTuple):
    """A process: its number, its command line, and the names that its program may have."""

    number: int
    words: tuple[str, ...]
    names: frozenset[str]


def running() -> Iterator[Process]:
    """Yield the processes with the same root directory as this one, without itself.

    A container has a root directory of its own, so its processes are left out; only root can tell. Yields
    nothing without /proc.
    """
    try:
        numbers = [int(name) for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        return
    for number in numbers:
        if number != os.getpid() and (found := _look(number)):
            yield found


def _look(number: int) -> Process | None:
    """Return a process, or None for a thread of the kernel, and for one that has ended or is not visible."""
    place = f"{PROC}/{number}"
    try:
        if not _has_our_root(place):
            return None
        with open(f"{place}/cmdline", "rb") as file:
            line = file.read(65536)
    except OSError:
        return None
    words = tuple(word.decode("utf-8", "replace") for word in line.rstrip(b"\0").split(b"\0"))
    if not words[0]:
        return None
    first = os.path.basename(words[0])
    names = {first}
    if first.startswith(_RUN_OTHERS):
        names |= {os.path.basename(word) for word in words[1:3]}
    return Process(number, words, frozenset(names))


def _has_our_root(place: str) -> bool:
    try:
        return os.path.samestat(os.stat(f"{place}/root"), os.stat("/"))
    except PermissionError:
        return True
