"""Generate the device key if there is none."""

from .. import keys
from ..context import Context, Outcome


def run(context: Context, *, paced: bool = False, force: bool = False) -> Outcome:
    """Generate the key unless there is one; raises `errors.SettingsError` if it is corrupt.

    With `force`, replace the key, corrupt or not, and drop the token that was issued for it.
    """
    settings, store = context.settings, context.store
    if force:
        keys.make(settings)
        store.save(store.state._replace(token=None))
        return Outcome(
            "created", f"Created a new device key {settings.key_file}; accept the device again on the server."
        )
    if keys.load(settings.key_file) is not None:
        return Outcome("kept", f"The device key {settings.key_file} already exists; nothing to do.")
    keys.make(settings)
    return Outcome("created", f"Created a new device key {settings.key_file}.")
