"""The validation of requests: functions of values, no sockets, no state.

The rules and the error messages are those of mender-server (docs/reference/real-server.md).
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import go_json

BODY_LIMIT = 1024 * 1024
ATTRIBUTE_LIMIT = 100

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
STATUSES = FROM_DEVICE | FINAL | {"pending"}
CONFIGURATION_LIMIT = 4096

# Go's time.RFC3339: capital T, fraction of any length, Z or an offset.
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:\d\d)")


class HTTPError(Exception):
    """An error response: an HTTP status and the text of the `error` member; without a text, no body.

    `request_id` is whether the body has a `request_id` too: it has none if the service does not know the path
    or the method.
    """

    def __init__(
        self,
        status: int,
        text: str | None = None,
        *,
        request_id: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text or str(status))
        self.status = status
        self.text = text
        self.request_id = request_id
        self.headers = dict(headers or {})


def check(**problems: str | None) -> None:
    """Raise HTTPError 400 for the problems of the members (None: no problem), in the server's format."""
    found = [f"{name}: {problem}" for name, problem in sorted(problems.items()) if problem]
    if found:
        raise HTTPError(400, "; ".join(found) + ".")


@dataclass(frozen=True)
class Attribute:
    """One inventory attribute of one scope (`identity` or `inventory`)."""

    name: str
    value: Any
    scope: str = "inventory"
    description: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attribute as in the management API."""
        shown = {"name": self.name, "value": self.value, "scope": self.scope}
        return shown if self.description is None else shown | {"description": self.description}


def check_content_type(header: str | None, length: int | None) -> None:
    """Raise HTTPError 415 for a body that is not declared as JSON, or 400 if the header is invalid.

    The real server only checks if Content-Length is above 0, so a chunked body is accepted.
    """
    if not length:
        return
    kind = (header or "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"[^\s/;]+(/[^\s/;]+)?", kind):
        raise HTTPError(400, "Invalid value for Content-Type header: mime: no media type")
    if kind != "application/json":
        raise HTTPError(415, "Bad Content-Type, expected 'application/json'")


def auth_request(body: Any) -> tuple[str, str]:
    """Return `id_data` and `pubkey` of an authentication request; raise HTTPError 400."""
    try:
        body = go_json.fit(body, dict, "model.AuthReq")
        id_data, pubkey = (go_json.text(body, name, "AuthReq") for name in ("id_data", "pubkey"))
    except ValueError as error:
        raise HTTPError(400, f"failed to decode auth request: {error}") from None
    for name, value in (("id_data", id_data), ("pubkey", pubkey)):
        if not value:
            raise HTTPError(400, f"invalid auth request: {name} must be provided")
    return id_data, pubkey


def identity(id_data: str) -> dict[str, Any]:
    """Return the identity in `id_data`, which has to be a JSON object; raise HTTPError 400."""
    try:
        found: dict[str, Any] = go_json.fit(
            go_json.decode(id_data.encode("utf-8", "replace")), dict, "map[string]interface {}"
        )
    except ValueError as error:
        raise HTTPError(400, f"invalid auth request: {error}") from None
    return found


def attributes(body: list[Any]) -> dict[str, Attribute]:
    """Return the attributes of an inventory request by name; raise HTTPError 400 if one is invalid."""
    found = {}
    for entry in body:
        attribute = _attribute(entry)
        found[attribute.name] = attribute
    return found


def _attribute(entry: Any) -> Attribute:
    try:
        entry = go_json.fit(entry, dict, "model.DeviceAttribute")
        name = go_json.text(entry, "name", "DeviceAttribute")
        description = go_json.text(entry, "description", "DeviceAttribute")
    except ValueError as error:
        raise HTTPError(400, f"failed to decode request body: {error}") from None
    value = entry.get("value")
    check(name=_length(name, 1, 1024), value=_value_problem(value))
    if "\0" in name:
        raise HTTPError(500, "internal error")  # The database cannot store such a name.
    # The scope that was sent is overwritten.
    return Attribute(name, value, "inventory", description or None)


def _length(text: str, least: int, most: int) -> str | None:
    """Return what is wrong with the length of a text in bytes, None if nothing."""
    if least and not text:
        return "cannot be blank"
    if len(text.encode("utf-8", "surrogatepass")) <= most:
        return None
    return (
        f"the length must be between {least} and {most}"
        if least
        else f"the length must be no more than {most}"
    )


def _value_problem(value: Any) -> str | None:
    if _scalar(value):
        return None
    if not isinstance(value, list):
        return "supported types are string, float64, and arrays thereof"
    if value and not _scalar(value[0]):
        kinds = {bool: "bool", list: "slice", dict: "map"}
        return f"array values must be either string or float64, not: {kinds.get(type(value[0]), 'invalid')}"
    if len({_scalar(item) for item in value}) > 1:
        return "array values must be of consistent type: string or float64"
    return None


def _scalar(value: Any) -> str | None:
    """Return the Go type of a string or a number, None for anything else."""
    if isinstance(value, str):
        return "string"
    return "float64" if isinstance(value, int | float) and not isinstance(value, bool) else None


def provides(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of the device in a `next` request; raise HTTPError 400 if they are invalid."""
    names = ("artifact_name", "device_type")
    try:
        found = {name: go_json.text(dict(values), name, "InstalledDeviceDeployment") for name in names}
    except ValueError as error:
        raise HTTPError(400, f"invalid schema: {error}") from None
    check(**{name: _length(value, 1, 4096) for name, value in found.items()})
    return dict(values)


def status(body: dict[str, Any]) -> tuple[str, str]:
    """Return the status and the substate, which may be empty, of a status report; raise HTTPError 400."""
    try:
        into = "model.DeviceDeploymentStatus"
        found = go_json.text(body, "status", "statusReport", into)
        substate = go_json.text(body, "substate", "statusReport")
    except ValueError as error:
        raise HTTPError(400, str(error)) from None
    check_known_status(found, missing=body.get("status") is None)
    check(
        status=None if found in FROM_DEVICE or not found else "must be a valid value",
        substate=_length(substate, 0, 200),
    )
    if not found:
        # The validation accepts a missing status, and the database rejects it.
        raise HTTPError(500, "internal error")
    return found, substate


def check_known_status(text: str, *, missing: bool = False) -> None:
    """Raise HTTPError 400 for a text that is not a status of a deployment on a device."""
    if text not in STATUSES and not missing:
        raise HTTPError(400, f"invalid status for device '{text}'")


def log_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a deployment log; raise HTTPError 400 if one is invalid."""
    messages = body.get("messages")
    if not messages:
        raise HTTPError(400, "no messages: invalid deployment log")
    try:
        for entry in go_json.fit(messages, list, "[]model.LogMessage"):
            _log_message(go_json.fit(entry, dict, "model.LogMessage"))
    except ValueError as error:
        raise HTTPError(400, str(error)) from None
    return [dict(entry) for entry in messages]


def _log_message(entry: dict[str, Any]) -> None:
    names = ("timestamp", "level", "message")
    found = {name: go_json.text(entry, name, "LogMessage") for name in names}
    stamp = found["timestamp"]
    if entry.get("timestamp") is not None and not is_rfc3339(stamp):
        raise ValueError(
            f'parsing time "{stamp}" as "2006-01-02T15:04:05Z07:00": cannot parse "{stamp}" as "2006"'
        )
    check(**{name: None if value else "cannot be blank" for name, value in found.items()})


def configuration(body: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a device's configuration; raise HTTPError 400 if one is invalid."""
    for name, value in body.items():
        kind = {bool: "bool", int: "float64", float: "float64", list: "[]interface {}"}.get(
            type(value), "<nil>"
        )
        wrong = None if isinstance(value, str | dict) else f"invalid type: {kind}"
        if isinstance(value, str):
            wrong = _length(value, 0, CONFIGURATION_LIMIT)
        try:
            key = "cannot be blank" if not name else _length(name, 0, CONFIGURATION_LIMIT)
            check(key=key, value=wrong)
        except HTTPError as error:
            raise HTTPError(400, f"invalid request body: {error.text}") from None
    return body


def is_rfc3339(text: str) -> bool:
    """Return whether Go's `time.Parse(time.RFC3339, text)` would accept the text."""
    return parsed_time(text) is not None


def parsed_time(text: str) -> tuple[datetime, str] | None:
    """Return a time in UTC, in whole seconds, and its fraction as written; None if Go would reject it."""
    match = _RFC3339.fullmatch(text)
    if not match:
        return None
    try:
        timestamp = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
        return timestamp.astimezone(UTC), match[2] or ""
    except (ValueError, OverflowError):
        return None


def rfc3339(timestamp: float) -> str:
    """Return a Unix time as Go formats it."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def is_uuid(text: str) -> bool:
    """Return whether an id has the format that the server's validation requires."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
