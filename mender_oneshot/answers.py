"""Parse the responses of a server: pure functions of status, headers and body, none of which is trusted.

Only a response in the Mender server's own form may end a deployment or invalidate a token: gateways, captive
portals and proxies answer in its place, with any status and any body (device-api.md section 1.4).
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urljoin

from .snapshot import is_deployment_id
from .state import Deployment
from .text import is_clean
from .url import origin

LONGEST_RETRY_AFTER = 1e10
"""Seconds."""
LONGEST_MEMBER = 8192


class Answer(NamedTuple):
    """A whole response, and a short name of its request, such as "PUT .../status"."""

    request: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    proxy: str = ""  # the proxy that may have sent the response itself, or ""


class Unusable(ValueError):
    """The server offered a deployment that cannot be carried out; `deployment` is its id."""

    def __init__(self, deployment: str, why: str) -> None:
        super().__init__(why)
        self.deployment = deployment


def mender_error(answer: Answer) -> str:
    """Return the error text of a response in the Mender server's form, or "" for any other response.

    The form is a JSON object with strings `error` and `request_id`. The server's services omit `request_id`
    for an unknown path; such a response means nothing for a deployment or a token.
    """
    members = _members(answer)
    error, request = members.get("error"), members.get("request_id")
    if isinstance(error, str) and error.strip() and isinstance(request, str) and request.strip():
        return _one_line(error) or "no reason given"
    return ""


def reason(answer: Answer) -> str:
    """Return the `error` text of a response, from any sender, truncated to one short line."""
    error = _members(answer).get("error")
    return _one_line(error) if isinstance(error, str) else ""


def rejects_token(answer: Answer) -> bool:
    """Return whether the Mender server itself rejected the token of a request.

    For a token that is revoked, expired or badly signed it sends an empty 401 without a content type.
    """
    if answer.status == 401 and not answer.body and "content-type" not in answer.headers:
        return True
    return answer.status in (401, 403) and bool(mender_error(answer))


def _members(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _one_line(text: str) -> str:
    """Return untrusted text as one printable line of at most 200 characters."""
    text = text[:4096]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def content_kind(answer: Answer) -> str:
    """Return the content type of a response, for a message."""
    return _one_line(answer.headers.get("content-type", "").partition(";")[0])[:60] or "no content type"


def instructions(members: Any) -> Deployment:
    """Return the deployment in a response of `next`.

    Raises `Unusable` if it has a valid id but cannot be carried out, and `ValueError` if it is not a
    deployment. Strict, because the id becomes part of URLs and file names, and the URI is requested next.
    """
    try:
        deployment, artifact = members["id"], members["artifact"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("a member is missing") from error
    if not isinstance(deployment, str) or not is_deployment_id(deployment) or not isinstance(artifact, dict):
        raise ValueError("a member has an invalid value")
    source = artifact.get("source")
    source = source if isinstance(source, dict) else {}
    name: Any = artifact.get("artifact_name")
    uri: Any = source.get("uri")
    artifact_id: Any = artifact.get("id") or ""
    expires: Any = source.get("expire") or ""
    texts = {
        "artifact.artifact_name": name,
        "artifact.source.uri": uri,
        "artifact.id": artifact_id,
        "artifact.source.expire": expires,
    }
    for member, text in texts.items():
        if not isinstance(text, str):
            raise Unusable(deployment, f"its member {member} is missing or not a string")
        if len(text) > LONGEST_MEMBER:
            raise Unusable(deployment, f"its member {member} has {len(text)} characters")
    if not name or not is_clean(name):
        raise Unusable(deployment, "its member artifact.artifact_name is empty or has control characters")
    if not is_clean(artifact_id):
        raise Unusable(deployment, "its member artifact.id has control characters")
    if not is_url(uri):
        raise Unusable(deployment, "its member artifact.source.uri is not an http or https URL")
    return Deployment(
        id=deployment, artifact_id=artifact_id, artifact_name=name, uri=uri, expires=_rfc3339(expires)
    )


def _rfc3339(text: str) -> float:
    """Return a time such as 2016-03-11T13:03:17.063493443Z in seconds since 1970, or 0 if it is invalid."""
    try:
        # Go writes nanoseconds; Python parses at most microseconds.
        date = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        # Go's zero time is in the year 1.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0


def retry_after(value: str, date: str, now: float) -> float | None:
    """Return `Retry-After` in seconds (RFC 9110 section 10.2.3), or None if it is missing or invalid.

    A date is compared with the server's own `Date`, because this device's clock `now` may be wrong.
    """
    value = value.strip()
    if re.fullmatch("[0-9]+", value):
        return float(value) if len(value) <= 10 else LONGEST_RETRY_AFTER
    until = http_date(value)
    if until is None:
        return None
    start = http_date(date)
    return max(0.0, until - (now if start is None else start))


def http_date(text: str) -> float | None:
    """Return an HTTP date in seconds since 1970, or None if it is invalid."""
    try:
        date = parsedate_to_datetime(text[:100])
        # The oldest of the three formats has no zone; all are GMT (RFC 9110 section 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def redirect_target(base: str, location: str) -> str:
    """Return the absolute target of a redirect, or "" if it is too long or not an http or https URL."""
    if not location.strip() or len(location) > LONGEST_MEMBER:
        return ""
    try:
        target = urljoin(base, location.strip())
    except ValueError:
        return ""
    return target if is_url(target) else ""


def scheme(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return url.partition(":")[0].lower()


def is_url(text: str) -> bool:
    """Return whether a text is an http or https URL that every parser reads in the same way."""
    return origin(text) is not None
