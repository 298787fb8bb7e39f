"""Which final status is right after a power cut, by where in the update it fell."""

from collections.abc import Sequence
from typing import NamedTuple

from .boot_loader import Environment
from .replay import LOST_ALL, LOST_SOME, TORN, Cut, last_flush
from .write_log import Entry

SUCCESS = frozenset({"success"})
EITHER = frozenset({"success", "failure"})
PHASES = ("download", "install", "reboot", "trial", "end")


class Course(NamedTuple):
    """The entries at which an update went from one phase to the next.

    `installing`, `rebooting`: the device had reported these. `trial`: GRUB noted that it boots the new one.
    `committed`: the system noted that it keeps it.
    """

    installing: int
    rebooting: int
    trial: int
    committed: int

    def phase(self, point: int) -> str:
        """Return the phase in which the power fails after `point` entries."""
        if point <= self.installing:
            return "download"
        if point < self.rebooting:
            return "install"
        if point <= self.trial:
            return "reboot"
        return "trial" if point <= self.committed else "end"

    def statuses(self, point: int) -> frozenset[str]:
        """Return the final statuses that are right if exactly the first `point` entries are on the disk.

        A cut while the module installs, or before the commit, rolls back or not; any other one costs time
        but not the update (docs/installing.md, "After a power cut").
        """
        return EITHER if self.phase(point) in ("install", "trial") else SUCCESS


def course(installing: int, rebooting: int, environments: Sequence[tuple[int, Environment]]) -> Course:
    """Return the course of an update that succeeded; raise LookupError if it was none."""
    trial = next((n for n, env in environments if env.upgrade_available and env.bootcount == 1), None)
    committed = next(
        (n for n, env in environments if trial is not None and n > trial and not env.upgrade_available), None
    )
    if trial is None or committed is None or not installing < rebooting <= trial < committed:
        raise LookupError(f"this was no update by two slots: {installing}, {rebooting}, {environments}")
    return Course(installing, rebooting, trial, committed)


def statuses(course: Course, entries: Sequence[Entry], cut: Cut) -> frozenset[str]:
    """Return the final statuses that are right after a cut, in any of its forms."""
    first = last_flush(entries, cut.point) if cut.form in (LOST_ALL, LOST_SOME) else cut.point
    last = cut.point + 1 if cut.form == TORN else cut.point
    return frozenset().union(*(course.statuses(point) for point in range(first, last + 1)))


class TooFew(Exception):
    """The cuts do not show what they are meant to show."""


def require_enough(course: Course, points: Sequence[int], least: int) -> dict[str, int]:
    """Return how many of the points are in each phase of the update.

    Raise `TooFew` if there are fewer than `least` in all, or none in a phase.
    """
    counts = dict.fromkeys(PHASES, 0)
    for point in points:
        counts[course.phase(point)] += 1
    empty = [phase for phase, count in counts.items() if not count]
    if len(points) < least or empty:
        raise TooFew(
            f"{len(points)} cuts, of which at least {least} are needed and some in each phase: {counts}"
        )
    return counts
