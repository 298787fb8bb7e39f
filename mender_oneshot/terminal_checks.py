"""The check of `doctor` for the remote terminal, on devices that enable it."""

import os

from .settings import Settings
from .terminal import readiness
from .terminal.settings import TerminalSettings


def check(settings: Settings, own: TerminalSettings) -> str:
    """Return a message if the terminal can be served; raise what prevents it."""
    # The only users of wsproto and msgpack; an exception becomes the finding.
    from .terminal import connection as connection
    from .terminal import messages as messages

    if settings.servers:  # another check reports that there is none
        readiness.check(settings, own)
    os.close(readiness.hold_root(own).descriptor)
    return "The remote terminal is enabled and can start."
