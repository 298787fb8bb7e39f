"""The identity of the device: what its script prints, and the format that the server gets it in.

A server takes {"mac": "a"} and {"mac": ["a"]} for two devices (device-api.md section 1.2). The C++ and Go
clients send the first format, "string", and mender-python-client the second, "list". So the format must never
change by itself: it is chosen once, and recorded in the state and in the lock file.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping

from . import disk, errors, key_values, paths, scripts
from .settings import Settings
from .state import State

Identity = dict[str, str | list[str]]

PLACEHOLDERS = {
    *("none", "null", "(null)", "unknown", "undefined", "n/a", "not specified", "not applicable"),
    *("default string", "system serial number", "to be filled by o.e.m.", "to be filled by oem"),
    "03000200-0400-0500-0006-000700080009",
}
"""Values, in lower case, that scripts (first line) and firmware (SMBIOS) give if there is no value."""

log = logging.getLogger(__name__)


def read(settings: Settings, known: State) -> Identity:
    """Run the identity script; raises `errors.SettingsError` if it prints no identity."""
    path, as_list = settings.places.identity_script, format_in_use(settings, known) == "list"
    disk.require_target(path)
    try:
        output = scripts.run(settings, path).decode()
    except (errors.ScriptFailed, UnicodeDecodeError) as error:
        raise errors.SettingsError(_why_none(path, error)) from error
    values = key_values.parse(output, strip=as_list)
    if not values:
        raise errors.SettingsError(
            f"The identity script {path} printed no key=value line; correct the script."
        )
    return dict(values) if as_list else {key: key_values.single(value) for key, value in values.items()}


def _why_none(path: str, error: Exception) -> str:
    """Return the message about a script that could not be started, failed, or printed something else."""
    if obstacle := scripts.obstacle(path):
        message = f"The identity script {path} cannot be started: {obstacle}"
        if not os.path.lexists(path):
            return f"{message}; write one, or install the default one: mender-oneshot setup"
        return message if ": " in obstacle else f"{message}; correct that."
    why = "what it prints is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
    return f"The identity script {path} failed: {why}; correct the script."


def read_unique(settings: Settings, known: State) -> Identity:
    """Run the identity script; raises `errors.SettingsError` if the identity is not unique.

    A server takes all devices with the same identity for one and accepts one key for it, so such an identity
    cannot work in a fleet. A device that was accepted with it stays accepted (decision 0009).
    """
    found = read(settings, known)
    if is_unique(found):
        return found
    was_accepted = known.owner == mark(found) or (known.token and not known.owner)
    if not was_accepted:
        raise errors.SettingsError(not_unique(settings, found))
    log.info("%s", not_unique(settings, found))
    return found


def is_another_device(settings: Settings, known: State) -> bool:
    """Run the identity script and return whether the state belongs to another device; False if it fails."""
    if not known.owner:
        return False
    try:
        found = read_unique(settings, known)
    except (errors.SettingsError, errors.TemporaryError) as error:
        log.warning("Cannot check whether this is still the same device: %s", error)
        return False
    return mark(found) != known.owner


def is_unique(identity: Mapping[str, str | list[str]]) -> bool:
    """Return whether an identity has a value that can distinguish this device from others."""
    values = [v for value in identity.values() for v in ([value] if isinstance(value, str) else value)]
    return not all(_is_placeholder(value) for value in values)


def _is_placeholder(value: str) -> bool:
    text = value.strip().lower()
    digits = text.replace(":", "").replace("-", "")
    # A MAC address, a serial number or a UUID without a value; a short "0" may be the name of a first device.
    blank = len(digits) >= 12 and (set(digits) <= {"0"} or set(digits) <= {"f"})
    return not text or blank or text in PLACEHOLDERS


def not_unique(settings: Settings, found: Identity) -> str:
    """Return the message about an identity that does not distinguish this device from others."""
    shown = ", ".join(f"{name}={value}" for name, value in found.items())[:200]
    return (
        f"The identity script {settings.places.identity_script} printed {shown}, which does not tell this "
        "device from others; make it print a serial number or the MAC address of a network interface."
    )


def id_data(identity: Identity) -> str:
    """Return an identity as JSON, as the server gets it."""
    return json.dumps(identity, separators=(",", ":"), sort_keys=True)


def mark(identity: Identity) -> str:
    """Return a digest of an identity, in the format that the server gets."""
    return digest(id_data(identity).encode())


def digest(content: bytes) -> str:
    """Return a digest that is short enough for the state."""
    return hashlib.sha256(content).hexdigest()[:32]


def format_in_use(settings: Settings, known: State) -> str:
    """Return the format of the identity, "list" or "string": the configured one, or else the recorded one."""
    return settings.identity_format or known.identity_format or "string"


def first_format(settings: Settings, lock: int) -> str:
    """Choose the format for a device without a state, and record it in the lock file, an open descriptor.

    The record survives the loss of the state. A device that lost its state has a key and a log, and must not
    be taken for one that ran mender-python-client.
    """
    chosen = _recorded_format(lock)
    if not chosen:
        chosen = "list" if has_traces_of_python_client(settings) else "string"
        with contextlib.suppress(OSError):
            os.pwrite(lock, chosen.encode(), 0)
            os.fsync(lock)
    return chosen


def recovered_format(lock: int, corrupt_state: bytes = b"") -> str:
    """Return the format recorded in the lock file, or else the one in what is left of the state."""
    return _recorded_format(lock) or ("list" if b'"identity_format": "list"' in corrupt_state else "string")


def _recorded_format(lock: int) -> str:
    try:
        recorded = os.pread(lock, 16, 0).decode("ascii", "replace")
    except OSError:
        return ""
    return recorded if recorded in ("list", "string") else ""


def has_traces_of_python_client(settings: Settings) -> bool:
    """Return whether mender-python-client ran here: it left a key and a log, and no other client a store.

    Then the server has the identity in lists. Only meaningful if this program has no state yet.
    """
    data = settings.places.data
    # A dangling link counts as well, because its file system may not be mounted yet.
    ours = os.path.lexists(settings.key_file) and os.path.lexists(data(paths.DEPLOYMENT_LOG))
    return ours and not os.path.lexists(data(paths.STORE_OF_MENDER_CLIENT))
