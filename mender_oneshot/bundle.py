"""Collect what explains the state of a device in one archive, without secrets: `doctor --bundle FILE`."""

import contextlib
import importlib.metadata
import io
import json
import os
import ssl
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import (
    __version__,
    deployment_log,
    disk,
    errors,
    findings,
    history,
    known_secrets,
    libraries,
    past_deployments,
    paths,
    schedule_checks,
    status,
)
from .configuration_checks import Configuration
from .findings import Finding
from .redaction import Redactor
from .settings import Settings
from .syslog import visible

LOG_BYTES = 256 * 1024
"""Bytes of one log; the newest lines are kept."""
MEMBER_BYTES = 512 * 1024
FILES = 2000
"""Files that the list of files names."""
DIRECTORY = "mender-oneshot-doctor"

Text = Callable[[], str]


def require_new(path: str) -> None:
    """Raise `errors.NoSpace` if the archive cannot be created: its name is taken, or has no directory."""
    if os.path.lexists(path):
        raise errors.NoSpace(f"{path} already exists; choose another name for the bundle, or remove it.")
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise errors.NoSpace(f"{path} cannot be created: there is no directory {directory}; create it.")


def write(path: str, found: Configuration, checks: list[Finding], facts: Mapping[str, Any]) -> int:
    """Write the archive with mode 0600 and return its size in bytes; nothing else is changed.

    `facts` is what `doctor --json` prints. A part that cannot be collected is replaced by the reason. Raises
    `errors.NoSpace` or `errors.DiskError` if the file cannot be written; nothing is left of it then.
    """
    redactor = Redactor(known_secrets.collect(found.settings))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in _members(found, checks, facts, redactor):
            content = text().encode("utf-8", "replace")[-MEMBER_BYTES:]
            member = tarfile.TarInfo(f"{DIRECTORY}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(content))
    require_new(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path, flags, 0o600), "wb") as file:
            try:
                file.write(buffer.getvalue())
                file.flush()
            except OSError:
                os.unlink(path)
                raise
    except OSError as error:
        raise disk.failure(f"write the bundle {path}", error) from error
    return len(buffer.getvalue())


def _members(
    found: Configuration, checks: list[Finding], facts: Mapping[str, Any], redactor: Redactor
) -> Iterator[tuple[str, Text]]:
    """Yield the name of each file in the archive, and a function that returns its text without secrets."""
    settings = found.settings

    def as_json(collect: Callable[[], Any]) -> Text:
        return _safe(lambda: json.dumps(redactor.value(collect()), indent=1, default=str) + "\n")

    def lines(collect: Callable[[], list[str]]) -> Text:
        return _safe(lambda: redactor.text("".join(f"{visible(line)}\n" for line in collect())))

    shown = [line for one in checks for line in one.lines()]
    yield "doctor.txt", lines(lambda: [*shown, findings.summary(checks)])
    yield "doctor.json", as_json(lambda: facts)
    yield "status.txt", lines(lambda: status.lines(status.describe(settings)))
    yield "status.json", as_json(lambda: status.describe(settings))
    yield "history.txt", lines(lambda: past_deployments.history_of(settings)[1])
    yield "history.json", as_json(lambda: past_deployments.history_of(settings)[0])
    yield "configuration.json", as_json(lambda: _configuration(found))
    yield "state.json", as_json(lambda: _state(settings))
    yield "versions.txt", lines(_versions)
    yield "os-release", lines(lambda: _tail("/etc/os-release").splitlines())
    yield "schedule.txt", lines(_schedule)
    yield "files.txt", lines(lambda: list(_files(settings)))
    log = f"{settings.log_directory}/{paths.DEPLOYMENT_LOG}"
    yield paths.DEPLOYMENT_LOG, lines(lambda: _log(_tail(log)))
    sub_updater_log = settings.places.data(paths.SUB_UPDATER_LOG)
    yield paths.SUB_UPDATER_LOG, lines(lambda: _tail(sub_updater_log).splitlines())
    logs = settings.places.data(paths.HISTORY_LOGS)
    for name in _names(logs)[-2 * history.KEPT :]:
        yield f"{paths.HISTORY_LOGS}/{name}", _log_of(f"{logs}/{name}", lines)


def _log_of(path: str, lines: Callable[[Callable[[], list[str]]], Text]) -> Text:
    return lines(lambda: _log(_tail(path)))


def _safe(text: Text) -> Text:
    """Return a function that returns the text, or why it cannot be collected."""

    def collect() -> str:
        try:
            return text()
        except errors.Error as error:
            return f"Not collected: {error}\n"
        except FileNotFoundError as error:
            return f"There is no {error.filename}.\n"
        except OSError as error:
            return f"Not collected: {error.filename or 'a file'}: {os.strerror(error.errno or 0)}\n"
        except ValueError:
            return "Not collected: the file is corrupt.\n"

    return collect


def _log(text: str) -> list[str]:
    return history.log_lines(deployment_log.entries(text))


def _tail(path: str) -> str:
    """Return the end of a regular file; raises `OSError`."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return "It is not a regular file.\n"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - LOG_BYTES))
        return file.read(LOG_BYTES).decode("utf-8", "replace")


def _configuration(found: Configuration) -> dict[str, Any]:
    return {
        "client": {**found.settings._asdict(), "places": found.settings.places._asdict()},
        "terminal": {**found.terminal._asdict(), "limits": found.terminal.limits._asdict()},
        "faults": [str(fault) for fault in (*found.faults, *found.terminal_faults)],
    }


def _state(settings: Settings) -> Any:
    content = disk.read(settings.places.data(paths.STATE))
    return None if content is None else json.loads(content)


def _versions() -> list[str]:
    system = os.uname()
    found = [
        f"mender-oneshot {__version__}",
        f"Python {sys.version.split()[0]} ({sys.executable})",
        f"{ssl.OPENSSL_VERSION}",
        f"{system.sysname} {system.release} {system.version} {system.machine}",
    ]
    for library in libraries.LIBRARIES:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{library}: not installed")
    return found


def _schedule() -> list[str]:
    patterns = ("mender*.timer", "mender*.service")
    systemd = schedule_checks.systemctl("list-timers", "--all", "--no-pager", patterns[0])
    units = schedule_checks.systemctl("list-units", "--all", "--no-pager", *patterns)
    crontabs = [f"{line.file}: {line.text}" for line in schedule_checks.cron_lines(systemd=False)]
    return [*systemd.splitlines(), *units.splitlines(), *(crontabs or ["No crontab runs mender-oneshot."])]


def _files(settings: Settings) -> Iterator[str]:
    """Yield mode, owner, size, time and name of each file of the client."""
    places = settings.places
    left = FILES
    for top in dict.fromkeys((places.conf_dir, places.datastore, places.scripts_dir)):
        for directory, inner, names in os.walk(top):
            inner.sort()
            for path in (directory, *(f"{directory}/{name}" for name in sorted(names))):
                if left <= 0:
                    yield f"The list ends here, after {FILES} files."
                    return
                left -= 1
                with contextlib.suppress(OSError):
                    yield _entry(path)


def _entry(path: str) -> str:
    found = os.lstat(path)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(found.st_mtime))
    link = f" -> {os.readlink(path)}" if stat.S_ISLNK(found.st_mode) else ""
    owner = f"{found.st_uid}:{found.st_gid}"
    return f"{stat.filemode(found.st_mode)} {owner:<11} {found.st_size:>10} {at} {path}{link}"


def _names(directory: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(directory) if name.endswith(".log"))
    return []
