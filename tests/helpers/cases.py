"""The Mender client's own table of cases, and the rows in which an installation here takes another course."""

import csv
import re
from collections.abc import Iterable
from typing import NamedTuple

from helpers.device import REPO

TABLE = REPO / "docs" / "reference" / "update-modules-cases.tsv"

CALLS = {
    "ProvidePayloadFileSizes": "S",
    "Download": "D",
    "DownloadWithFileSizes": "DS",
    "ArtifactInstall": "I",
    "ArtifactReboot": "B",
    "ArtifactVerifyReboot": "V",
    "ArtifactCommit": "C",
    "ArtifactRollback": "R",
    "ArtifactRollbackReboot": "RB",
    "ArtifactVerifyRollbackReboot": "RV",
    "ArtifactFailure": "F",
    "Cleanup": "X",
    "Idle": "Idle",
    "Sync": "Sync",
}
"""The abbreviations of the table: calls of the module, and states."""
ENDS = {"_Enter": "<", "_Leave": ">", "_Error": "!"}
QUESTIONS = {"NeedsArtifactReboot": "N?", "SupportsRollback": "R?"}


def abbreviated(name: str) -> str:
    """Return the abbreviation of a call or a state script, "" if it has none."""
    for end, mark in ENDS.items():
        if name.endswith(end):
            return CALLS[name.removesuffix(end)] + mark
    return CALLS.get(name, "")


def in_full(mark: str) -> str:
    """Return the call or the state script that an abbreviation stands for."""
    names = {mark: name for name, mark in CALLS.items()} | {mark: name for name, mark in QUESTIONS.items()}
    ends = {mark: end for end, mark in ENDS.items()}
    return names[mark[:-1]] + ends[mark[-1]] if mark[-1] in ends else names[mark]


class Course(NamedTuple):
    """The calls and statuses of an installation, abbreviated, and the name that is installed afterwards."""

    calls: str
    statuses: str
    name: str  # "old", "new" or "inconsistent"


class Difference(NamedTuple):
    """What an installation here does in place of the Mender client's course, and why; a sentence."""

    course: Course
    why: str


class Case(NamedTuple):
    """A row of the table."""

    name: str
    injected: str
    rollback: str
    reboot: str
    course: Course  # of the Mender client

    @property
    def faults(self) -> dict[str, str]:
        """Return what goes wrong, by the abbreviation of the call or by the status."""
        found: dict[str, str] = {}
        for part in self.injected.split("; "):
            if match := re.fullmatch(r"(fails-once|fails-always|power-cut-once|hangs) (\S+)", part):
                found[match[2]] = match[1]
            elif match := re.fullmatch(r"server-aborts-at (\S+)", part):
                found[match[1]] = "aborted"
            elif part == "file-sizes yes":
                found["S"] = "Yes"
        return found

    @property
    def expected(self) -> Course:
        """Return the course that an installation here must take."""
        different = DIFFERENT.get(self.name)
        return different.course if different else self.course


def cases() -> list[Case]:
    """Return all rows of the table."""
    with TABLE.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Case(
            row["case"],
            row["injected"],
            "Yes" if row["rollback"] == "yes" else "No",
            "Yes" if row["reboot"] == "yes" else "No",
            Course(row["calls"], row["statuses"], row["name_after"]),
        )
        for row in rows
    ]


def joined(names: Iterable[str]) -> str:
    """Return the abbreviations of calls and state scripts, as in a row of the table."""
    return " ".join(filter(None, map(abbreviated, names)))


GOOD = Course(
    "D< S D D> I< I I> B< B V B> C< C C> X", "downloading installing rebooting installing success", "new"
)

_DOWNLOAD_AGAIN = (
    "Nothing on the device has changed before ArtifactInstall_Enter, so the download is repeated from the "
    "verified artifact."
)
_ASK_THE_MODULE = (
    "The update has done nothing wrong, so the module is asked which system runs, and the commit is finished."
)

DIFFERENT = {
    "Error_in_Download_Enter_00_state__no_rollback": Difference(
        Course("D< D!", "failure", "old"),
        "Download_Enter can hold up the update for days, so `downloading` is only reported after it.",
    ),
    "Killed_in_Download_Enter_00_state__no_rollback": Difference(
        GOOD._replace(calls="D< D< S D D> I< I I> B< B V B> C< C C> X"),
        "Nothing has been downloaded yet, so the script is run again.",
    ),
    "Killed_in_Download_Leave_00_state__no_rollback": Difference(
        GOOD._replace(calls="D< S D D> S D D> I< I I> B< B V B> C< C C> X"), _DOWNLOAD_AGAIN
    ),
    "Non_writable_database_in_ArtifactInstall_Enter": Difference(
        GOOD._replace(calls="D< S D D> S D D> I< I I> B< B V B> C< C C> X"),
        "A phase that cannot be recorded is not started, and the next run tries again; here the disk can be "
        "written by then.",
    ),
    "Killed_in_ArtifactCommit": Difference(
        GOOD._replace(calls="D< S D D> I< I I> B< B V B> C< C V C C> X"), _ASK_THE_MODULE
    ),
    "Killed_in_ArtifactCommit__no_reboot": Difference(
        Course("D< S D D> I< I I> C< C V C C> X", "downloading installing installing success", "new"),
        _ASK_THE_MODULE,
    ),
    "Break_out_of_error_loop": Difference(
        Course(
            "D< S D D> I< I I> B< B V B! R< R R> RB< " + "RB RV " * 10 + "F< F F> X",
            "downloading installing rebooting failure",
            "inconsistent",
        ),
        "The device reboots ten times at most; then the failure is handled and the module cleans up.",
    ),
}


CUTS = REPO / "tests" / "installer" / "cuts.tsv"
REQUESTS = {"status": "PUT */status", "login": "POST */auth_requests"}


class Cut(NamedTuple):
    """A power cut in a state of an installation, and what comes of it."""

    name: str
    at: str
    """The call or the script in which it happens ("C." is the end of the call C), or a request to the server:
    which one of its kind, and whether the server has answered it."""
    failed: list[str]  # the calls that have failed before, each once
    reboot: str
    course: Course
    mender: str  # what the Mender client makes of it
    why: str  # the reason for a difference, a sentence

    @property
    def request(self) -> tuple[str, int, bool] | None:
        """Return the pattern of a request, which one of its kind, and whether the server processes it."""
        kind, _, rest = self.at.partition(" ")
        if not rest:
            return None
        nth, moment = rest.split()
        return REQUESTS[kind], int(nth), moment == "answered"


def cuts() -> list[Cut]:
    """Return the power cuts of `cuts.tsv`."""
    with CUTS.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Cut(
            row["cut"],
            row["at"],
            row["failed"].split(),
            "Yes" if row["reboot"] == "yes" else "No",
            Course(row["calls"], row["statuses"], row["name_after"]),
            row["mender"],
            row["why"],
        )
        for row in rows
    ]


DOCUMENT = REPO / "docs" / "reference" / "installation-cases.md"
INTRODUCTION = """# Installations, case by case

What the built-in installer does after each error and each power cut, and where that differs from the Mender
client. The tests carry out each row with real processes against the development server. This page is
generated from [update-modules-cases.tsv](update-modules-cases.tsv) and `tests/installer/cuts.tsv` by
`PYTHONPATH=tests .venv/bin/python -m helpers.cases`.

| abbreviation | call of the update module |
|---|---|
"""
SCRIPTS = """
`I<`, `I>` and `I!` are the state scripts `ArtifactInstall_Enter`, `_Leave` and `_Error`, and so on. The
questions `NeedsArtifactReboot` and `SupportsRollback` are left out. The name afterwards is that of the old
artifact, of the new one, or `inconsistent`: the new one with the suffix `_INCONSISTENT`.
"""
CASES_TITLE = """
## The Mender client's own test cases

The last column tells whether calls, statuses and name are those of the Mender client.

| case | what goes wrong | rollback | reboot | calls | result | name | same |
|---|---|---|---|---|---|---|---|
"""
DIFFERENT_TITLE = """
The rows that differ:

| case | the Mender client | result there | why it differs here |
|---|---|---|---|
"""
CUTS_TITLE = """
## Power cuts

The Mender client was killed in each of these states ([update-modules.md](update-modules.md), section 4).
The second column names the calls that had failed before.

| power cut | failed before | calls | result | name | result of the Mender client | why it differs here |
|---|---|---|---|---|---|---|
"""


def document() -> str:
    """Return the page of all cases, from the tables."""
    text = INTRODUCTION
    text += "".join(
        f"| {mark} | `{name}` |\n" for name, mark in CALLS.items() if name not in ("Idle", "Sync")
    )
    text += SCRIPTS + CASES_TITLE
    for case in cases():
        course = case.expected
        same = "no" if case.name in DIFFERENT else "yes"
        text += _row(
            case.name.replace("__", ", ").replace("_", " "),
            case.injected,
            case.rollback.lower(),
            case.reboot.lower(),
            course.calls,
            _result(course),
            course.name,
            same,
        )
    text += DIFFERENT_TITLE
    for case in cases():
        if case.name in DIFFERENT:
            name = case.name.replace("__", ", ").replace("_", " ")
            result = f"{_result(case.course)}, {case.course.name}"
            text += _row(name, case.course.calls, result, DIFFERENT[case.name].why)
    text += CUTS_TITLE
    for cut in cuts():
        course = cut.course
        failed = " ".join(cut.failed)
        text += _row(cut.name, failed, course.calls, _result(course), course.name, cut.mender, cut.why)
    return text


def _result(course: Course) -> str:
    return course.statuses.split()[-1]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |")


if __name__ == "__main__":
    DOCUMENT.write_text(document())
