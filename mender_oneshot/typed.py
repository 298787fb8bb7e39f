"""Reading JSON values of stated types: one that has another type costs no other."""

from typing import Any, TypeVar

_T = TypeVar("_T")


class Reader:
    """Reads values of stated types, and keeps the names of those that have another one."""

    def __init__(self) -> None:
        self.damaged: list[str] = []

    def part(self, kind: type[_T], name: str, value: object) -> _T | None:
        """Read a named tuple; None if a member that it cannot do without is not readable."""
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
        """Return a value if it is of a type; a time may be written without a fraction."""
        if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
            largest = 2**53 if kind is int else 1e15  # NaN and infinity are no times
            if abs(value) < largest and (kind is float or isinstance(value, int)):
                return value  # type: ignore[return-value]  # an int is as good as a float
        elif isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
            return value
        self.damaged.append(name)
        return None
