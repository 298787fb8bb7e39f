"""The JSON texts of an artifact, checked value by value: each function raises the refusal of the artifact."""

import json
from typing import Any

from .tar import damaged, is_clean, shown


def parsed(data: bytes, what: str) -> object:
    """Parse a JSON text; keys that occur twice, and what only Python calls JSON, are rejected."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_unknown)
    except (ValueError, RecursionError):  # the latter for a nesting of a thousand or so
        raise damaged(f"its {what} is not JSON with unique keys") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; keys that are there twice are refused, for readers differ in which one they take."""
    known = dict(pairs)
    if len(known) != len(pairs):
        raise ValueError
    return known


def _unknown(_constant: str) -> object:
    raise ValueError  # NaN and the like, which only Python calls JSON


def given(values: dict[str, Any], key: str, otherwise: object) -> object:
    """What stands there; null is as good as nothing, as in Go, the language of the programs that write it."""
    return otherwise if values.get(key) is None else values[key]


def as_object(value: object, what: str) -> dict[str, Any]:
    """Return a value that must be an object."""
    if not isinstance(value, dict):
        raise damaged(f"its {what} is not a JSON object")
    return value


def as_text(value: object, what: str, may_be_empty: bool = False) -> str:
    """Return a value that must be a string without control characters."""
    if not isinstance(value, str) or not is_clean(value) or not (value or may_be_empty):
        raise damaged(f"its {shown(what)} is missing or not a plain text")
    return value


def as_texts(value: object, what: str) -> tuple[str, ...]:
    """Return a value that must be a list of such strings."""
    if not isinstance(value, list):
        raise damaged(f"its {shown(what)} is not a list of texts")
    return tuple(as_text(item, what) for item in value)


def texts_by_key(value: object, what: str) -> dict[str, tuple[str, ...]]:
    """Conditions: each a text, or a list of texts of which one must fit."""
    conditions = as_object(value, what)
    return {
        as_text(key, what): as_texts([item] if isinstance(item, str) else item, what)
        for key, item in conditions.items()
    }
