"""Choose the locale of a shell: from the environment, or the system's files, or else C.UTF-8."""

from collections.abc import Mapping

FILES = ("/etc/locale.conf", "/etc/default/locale")
DEFAULT = {"LANG": "C.UTF-8"}
_LONGEST = 65536
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""Python sets LC_CTYPE to one of these, in its own environment, if no locale is set (PEP 538)."""
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@:-")


def language(environment: Mapping[str, str]) -> dict[str, str]:
    """Return LANG, LANGUAGE and LC_* for a shell."""
    found = {name: value for name, value in environment.items() if _is_ours(name)}
    if found.keys() == {"LC_CTYPE"} and found["LC_CTYPE"] in _COERCED:
        found = {}
    for path in FILES:
        if not found:
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    found = parse(file.read(_LONGEST))
            except OSError:  # most systems have at most one of them
                continue
    return found or DEFAULT


def parse(text: str) -> dict[str, str]:
    """Return the assignments in a file of locale.conf(5); values that are not locale names are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.strip().removeprefix("export ").partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        if _is_ours(name) and value and not set(value) - _CHARACTERS:
            found[name] = value
    return found


def is_utf8(chosen: Mapping[str, str]) -> bool:
    """Return whether a locale uses UTF-8."""
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    effective = next((chosen[name] for name in names if chosen.get(name)), "")
    return "utf8" in effective.lower().replace("-", "")


def _is_ours(name: str) -> bool:
    return name in ("LANG", "LANGUAGE") or name.startswith("LC_")
