"""Client of the Mender server's device API: one method per endpoint.

Only this module interprets status codes; callers get values, or errors with a complete message. The endpoints
are described in device-api.md and the server's OpenAPI files; `answers` parses the responses.
"""

import json
import re
import time
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from . import answers, errors, plan, resume
from .answers import Answer
from .settings import Settings
from .state import Deployment
from .transport import Response, Transport, host

ANSWER_LIMIT = 1 << 20
TOKEN_LIMIT = 16384
REDIRECTS = 5

_DEVICES = "/api/devices/v1"
_NEXT = "/deployments/device/deployments/next"

Attributes = dict[str, str | list[str]]


class DeploymentGone(Exception):
    """The server no longer accepts reports for the deployment: it was aborted (409) or is unknown (404)."""

    def __init__(self, reason: str, *, aborted: bool) -> None:
        super().__init__(reason)
        self.aborted = aborted


class DeviceChanged(Exception):
    """`next` returned 409: the reported data changed, so the server has just failed the deployment."""


class TooLarge(Exception):
    """The body is over the server's limit (413)."""


class Server:
    """Connections to one Mender server, and to the hosts that store its artifacts."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.url = url
        self.token = ""
        self._settings = settings
        self._opened: Transport | None = None

    @property
    def _transport(self) -> Transport:
        """Open on first use, so that a certificate that cannot be read is an error of the request."""
        if self._opened is None:
            self._opened = Transport(self._settings)
        return self._opened

    def close(self) -> None:
        """Close every connection."""
        if self._opened:
            self._opened.close()

    def greet(self) -> float | None:
        """Check that this is a Mender server, which rejects a request without a token (401).

        Returns the time on its clock in seconds since 1970, or None if the response has no date. Raises an
        `errors.Error` if it is not a Mender server or cannot be reached.
        """
        answer = self._ask("GET", f"{_DEVICES}{_NEXT}", token=False)
        if answer.status != 401 or not answers.rejects_token(answer):
            raise self._unexpected(answer, "a 401 to a request without a token")
        return answers.http_date(answer.headers.get("date", ""))

    def authorize(self, body: bytes, signature: str) -> str:
        """Request a token (POST auth_requests); raise `errors.NotAccepted` if the device is not accepted."""
        headers = {"Content-Type": "application/json", "X-MEN-Signature": signature}
        answer = self._ask("POST", f"{_DEVICES}/authentication/auth_requests", body, headers, token=False)
        if answer.status == 401 and answers.mender_error(answer):
            raise _not_accepted(self.url, answers.mender_error(answer))
        self._expect(answer, 200)
        token = answer.body.decode("ascii", "replace").strip()
        if len(token) > TOKEN_LIMIT or not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]*", token, re.ASCII):
            raise self._unexpected(answer, "a token")
        return token

    def put_inventory(self, attributes: Attributes) -> None:
        """Replace the inventory by PUT, or update it by PATCH if the server does not support PUT (405).

        Raises `errors.ServerRejected` if the inventory is invalid or too large.
        """
        body = _json([{"name": name, "value": value} for name, value in attributes.items()])
        path = f"{_DEVICES}/inventory/device/attributes"
        answer = self._ask("PUT", path, body)
        if answer.status == 405:
            answer = self._ask("PATCH", path, body)
        if answer.status in (400, 413) and answers.mender_error(answer):
            raise errors.ServerRejected(
                f"{self._summary(answer)}; this inventory has {len(attributes)} attributes and {len(body)} "
                "bytes, and the limits are 100 and 1048576; print less in the inventory scripts."
            )
        self._expect(answer, 200)
        if answer.body.strip():  # a Mender server sends an empty body
            raise self._unexpected(answer, "an acknowledgement")

    def put_configuration(self, values: object) -> None:
        """Report the configuration of the device, an object whose values are texts."""
        self._expect(self._ask("PUT", f"{_DEVICES}/deviceconfig/configuration", _json(values)), 204)

    def next_deployment(self, provides: dict[str, str], form: str) -> tuple[Deployment | None, str]:
        """Return the next deployment, or None, and the API version that worked ("v1" or "v2").

        Tries v2 first, and v1 only if v2 answers 404. If `form` is "v1" or "v2", uses only that version,
        because the server fails a deployment that is requested in both. Raises `DeviceChanged` on 409, and
        `answers.Unusable` for a deployment that cannot be carried out.
        """
        given = form
        if form != "v1":
            answer = self._ask("POST", f"/api/devices/v2{_NEXT}", _json({"device_provides": provides}))
            form = "v2"
            if answer.status == 404 and given == "v2":
                raise self._not_mender(answer)
        if form == "v1" or answer.status == 404:
            query = urlencode({key: provides[key] for key in ("artifact_name", "device_type")})
            answer = self._ask("GET", f"{_DEVICES}{_NEXT}?{query}")
            form = "v1"
        if answer.status == 409 and answers.mender_error(answer):
            raise DeviceChanged
        self._expect(answer, 200, 204)
        return (None if answer.status == 204 else self._instructions(answer)), form

    def _instructions(self, answer: Answer) -> Deployment:
        try:
            return answers.instructions(json.loads(answer.body))
        except answers.Unusable:
            raise
        except (ValueError, RecursionError) as error:
            raise self._unexpected(answer, "deployment instructions") from error

    def put_status(self, deployment: str, status: str) -> None:
        """Report a status; raise `DeploymentGone` if the deployment is aborted or unknown."""
        self._report(self._of(deployment, "status"), {"status": status})

    def put_log(self, deployment: str, messages: list[dict[str, str]]) -> None:
        """Replace the deployment log; raise `DeploymentGone` like `put_status`, and `TooLarge` on 413."""
        self._report(self._of(deployment, "log"), {"messages": messages}, large=True)

    def _report(self, path: str, what: object, *, large: bool = False) -> None:
        """Send a report about a deployment.

        The response can end the deployment, so it counts only in the Mender server's form: a gateway answers
        404 as well while the server behind it restarts, and a captive portal can answer anything.
        """
        answer = self._ask("PUT", path, _json(what))
        if answer.status == 204:
            return
        if large and answer.status == 413:  # a gateway's limit counts as well
            raise TooLarge
        if not answers.mender_error(answer):
            raise self._not_mender(answer)
        if answer.status in (404, 409):
            raise DeploymentGone(answers.mender_error(answer), aborted=answer.status == 409)
        self._expect(answer, 204)

    def _of(self, deployment: str, what: str) -> str:
        return f"{_DEVICES}/deployments/device/deployments/{deployment}/{what}"

    def open_artifact(
        self, uri: str, known: resume.OnDisk, role: str = ", the storage in the server's link"
    ) -> Response:
        """Request an artifact, from `known.offset` if it can be resumed; never send the token.

        `role` follows the host's name in messages.
        Returns the response, whatever its status; `resume.decide` interprets it. Follows at most `REDIRECTS`
        redirects, none of them from https to http. Raises `errors.TemporaryError`, and
        `errors.InvalidResponse` for an invalid redirect.
        """
        headers = {"Accept-Encoding": "identity"}
        condition = resume.condition(known)
        if condition is not None:
            headers["Range"] = f"bytes={known.offset}-"
        if condition:
            headers["If-Range"] = condition
        for _ in range(REDIRECTS + 1):
            response = self._transport.send("GET", uri, None, headers, f"{host(uri)}{role}")
            if response.status not in (301, 302, 303, 307, 308):
                return response
            with response:
                target = answers.redirect_target(uri, response.headers.get("location", ""))
            if not target:
                raise errors.InvalidResponse(
                    f"The artifact's link at {host(uri)} redirects to something that is not an http(s) URL; "
                    "check the artifact storage."
                )
            if answers.scheme(uri) == "https" and answers.scheme(target) != "https":
                raise errors.InvalidResponse(
                    f"The artifact's link at {host(uri)} redirects from https to http, which is insecure; "
                    "check the artifact storage."
                )
            uri = target
        raise errors.InvalidResponse(
            f"The artifact's link redirects more than {REDIRECTS} times; check the artifact storage."
        )

    def artifact_error(self, uri: str, response: Response) -> errors.Error:
        """Return the error for a response without an artifact; a Retry-After applies to the host of `uri`."""
        if response.status == 407 and response.proxy:
            return errors.TemporaryError(_login_needed(response.proxy))
        summary = f"{host(response.url)} answered {response.status} instead of the artifact"
        if response.status in (408, 429) or response.status >= 500:
            advice, retry_after = _waiting(response.headers)
            return errors.ServerBusy(f"{summary}; {advice}", retry_after, host(uri))
        return errors.InvalidResponse(f"{summary}; check the artifact storage.")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: bool = True,
    ) -> Answer:
        """Send one request to the server and return the response.

        Raises `errors.InvalidToken` if the server rejects the token, `errors.TemporaryError` for 408, 429 and
        5xx; the caller interprets every other status.
        """
        headers = dict(headers or ({} if body is None else {"Content-Type": "application/json"}))
        headers["Accept"] = "application/json"
        if token:
            headers["Authorization"] = f"Bearer {self.token}"
        with self._transport.send(method, self.url + path, body, headers) as response:
            content = response.read(ANSWER_LIMIT + 1)
        short = f"{method} .../{path.partition('?')[0].rpartition('/')[2]}"
        answer = Answer(short, response.status, response.headers, content, response.proxy)
        if len(content) > ANSWER_LIMIT:
            raise self._unexpected(answer, f"at most {ANSWER_LIMIT} bytes")
        if token and answers.rejects_token(answer):
            raise errors.InvalidToken(
                f"{self._summary(answer)}, although it has authorized this device; see the server's log.",
                forbidden=answer.status == 403,
            )
        if answer.status in (408, 429) or answer.status >= 500:
            failure = errors.ServerError if answer.status >= 500 else errors.ServerBusy
            advice, retry_after = _waiting(answer.headers)
            raise failure(f"{self._summary(answer)}; {advice}", retry_after, host(self.url))
        return answer

    def _expect(self, answer: Answer, *statuses: int) -> None:
        if answer.status not in statuses:
            raise self._unexpected(answer, "the expected answer")

    def _unexpected(self, answer: Answer, expected: str) -> errors.Error:
        """Return the error for a response that the endpoint must not have."""
        if answer.status >= 400 and len(answer.body) <= ANSWER_LIMIT:
            if answer.status in (404, 405):
                return errors.ServerRejected(f"{self._summary(answer)}; check ServerURL.")
            if not answers.mender_error(answer):
                return self._not_mender(answer)
            return errors.ServerRejected(f"{self._summary(answer)}; see the server's log.")
        redirect = self._redirect(answer)
        if redirect:
            return errors.InvalidResponse(f"{redirect}.")
        return errors.InvalidResponse(
            f"{host(self.url)} answered {answer.status} with {len(answer.body)} bytes of "
            f"{answers.content_kind(answer)!r} instead of {expected}; check that ServerURL is a Mender "
            "server and that no captive portal intercepts the connection."
        )

    def _not_mender(self, answer: Answer) -> errors.NotAMenderServer:
        """Return the error for a response that is not in the form of a Mender server."""
        if answer.status == 407 and answer.proxy:
            return errors.NotAMenderServer(_login_needed(answer.proxy), None, host(self.url))
        redirect = self._redirect(answer)
        if redirect:
            return errors.NotAMenderServer(f"{redirect}; the next run will retry.", None, host(self.url))
        return errors.NotAMenderServer(
            f"{self._summary(answer)} to {answer.request}, which is not the answer of a Mender server; check "
            "any gateway, firewall or captive portal in between.",
            None,
            host(self.url),
        )

    def _redirect(self, answer: Answer) -> str:
        """Return a message about a redirect to another host, by scheme and host only, or ""."""
        if not 300 <= answer.status < 400:
            return ""
        target = answers.redirect_target(self.url + "/", answer.headers.get("location", ""))
        if not target or _origin(target) == _origin(self.url):
            return ""
        there = f"{host(self.url)} redirects ({answer.status}) to {_origin(target)}; "
        if _bare(target) == _bare(self.url):
            return f"{there}set ServerURL to that"
        return f"{there}if that is your Mender server, set ServerURL to it, else check for a captive portal"

    def _summary(self, answer: Answer) -> str:
        """Return the begin of a message: the host, the status, the reason and the proxy."""
        reason = answers.reason(answer)
        through = f" through the proxy {answer.proxy}" if answer.proxy else ""
        return f"{host(self.url)} answered {answer.status}" + (f" ({reason})" if reason else "") + through


def _not_accepted(url: str, reason: str) -> errors.NotAccepted:
    if "signature" in reason:
        message = f"{host(url)} rejected this device's signature ({reason}); check the device key."
    else:
        message = (
            f"{host(url)} has not accepted this device yet ({reason}); accept it under "
            "Devices > Pending, and the next run will continue."
        )
    return errors.NotAccepted(message)


def _login_needed(proxy: str) -> str:
    return f"The proxy {proxy} requires a login (407); set http_proxy to http://user:password@{proxy}."


def _bare(url: str) -> str:
    """Return the host of a URL without its port."""
    return (urlsplit(url).hostname or "").lower()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _origin(url: str) -> str:
    return f"{answers.scheme(url)}://{host(url)}"


def _waiting(headers: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the end of a message about a temporary failure, and the Retry-After in seconds, if any."""
    now = time.time()
    retry_after = answers.retry_after(headers.get("retry-after", ""), headers.get("date", ""), now)
    if not retry_after:
        return "the next run will retry.", retry_after
    return f"it asked to wait {plan.until(retry_after, now)}.", retry_after
