"""Find files that other users can change although they decide what root runs and trusts."""

import contextlib
import os
from collections.abc import Iterator

from . import disk, errors, ownership, paths
from .settings import Settings


def problems(settings: Settings) -> Iterator[str]:
    """Yield a message for each file or directory that another user can change."""
    for path in dict.fromkeys(_paths(settings)):
        try:
            found = os.stat(path)
        except OSError:
            continue  # missing or unreadable, which another check reports
        if reason := ownership.writable_by_others(found):
            yield f"{path} {reason}; do: chown root:root {path} && chmod go-w {path}"


def readable_token(settings: Settings) -> str:
    """Return the path of a configuration file with a TenantToken that any user can read, or ""."""
    for path in (settings.places.config, settings.places.fallback):
        try:
            if os.stat(path).st_mode & 0o004 and b"tenanttoken" in (disk.read(path) or b"").lower():
                return path
        except (OSError, errors.Error):
            continue
    return ""


def _paths(settings: Settings) -> Iterator[str]:
    places = settings.places
    files = [
        places.config,
        places.fallback,
        f"{places.conf_dir}/{paths.TERMINAL_CONFIG}",
        places.artifact_info,
        places.data(paths.TERMINAL_CONFIG),
        settings.device_type_file or places.data(paths.DEVICE_TYPE),
        settings.server_certificate,
        settings.client_certificate,
        settings.client_key,
        settings.key_file,
        *settings.artifact_verify_keys,
        places.install_script,
        places.identity_script,
    ]
    yield places.datastore
    inventory = places.inventory_scripts
    for path in [path for path in files if path]:
        yield os.path.dirname(path)
        yield path
    for directory in (inventory, places.modules, places.state_scripts, places.health_checks):
        yield directory
        with contextlib.suppress(OSError):
            yield from (f"{directory}/{name}" for name in sorted(os.listdir(directory)))
