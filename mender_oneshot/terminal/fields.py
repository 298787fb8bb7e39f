"""Read the fields of a message: each has a type and a limit, and everything else is rejected.

All input of other programs is read here, so no other file has to check types.
"""

from collections.abc import Mapping

LONGEST_TEXT = 256
"""Characters in an identifier: the server's are UUIDs, and answers repeat them."""
LARGEST = 2**63 - 1


class DecodeError(Exception):
    """The bytes are not a message, or a field is invalid; the text is the reason."""


class Fields:
    """The named values of one map. A missing value and nil are the same."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def number(self, name: str, least: int = 0, most: int = LARGEST) -> int | None:
        """Return a whole number, None if there is none; raises `DecodeError`."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise DecodeError(f"{name} is not a whole number from {least} to {most}")

    def numbers(self, name: str) -> list[int]:
        """Return a list of whole numbers, [] if there is none; raises `DecodeError`."""
        value = self._values.get(name)
        if value is None:
            return []
        if isinstance(value, list) and all(_is_whole(item) for item in value):
            return value
        raise DecodeError(f"{name} is not a list of whole numbers")

    def text(self, name: str, longest: int = LONGEST_TEXT) -> str:
        """Return a string of so many characters at most, "" if there is none; raises `DecodeError`."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or "\0" in value:
            raise DecodeError(f"{name} is not a string")
        if len(value) > longest:
            raise DecodeError(f"{name} is longer than {longest} characters")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false, false if there is neither; raises `DecodeError`."""
        value = self._values.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise DecodeError(f"{name} is neither true nor false")

    def content(self, name: str) -> bytes:
        """Return bytes, or a string as bytes, b"" if there is neither; raises `DecodeError`."""
        value = self._values.get(name)
        if value is None:
            return b""
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if isinstance(value, bytes):
            return value
        raise DecodeError(f"{name} is neither bytes nor a string")

    def members(self, name: str) -> dict[str, object]:
        """Return a map, {} if there is none; raises `DecodeError`. Members without a name are left out."""
        value = self._values.get(name)
        if value is None:
            return {}
        if isinstance(value, dict):
            return {key: member for key, member in value.items() if isinstance(key, str)}
        raise DecodeError(f"{name} is not a map")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
