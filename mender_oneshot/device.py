"""Read the device type and what the installed artifact provides."""

from . import disk, errors, key_values, paths, provides_store
from .key_values import Values
from .settings import Settings

UNKNOWN = "unknown"
"""The name of the installed artifact if there is none, as in the reference client."""


def device_type(settings: Settings) -> str:
    """Read the device type; raises `errors.SettingsError` if the file or the line in it is missing."""
    path = settings.device_type_file or settings.places.data(paths.DEVICE_TYPE)
    values = _read(path)
    if values is None:
        raise errors.SettingsError(
            f"There is no device type: put a line device_type=<your board> into {path}."
        )
    found = values.get("device_type", [""])[-1]
    if not found:
        raise errors.SettingsError(f"{path} has no line device_type=<your board>; add it.")
    return found


def provides(settings: Settings) -> dict[str, str]:
    """Return what the built-in installer has stored, or else the content of `artifact_info`.

    The `artifact_name` is `UNKNOWN` if there is none. Raises `errors.SettingsError` if `artifact_info` cannot
    be read, and `errors.DiskError` if the stored file cannot.
    """
    stored = provides_store.load(settings)
    if stored is not None:
        return {"artifact_name": UNKNOWN} | stored
    values = _read(settings.places.artifact_info) or {}
    return {"artifact_name": UNKNOWN} | {key: value[-1] for key, value in values.items() if value[-1]}


def _read(path: str) -> Values | None:
    try:
        content = disk.read(path, 65536)
        return None if content is None else key_values.parse(content.decode("utf-8-sig"), strip=True)
    except errors.SettingsError:
        raise
    except (errors.Error, UnicodeDecodeError) as error:
        why = error if isinstance(error, errors.Error) else f"{path} is not UTF-8; save it as UTF-8."
        raise errors.SettingsError(str(why)) from error
