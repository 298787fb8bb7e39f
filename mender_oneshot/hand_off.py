"""Starting what installs an update: the device's own sub-updater, or the built-in installer."""

import os
from collections.abc import Sequence

from . import disk, sub_updater
from .context import Context
from .paths import SUB_UPDATER_LOCK, SUB_UPDATER_LOG

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = (
    *(f"{kind}_proxy" for kind in ("http", "https", "all", "no")),
    *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")),
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


def start(context: Context, deployment: str, artifact_name: str, words: Sequence[str], *, unit: str) -> None:
    """Start it so that it outlives us, with its output in `sub-updater.log`; raises like `sub_updater`."""
    output = context.data(SUB_UPDATER_LOG)
    try:
        os.close(disk.open_own(output))
        # From here on it counts as started (`plan.never_started`), even after a power cut.
        disk.sync_directory(context.settings.places.datastore)
    except OSError as error:
        raise disk.failure(f"write {output}", error) from error
    environment, private = _environment(context, deployment, artifact_name), _private_environment()
    lock = context.data(SUB_UPDATER_LOCK)
    sub_updater.start(sub_updater.Launch(unit, list(words), environment, private, output, lock))


def _environment(context: Context, deployment: str, artifact_name: str) -> dict[str, str]:
    """Return the environment of the sub-updater: no secrets, and only PATH from our own environment."""
    settings = context.settings
    variables = {
        "PATH": os.environ.get("PATH") or DEFAULT_PATH,
        "MENDER_DEPLOYMENT_ID": deployment,
        # In UTF-8 whatever the locale, because the sub-updater writes it to `artifact_info`.
        "MENDER_ARTIFACT_NAME": os.fsdecode(artifact_name.encode()),
        "MENDER_DATASTORE_DIR": settings.places.datastore,
        "MENDER_ROOTFS_PART_A": settings.rootfs_part_a,
        "MENDER_ROOTFS_PART_B": settings.rootfs_part_b,
    }
    # With these, its `mender-oneshot report` uses the same configuration.
    return variables | {
        name: os.environ[name] for name in ("MENDER_CONF_DIR", "MENDER_DATA_DIR") if name in os.environ
    }


def _private_environment() -> dict[str, str]:
    """Return the variables of our environment for network access; those of a proxy may hold a password."""
    return {
        name: os.environ[name]
        for name in NETWORK
        if os.environ.get(name, "").isprintable() and name in os.environ
    }
