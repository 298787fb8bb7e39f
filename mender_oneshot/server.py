"""The Mender server: one method per endpoint.

Only here does a status code mean something; what comes out is values, or errors that are sentences. The
endpoints: device-api.md, and the server's OpenAPI files.
"""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from . import errors, resume
from .moment import is_deployment_id
from .settings import Settings
from .state import Deployment
from .transport import Response, Transport, host

ANSWER_LIMIT = 1 << 20
TOKEN_LIMIT = 16384
REDIRECTS = 5
LONGEST_WISH = 1e10

_DEVICES = "/api/devices/v1"
_NEXT = "/deployments/device/deployments/next"

Attributes = dict[str, str | list[str]]


class Void(Exception):
    """The deployment is not ours any more: aborted (409) or unknown (404)."""


class DeviceChanged(Exception):
    """`next` answered 409: the reported data changed, and the server has just failed the deployment."""


class TooLarge(Exception):
    """The body is over the server's limit (413)."""


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Server:
    """Connections to one Mender server, and to the hosts its artifacts lie on."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.url = url
        self.token = ""
        self._transport = Transport(settings)

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def greet(self) -> float | None:
        """Ask for a deployment without a token, which a Mender server refuses (401).

        Returns what its clock says, in seconds since 1970, or None where the answer has no date.
        """
        answer = self._ask("GET", f"{_DEVICES}{_NEXT}", token=False)
        if answer.status != 401:
            raise self._senseless(answer, "a refusal")
        return _http_date(answer.headers.get("date", ""))

    def authorize(self, body: bytes, signature: str) -> str:
        """Ask for a token (POST auth_requests); raises `errors.NotAccepted` on 401."""
        headers = {"Content-Type": "application/json", "X-MEN-Signature": signature}
        answer = self._ask("POST", f"{_DEVICES}/authentication/auth_requests", body, headers, token=False)
        if answer.status == 401:
            raise _not_accepted(self.url, _reason(answer))
        self._expect(answer, 200)
        token = answer.body.decode("ascii", "replace").strip()
        if len(token) > TOKEN_LIMIT or not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]*", token, re.ASCII):
            raise self._senseless(answer, "a token")
        return token

    def put_inventory(self, attributes: Attributes) -> None:
        """Replace the inventory; PATCH only where PUT is not known (405)."""
        body = _json([{"name": name, "value": value} for name, value in attributes.items()])
        path = f"{_DEVICES}/inventory/device/attributes"
        answer = self._ask("PUT", path, body)
        if answer.status == 405:
            answer = self._ask("PATCH", path, body)
        self._expect(answer, 200)
        if "html" in answer.headers.get("content-type", ""):
            raise self._senseless(answer, "an acknowledgement")

    def next_deployment(self, provides: dict[str, str], form: str) -> tuple[Deployment | None, str]:
        """Ask for the next deployment; return it, or None, and the form of the question that worked.

        The newer form first, the older on 404 only, and straight away where `form` says so: the server fails
        a deployment about which it is asked in two forms. Raises `DeviceChanged` on 409.
        """
        if form != "v1":
            answer = self._ask("POST", f"/api/devices/v2{_NEXT}", _json({"device_provides": provides}))
            form = "v2"
        if form == "v1" or answer.status == 404:
            query = urlencode({key: provides[key] for key in ("artifact_name", "device_type")})
            answer = self._ask("GET", f"{_DEVICES}{_NEXT}?{query}")
            form = "v1"
        if answer.status == 409:
            raise DeviceChanged
        self._expect(answer, 200, 204)
        return (None if answer.status == 204 else self._instructions(answer)), form

    def _instructions(self, answer: _Answer) -> Deployment:
        try:
            deployment = instructions(json.loads(answer.body))
        except (ValueError, RecursionError) as error:
            raise self._senseless(answer, "deployment instructions") from error
        return deployment

    def put_status(self, deployment: str, status: str) -> None:
        """Report a status; raises `Void` when the server says the deployment is aborted or not ours."""
        self._report(self._of(deployment, "status"), {"status": status})

    def put_log(self, deployment: str, messages: list[dict[str, str]]) -> None:
        """Upload the deployment log, replacing what is there; raises `Void`, or `TooLarge` on 413."""
        self._report(self._of(deployment, "log"), {"messages": messages}, large=True)

    def _report(self, path: str, what: object, *, large: bool = False) -> None:
        """Tell the server something of a deployment.

        What its answer ends is lost, so it has to be its own: a gateway says 404 as well, while what stands
        behind it restarts, and a portal says anything (device-api.md section 1.4 has the form of errors).
        """
        answer = self._ask("PUT", path, _json(what))
        if answer.status == 204:
            return
        if large and answer.status == 413:  # whoever finds it so
            raise TooLarge
        if not _is_menders(answer):
            raise errors.ServerTrouble(
                f"{host(self.url)} answered {answer.status}, and not as a Mender server does; the next run "
                "tries again."
            )
        if answer.status in (404, 409):
            raise Void(_reason(answer))
        self._expect(answer, 204)

    def _of(self, deployment: str, what: str) -> str:
        return f"{_DEVICES}/deployments/device/deployments/{deployment}/{what}"

    def open_artifact(self, uri: str, known: resume.Known) -> Response:
        """Ask for an artifact, from `known.offset` on where that makes sense; never sends the token.

        Follows at most 5 redirects, none of them from https to http; raises `errors.TryLater` or
        `errors.BadAnswer`. What the answer means is left to `resume.decide`.
        """
        headers = {"Accept-Encoding": "identity"}
        if resume.can_resume(known):
            headers |= {"Range": f"bytes={known.offset}-", "If-Range": resume.validator(known)}
        for _ in range(REDIRECTS + 1):
            response = self._transport.send("GET", uri, None, headers)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            with response:
                target = _join(uri, response.headers.get("location", ""))
            if not _is_url(target) or (_scheme(uri) == "https" and _scheme(target) != "https"):
                raise errors.BadAnswer(
                    f"The artifact's link at {host(uri)} redirects away from https; it is not followed."
                )
            uri = target
        raise errors.BadAnswer(
            f"The artifact's link redirects more than {REDIRECTS} times; look at the storage."
        )

    def artifact_error(self, response: Response) -> errors.Error:
        """Put an answer that no artifact can come from into words."""
        said = f"{host(response.url)} answered {response.status} instead of the artifact"
        if response.status in (408, 429) or response.status >= 500:
            return errors.TryLater(f"{said}; the next run tries again.", _wait(response.headers))
        return errors.BadAnswer(f"{said}; look at the storage.")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: bool = True,
    ) -> _Answer:
        """Send one request to the server; what is left to the caller is what its endpoint gives a meaning."""
        headers = dict(headers or ({} if body is None else {"Content-Type": "application/json"}))
        headers["Accept"] = "application/json"
        if token:
            headers["Authorization"] = f"Bearer {self.token}"
        with self._transport.send(method, self.url + path, body, headers) as response:
            content = response.read(ANSWER_LIMIT + 1)
        answer = _Answer(response.status, response.headers, content)
        if len(content) > ANSWER_LIMIT:
            raise self._senseless(answer, "an answer of a sensible size")
        if token and answer.status in (401, 403):
            raise errors.Needs("auth", _not_accepted(self.url, _reason(answer)))
        if answer.status in (408, 429) or answer.status >= 500:
            kind = errors.ServerTrouble if answer.status >= 500 else errors.TryLater
            raise kind(f"{_said(self.url, answer)}; the next run tries again.", _wait(answer.headers))
        return answer

    def _expect(self, answer: _Answer, *statuses: int) -> None:
        if answer.status in statuses:
            return
        if 300 <= answer.status < 400 or answer.status < 300:
            raise self._senseless(answer, "what was asked for")
        raise errors.Refused(f"{_said(self.url, answer)}; check ServerURL and the server's own log.")

    def _senseless(self, answer: _Answer, expected: str) -> errors.BadAnswer:
        kind = answer.headers.get("content-type", "").partition(";")[0] or "no content type"
        return errors.BadAnswer(
            f"{host(self.url)} answered {answer.status} with {len(answer.body)} bytes of {kind[:60]!r}, not "
            f"{expected}; check that ServerURL is a Mender server and that no portal stands in the way."
        )


def instructions(members: Any) -> Deployment:
    """Read the answer of `next`; raises `ValueError` for what the OpenAPI file does not describe.

    Hostile until checked: the id becomes part of a path and of a file, the URI is where we go next.
    """
    try:
        deployment, artifact = members["id"], members["artifact"]
        source = artifact["source"]
        uri, expires = source["uri"], source.get("expire") or ""
        name, artifact_id = artifact["artifact_name"], artifact.get("id") or ""
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a member is missing") from error
    texts = (deployment, artifact_id, name, uri, expires)
    if not all(isinstance(text, str) and len(text) <= 8192 for text in texts):
        raise ValueError("a member is not a string")
    if not is_deployment_id(deployment) or not name or not name.isprintable() or not _is_url(uri):
        raise ValueError("a member has no sensible value")
    return Deployment(
        id=deployment, artifact_id=artifact_id, artifact_name=name, uri=uri, expires=_rfc3339(expires)
    )


def _rfc3339(text: str) -> float:
    """Read a time such as 2016-03-11T13:03:17.063493443Z as seconds since 1970; 0 where it is none."""
    try:
        # Go writes nanoseconds; Python takes microseconds.
        date = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        # Go's "no time" is the year 1.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0


def _wait(headers: Mapping[str, str]) -> float | None:
    return retry_after(headers.get("retry-after", ""), headers.get("date", ""), time.time())


def retry_after(value: str, date: str, now: float) -> float | None:
    """Read `Retry-After` as seconds (RFC 9110 section 10.2.3), None where it says nothing usable.

    A date is measured against the server's own `Date`, for our clock may be wrong.
    """
    value = value.strip()
    if re.fullmatch("[0-9]+", value):
        return float(value) if len(value) <= 10 else LONGEST_WISH
    until = _http_date(value)
    if until is None:
        return None
    start = _http_date(date)
    return max(0.0, until - (now if start is None else start))


def _http_date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        # The oldest of the three forms has no zone; all are GMT (RFC 9110 section 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _join(base: str, target: str) -> str:
    try:
        return urljoin(base, target)
    except ValueError:
        return ""


def _is_url(text: str) -> bool:
    try:
        visible = text.isascii() and text.isprintable() and " " not in text
        return visible and _scheme(text) in ("https", "http") and bool(urlsplit(text).hostname)
    except ValueError:
        return False


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _is_menders(answer: _Answer) -> bool:
    """Say whether an error is in the form of the Mender server's: `{"error": ..., "request_id": ...}`."""
    try:
        return "error" in json.loads(answer.body)
    except (ValueError, TypeError, RecursionError):
        return False


def _reason(answer: _Answer) -> str:
    """Return the server's own words from `{"error": ...}`, cut to one line."""
    try:
        text = str(json.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return " ".join("".join(c for c in text if c.isprintable() or c == " ").split())[:200]


def _said(url: str, answer: _Answer) -> str:
    reason = _reason(answer)
    return f"{host(url)} answered {answer.status}" + (f" ({reason})" if reason else "")


def _not_accepted(url: str, reason: str) -> errors.NotAccepted:
    if "signature" in reason:
        message = f"{host(url)} does not take this device's signature ({reason}); check the device key."
    else:
        message = (
            f"{host(url)} has not accepted this device yet ({reason or 'no reason given'}); accept it under "
            "Devices > Pending, the next run goes on by itself."
        )
    return errors.NotAccepted(message)
