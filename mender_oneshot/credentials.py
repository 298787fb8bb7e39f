"""What a token was asked with: the identity, the device key, the tenant token and the tier."""

import hashlib
import logging

from . import disk, errors, identity, plan
from .identity import digest
from .settings import Settings
from .snapshot import Snapshot
from .state import State, Token

log = logging.getLogger(__name__)

UNREADABLE = "?"
"""The digest if the key file cannot be read just now."""


def token_is_good(token: Token | None, settings: Settings, now: Snapshot) -> bool:
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


def is_another_device(settings: Settings, known: State) -> bool:
    """Run the identity script and say whether the state belongs to another device; False if it fails."""
    if not known.owner:
        return False
    try:
        found = identity.read_unique(settings, known)
    except (errors.SettingsError, errors.TemporaryError) as error:
        log.warning("Cannot tell whether this is still the same device: %s", error)
        return False
    return identity.mark(found) != known.owner
