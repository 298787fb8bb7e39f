"""Read a JSON configuration file according to a table of its keys."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import disk, errors
from .paths import Places


class Kind:
    """What a value must be: a test, its description for messages, and a conversion.

    With `null_counts`, null is a value; otherwise it means that the key is not set. Not a `NamedTuple`,
    because defining one takes a noticeable part of a `run` with nothing due.
    """

    __slots__ = ("accepts", "convert", "expected", "null_counts")

    def __init__(
        self,
        accepts: Callable[[Any], bool],
        expected: str,
        convert: Callable[[Any], Any] = lambda value: value,
        null_counts: bool = False,
    ) -> None:
        self.accepts = accepts
        self.expected = expected
        self.convert = convert
        self.null_counts = null_counts


Keys = Mapping[str, tuple[Kind, str]]
"""The keys of a file, by dotted name: the kind of the value, and the field that it sets, "" for none."""

NoEffect = Mapping[str, str]
"""Other keys that a file may have: the end of a warning for each, or "" for no warning."""


Faults = list[errors.SettingsError]
"""Collects the faults of all files, for a reader that continues after each of them."""


class Unreadable(errors.SettingsError):
    """None of the settings in a file can be read."""


def fail(problem: errors.SettingsError, faults: Faults | None) -> None:
    """Add a fault to the collection, or raise it if there is none."""
    if faults is None:
        raise problem
    faults.append(problem)


def is_text(value: object) -> bool:
    """Return whether a value is a string that can be a path: without NUL and lone surrogates."""
    return (
        isinstance(value, str)
        and "\0" not in value
        and not any("\ud800" <= char <= "\udfff" for char in value)
    )


TEXT = Kind(is_text, "a string")
FLAG = Kind(lambda value: isinstance(value, bool), "true or false")
TEXTS = Kind(
    lambda value: isinstance(value, list) and all(map(is_text, value)), "a list of strings", convert=tuple
)


def number(largest: int) -> Kind:
    """Return the kind of a whole number of at most this size."""
    return Kind(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest,
        f"a whole number from 0 to {largest}",
    )


def choice(*words: str) -> Kind:
    """Return the kind of a string that is one of these, in any case, or empty."""
    return Kind(
        lambda value: isinstance(value, str) and value.lower() in ("", *words),
        " or ".join(f'"{word}"' for word in words),
        convert=str.lower,
    )


def read(places: Places, path: str) -> bytes | None:
    """Return the content of a configuration file, None if there is none; raises `Unreadable`."""
    if path.startswith(f"{places.datastore}/") and not os.path.isdir(places.datastore):
        return None  # the first use of the data directory reports the problem
    try:
        return disk.read(path)
    except errors.Error as error:
        raise Unreadable(str(error)) from error


def parse(
    path: str,
    content: bytes,
    keys: Keys,
    no_effect: NoEffect,
    warnings: list[str],
    faults: Faults | None = None,
) -> dict[str, Any]:
    """Return the value of each key that a file sets, by the key's name in `keys`; case does not matter.

    Adds a warning for each key that has no effect. Raises `Unreadable`, with line and column, if the file is
    not a JSON object. A value that is not of its key's kind is added to `faults`, or raised if that is None.
    """
    text, members = parse_object(path, content)
    names = {name.lower(): name for name in (*keys, *no_effect)}
    values: dict[str, Any] = {}
    for typed, trail, value in _flattened(path, text, members, _sections(keys), faults):
        name = names.get(typed.lower(), "")
        if not name:
            warnings.append(_unknown_key(path, typed, names))
        elif name in no_effect:
            if no_effect[name]:
                warnings.append(f"{path}: {name} {no_effect[name]}")
        elif value is not None or keys[name][0].null_counts:
            kind = keys[name][0]
            if kind.accepts(value):
                values[name] = kind.convert(value)
            else:
                fail(_wrong_value(path, text, trail, name, kind.expected), faults)
    return values


def parse_object(path: str, content: bytes) -> tuple[str, dict[str, Any]]:
    """Return the text of a file, and the JSON object in it."""
    try:
        text = content.decode("utf-8-sig")
        members = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Unreadable(f"{path} is not JSON: {error.msg} at {where}; correct it.") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Unreadable(f"{path} is not JSON in UTF-8; save it as UTF-8 JSON.") from error
    if not isinstance(members, dict):
        raise Unreadable(f"{path} must hold one JSON object: {{...}} at line 1, column 1; correct it.")
    return text, members


def _sections(keys: Keys) -> dict[str, str]:
    """Return the names of the objects that hold other keys, by their lower case."""
    sections = {}
    for name in keys:
        while name := name.rpartition(".")[0]:
            sections[name.lower()] = name
    return sections


def _flattened(
    path: str, text: str, members: Mapping[str, Any], sections: Mapping[str, str], faults: Faults | None
) -> Iterator[tuple[str, list[str], Any]]:
    """Yield the dotted name of each member, the keys that lead to it in the file, and its value."""

    def descend(
        inner: Mapping[str, Any], prefix: str, trail: list[str]
    ) -> Iterator[tuple[str, list[str], Any]]:
        for key, value in inner.items():
            section = sections.get(f"{prefix}{key}".lower())
            if section is None:
                yield f"{prefix}{key}", [*trail, key], value
            elif isinstance(value, dict):
                yield from descend(value, f"{section}.", [*trail, key])
            elif value is not None:
                fail(_wrong_value(path, text, [*trail, key], section, "an object"), faults)

    return descend(members, "", [])


def _wrong_value(path: str, text: str, trail: list[str], name: str, expected: str) -> errors.SettingsError:
    line, column = _position(text, trail)
    return errors.SettingsError(
        f"{path}: {name} must be {expected} (line {line}, column {column}); correct it."
    )


def _position(text: str, trail: list[str]) -> tuple[int, int]:
    """Find the line and column of the value that a trail of keys leads to; json keeps no positions."""
    place = 0
    for key in trail:
        # If an object has several members of one name, the last one counts.
        place = dict(_members(text, text.index("{", place))).get(key, place)
    return text.count("\n", 0, place) + 1, place - (text.rfind("\n", 0, place) + 1) + 1


def _members(text: str, start: int) -> Iterator[tuple[str, int]]:
    """Yield each key of the JSON object that begins at `start`, and the place of its value."""
    from json.decoder import JSONDecoder  # needed only for a message

    read_value = JSONDecoder().raw_decode
    place = start
    while text[place] != "}":
        place = _after_blanks(text, place + 1)
        if text[place] == "}":
            return
        key, place = read_value(text, place)
        place = _after_blanks(text, text.index(":", place) + 1)
        yield key, place
        _, place = read_value(text, place)
        place = _after_blanks(text, place)


def _after_blanks(text: str, place: int) -> int:
    return len(text) - len(text[place:].lstrip(" \t\r\n"))


def _unknown_key(path: str, typed: str, names: Mapping[str, str]) -> str:
    """Return a warning about a key, with the name of the nearest one; `names` maps lower case to names."""
    from difflib import get_close_matches  # needed only for a message

    close = get_close_matches(typed.lower(), names, n=1)
    hint = f"; did you mean {names[close[0]]}?" if close else "; it has no effect."
    return f"{path}: the key {typed} is not known{hint}"
