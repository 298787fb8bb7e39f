"""Read JSON values of given types; a value of a wrong type does not affect the others."""

from typing import Any, TypeVar

_T = TypeVar("_T")


class Reader:
    """Reads values of given types, and collects the names of those that have another type."""

    def __init__(self) -> None:
        self.damaged: list[str] = []

    def part(self, kind: type[_T], name: str, value: object) -> _T | None:
        """Return a named tuple read from an object, or None if a member without a default is invalid.

        Unknown members go into the field `more`, if the tuple has one.
        """
        members = self.typed(dict, name, value)
        if members is None:
            return None
        types: dict[str, Any] = dict(kind.__annotations__)
        defaults: dict[str, Any] = getattr(kind, "_field_defaults", {})
        more = {key: members[key] for key in members if key not in types or key == "more"}
        known: dict[str, Any] = {"more": more} if types.pop("more", None) else {}
        for key in types:
            found = self.typed(types[key], f"{name}.{key}", members[key]) if key in members else None
            if found is not None:
                known[key] = found
            elif key not in defaults:
                self.damaged.append(name)
                return None
        return kind(**known)

    def typed(self, kind: type[_T], name: str, value: Any) -> _T | None:
        """Return the value if it has the type `kind`, or None; an int is a valid float."""
        if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
            largest = 2**53 if kind is int else 1e15  # rejects NaN and infinity
            if abs(value) < largest and (kind is float or isinstance(value, int)):
                return value  # type: ignore[return-value]  # an int is a valid float
        elif isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
            return value
        self.damaged.append(name)
        return None
