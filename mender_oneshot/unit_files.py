"""Read which units systemd starts at boot from its directories, which also works in a chroot."""

import os
from collections.abc import Iterator

SYSTEMD = "/run/systemd/system"
"""Exists if systemd is the init process (sd_booted(3))."""

DIRECTORIES = (
    *("/etc/systemd/system", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system"),
)
_LINKS = (".wants", ".requires")


def enabled(root: str = "") -> Iterator[str]:
    """Yield the names of the units that another unit wants, without masked ones and dangling links."""
    for directory in DIRECTORIES:
        for wanting in _names(f"{root}{directory}"):
            if wanting.endswith(_LINKS):
                for unit in _names(f"{root}{directory}/{wanting}"):
                    if path(unit, root):
                        yield unit


def path(unit: str, root: str = "") -> str:
    """Return the path of the file of a unit, or "" if there is none or the unit is masked."""
    for directory in DIRECTORIES:
        found = f"{root}{directory}/{unit}"
        if os.path.lexists(found):
            masked = os.path.realpath(found) == os.devnull or not os.path.exists(found)
            return "" if masked else found
    return ""


def services(words: tuple[str, ...], root: str = "") -> Iterator[str]:
    """Yield the names of the services whose files contain all of these words."""
    for directory in DIRECTORIES:
        for name in _names(f"{root}{directory}"):
            if name.endswith(".service") and _contains(f"{root}{directory}/{name}", words):
                yield name


def _contains(path: str, words: tuple[str, ...]) -> bool:
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as unit:
            text = unit.read(65536).decode("utf-8", "replace")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if not line.startswith(("#", ";"))]
    return any(all(word in line for word in words) for line in lines)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
