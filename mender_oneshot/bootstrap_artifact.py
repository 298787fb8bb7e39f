"""The bootstrap artifact: a file in the image of a new device that lists what the device provides."""

import contextlib
import fcntl
import logging
import os
from typing import BinaryIO

from . import device, disk, errors, provides, provides_store
from .artifact.refusal import corrupt
from .artifact.verify import verify
from .paths import BOOTSTRAP_ARTIFACT
from .settings import Settings

log = logging.getLogger(__name__)


def install(settings: Settings) -> None:
    """Store what the bootstrap artifact provides unless that is known already, then remove the file.

    The provides are durable before the file is removed, so a power cut at any time loses neither. An artifact
    that is rejected is removed as well. The file stays if the disk or the configuration is at fault. Every
    error is only logged: what is installed stays unknown.
    """
    path = settings.places.data(BOOTSTRAP_ARTIFACT)
    try:
        _install(settings, path)
    except FileNotFoundError:
        return  # another process has installed it
    except (errors.ArtifactRejected, errors.UntrustedFile) as error:
        if not os.path.lexists(path):
            return  # likewise, after this process had opened it
        log.warning("Removing %s, so the name of what is installed stays unknown: %s", path, error)
    except (errors.Error, OSError) as error:
        why = disk.failure(f"read {path}", error) if isinstance(error, OSError) else error
        log.warning("%s cannot be installed yet, the next command will retry: %s", path, why)
        return
    try:
        disk.remove(path)
    except errors.Error as error:
        log.warning("%s", error)


def _install(settings: Settings, path: str) -> None:
    with open(disk.open_to_read(path), "rb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # two processes must not write the provides at once
        if device.provides(settings)["artifact_name"] == device.UNKNOWN:
            _store(settings, file)


def _store(settings: Settings, file: BinaryIO) -> None:
    # Its signature is not checked: a user who can write this file can write the provides as well.
    found = verify(file, device_type=device.device_type(settings))
    if found.payload_type is not None:
        raise corrupt("it has a payload, which a bootstrap artifact must not have")
    now = provides.after({}, found.name, found.group, found.provides, found.clears_provides)
    lines = provides.lines(now)  # rejects an artifact that provides too much
    provides_store.save(settings, now)
    try:
        provides_store.write_artifact_info(settings, lines)
    except errors.Error as error:
        log.warning("%s The provides are stored; only artifact_info is old.", error)
    log.info("Installed %s from the bootstrap artifact.", found.name)
