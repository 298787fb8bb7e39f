"""Read and check the JSON of an artifact's header; each function raises `ArtifactRejected`."""

import json
from typing import Any

from ..text import is_clean, shown
from .refusal import corrupt


def parsed(data: bytes, what: str) -> object:
    """Parse JSON; reject duplicate keys and the constants that only Python accepts, such as NaN."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_unknown)
    except (ValueError, RecursionError):  # the second for about a thousand nested levels
        raise corrupt(f"its {what} is not JSON with unique keys") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; raise `ValueError` for duplicate keys, of which parsers keep different ones."""
    known = dict(pairs)
    if len(known) != len(pairs):
        raise ValueError
    return known


def _unknown(_constant: str) -> object:
    raise ValueError


def given(values: dict[str, Any], key: str, otherwise: object) -> object:
    """Return the value of a key, or the default for null, as Go does, in which the writers are written."""
    return otherwise if values.get(key) is None else values[key]


def as_object(value: object, what: str) -> dict[str, Any]:
    """Return a value that must be an object."""
    if not isinstance(value, dict):
        raise corrupt(f"its {what} is not a JSON object")
    return value


def as_text(value: object, what: str, may_be_empty: bool = False) -> str:
    """Return a value that must be a string without control characters."""
    if not isinstance(value, str) or not is_clean(value) or not (value or may_be_empty):
        raise corrupt(f"its {shown(what)} is missing or not a plain string")
    return value


def as_texts(value: object, what: str) -> tuple[str, ...]:
    """Return a value that must be a list of strings without control characters."""
    if not isinstance(value, list):
        raise corrupt(f"its {shown(what)} is not a list of strings")
    return tuple(as_text(item, what) for item in value)


def texts_by_key(value: object, what: str) -> dict[str, tuple[str, ...]]:
    """Return the conditions in an object: for each key the strings of which one must match."""
    conditions = as_object(value, what)
    return {
        as_text(key, what): as_texts([item] if isinstance(item, str) else item, what)
        for key, item in conditions.items()
    }
