"""Make the device key where there is none."""

from .. import keys
from ..context import Context, Outcome


def run(context: Context) -> Outcome:
    """Make the key unless there is a good one; raises `errors.SettingsError` for a damaged one."""
    settings = context.settings
    if keys.load(settings.key_file) is not None:
        return Outcome("kept", f"The device key {settings.key_file} is there and good; nothing to do.")
    keys.make(settings)
    return Outcome("created", f"Made a new device key, {settings.key_file}.")


def replace(context: Context) -> Outcome:
    """Make a new key whatever is there (`--force`); the token of the old one goes with it."""
    keys.make(context.settings)
    context.store.save(token=None)
    return Outcome(
        "created", f"Made a new device key, {context.settings.key_file}; it must be accepted anew."
    )
