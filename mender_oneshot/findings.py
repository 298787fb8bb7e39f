"""The result of one check of `doctor`, including a check that itself fails."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import disk, errors, libraries
from .settings import Settings


class Finding(NamedTuple):
    """The result of a check: its stable name, a message, and the error if something is wrong."""

    name: str
    message: str
    error: errors.Error | None = None


def finding(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    """Run a check that returns a message; return its finding, also for an error that it raises.

    Exceptions that are bugs of this program are not caught.
    """
    try:
        return Finding(name, check(settings))
    except errors.Error as error:
        return Finding(name, str(error), error)
    except OSError as problem:  # any system call may fail on a broken disk
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
    """Yield a finding for each problem that a check yields, or the finding `fine` if there is none."""
    found = False
    for problem in check(settings):
        found = True
        yield Finding(name, str(problem), problem)
    if not found:
        yield Finding(name, fine)
