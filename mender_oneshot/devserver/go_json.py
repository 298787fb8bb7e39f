"""Reads JSON as Go's `encoding/json` does, with the same error messages. Pure functions.

The real server passes these messages on to the client, so the development server needs them as well.
"""

import json
from typing import Any, Never

_EXPECTED = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Extra data": "after top-level value",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
}
_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"invalid character {name.lstrip('-')[0]!r} looking for beginning of value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def decode(body: bytes) -> Any:
    """Decode a whole text, as `json.Unmarshal` does; raise ValueError with Go's message."""
    return _decode(body, "unexpected end of JSON input", whole=True)


def decode_first(body: bytes) -> Any:
    """Decode the first value of a body and ignore the rest, as `json.Decoder` does; raise ValueError."""
    if not body.strip():
        raise ValueError("EOF")
    return _decode(body, "unexpected EOF", whole=False)


def _decode(body: bytes, truncated: str, *, whole: bool) -> Any:
    text = body.decode(errors="replace").strip(" \t\r\n")
    try:
        return _DECODER.decode(text) if whole else _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        if error.pos >= len(text) or error.msg.startswith("Unterminated"):
            raise ValueError(truncated) from None
        where = _EXPECTED.get(error.msg.removesuffix(": "), "after object key:value pair")
        raise ValueError(f"invalid character {text[error.pos]!r} {where}") from None
    except RecursionError:
        raise ValueError("exceeded max depth") from None


def fit(value: Any, kind: type[dict[str, Any]] | type[list[Any]], into: str) -> Any:
    """Return `value` if a Go value of type `into` can hold it; raise ValueError with Go's message.

    `null` leaves a Go value empty.
    """
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"json: cannot unmarshal {_KINDS[type(value)]} into Go value of type {into}")
    return value


def text(value: dict[str, Any], name: str, struct: str, into: str = "string") -> str:
    """Return a string member of an object, empty if it is missing or null.

    Raise ValueError with Go's message for other types; `struct` and `into` are the Go types in it.
    """
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        kind = _KINDS[type(found)]
        raise ValueError(f"json: cannot unmarshal {kind} into Go struct field {struct}.{name} of type {into}")
    return found
