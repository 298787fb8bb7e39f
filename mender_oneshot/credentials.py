"""What a token was asked with: the identity, the device key, the tenant token and the tier."""

import hashlib
import json
import logging

from . import device, disk, errors, plan
from .settings import Settings
from .snapshot import Snapshot
from .state import State, Token

Identity = dict[str, str | list[str]]

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


def digest(content: bytes) -> str:
    """Return a digest that is short enough for the state."""
    return hashlib.sha256(content).hexdigest()[:32]


def mark(identity: Identity) -> str:
    """Return a digest of an identity, in the form that the server gets."""
    return digest(id_data(identity).encode())


def id_data(identity: Identity) -> str:
    """Write an identity as the server gets it."""
    return json.dumps(identity, separators=(",", ":"), sort_keys=True)


def identity(settings: Settings, known: State) -> Identity:
    """Run the identity script; raises `errors.SettingsError` if it says nothing that tells devices apart.

    A server takes all devices with such an identity for one, and accepts one key for it, so no fleet can work
    with it; but a device that was accepted with it stays accepted (decision 0009).
    """
    found = device.identity(settings, identity_form(settings, known))
    if device.tells_apart(found):
        return found
    was_accepted = known.owner == mark(found) or (known.token and not known.owner)
    if not was_accepted:
        raise errors.SettingsError(no_identity(settings, found))
    log.info("%s", no_identity(settings, found))
    return found


def no_identity(settings: Settings, found: Identity) -> str:
    """Say that an identity does not tell this device from others."""
    shown = ", ".join(f"{name}={value}" for name, value in found.items())[:200]
    return (
        f"The identity script {device.identity_script(settings)} printed {shown}, which does not tell this "
        "device from others; make it print a serial number or the MAC address of a network interface."
    )


def identity_form(settings: Settings, known: State) -> str:
    """Return the form of the identity, "list" or "string"."""
    return settings.identity_format or known.identity_format or "string"


def is_another_device(settings: Settings, known: State) -> bool:
    """Run the identity script and say whether the state belongs to another device; False if it fails."""
    if not known.owner:
        return False
    try:
        found = identity(settings, known)
    except (errors.SettingsError, errors.TemporaryError) as error:
        log.warning("Cannot tell whether this is still the same device: %s", error)
        return False
    return mark(found) != known.owner
