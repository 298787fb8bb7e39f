"""A disk as it is when the power fails at one point of a record of writes."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from . import disk
from .layout import SECTOR
from .write_log import FUA, Entry, WriteLog

RECORDED = "recorded"
TORN = "torn"
LOST_ALL = "lost-all"
LOST_SOME = "lost-some"
FORMS = (RECORDED, TORN, LOST_ALL, LOST_SOME)


class Cut(NamedTuple):
    """A power cut after the first `point` entries, in one of the forms.

    `RECORDED`: these are on the disk. `TORN`: and of the next write the first sector. `LOST_ALL`,
    `LOST_SOME`: the disk had a cache, and of the writes since the last flush none or only some are on it;
    `seed` chooses them.
    """

    point: int
    form: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.point}-{self.form}" + (f"-{self.seed}" if self.form == LOST_SOME else "")


def cuts(entries: Sequence[Entry], first: int, last: int, seed: int = 0) -> Iterator[Cut]:
    """Return each cut from `first` to `last` entries that leaves a disk of its own, in order."""
    for point in range(first, min(last, len(entries)) + 1):
        if point == first or entries[point - 1].is_write:
            yield Cut(point, RECORDED)
        if point == len(entries):
            return
        entry = entries[point]
        if entry.is_write and entry.length > SECTOR:
            yield Cut(point, TORN)
        unflushed = len(_unflushed(entries, point))
        # Losing all gives the same disk at each point between two flushes.
        if unflushed and entry.is_flush:
            yield Cut(point, LOST_ALL)
        if unflushed > 1:
            yield Cut(point, LOST_SOME, seed)


def writes(entries: Sequence[Entry], cut: Cut) -> list[tuple[Entry, int]]:
    """Return the writes that are on the disk, each with the number of bytes of it that are."""
    lost: set[int] = set()
    if cut.form in (LOST_ALL, LOST_SOME):
        unflushed = _unflushed(entries, cut.point)
        choose = random.Random(f"{cut.seed} {cut.point}")
        kept = 0 if cut.form == LOST_ALL else choose.randrange(1, len(unflushed))
        lost = set(unflushed) - set(choose.sample(unflushed, kept))
    done = [
        (entry, entry.length)
        for number, entry in enumerate(entries[: cut.point])
        if entry.is_write and number not in lost
    ]
    if cut.form == TORN:
        done.append((entries[cut.point], SECTOR))
    return done


def last_flush(entries: Sequence[Entry], point: int) -> int:
    """Return the number of entries that are on the disk for certain after the first `point`."""
    return next((number for number in range(point - 1, -1, -1) if entries[number].is_flush), 0)


def _unflushed(entries: Sequence[Entry], point: int) -> list[int]:
    """Return the numbers of the writes that a disk with a cache may lose."""
    numbers = range(last_flush(entries, point), point)
    return [n for n in numbers if entries[n].is_write and not entries[n].flags & FUA]


def replay(log: WriteLog, base: Path, target: Path, cut: Cut) -> None:
    """Make the disk of one cut from the disk before the first entry."""
    disk.copy(base, target)
    with log.path.open("rb") as source, target.open("r+b") as file:
        for entry, length in writes(log.entries, cut):
            source.seek(entry.data_at)
            file.seek(entry.start)
            for at in range(0, length, 1 << 20):
                file.write(source.read(min(1 << 20, length - at)))


def at_flush(entries: Sequence[Entry], cut: Cut) -> bool:
    """Return whether a cut falls just before or just after a flush."""
    return any(entry.is_flush for entry in entries[max(0, cut.point - 1) : cut.point + 1])


def sample(found: Sequence[Cut], size: int, seed: int, phase: Callable[[int], str]) -> list[Cut]:
    """Return a seeded choice of `size` cuts, spread over the phases and in each over the forms, in order."""
    choose = random.Random(seed)
    left: dict[str, list[list[Cut]]] = {}
    for cuts_of_one in _grouped(found, phase).values():
        choose.shuffle(cuts_of_one)
        left.setdefault(phase(cuts_of_one[0].point), []).append(cuts_of_one)
    chosen: list[Cut] = []
    while left and len(chosen) < size:
        for name in list(left):
            forms = left[name]
            chosen.append(forms[0].pop())
            # The next of this phase is of another form.
            forms.append(forms.pop(0))
            left[name] = [cuts_of_one for cuts_of_one in forms if cuts_of_one]
            if not left[name]:
                del left[name]
    return sorted(chosen[:size], key=found.index)


def _grouped(found: Sequence[Cut], phase: Callable[[int], str]) -> dict[tuple[str, str], list[Cut]]:
    groups: dict[tuple[str, str], list[Cut]] = {}
    for cut in found:
        groups.setdefault((phase(cut.point), cut.form), []).append(cut)
    return groups
