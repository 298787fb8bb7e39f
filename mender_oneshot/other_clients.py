"""Find other Mender clients on this device, which would compete with this one for its token and terminal."""

import os
from collections.abc import Iterator

from . import errors, processes, unit_files
from .processes import Process
from .settings import Settings

_UNITS = {
    "mender": ("mender-client.service", "mender.service"),
    "mender-client": ("mender-client.service",),
    "mender-auth": ("mender-authd.service",),
    "mender-authd": ("mender-authd.service",),
    "mender-update": ("mender-updated.service",),
    "mender-updated": ("mender-updated.service",),
    "mender-connect": ("mender-connect.service",),
    "mender-python-client": ("mender-python-client.service",),
}
"""The units of each program that can run as a daemon."""

_DATA_DIRECTORY = "/var/lib/mender"
_DATA_OPTIONS = ("-d", "-data", "--data")


def problems(settings: Settings, root: str = "") -> Iterator[errors.SettingsError]:
    """Yield an error for each other client that is running, or that systemd starts; `root` is for tests."""
    enabled = set(unit_files.enabled(root)) if settings.places.are_default or root else set()
    seen: set[str] = set()
    for process in processes.running():
        name = _client(process, settings)
        if name:
            units = [unit for unit in _UNITS[name] if unit in enabled]
            seen |= set(units)
            stop = f"systemctl disable --now {units[0]}" if units else f"kill {process.number}"
            yield errors.SettingsError(
                f"Another client, {name}, is running (process {process.number}), and {_harm(name)}; "
                f"stop it: {stop}"
            )
    others = {unit for units in _UNITS.values() for unit in units}
    for unit in sorted((others & enabled) - seen):
        name = unit.removesuffix(".service")
        yield errors.SettingsError(
            f"systemd starts another client at boot, {unit}, and {_harm(name)}; disable it: "
            f"systemctl disable --now {unit}"
        )


def _harm(name: str) -> str:
    if name == "mender-connect":
        return "it and this client take the terminal sessions from each other"
    return "for each of the two clients the server replaces the token of the other"


def _client(process: Process, settings: Settings) -> str:
    """Return the name of the client that a process runs as a daemon for this device, or ""."""
    name = next((name for name in _UNITS if name in process.names), "")
    is_daemon = "daemon" in process.words or name.endswith("d")
    if not name or not is_daemon:
        return ""
    directory = _data_directory(process.words)
    return name if os.path.realpath(directory) == os.path.realpath(settings.places.datastore) else ""


def _data_directory(words: tuple[str, ...]) -> str:
    for word, following in zip(words, (*words[1:], ""), strict=True):
        option, separator, value = word.partition("=")
        if option in _DATA_OPTIONS:
            return value if separator else following
    return _DATA_DIRECTORY
