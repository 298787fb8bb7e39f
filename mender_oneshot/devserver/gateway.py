"""Which service a path belongs to, and the checks of a token's format that precede the services.

Independent of devices and users: the service that issued a token decides whether it is valid.
"""

import base64
import binascii
import json
import re
from email.message import Message as Headers
from typing import Any

from .validation import HTTPError

CONTROL = "/devserver/"
PAGE = "/devserver/page/"
DEVICES = "/api/devices/"
MANAGEMENT = "/api/management/"
_SERVICES = {
    DEVICES: ("authentication", "deployments", "deviceconfig", "deviceconnect", "inventory"),
    MANAGEMENT: ("deployments", "devauth", "deviceconfig", "deviceconnect", "inventory", "useradm"),
}
_IDENTIFYING = ("authentication", "devauth", "inventory", "useradm")
PAGE_PROTOCOL = "bearer-token"
"""The web page's WebSockets offer this protocol and the token: a script cannot set their Authorization."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ManagementJWT"'}


def has_service(path: str) -> bool:
    """Return whether the gateway forwards a path to a service; the service may not have the path."""
    for prefix, names in _SERVICES.items():
        if path.startswith(prefix):
            return bool(re.match(rf"v[0-9a-z]+/({'|'.join(names)})", path[len(prefix) :]))
    return False


def identifies_405(path: str) -> bool:
    """Return whether the service of a path has a `request_id` in its 405 response; some have none."""
    return bool(re.match(rf"/api/[a-z]+/v[0-9a-z]+/({'|'.join(_IDENTIFYING)})", path))


def bearer_token(headers: Headers) -> str:
    """Return the token of the Authorization header, or else of the web page's WebSocket or the cookie JWT.

    Raise HTTPError 401 if there is none, or if the header is malformed.
    """
    header = headers.get("Authorization", "")
    if not header:
        offered = [word.strip() for word in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if len(offered) == 2 and offered[0] == PAGE_PROTOCOL:
            return offered[1]
        pairs = (pair.strip().partition("=") for pair in headers.get("Cookie", "").split(";"))
        token = next((value for name, _, value in pairs if name == "JWT"), None)
        if token is None:
            raise _unauthorized("Authorization not present in header")
        return token
    parts = header.split(" ")
    if len(parts) != 2:
        raise _unauthorized("malformed Authorization header")
    if parts[0].lower() != "bearer":
        raise _unauthorized(f"unknown Authorization method {parts[0]}")
    return parts[1]


def check_format(token: str) -> None:
    """Raise HTTPError 401 unless the text has the format of a token; the signature is not verified."""
    parts = token.split(".")
    if len(parts) != 3:
        raise _unauthorized("identity: incorrect token format")
    try:
        raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except (binascii.Error, ValueError) as error:
        raise _unauthorized(f"identity: failed to decode base64 JWT claims: {error}") from None
    try:
        claims: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _unauthorized(f"identity: failed to decode JSON JWT claims: {error}") from None
    if not isinstance(claims, dict) or not claims.get("sub"):
        raise _unauthorized('identity: claim "sub" is required')


def _unauthorized(text: str) -> HTTPError:
    return HTTPError(401, text, headers=_CHALLENGE)
