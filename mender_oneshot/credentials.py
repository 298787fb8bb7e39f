"""The credentials that a token was requested with: device key, tenant token and device tier."""

import hashlib

from . import disk, errors, plan
from .identity import digest
from .settings import Settings
from .snapshot import Snapshot
from .state import Token

UNREADABLE = "?"
"""Used as the digest if the key file cannot be read."""


def token_is_good(token: Token | None, settings: Settings, now: Snapshot) -> bool:
    """Return whether a token is valid: not expired, and issued for the current key and settings."""
    if token is None or not plan.token_is_good(token, settings.servers, now.time):
        return False
    # An older version did not record the credentials.
    return not token.credentials or current(settings) in (token.credentials, UNREADABLE)


def current(settings: Settings) -> str:
    """Return a digest of the current key file, tenant token and device tier, or `UNREADABLE`."""
    try:
        key = disk.read(settings.key_file, 65536) or b""
    except errors.Error:
        return UNREADABLE
    parts = (key, settings.tenant_token.encode(), settings.device_tier.encode())
    return digest(b"".join(hashlib.sha256(part).digest() for part in parts))
