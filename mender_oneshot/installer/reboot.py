"""Rebooting the system, which a command or an update module only asks for."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping

from ..sub_updater import SYSTEMD
from .module import ModuleFailed

REBOOT_SECONDS = 600.0
"""How long a reboot may take to end this process, as in the Mender client."""

SETTLE_SECONDS = 1.0
"""Between the request for a reboot and its first effects: signals, or a state that init shows."""

ANSWER_SECONDS = 30.0

_SYSTEMD = ("systemctl", "is-system-running")
_LOGIND = (
    *("busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1"),
    *("org.freedesktop.login1.Manager", "PreparingForShutdown"),
)
_RUNLEVEL = ("runlevel",)


def carry_out(request: Callable[[], None], *, certain: bool) -> None:
    """Make a request for a reboot and wait for it, which ends this process as a rule.

    Returns only if the system does not shut down after a request that is not `certain` to reboot it: a module
    may restart something else. Raises `ModuleFailed`, but not if the shutdown is what ended the request.
    """
    failure: ModuleFailed | None = None
    try:
        request()
    except ModuleFailed as error:
        failure = error
    time.sleep(SETTLE_SECONDS)
    if (certain and failure is None) or is_under_way():
        time.sleep(REBOOT_SECONDS)
        failure = ModuleFailed(f"The reboot did not happen within {REBOOT_SECONDS:.0f} s.")
    if failure:
        raise failure


def call(environment: Mapping[str, str]) -> None:
    """Run the command `reboot`, found in the PATH of `environment`, as by the Mender client.

    Raises `ModuleFailed` if it fails.
    """
    try:
        subprocess.run(
            ["reboot"],  # noqa: S607
            stdin=subprocess.DEVNULL,
            stdout=2,
            check=True,
            env=dict(environment),
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ModuleFailed(f"The device cannot be rebooted: {error}.") from error


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
