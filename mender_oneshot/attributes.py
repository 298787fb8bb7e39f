"""Collect the inventory: run the inventory scripts and merge their output within the limits of the server.

The server rejects a whole inventory if one name is too long or there is one attribute too many (device-api.md
section 2), so such lines are left out and reported.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from . import __version__, device, disk, errors, key_values, scripts
from .settings import Settings

ATTRIBUTE_LIMIT = 100
NAME_LIMIT = 1024  # bytes
BODY_LIMIT = 1 << 20  # bytes of the request
MOST_PROBLEMS = 20

PREFIX = "mender-inventory-"

_OWN = ("device_type", "artifact_name", "mender_client_version")
_LEFTOVERS = (
    *("~", ".bak", ".new", ".old", ".orig", ".rej", ".save", ".swo", ".swp", ".swx", ".tmp"),
    *(".dpkg-bak", ".dpkg-dist", ".dpkg-new", ".dpkg-old", ".dpkg-tmp", ".rpmnew", ".rpmorig", ".rpmsave"),
    *(".ucf-dist", ".ucf-new", ".ucf-old"),
)
_LEFT_OUT = "left out of the inventory, because"
_JSON_OVERHEAD = 40  # bytes of {"name": , "value": []}, with the separators, and some to spare


class Inventory(NamedTuple):
    """The attributes to send, and a message for each script or line that was skipped or changed."""

    attributes: dict[str, str | list[str]]
    problems: tuple[str, ...]


def own(settings: Settings) -> dict[str, str]:
    """Return the attributes that do not come from scripts; raise `errors.SettingsError` if one is missing."""
    provides = device.provides(settings)
    return {
        "device_type": device.device_type(settings),
        "artifact_name": provides["artifact_name"],
        "mender_client_version": f"mender-oneshot {__version__}",
    } | {name: value for name, value in provides.items() if name not in _OWN}


def collect(settings: Settings, known: Mapping[str, str], *, patient: bool) -> Inventory:
    """Run the inventory scripts in order of name and merge their output with the attributes `known`.

    A script that fails or a line that is invalid does not affect the others. With `patient`, raises
    `errors.TemporaryError` if a script cannot be started now but may be later.
    """
    merged = _Merged({name: value for name, value in known.items() if name in _OWN})
    for name, value in known.items():
        if name not in _OWN:
            merged.add(settings.places.artifact_info, 0, name, value)
    merged.reserve(known)
    for path in _scripts(settings.places.inventory_scripts, merged.problems):
        try:
            output = scripts.run(settings, path)
        except errors.ScriptFailed as error:
            merged.problems.append(f"Skipping inventory script {path}: {error}.")
        except errors.TemporaryError as error:
            if patient:
                raise
            merged.problems.append(f"Skipping inventory script {path}: {error}")
        else:
            _read(path, output, merged)
    return merged.inventory()


def _scripts(directory: str, problems: list[str]) -> Iterator[str]:
    """Yield the paths of the scripts to run; add a message to `problems` for every other file."""
    disk.require_target(directory)
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return  # inventory scripts are optional
    except OSError as error:
        problems.append(f"Skipping all inventory scripts: {directory} cannot be read ({error.strerror}).")
        return
    for name in names:
        path = f"{directory}/{name}"
        if reason := _excluded(path, name):
            problems.append(f"Skipping inventory script {path}: {reason}.")
        else:
            yield path


def _excluded(path: str, name: str) -> str:
    """Return why a file of the inventory directory is not run, or ""."""
    if name.startswith(("#", ".#")) or name.lower().endswith(_LEFTOVERS):
        # A copy of a script would double each value of the script and turn it into a list.
        return "its name is that of a backup or of an unfinished installation; remove it"
    if os.path.isdir(path):
        return "it is a directory"
    if not name.startswith(PREFIX):
        return f"its name does not begin with {PREFIX}; rename it, or move it elsewhere"
    # Any other problem shows when the script is started.
    return "" if os.access(path, os.X_OK) else scripts.obstacle(path) or "it is not executable"


def _read(path: str, output: bytes, merged: "_Merged") -> None:
    found = False
    for number, line in enumerate(output.split(b"\n"), 1):
        text = line.decode("utf-8", "replace")
        pair = key_values.parse_line(text, strip=True)
        if pair is None:
            continue
        found = True
        if "\N{REPLACEMENT CHARACTER}" in text and not _is_utf8(line):
            merged.note(path, number, "bytes that are not UTF-8 were replaced")
        merged.add(path, number, *pair)
    if not found:
        merged.problems.append(f"The inventory script {path} adds nothing: it printed no key=value line.")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Merged:
    """Collects attributes one by one, within the limits of the server."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.values: key_values.Values = {name: [value] for name, value in known.items()}
        self.problems: list[str] = []
        self._reserved: set[str] = set(known)
        self._noted: dict[tuple[str, str], list[int]] = {}
        self._size = 2 + sum(_JSON_OVERHEAD + _size(name, value) for name, value in known.items())

    def reserve(self, names: Mapping[str, str]) -> None:
        """Ignore values that scripts print under these names."""
        self._reserved |= set(names)

    def add(self, path: str, number: int, name: str, value: str) -> None:
        """Add a value from line `number` of a file, or note why the server would reject it."""
        if name in self._reserved:
            return
        new = name not in self.values
        size = _JSON_OVERHEAD + _size(name, value) if new else 4 + _size(value)
        if "\0" in name or "\0" in value:
            self.note(path, number, f"{_LEFT_OUT} it contains a NUL byte")
        elif len(name.encode()) > NAME_LIMIT:
            self.note(path, number, f"{_LEFT_OUT} its name has more than {NAME_LIMIT} bytes")
        elif new and len(self.values) >= ATTRIBUTE_LIMIT:
            limit = f"a Mender server accepts only {ATTRIBUTE_LIMIT} attributes; print fewer"
            self.note(path, number, f"{_LEFT_OUT} {limit}")
        elif self._size + size > BODY_LIMIT:
            limit = f"a Mender server accepts only {BODY_LIMIT} bytes; print less"
            self.note(path, number, f"{_LEFT_OUT} {limit}")
        else:
            self.values.setdefault(name, []).append(value)
            self._size += size

    def note(self, path: str, number: int, problem: str) -> None:
        """Record a problem with a line; `number` is 0 if it is unknown."""
        self._noted.setdefault((path, problem), []).append(number)

    def inventory(self) -> Inventory:
        """Return the collected attributes, and at most `MOST_PROBLEMS` messages."""
        problems = [
            *self.problems,
            *(f"{path}, {_lines(found)}: {problem}." for (path, problem), found in self._noted.items()),
        ]
        more = len(problems) - MOST_PROBLEMS
        if more > 0:
            problems[MOST_PROBLEMS:] = [f"The inventory scripts have {more} more problems like these."]
        return Inventory(
            {name: key_values.single(values) for name, values in self.values.items()}, tuple(problems)
        )


def _size(*texts: str) -> int:
    return sum(len(json.dumps(text)) for text in texts)


def _lines(numbers: list[int]) -> str:
    """Return "line 3" or "4 lines (1, 2, 3, ...)" for a message."""
    if len(numbers) == 1:
        return f"line {numbers[0]}" if numbers[0] else "a line"
    shown = ", ".join(str(number) for number in numbers[:3] if number)
    rest = ", ..." if len(numbers) > 3 else ""
    return f"{len(numbers)} lines" + (f" ({shown}{rest})" if shown else "")
