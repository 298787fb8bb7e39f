"""The configuration of the remote terminal, `mender-connect.conf`: read once, then immutable.

The file of the reference add-on and of mender-python-client (remote-terminal.md section 7).
"""

import os
from typing import Any, NamedTuple

from .. import config_file, errors
from ..config_file import FLAG, TEXT, TEXTS, Faults, Keys, Kind, number
from ..paths import TERMINAL_CONFIG, Places


class FileLimits(NamedTuple):
    """`Limits.FileTransfer`: which files may be downloaded and uploaded; ignored unless `enabled`."""

    enabled: bool = False
    chroot: str = ""
    follow_links: bool = False
    allow_overwrite: bool = False
    owner_put: str = ""
    group_put: str = ""
    owner_get: tuple[str, ...] = ()
    group_get: tuple[str, ...] = ()
    max_file_size: int = 0  # bytes; 0: no limit
    max_sent_per_minute: int = 0  # bytes; 0: no limit
    max_received_per_minute: int = 0
    allow_suid: bool = False
    regular_only: bool = False
    umask: int = 0


class TerminalSettings(NamedTuple):
    """The settings of the terminal; times in seconds."""

    warnings: tuple[str, ...] = ()
    on: bool = False
    shell: str = "/bin/sh"
    arguments: tuple[str, ...] = ("--login",)
    user: str = ""  # "": the user that the terminal runs as, as in mender-python-client
    width: int = 80
    height: int = 40
    shell_disabled: bool = False
    expire_after: int = 0
    expire_idle: int = 0
    max_per_user: int = 1
    files_disabled: bool = False
    forward_disabled: bool = False
    client_disabled: bool = False
    limits: FileLimits = FileLimits()


SWITCH = "RemoteTerminal"
# As mender-python-client reads it: "True", true, 1 and "yes" enable the terminal, anything else disables it.
_SWITCH = Kind(
    lambda value: True, "", lambda value: str(value).lower() in ("true", "1", "yes"), null_counts=True
)
_UMASK = Kind(
    lambda value: isinstance(value, str) and len(value) <= 6 and not value.strip("01234567"),
    "an octal number in quotes",
    lambda value: int(value or "0", 8) & 0o777,
)
_SIZE = number(2**16 - 1)
_UINT32, _UINT64 = number(2**32 - 1), number(2**64 - 1)

KEYS: Keys = {
    SWITCH: (_SWITCH, "switch"),
    "ShellCommand": (TEXT, "shell"),
    "ShellArguments": (TEXTS, "arguments"),
    "User": (TEXT, "user"),
    "Terminal.Width": (_SIZE, "width"),
    "Terminal.Height": (_SIZE, "height"),
    "Terminal.Disable": (FLAG, "shell_disabled"),
    "Sessions.StopExpired": (FLAG, "stop_expired"),
    "Sessions.ExpireAfter": (_UINT32, "expire_after"),
    "Sessions.ExpireAfterIdle": (_UINT32, "expire_idle"),
    "Sessions.MaxPerUser": (_UINT32, "max_per_user"),
    "ReconnectIntervalSeconds": (number(2**31), ""),
    "FileTransfer.Disable": (FLAG, "files_disabled"),
    "PortForward.Disable": (FLAG, "forward_disabled"),
    "MenderClient.Disable": (FLAG, "client_disabled"),
    "Limits.Enabled": (FLAG, "limits.enabled"),
    "Limits.FileTransfer.Chroot": (TEXT, "limits.chroot"),
    "Limits.FileTransfer.FollowSymLinks": (FLAG, "limits.follow_links"),
    "Limits.FileTransfer.AllowOverwrite": (FLAG, "limits.allow_overwrite"),
    "Limits.FileTransfer.OwnerPut": (TEXT, "limits.owner_put"),
    "Limits.FileTransfer.GroupPut": (TEXT, "limits.group_put"),
    "Limits.FileTransfer.OwnerGet": (TEXTS, "limits.owner_get"),
    "Limits.FileTransfer.GroupGet": (TEXTS, "limits.group_get"),
    "Limits.FileTransfer.MaxFileSize": (_UINT64, "limits.max_file_size"),
    "Limits.FileTransfer.Counters.MaxBytesTxPerMinute": (_UINT64, "limits.max_sent_per_minute"),
    "Limits.FileTransfer.Counters.MaxBytesRxPerMinute": (_UINT64, "limits.max_received_per_minute"),
    "Limits.FileTransfer.AllowSuid": (FLAG, "limits.allow_suid"),
    "Limits.FileTransfer.RegularFilesOnly": (FLAG, "limits.regular_only"),
    "Limits.FileTransfer.Umask": (_UMASK, "limits.umask"),
    # The reference add-on preserves all three, whatever the file has.
    "Limits.FileTransfer.PreserveOwner": (FLAG, ""),
    "Limits.FileTransfer.PreserveGroup": (FLAG, ""),
    "Limits.FileTransfer.PreserveMode": (FLAG, ""),
}

_OF_MENDER_CONF = ("ServerURL", "Servers", "ClientProtocol", "HttpsClient", "SkipVerify", "ServerCertificate")
_NO_EFFECT = dict.fromkeys(_OF_MENDER_CONF, "belongs in mender.conf; it has no effect here.")
_SHARED = {SWITCH, "ShellCommand", "User"}  # the keys that mender-python-client has too
_DEFAULT_IF_ZERO_OR_EMPTY = ("shell", "width", "height", "max_per_user")


def load(places: Places, faults: Faults | None = None) -> TerminalSettings:
    """Read both files and merge them, the one in /etc/mender over the other, key by key.

    Raises `errors.SettingsError` for a file that cannot be read, is not JSON, or has an invalid value. With
    `faults`, adds all such errors to it instead; the terminal is then disabled. Without either file the
    terminal is disabled.
    """
    warnings: list[str] = []
    values: dict[str, Any] = {}
    for path in (places.data(TERMINAL_CONFIG), f"{places.conf_dir}/{TERMINAL_CONFIG}"):
        try:
            content = config_file.read(places, path)
            if content is not None:
                values |= config_file.parse(path, content, KEYS, _NO_EFFECT, warnings, faults)
        except config_file.Unreadable as error:
            config_file.fail(error, faults)
    try:
        found = _settings(values, tuple(warnings))
    except errors.SettingsError as error:
        config_file.fail(error, faults)
    return TerminalSettings(warnings=tuple(warnings)) if faults else found


def _settings(values: dict[str, Any], warnings: tuple[str, ...]) -> TerminalSettings:
    fields = {KEYS[name][1]: value for name, value in values.items()}
    on = _is_on(values)
    if fields.get("stop_expired") is False:
        fields |= {"expire_after": 0, "expire_idle": 0}
    limits = {name.partition(".")[2]: value for name, value in fields.items() if name.startswith("limits.")}
    chroot = limits.get("chroot")
    if chroot and not os.path.isabs(chroot):
        raise errors.SettingsError(
            f"Limits.FileTransfer.Chroot {chroot} is not an absolute path; correct it."
        )
    chosen = {
        field: value
        for field, value in fields.items()
        if field in TerminalSettings._fields and (value or field not in _DEFAULT_IF_ZERO_OR_EMPTY)
    }
    return TerminalSettings(warnings=warnings, on=on, limits=FileLimits(**limits), **chosen)


def _is_on(values: dict[str, Any]) -> bool:
    """Return whether the terminal is enabled; raises `errors.SettingsError` if `User` is missing.

    The switch is mender-python-client's. A file without it that has a user, or keys that only the reference
    add-on has, was written for that add-on, which is always enabled and needs a user.
    """
    if SWITCH in values:
        return bool(values[SWITCH])
    if values.get("User"):
        return True
    if values.keys() <= _SHARED:
        return False
    raise errors.SettingsError(
        f'{TERMINAL_CONFIG} does not name the user to run the shell as; put "User": "..." into it, or '
        '"RemoteTerminal": false.'
    )
