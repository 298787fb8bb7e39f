"""The result of one check of `doctor`, including a check that itself fails, and how it is printed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from . import disk, errors, libraries
from .settings import Settings

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "FAILED", "skipped"

_PROGRAMS = (
    *("apt-get", "chattr", "chmod", "chown", "date", "fw_setenv", "kill", "mender-oneshot", "openssl", "rm"),
    *("sed", "service", "ssh-keygen", "systemctl", "timedatectl", "crond", "echo", "(umask"),
)
"""How the command in a message begins; a message that has one ends with it."""
_OWN_WORDS = (errors.SettingsError, errors.DiskError, errors.NotAccepted)
"""The errors that can have a command. The message of another may quote a server, which could add one."""
_INDENT = " " * 24


class Warned(Exception):
    """Raised by a check: a user may want to change something, but the device works as it is."""


class Skipped(Exception):
    """Raised by a check that cannot be made, for example because of a fault that another check reports."""


class Finding(NamedTuple):
    """The result of a check: its stable name, a message, and the error if something is wrong."""

    name: str
    message: str
    error: errors.Error | None = None
    kind: str = OK  # WARNING or SKIPPED, if there is no error

    @property
    def level(self) -> str:
        """How serious it is: `OK`, `WARNING`, `FAILED` or `SKIPPED`."""
        return FAILED if self.error else self.kind

    @property
    def command(self) -> str:
        """The command at the end of the message that fixes the problem, or ""."""
        if self.level == OK or (self.error and not isinstance(self.error, _OWN_WORDS)):
            return ""
        places = [self.message.find(f": {program} ") for program in _PROGRAMS]
        found = [place for place in places if place >= 0]
        return self.message[min(found) + 2 :].rstrip(".") if found else ""

    def facts(self) -> dict[str, Any]:
        """Return the finding for `--json`."""
        return {
            "id": self.name.replace(" ", "-"),
            "name": self.name,
            "ok": self.error is None,
            "level": self.level.lower(),
            "message": self.message,
            "command": self.command or None,
        }

    def lines(self) -> list[str]:
        """Return the finding as text: one line, and one more for a command that can be pasted."""
        first = f"{self.level:<7} {self.name:<15} {self.message}"
        if not self.command:
            return [first]
        return [first[: first.rindex(self.command)].rstrip(), f"{_INDENT}{self.command}"]


def of(name: str, problem: BaseException) -> Finding:
    """Return the finding for an exception that a check has raised; raise it again if it is a bug."""
    if isinstance(problem, (Warned, Skipped)):
        kind = WARNING if isinstance(problem, Warned) else SKIPPED
        return Finding(name, str(problem), kind=kind)
    if isinstance(problem, errors.Error):
        return Finding(name, str(problem), problem)
    if isinstance(problem, OSError):  # any system call may fail on a broken disk
        failure = disk.failure(f"examine the {name}", problem)
        return Finding(name, str(failure), failure)
    unusable = libraries.unusable(problem)
    if unusable is None:
        raise problem
    return Finding(name, str(unusable), unusable)


def finding(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    """Run a check that returns a message; return its finding, also for what it raises, as `of` does."""
    try:
        return Finding(name, check(settings))
    except BaseException as problem:  # noqa: BLE001  # `of` raises a bug again
        return of(name, problem)


def several(
    name: str, check: Callable[[Settings], Iterable[Exception]], settings: Settings, fine: str
) -> Iterator[Finding]:
    """Yield a finding for each problem that a check yields or raises, or the finding `fine` for none."""
    found = False
    try:
        for problem in check(settings):
            found = True
            yield of(name, problem)
    except Exception as problem:  # noqa: BLE001  # `of` raises a bug again
        found = True
        yield of(name, problem)
    if not found:
        yield Finding(name, fine)


def counts(found: list[Finding]) -> dict[str, int]:
    """Return how many checks passed, failed or were skipped, and how many of all gave a warning.

    A check with several findings counts once.
    """
    names: dict[str, set[str]] = {level: set() for level in (FAILED, WARNING, SKIPPED)}
    for one in found:
        if one.level in names:
            names[one.level].add(one.name)
    failed = names[FAILED]
    skipped = names[SKIPPED] - failed
    passed = len({one.name for one in found}) - len(failed) - len(skipped)
    return {"passed": passed, "failed": len(failed), "warnings": len(names[WARNING]), "skipped": len(skipped)}


def summary(found: list[Finding]) -> str:
    """Return the last line of `doctor`, such as "2 of 17 checks failed, 1 warning."."""
    count = counts(found)
    total = count["passed"] + count["failed"] + count["skipped"]
    parts = [f"{count['failed']} of {total} checks failed"]
    if not count["failed"]:
        parts = [f"All {total} checks passed"]
        if count["skipped"]:
            parts = [f"{count['passed']} of {total} checks passed"]
    if count["warnings"]:
        parts.append("1 warning" if count["warnings"] == 1 else f"{count['warnings']} warnings")
    if count["skipped"]:
        parts.append(f"{count['skipped']} skipped")
    return ", ".join(parts) + "."
