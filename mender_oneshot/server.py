"""The Mender server: one method per endpoint.

Only here does a status code mean something; what comes out is values, or errors that are sentences. The
endpoints: device-api.md, and the server's OpenAPI files. Reading the answers: `answers`.
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
    """The deployment is not ours any more: the server has aborted it (409), or does not know it (404)."""

    def __init__(self, reason: str, *, aborted: bool) -> None:
        super().__init__(reason)
        self.aborted = aborted


class DeviceChanged(Exception):
    """`next` answered 409: the reported data changed, and the server has just failed the deployment."""


class TooLarge(Exception):
    """The body is over the server's limit (413)."""


class Server:
    """Connections to one Mender server, and to the hosts its artifacts lie on."""

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
        """Ask for a deployment without a token, which a Mender server refuses (401).

        Returns what its clock says, in seconds since 1970, or None where the answer has no date.
        """
        answer = self._ask("GET", f"{_DEVICES}{_NEXT}", token=False)
        if answer.status != 401 or not answers.refuses_token(answer):
            raise self._unexpected(answer, "the refusal of a request without a token")
        return answers.http_date(answer.headers.get("date", ""))

    def authorize(self, body: bytes, signature: str) -> str:
        """Ask for a token (POST auth_requests); raises `errors.NotAccepted` if the Mender server says 401."""
        headers = {"Content-Type": "application/json", "X-MEN-Signature": signature}
        answer = self._ask("POST", f"{_DEVICES}/authentication/auth_requests", body, headers, token=False)
        if answer.status == 401 and answers.own_words(answer):
            raise _not_accepted(self.url, answers.own_words(answer))
        self._expect(answer, 200)
        token = answer.body.decode("ascii", "replace").strip()
        if len(token) > TOKEN_LIMIT or not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]*", token, re.ASCII):
            raise self._unexpected(answer, "a token")
        return token

    def put_inventory(self, attributes: Attributes) -> None:
        """Replace the inventory; PATCH only where PUT is not known (405)."""
        body = _json([{"name": name, "value": value} for name, value in attributes.items()])
        path = f"{_DEVICES}/inventory/device/attributes"
        answer = self._ask("PUT", path, body)
        if answer.status == 405:
            answer = self._ask("PATCH", path, body)
        if answer.status in (400, 413) and answers.own_words(answer):
            raise errors.ServerRejected(
                f"{self._said(answer)}; this inventory has {len(attributes)} attributes and {len(body)} "
                "bytes; a Mender server takes 100 and 1048576, so print less in the inventory scripts."
            )
        self._expect(answer, 200)
        if answer.body.strip():  # the server's own answer is empty
            raise self._unexpected(answer, "an acknowledgement")

    def next_deployment(self, provides: dict[str, str], form: str) -> tuple[Deployment | None, str]:
        """Ask for the next deployment; return it, or None, and the form of the question that worked.

        The newer form first, the older on 404 only; a `form` that is given is the only one: the server fails
        a deployment about which it is asked in two forms. Raises `DeviceChanged` on 409.
        """
        given = form
        if form != "v1":
            answer = self._ask("POST", f"/api/devices/v2{_NEXT}", _json({"device_provides": provides}))
            form = "v2"
            if answer.status == 404 and given == "v2":
                raise self._stranger(answer)
        if form == "v1" or answer.status == 404:
            query = urlencode({key: provides[key] for key in ("artifact_name", "device_type")})
            answer = self._ask("GET", f"{_DEVICES}{_NEXT}?{query}")
            form = "v1"
        if answer.status == 409 and answers.own_words(answer):
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
        """Report a status; raises `DeploymentGone` if the deployment is aborted or unknown."""
        self._report(self._of(deployment, "status"), {"status": status})

    def put_log(self, deployment: str, messages: list[dict[str, str]]) -> None:
        """Replace the deployment log; raises `DeploymentGone`, or `TooLarge` on 413."""
        self._report(self._of(deployment, "log"), {"messages": messages}, large=True)

    def _report(self, path: str, what: object, *, large: bool = False) -> None:
        """Tell the server something of a deployment.

        Its answer can end a deployment, so it has to be its own: a gateway answers 404 as well while what is
        behind it restarts, and a portal answers anything.
        """
        answer = self._ask("PUT", path, _json(what))
        if answer.status == 204:
            return
        if large and answer.status == 413:  # a gateway's limit counts as well
            raise TooLarge
        if not answers.own_words(answer):
            raise self._stranger(answer)
        if answer.status in (404, 409):
            raise DeploymentGone(answers.own_words(answer), aborted=answer.status == 409)
        self._expect(answer, 204)

    def _of(self, deployment: str, what: str) -> str:
        return f"{_DEVICES}/deployments/device/deployments/{deployment}/{what}"

    def open_artifact(self, uri: str, known: resume.OnDisk) -> Response:
        """Ask for an artifact, from `known.offset` on where that makes sense; never sends the token.

        Follows at most 5 redirects, none of them from https to http; raises `errors.TemporaryError` or
        `errors.InvalidResponse`. What the answer means is left to `resume.decide`.
        """
        headers = {"Accept-Encoding": "identity"}
        condition = resume.condition(known)
        if condition is not None:
            headers["Range"] = f"bytes={known.offset}-"
        if condition:
            headers["If-Range"] = condition
        for _ in range(REDIRECTS + 1):
            name = f"{host(uri)}, the storage in the server's link"
            response = self._transport.send("GET", uri, None, headers, name)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            with response:
                target = answers.redirect_target(uri, response.headers.get("location", ""))
            if not target:
                raise errors.InvalidResponse(
                    f"The artifact's link at {host(uri)} redirects to no http(s) URL; it is not followed."
                )
            if answers.scheme(uri) == "https" and answers.scheme(target) != "https":
                raise errors.InvalidResponse(
                    f"The artifact's link at {host(uri)} redirects away from https; it is not followed."
                )
            uri = target
        raise errors.InvalidResponse(
            f"The artifact's link redirects more than {REDIRECTS} times; look at the storage."
        )

    def artifact_error(self, uri: str, response: Response) -> errors.Error:
        """Put an answer that no artifact can come from into words; a pause is one of the link's own host."""
        if response.status == 407 and response.proxy:
            return errors.TemporaryError(_login_wanted(response.proxy))
        said = f"{host(response.url)} answered {response.status} instead of the artifact"
        if response.status in (408, 429) or response.status >= 500:
            then, wish = _waiting(response.headers)
            return errors.TemporaryError(f"{said}; {then}", wish, host(uri))
        return errors.InvalidResponse(f"{said}; check the artifact storage.")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: bool = True,
    ) -> Answer:
        """Send one request to the server.

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
            raise self._unexpected(answer, "an answer of a sensible size")
        if token and answers.refuses_token(answer):
            raise errors.InvalidToken(
                f"{self._said(answer)}, although it has authorized this device; see the server's own log.",
                forbidden=answer.status == 403,
            )
        if answer.status in (408, 429) or answer.status >= 500:
            trouble = errors.ServerError if answer.status >= 500 else errors.TemporaryError
            then, wish = _waiting(answer.headers)
            raise trouble(f"{self._said(answer)}; {then}", wish, host(self.url))
        return answer

    def _expect(self, answer: Answer, *statuses: int) -> None:
        if answer.status not in statuses:
            raise self._unexpected(answer, "what was asked for")

    def _unexpected(self, answer: Answer, expected: str) -> errors.Error:
        """Return the error for an answer that the endpoint has no use for."""
        if answer.status >= 400 and len(answer.body) <= ANSWER_LIMIT:
            if answer.status in (404, 405):
                return errors.ServerRejected(f"{self._said(answer)}; check ServerURL.")
            if not answers.own_words(answer):
                return self._stranger(answer)
            return errors.ServerRejected(f"{self._said(answer)}; see the server's own log.")
        redirect = self._redirect(answer)
        if redirect:
            return errors.InvalidResponse(f"{redirect}.")
        return errors.InvalidResponse(
            f"{host(self.url)} answered {answer.status} with {len(answer.body)} bytes of "
            f"{answers.content_kind(answer)!r}, not {expected}; check that ServerURL is a Mender server and "
            "that no portal is in between."
        )

    def _stranger(self, answer: Answer) -> errors.NotAMenderServer:
        """Return the error for an answer that is not in the form of a Mender server."""
        if answer.status == 407 and answer.proxy:
            return errors.NotAMenderServer(_login_wanted(answer.proxy), None, host(self.url))
        redirect = self._redirect(answer)
        if redirect:
            return errors.NotAMenderServer(f"{redirect}; the next run tries again.", None, host(self.url))
        return errors.NotAMenderServer(
            f"{self._said(answer)} to {answer.request}, but not in the form of a Mender server; check the "
            "gateway, firewall or portal in between.",
            None,
            host(self.url),
        )

    def _redirect(self, answer: Answer) -> str:
        """Say where a redirect leads, by scheme and host only; "" if it leads nowhere else."""
        if not 300 <= answer.status < 400:
            return ""
        target = answers.redirect_target(self.url + "/", answer.headers.get("location", ""))
        if not target or _origin(target) == _origin(self.url):
            return ""
        there = f"{host(self.url)} redirects ({answer.status}) to {_origin(target)}; "
        if _bare(target) == _bare(self.url):
            return f"{there}write that into ServerURL"
        return f"{there}if that is your Mender server, write it into ServerURL, else a portal is in between"

    def _said(self, answer: Answer) -> str:
        words = answers.reason(answer)
        through = f" through the proxy {answer.proxy}" if answer.proxy else ""
        return f"{host(self.url)} answered {answer.status}" + (f" ({words})" if words else "") + through


def _not_accepted(url: str, reason: str) -> errors.NotAccepted:
    if "signature" in reason:
        message = f"{host(url)} does not take this device's signature ({reason}); check the device key."
    else:
        message = (
            f"{host(url)} has not accepted this device yet ({reason}); accept it under "
            "Devices > Pending, and the next run will continue."
        )
    return errors.NotAccepted(message)


def _login_wanted(proxy: str) -> str:
    return (
        f"The proxy {proxy} asks for a login (407); put it into http_proxy, as http://user:password@{proxy}."
    )


def _bare(url: str) -> str:
    """Return the host of a URL without its port."""
    return (urlsplit(url).hostname or "").lower()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _origin(url: str) -> str:
    return f"{answers.scheme(url)}://{host(url)}"


def _waiting(headers: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the end of a sentence about an answer that may change, and the pause asked for in seconds."""
    now = time.time()
    wish = answers.retry_after(headers.get("retry-after", ""), headers.get("date", ""), now)
    if not wish:
        return "the next run tries again.", wish
    return f"it asks for a pause of {plan.until(wish, now)}.", wish
