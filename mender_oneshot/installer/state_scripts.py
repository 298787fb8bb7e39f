"""State scripts: which there are for a state, in which order, and what their exit codes mean.

The facts: update-modules.md section 3.
"""

import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .. import disk, pidfile, scripts
from ..state import Gate
from . import output
from . import process as processes

STATES = (
    *("Idle", "Sync", "Download", "ArtifactInstall", "ArtifactReboot", "ArtifactCommit"),
    *("ArtifactRollback", "ArtifactRollbackReboot", "ArtifactFailure"),
)
NAME = re.compile(rf"({'|'.join(STATES)})_(Enter|Leave|Error)_[0-9]{{2}}(_\S+)?")
OF_ARTIFACT = tuple(state for state in STATES if state.startswith("Artifact"))
VERSIONS = ("2", "3")
RETRY = 21
"""The exit code of a script that asks to be run again later."""


class ScriptFailed(Exception):
    """A state script failed; the text is a sentence that names it."""


class Paused(Exception):
    """A state script asked to be run again later; the text is its name, `gate` what the next run needs."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.script)
        self.gate = gate


class Limits(NamedTuple):
    """How long a script may run, and may ask for pauses, in seconds; its environment, and where it is noted.

    `note` is the file that names the process of the script that runs, "" for none.
    """

    seconds: float
    retry_seconds: float
    environment: Mapping[str, str]
    note: str = ""


def find(directory: str, state: str, action: str) -> list[str]:
    """Return the names of the scripts for a state and an action, in the order in which they run.

    Raises `ScriptFailed` if the directory holds scripts in a format that is not supported.
    """
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ScriptFailed(f"The state scripts in {directory} cannot be read: {error.strerror}.") from error
    found = [
        name for name in names if (match := NAME.fullmatch(name)) and match.groups()[:2] == (state, action)
    ]
    if found:
        check_version(directory)
    return [name for name in found if _is_executable(f"{directory}/{name}")]


def _is_executable(path: str) -> bool:
    """Return whether a script has the mode of one; for other reasons, such as noexec, none is skipped."""
    try:
        return bool(os.stat(path).st_mode & 0o111)
    except OSError:
        return os.path.islink(path)  # a link to nothing fails when it is started


def check_version(directory: str) -> None:
    """Raise `ScriptFailed` unless the `version` of a directory of scripts is supported; none is fine."""
    path = f"{directory}/version"
    try:
        with open(path, "rb") as file:
            found = file.read(64).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ScriptFailed(
            f"The version of the state scripts, {path}, cannot be read: {error.strerror}."
        ) from error
    if found not in VERSIONS:
        raise ScriptFailed(
            f"The state scripts in {directory} have version {found[:20]!r}, but only 2 and 3 are supported; "
            f"correct {path}."
        )


def require_executable(directory: str) -> None:
    """Raise `ScriptFailed` if there are scripts in a directory of a file system that is mounted noexec.

    They are not run by their interpreters instead: noexec means that no code of this file system is run.
    """
    if os.listdir(directory) and os.statvfs(directory).f_flag & os.ST_NOEXEC:
        raise ScriptFailed(
            f"The artifact has state scripts, which cannot be run in {directory}, because its file system is "
            "mounted noexec; mount it without that option, or build the artifact without state scripts."
        )


def run(directory: str, state: str, action: str, limits: Limits, before: Gate | None = None) -> None:
    """Run the scripts for a state and an action, from the one that asked for a pause `before` on.

    Raises `Paused`, or `ScriptFailed` at the first that fails. After a failed `Error` script the others still
    run, and the first failure is raised afterwards.
    """
    names = find(directory, state, action)
    if before and before.script in names:
        names = names[names.index(before.script) :]
    failure: ScriptFailed | None = None
    for name in names:
        try:
            if _run_one(f"{directory}/{name}", name, limits) == RETRY:
                raise Paused(_asked_again(before, name, limits.retry_seconds))
        except ScriptFailed as error:
            if action != "Error":
                raise
            failure = failure or error
    if failure:
        raise failure


def _asked_again(before: Gate | None, script: str, limit: float) -> Gate:
    """Return what to keep of a script that asks for a pause; raise `ScriptFailed` after more than `limit` s.

    Only the time between two requests in the same boot counts.
    """
    now = Gate(
        script, at=time.time(), boot=pidfile.boot_id(), uptime=time.clock_gettime(time.CLOCK_MONOTONIC)
    )
    if before is None or before.script != script:
        return now
    waited = before.waited + (max(0.0, now.uptime - before.uptime) if before.boot == now.boot else 0)
    if waited > limit:
        raise ScriptFailed(
            f"The state script {script} has asked for a pause for over {limit:.0f} s; raise "
            "StateScriptRetryTimeoutSeconds if it needs longer."
        )
    return now._replace(waited=waited)


def _run_one(path: str, name: str, limits: Limits) -> int:
    """Run a script to its end; return 0 or `RETRY`, raise `ScriptFailed` for anything else."""
    try:
        process = processes.start([path], "/", limits.environment, limits.note)
    except OSError as error:
        raise ScriptFailed(
            f"The state script {name} cannot be started: {scripts.explain(path, error)}."
        ) from error
    try:
        code = processes.wait(process, time.monotonic() + limits.seconds)
    except BaseException:
        processes.stop(process, grace=0)
        raise
    if code is None:
        processes.stop(process, grace=0)
        raise ScriptFailed(
            f"The state script {name} did not end within {limits.seconds:.0f} s and was stopped; raise "
            "StateScriptTimeoutSeconds if it needs longer."
        )
    if limits.note:
        processes.forget(limits.note)
    if code not in (0, RETRY):
        processes.kill_session(process.pid)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise ScriptFailed(f"The state script {name} failed ({how}){output.reason(process.printed_from)}")
    return code


def store(directory: str, name: str, content: Iterable[bytes]) -> None:
    """Write a script of an artifact; raises `errors.NoSpace` or `errors.DiskError`."""
    path = f"{directory}/{name}"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "wb", buffering=0) as file:
            for piece in content:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise disk.failure(f"write {path}", error) from error
