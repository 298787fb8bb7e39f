"""What a token was asked with besides the identity: the device key, the tenant token and the tier."""

import hashlib

from . import disk, errors, plan
from .moment import Moment
from .settings import Settings
from .state import Token

UNREADABLE = "?"
"""The digest if the key file cannot be read just now."""


def token_is_good(token: Token | None, settings: Settings, now: Moment) -> bool:
    """Say whether a token can be used: not at its end, and asked for with the key and settings of now."""
    if token is None or not plan.token_is_good(token, settings.servers, now.time):
        return False
    # An older version did not write down whose it is.
    return not token.credentials or current(settings) in (token.credentials, UNREADABLE)


def current(settings: Settings) -> str:
    """Return a digest of the key file, the tenant token and the tier of now."""
    try:
        key = disk.read(settings.key_file, 65536) or b""
    except errors.Error:
        return UNREADABLE
    parts = (key, settings.tenant_token.encode(), settings.device_tier.encode())
    return digest(b"".join(hashlib.sha256(part).digest() for part in parts))


def digest(content: bytes) -> str:
    """Return a digest that is short enough for the state."""
    return hashlib.sha256(content).hexdigest()[:32]
