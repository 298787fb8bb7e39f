"""Which service a path belongs to, and the checks of a token's form that come before the services.

Knows no device and no user: whether a token is good is for the service that issued it.
"""

import base64
import binascii
import json
import re
from email.message import Message
from typing import Any

from .validation import Refusal

DEVICES = "/api/devices/"
MANAGEMENT = "/api/management/"
_SERVICES = {
    DEVICES: ("authentication", "deployments", "deviceconfig", "deviceconnect", "inventory"),
    MANAGEMENT: ("deployments", "devauth", "deviceconfig", "deviceconnect", "inventory", "useradm"),
}
_IDENTIFYING = ("authentication", "devauth", "inventory", "useradm")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ManagementJWT"'}


def has_service(path: str) -> bool:
    """Tell whether the gateway has a service for a path, which the service need not know."""
    for prefix, names in _SERVICES.items():
        if path.startswith(prefix):
            return bool(re.match(rf"v[0-9a-z]+/({'|'.join(names)})", path[len(prefix) :]))
    return False


def identifies_refused_methods(path: str) -> bool:
    """Tell whether the service of a path has a `request_id` in its answer 405; some have none."""
    return bool(re.match(rf"/api/[a-z]+/v[0-9a-z]+/({'|'.join(_IDENTIFYING)})", path))


def bearer(headers: Message) -> str:
    """Return the token of the Authorization header, or else of the cookie JWT; 401 if there is none."""
    header = headers.get("Authorization", "")
    if not header:
        pairs = (pair.strip().partition("=") for pair in headers.get("Cookie", "").split(";"))
        token = next((value for name, _, value in pairs if name == "JWT"), None)
        if token is None:
            raise _unauthorized("Authorization not present in header")
        return token
    words = header.split(" ")
    if len(words) != 2:
        raise _unauthorized("malformed Authorization header")
    if words[0].lower() != "bearer":
        raise _unauthorized(f"unknown Authorization method {words[0]}")
    return words[1]


def check_form(token: str) -> None:
    """Refuse with 401 and a reason what is no token at all. The signature is not looked at."""
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


def _unauthorized(text: str) -> Refusal:
    return Refusal(401, text, headers=_CHALLENGE)
