"""Check what the terminal needs before it connects: configuration, lock, pseudo-terminal, Chroot."""

import errno
import os

from .. import disk, errors, lock, paths
from ..settings import Settings, no_server
from .confined_path import Replaceable, Root, hold
from .process import account, shell_problem
from .settings import TerminalSettings

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC)
"""Temporary reasons for no pseudo-terminal; ENOSPC is the kernel's limit of them."""


def check(settings: Settings, own: TerminalSettings) -> None:
    """Raise `errors.SettingsError` if the terminal is disabled or cannot work; connects to nothing."""
    place = f"{settings.places.conf_dir}/{paths.TERMINAL_CONFIG}"
    if not own.on:
        raise errors.SettingsError(
            f'The remote terminal is disabled; set {{"RemoteTerminal": true}} in {place} to enable it.'
        )
    if not settings.servers:
        raise no_server(settings)
    if not own.shell_disabled:
        problem = shell_problem(own.shell)
        if problem:
            raise errors.SettingsError(f"The remote terminal cannot start: {problem}; correct {place}.")
        try:
            account(own.user)
        except KeyError as error:
            raise errors.SettingsError(
                f"The remote terminal cannot start: there is no user {own.user}; correct {place}."
            ) from error
        _try_pty()


def _try_pty() -> None:
    """Open a pseudo-terminal and close it; raises `errors.TemporaryError` or `errors.SettingsError`."""
    try:
        ends = os.openpty()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in _PASSING:
            raise errors.TemporaryError(
                f"No pseudo-terminal can be opened ({reason}); will retry on the next run."
            ) from error
        raise errors.SettingsError(
            f"No pseudo-terminal can be opened ({reason}); mount devpts on /dev/pts."
        ) from error
    for end in ends:
        os.close(end)


def hold_root(own: TerminalSettings) -> Root:
    """Open the Chroot of file transfers, "/" without one; raises `errors.SettingsError`."""
    limits = own.limits
    path = limits.chroot if limits.enabled and limits.chroot and not own.files_disabled else "/"
    try:
        return hold(path)
    except Replaceable as problem:
        raise errors.SettingsError(
            f"Limits.FileTransfer.Chroot {path} does not confine users: {problem}. Choose a directory that "
            "only root can replace."
        ) from problem
    except OSError as error:
        raise errors.SettingsError(
            f"Limits.FileTransfer.Chroot {path} cannot be opened ({os.strerror(error.errno or 0)}); "
            "create the directory, or correct the path."
        ) from error


def take_lock(settings: Settings) -> int:
    """Take the lock of the terminal of this device and return its descriptor; raises `errors.Busy`."""
    disk.ensure_directory(settings.places.datastore)
    try:
        return lock.take(settings.places.data(paths.TERMINAL_LOCK), wait=False)
    except errors.Busy as error:
        raise errors.Busy(
            "Another mender-oneshot terminal is already running for this device; stop it, or use that one."
        ) from error
