"""Reading what a server answered: pure functions of status, headers and body, all of them hostile.

Only an answer in the Mender server's own form may end a deployment or a token: gateways, firewalls, portals
and proxies answer in its place with any status and any body (device-api.md section 1.4).
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

LONGEST_WISH = 1e10
LONGEST_MEMBER = 8192


class Answer(NamedTuple):
    """A whole answer, and the request it belongs to in short, such as "PUT .../status"."""

    request: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    proxy: str = ""  # a proxy that may have answered itself


class Unusable(ValueError):
    """The server offers a deployment that cannot be carried out; `deployment` is its id."""

    def __init__(self, deployment: str, why: str) -> None:
        super().__init__(why)
        self.deployment = deployment


def own_words(answer: Answer) -> str:
    """Return the error text of an answer in the Mender server's form, "" for every other answer.

    The form is an object with a text `error` and a text `request_id`. The server's services omit the
    `request_id` for a path that they do not know, which says nothing of a deployment or a token.
    """
    members = _members(answer)
    error, request = members.get("error"), members.get("request_id")
    if isinstance(error, str) and error.strip() and isinstance(request, str) and request.strip():
        return _one_line(error) or "no reason given"
    return ""


def reason(answer: Answer) -> str:
    """Return the `error` text of an answer, whoever sent it, cut to one short line."""
    error = _members(answer).get("error")
    return _one_line(error) if isinstance(error, str) else ""


def refuses_token(answer: Answer) -> bool:
    """Say whether the Mender server itself refuses the token that it was shown.

    A token that is revoked, expired or badly signed gets an empty 401 without a content type.
    """
    if answer.status == 401 and not answer.body and "content-type" not in answer.headers:
        return True
    return answer.status in (401, 403) and bool(own_words(answer))


def _members(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _one_line(text: str) -> str:
    """Make a stranger's text fit for a message."""
    text = text[:4096]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def content_kind(answer: Answer) -> str:
    """Return the content type, for a message."""
    return _one_line(answer.headers.get("content-type", "").partition(";")[0])[:60] or "no content type"


def instructions(members: Any) -> Deployment:
    """Read the answer of `next`.

    Raises `Unusable` if the deployment can be named but not carried out, and `ValueError` for everything that
    is no deployment at all. The id becomes part of a path and of a file name; the URI is where we go next.
    """
    try:
        deployment, artifact = members["id"], members["artifact"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("a member is missing") from error
    if not isinstance(deployment, str) or not is_deployment_id(deployment) or not isinstance(artifact, dict):
        raise ValueError("a member has no usable value")
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
            raise Unusable(deployment, f"its member {member} is missing or not a text")
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
    """Read a time such as 2016-03-11T13:03:17.063493443Z as seconds since 1970; 0 if it is none."""
    try:
        # Go writes nanoseconds; Python takes microseconds.
        date = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        # Go's "no time" is the year 1.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0


def retry_after(value: str, date: str, now: float) -> float | None:
    """Read `Retry-After` as seconds (RFC 9110 section 10.2.3), None if it says nothing usable.

    A date is measured against the server's own `Date`, for our clock may be wrong.
    """
    value = value.strip()
    if re.fullmatch("[0-9]+", value):
        return float(value) if len(value) <= 10 else LONGEST_WISH
    until = http_date(value)
    if until is None:
        return None
    start = http_date(date)
    return max(0.0, until - (now if start is None else start))


def http_date(text: str) -> float | None:
    """Read a date of HTTP as seconds since 1970; None if it is none."""
    try:
        date = parsedate_to_datetime(text[:100])
        # The oldest of the three forms has no zone; all are GMT (RFC 9110 section 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def redirect_target(base: str, location: str) -> str:
    """Return where a redirect leads, "" if that is not an http or https URL of a usable length."""
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
    """Say whether a text is an http or https URL that every parser takes apart in the same way."""
    return origin(text) is not None
