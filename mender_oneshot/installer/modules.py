"""Finding the update module for a payload type: the device's own first, then ours."""

import os
import sys

from .. import own_command, scripts
from ..modules import MODULES
from ..settings import Settings


def find(settings: Settings, payload_type: str) -> tuple[str, ...] | None:
    """Return the command line of the update module for a payload type; None if there is none."""
    if not is_plain(payload_type):
        return None
    path = f"{settings.places.modules}/{payload_type}"
    if os.path.lexists(path):
        return (path,)
    ours = MODULES.get(payload_type)
    if ours is None:
        return None
    return (
        *own_command.python(f"from mender_oneshot.modules.{ours} import main; sys.exit(main(sys.argv[1:]))"),
    )


def payload_types(settings: Settings) -> list[str]:
    """Return the payload types that there are modules for, in the order of their names."""
    try:
        own = [name for name in os.listdir(settings.places.modules) if not name.startswith(".")]
    except OSError:
        own = []
    return sorted({*own, *MODULES})


def obstacle(settings: Settings, payload_type: str) -> str:
    """Return why no module can install a payload type, the end of a sentence; "" if one can."""
    command = find(settings, payload_type)
    if command is None:
        where = (
            f"{settings.places.modules}/{payload_type}" if is_plain(payload_type) else settings.places.modules
        )
        return f"there is no update module for the payload type {payload_type!r}; install it as {where}"
    if command[0] == sys.executable:
        return ""
    why = scripts.obstacle(command[0])
    return f"the update module {command[0]} cannot be started: {why}" if why else ""


def is_plain(payload_type: str) -> bool:
    """Return whether a payload type is one plain file name, so that it leads out of no directory."""
    return (
        bool(payload_type)
        and "/" not in payload_type
        and payload_type not in (".", "..")
        and "\0" not in payload_type
    )
