"""What the server accepts from a device and what it refuses: functions of values, no sockets, no state.

The rules are those of mender-server as read in `reference/device-api.md`; each function names its section.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

BODY_LIMIT = 1024 * 1024  # device-api.md 1.1, 2 and 4
ATTRIBUTE_LIMIT = 100  # device-api.md 2, `limit_attributes`

FROM_DEVICE = frozenset(
    {
        "downloading",
        "installing",
        "rebooting",
        "success",
        "failure",
        "already-installed",
        "pause_before_installing",
        "pause_before_rebooting",
        "pause_before_committing",
    }
)
FINAL = frozenset({"success", "failure", "already-installed", "noartifact", "aborted", "decommissioned"})

# Go's time.RFC3339: capital T, fraction of any length, Z or an offset.
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:\d\d)")


class Refusal(Exception):
    """The server says no: an HTTP status and the text that goes into the `error` member."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Attribute:
    """One inventory attribute of one scope (`identity` or `inventory`)."""

    name: str
    value: Any
    scope: str = "inventory"
    description: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The attribute as the management API shows it."""
        shown = {"name": self.name, "value": self.value, "scope": self.scope}
        return shown if self.description is None else shown | {"description": self.description}


def parse_json(body: bytes) -> Any:
    """Decode a request body; what Go's decoder refuses is 400."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(body.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"failed to decode request body: {error}") from None


def content_type(header: str | None, length: int | None) -> None:
    """Refuse a body that does not call itself JSON: 415, or 400 where the header says nothing (1.1).

    The real check runs only when a Content-Length above 0 was sent: a chunked body passes.
    """
    if not length:
        return
    kind = (header or "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"[^\s/;]+(/[^\s/;]+)?", kind):
        raise Refusal(400, "Invalid value for Content-Type header: mime: no media type")
    if kind != "application/json":
        raise Refusal(415, "Bad Content-Type, expected 'application/json'")


def identity(id_data: Any) -> dict[str, Any]:
    """The identity inside `id_data`, which must be a string that holds a JSON object (1.1)."""
    if not isinstance(id_data, str) or not id_data:
        raise Refusal(400, "invalid auth request: id_data: cannot be blank.")
    try:
        found = json.loads(id_data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "invalid auth request: id_data: must be a JSON object.")
    return found


def attributes(body: Any) -> dict[str, Attribute]:
    """The attributes of an inventory request by name; one bad one refuses the whole batch (2)."""
    if not isinstance(body, list):
        raise Refusal(400, "failed to decode request body: expected an array of attributes")
    found = {}
    for entry in body:
        attribute = _attribute(entry)
        found[attribute.name] = attribute
    return found


def _attribute(entry: Any) -> Attribute:
    if not isinstance(entry, dict):
        raise Refusal(400, "failed to decode request body: an attribute must be an object")
    name, value, description = entry.get("name"), entry.get("value"), entry.get("description")
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= 1024:
        raise Refusal(400, "name: the length must be between 1 and 1024.")
    if not _is_value(value):
        raise Refusal(
            400, f"attribute {name}: value: supported types are string, float64, and arrays thereof"
        )
    if description is not None and not isinstance(description, str):
        raise Refusal(400, f"attribute {name}: description must be a string")
    # Whatever scope was sent is overwritten: device-api.md 2.
    return Attribute(name, value, "inventory", description)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value) or all(_is_number(item) for item in value)
    return isinstance(value, str) or _is_number(value)


def provides(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a `next` request says of the device, checked (3.1: both names required, 1..4096 characters)."""
    for name in ("artifact_name", "device_type"):
        value = values.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= 4096:
            raise Refusal(400, f"{name}: cannot be blank." if not value else f"{name}: invalid.")
    return dict(values)


def status(body: Any) -> tuple[str, str | None]:
    """The status and substate of a status report (3.2)."""
    if not isinstance(body, dict):
        raise Refusal(400, "failed to decode request body: expected an object")
    found, substate = body.get("status"), body.get("substate")
    if found is None:
        # The validation lets a missing status through and the store then chokes on it: 3.2.
        raise Refusal(500, "internal error")
    if found not in FROM_DEVICE:
        raise Refusal(400, "invalid status: unknown or not for a device to send")
    if substate is not None and (not isinstance(substate, str) or len(substate) > 200):
        raise Refusal(400, "substate: the length must be between 0 and 200.")
    return found, substate


def log_messages(body: Any) -> list[dict[str, Any]]:
    """The messages of a deployment log; one bad entry refuses all of them (4)."""
    if not isinstance(body, dict):
        raise Refusal(400, "failed to decode request body: expected an object")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "no messages: invalid deployment log")
    for entry in messages:
        if not isinstance(entry, dict):
            raise Refusal(400, "invalid log message")
        for name in ("timestamp", "level", "message"):
            if not isinstance(entry.get(name), str) or not entry[name]:
                raise Refusal(400, f"{name}: cannot be blank.")
        if not is_rfc3339(entry["timestamp"]):
            raise Refusal(400, f'parsing time "{entry["timestamp"]}" as RFC3339: cannot parse')
    return [dict(entry) for entry in messages]


def is_rfc3339(text: str) -> bool:
    """Tell whether Go's `time.Parse(time.RFC3339, text)` would take it."""
    match = _RFC3339.fullmatch(text)
    if not match:
        return False
    try:
        datetime.fromisoformat(match[1] + ("+00:00" if match[2] == "Z" else match[2]))
    except ValueError:
        return False
    return True


def is_uuid(text: str) -> bool:
    """Tell whether a deployment id has the form the server's validation wants (4)."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
