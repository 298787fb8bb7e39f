"""One thing that `doctor` looked at, and what any failure of looking at it means."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import disk, errors, libraries
from .settings import Settings


class Finding(NamedTuple):
    """One thing looked at: a stable name, what was found, and the error if something is wrong."""

    name: str
    sentence: str
    error: errors.Error | None = None


def finding(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    """Return what a check found; whatever the world does to it becomes a finding."""
    try:
        return Finding(name, check(settings))
    except errors.Error as error:
        return Finding(name, str(error), error)
    except OSError as problem:  # a disk may answer no question at all
        failure = disk.failure(f"examine the {name}", problem)
        return Finding(name, str(failure), failure)
    except BaseException as problem:
        unusable = libraries.unusable(problem)
        if unusable is None:
            raise
        return Finding(name, str(unusable), unusable)


def several(
    name: str, check: Callable[[Settings], Iterator[errors.Error]], settings: Settings, fine: str
) -> Iterator[Finding]:
    """Yield a finding for each problem, or one that says that there is none."""
    found = False
    for problem in check(settings):
        found = True
        yield Finding(name, str(problem), problem)
    if not found:
        yield Finding(name, fine)
