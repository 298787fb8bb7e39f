"""Check whether this device accepts an artifact: its signature, its device type and what it depends on."""

from collections.abc import Callable

from . import console, device
from .artifact.verify import Header, Readable, Receive, ReceiveScript, Verified, discard
from .artifact.verify import verify as verify_artifact
from .settings import Settings


def verify(
    settings: Settings,
    file: Readable,
    receive: Receive = discard,
    receive_script: ReceiveScript | None = None,
    begin: Callable[[Verified, Header], None] | None = None,
) -> Verified:
    """Read an artifact once, from start to end, and pass each payload file to `receive`.

    What `receive` gets is **not** verified until this returns. Raises `errors.ArtifactRejected`,
    `errors.SettingsError` for a key or a device type that cannot be read, and `OSError` from the file.
    """
    with console.waiting("Verifying the artifact ..."):
        return verify_artifact(
            file,
            device_type=device.device_type(settings),
            provides=device.provides(settings),
            check_signature=_signature_check(settings),
            receive=receive,
            receive_script=receive_script,
            begin=begin,
        )


def _signature_check(settings: Settings) -> Callable[[bytes, bytes], bool] | None:
    """Return a function that verifies a signature, or None if no verify key is configured."""
    paths = settings.artifact_verify_keys
    if not paths:
        return None
    from . import keys as key_files  # `cryptography` takes long to import; only signed artifacts need it

    keys = key_files.load_verify_keys(paths)
    return lambda manifest, signature: key_files.signed_by_one_of(keys, manifest, signature)
