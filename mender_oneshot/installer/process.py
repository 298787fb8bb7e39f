"""Start a process of an update module or a state script, wait for it, or end it with all that it started."""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .. import disk, errors, pidfile
from . import output

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL, as in the Mender client."""

log = logging.getLogger(__name__)


class Started(subprocess.Popen[bytes]):
    """A process that `start` has started; `printed_from` is the `output.position` before it."""

    printed_from = -1


class _Process(NamedTuple):
    """A running process; `started` tells it from a later one with the same number."""

    number: int
    parent: int
    session: int
    started: str


def start(
    command: Sequence[str],
    directory: str,
    environment: Mapping[str, str],
    note: str,
    stdout: int | None = None,
) -> Started:
    """Start the leader of a session, its output going to our stderr, and name it in the file `note`.

    An empty `note` stands for none. Raises `OSError` if the command cannot be started, `errors.NoSpace` or
    `errors.DiskError` if the note cannot be opened.
    """
    try:
        opened = disk.open_own(note, os.O_RDWR) if note else -1
    except OSError as error:
        raise disk.failure(f"write {note}", error) from error

    def write_note() -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(opened, 0)
            os.write(opened, pidfile.note())

    printed_from = output.position()
    try:
        process = Started(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2 if stdout is None else stdout,
            cwd=directory,
            env=dict(environment),
            umask=0o022,
            start_new_session=True,
            preexec_fn=write_note if note else None,  # safe: there are no threads here
        )
    finally:
        if note:
            os.close(opened)
    process.printed_from = printed_from
    return process


def forget(note: str) -> None:
    """Empty the note: what a process that has ended left running is not to be stopped later."""
    with contextlib.suppress(OSError):
        os.truncate(note, 0)


def wait(process: "subprocess.Popen[bytes]", end: float) -> int | None:
    """Wait for a process to end, and keep its output in the log short; None if it still runs at `end`.

    `end` is a monotonic time. The children of the process are not waited for.
    """
    pause = 0.001
    while process.poll() is None:
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = 0.001 if output.shorten() else min(pause * 2, 0.1)
    output.shorten()
    return process.returncode


def stop(process: "subprocess.Popen[bytes]", grace: float = GRACE_SECONDS) -> None:
    """End the leader of a session and everything it started: SIGTERM, and after `grace` seconds SIGKILL.

    Children with a session of their own are ended as well, unless their parent has ended before.
    """
    family = _family(_running(), {process.pid})
    if grace:
        _signal(family, signal.SIGTERM)
        wait(process, time.monotonic() + grace)
    kill_session(process.pid, family)
    process.wait()


def kill_session(leader: int, known: Iterable[_Process] = ()) -> None:
    """Kill the processes of a session, those in `known`, and the descendants of both; wait until they end."""
    end = time.monotonic() + GRACE_SECONDS
    while True:
        running = _running()
        left = _family(running, {leader, *(one.number for one in set(known).intersection(running))})
        if not left:
            return
        _signal(left, signal.SIGKILL)
        if time.monotonic() > end:
            numbers = ", ".join(str(one.number) for one in left)
            log.warning("Cannot stop the processes %s, probably because of a device; reboot.", numbers)
            return
        time.sleep(0.005)


def end_what_is_left(path: str) -> None:
    """Kill what outlived the last installer, so that no two calls or scripts ever run at once.

    `path` is the file that names the process it started last.
    """
    try:
        note = disk.read_own(path, 256) or b""
    except errors.Error as error:
        log.warning("%s", error)
        return
    if _end(note):
        log.warning("A call of the update module or a state script outlived the installer; stopped it.")


def _end(note: bytes) -> bool:
    """Kill what the process that a note describes has left running, and return whether there was anything."""
    fields = note.decode("ascii", "replace").split()
    if len(fields) != 3 or not fields[1].isdigit() or fields[0] != pidfile.boot_id():
        return False
    leader = int(fields[1])
    fields_now = _stat(leader)
    if fields_now and fields_now[19].decode() != fields[2]:
        return (
            False  # another process has the number, so the session has ended: it keeps its number until then
        )
    found = bool(_family(_running(), {leader}))
    if found:
        kill_session(leader)
    return found


def _running() -> list[_Process]:
    """Return all processes that have not ended; an empty list without /proc."""
    found = []
    with contextlib.suppress(OSError):
        for number in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            fields = _stat(number)
            if fields and fields[0] not in (b"Z", b"X"):
                found.append(_Process(number, int(fields[1]), int(fields[3]), fields[19].decode()))
    return found


def _stat(number: int) -> list[bytes]:
    """Return the fields of /proc/N/stat from the state on, an empty list if there is no such process."""
    try:
        with open(f"/proc/{number}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may contain anything
    except OSError:
        return []
    return fields if len(fields) > 19 else []


def _family(running: Iterable[_Process], roots: set[int]) -> set[_Process]:
    """Return the processes in `roots`, the members of their sessions, and the descendants of all of these."""
    family: set[_Process] = set()
    numbers = set(roots)
    while True:
        more = {
            one
            for one in running
            if one not in family and (one.number in numbers or one.session in roots or one.parent in numbers)
        }
        if not more:
            return family
        family |= more
        numbers |= {one.number for one in more}


def _signal(processes: Iterable[_Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.number, number)
