"""Check an artifact by its header, before the rest of it is downloaded."""

import os

from . import acceptance, disk, errors
from .artifact.verify import Header, Verified
from .installer import modules
from .settings import Settings

FIRST_BYTES = 64 * 1024
"""The header is looked for when so many bytes are there; it is larger if it has many state scripts."""

WORTH_BYTES = 1 << 20
"""With fewer bytes than these to come, the check of the whole artifact follows soon enough."""


class NothingInstallsIt(errors.ServerRejected):
    """The device has neither a sub-updater nor an update module for the payload of an artifact."""


class _Incomplete(Exception):
    """The header is not there in full yet."""


class _Complete(Exception):
    """The header is there, and this device accepts it."""


class EarlyCheck:
    """The check of one download, which ends with its first result."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = FIRST_BYTES

    def look(self, descriptor: int, size: int, missing: int) -> None:
        """Check the header if there is enough of it; `missing` bytes are still to come, -1 if not known.

        Raises `errors.ArtifactRejected` if the device rejects the artifact, and `NothingInstallsIt`. A wrong
        setting is left to the step `install`.
        """
        if not 0 < self._next <= size or 0 <= missing < WORTH_BYTES:
            return
        try:
            acceptance.verify(self._settings, _Beginning(descriptor), begin=self._accept)
        except _Incomplete:
            self._next = size * 2
        except (_Complete, errors.SettingsError, OSError):
            self._next = 0

    def _accept(self, verified: Verified, _header: Header) -> None:
        require_installer(self._settings, verified)
        raise _Complete


class _Beginning:
    """The first bytes of a file; to read more than there are raises `_Incomplete`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; raises `_Incomplete` if there are none."""
        piece = os.pread(self._descriptor, size, self._offset)
        if not piece:
            raise _Incomplete
        self._offset += len(piece)
        return piece


def require_installer(settings: Settings, verified: Verified) -> None:
    """Raise `NothingInstallsIt` if the device has neither a sub-updater nor a module for the payload."""
    program = settings.places.install_script
    disk.require_target(program)  # a partition that is not mounted yet hides a sub-updater
    if os.path.lexists(program) or not verified.payload_type:
        return
    if why := modules.obstacle(settings, verified.payload_type):
        raise NothingInstallsIt(
            f"{verified.name} cannot be installed: there is no sub-updater {program}, and {why}; the update "
            "has failed."
        )
