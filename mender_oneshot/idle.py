"""Whether a `run` can exit at once because the last one found nothing due, without reading a file.

A `run` at whose end nothing is due leaves two empty files in /run: the time stamp of one is the time of
that end, that of the other the time until which nothing will be due. Until then nothing is due, unless the
configuration, the state or the data directory has changed, or the clock was set back; a clock that was set
forward ends the wait early. A reboot removes both files.

`cron/idle.sh` does the same for the timers and cron, so that they need not start Python. It cannot read the
clock, but the directory of a process in /proc has the time of the process's start.
"""

import os

SLACK = 2.0
"""A file that changed within so many seconds may change again without a later time stamp."""
LONGEST = 86400.0

_KINDS = {
    ("run",): "all",
    ("run", "--all"): "all",
    ("run", "--all", "--only", "update"): "update",
    ("run", "--all", "--only", "inventory"): "inventory",
}


def kind_of(arguments: list[str]) -> str:
    """Return "all", "update" or "inventory", the steps that a command line is about; "" for any other."""
    return _KINDS.get(tuple(arguments[1:] if arguments[:1] == ["--syslog"] else arguments), "")


def directory(data: str = "") -> str:
    """Return the directory in /run of a data directory, by default of the one in the environment."""
    return (os.environ.get("MENDER_RUN_DIR") or "/run/mender-oneshot") + (data or _data())


def watched() -> tuple[str, ...]:
    """Return the files and directories that decide, together with the clock, what is due."""
    conf, data = os.environ.get("MENDER_CONF_DIR") or "/etc/mender", _data()
    return conf, f"{conf}/mender.conf", data, f"{data}/mender.conf", f"{data}/mender-oneshot.json"


def _data() -> str:
    return os.environ.get("MENDER_DATASTORE_DIR") or "/var/lib/mender"


def lasts(kind: str, now: float) -> bool:
    """Return whether nothing is due at `now`, in seconds since 1970."""
    base = f"{directory()}/{kind}"
    try:
        since = os.stat(f"{base}.since").st_mtime
        if not since < now < os.stat(f"{base}.until").st_mtime:
            return False
    except OSError:
        return False
    return all(_changed_at(path) <= since for path in watched())


def note(kind: str, began: float, wait: float) -> None:
    """Leave the two files for `wait` seconds with nothing due after `began`, when the files were read.

    Does nothing if a file may change without a later time stamp, or if the two cannot be written; the next
    run then looks by itself.
    """
    for path in watched():
        # What replaces the target of a link may be older than the target was.
        if _changed_at(path) >= began - 2 * SLACK or (os.path.islink(path) and not os.path.isdir(path)):
            return
    base = f"{directory()}/{kind}"
    try:
        os.makedirs(directory(), 0o755, exist_ok=True)
        _stamp(f"{base}.since", began - SLACK)
        _stamp(f"{base}.until", began + min(wait, LONGEST))
    except OSError:
        return


def _stamp(path: str, at: float) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    os.utime(path, (at, at))


def _changed_at(path: str) -> float:
    """Return when a file was changed; 0 if there is none: its directory has the time of its removal."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0
