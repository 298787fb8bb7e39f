"""Whether the system is shutting down."""

import os
import subprocess

from ..sub_updater import SYSTEMD

ANSWER_SECONDS = 30.0

_SYSTEMD = ("systemctl", "is-system-running")
_LOGIND = (
    *("busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1"),
    *("org.freedesktop.login1.Manager", "PreparingForShutdown"),
)
_RUNLEVEL = ("runlevel",)


def is_under_way() -> bool:
    """Return whether the system is shutting down; False if the init process does not show it.

    `reboot` only asks for it: logind delays it while a program needs time, and then all units are stopped.
    """
    if os.path.isdir(SYSTEMD):
        return _answer(_SYSTEMD) == "stopping" or _answer(_LOGIND) == "b true"
    return _answer(_RUNLEVEL)[-1:] in ("0", "6")  # sysvinit: the last runlevel and this one


def _answer(command: tuple[str, ...]) -> str:
    """Return what a command prints; "" if it cannot be run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
