"""`mender-connect.conf`: who may do what over the remote terminal, read once, frozen.

The file of the reference add-on and of mender-python-client, as it is (remote-terminal.md section 7).
"""

import os
from typing import Any, NamedTuple

from .. import errors
from ..settings import Places, is_text, read, read_object, unknown, wrong

FILE = "mender-connect.conf"


class FileLimits(NamedTuple):
    """`Limits.FileTransfer`: what may be fetched and put; nothing here holds unless `enabled`."""

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
    """Everything `mender-connect.conf` can choose; times in seconds."""

    warnings: tuple[str, ...] = ()
    on: bool = False
    shell: str = "/bin/sh"
    arguments: tuple[str, ...] = ("--login",)
    user: str = ""  # "": whoever we are, as mender-python-client did
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


_KEYS: dict[str, tuple[type, int, str]] = {
    # key: type, largest number, field ("" where it has no meaning here)
    "ShellCommand": (str, 0, "shell"),
    "ShellArguments": (list, 0, "arguments"),
    "User": (str, 0, "user"),
    "Terminal.Width": (int, 2**16 - 1, "width"),
    "Terminal.Height": (int, 2**16 - 1, "height"),
    "Terminal.Disable": (bool, 0, "shell_disabled"),
    "Sessions.StopExpired": (bool, 0, "stop_expired"),
    "Sessions.ExpireAfter": (int, 2**32 - 1, "expire_after"),
    "Sessions.ExpireAfterIdle": (int, 2**32 - 1, "expire_idle"),
    "Sessions.MaxPerUser": (int, 2**32 - 1, "max_per_user"),
    "ReconnectIntervalSeconds": (int, 2**31, ""),
    "FileTransfer.Disable": (bool, 0, "files_disabled"),
    "PortForward.Disable": (bool, 0, "forward_disabled"),
    "MenderClient.Disable": (bool, 0, "client_disabled"),
    "Limits.Enabled": (bool, 0, "limits.enabled"),
    "Limits.FileTransfer.Chroot": (str, 0, "limits.chroot"),
    "Limits.FileTransfer.FollowSymLinks": (bool, 0, "limits.follow_links"),
    "Limits.FileTransfer.AllowOverwrite": (bool, 0, "limits.allow_overwrite"),
    "Limits.FileTransfer.OwnerPut": (str, 0, "limits.owner_put"),
    "Limits.FileTransfer.GroupPut": (str, 0, "limits.group_put"),
    "Limits.FileTransfer.OwnerGet": (list, 0, "limits.owner_get"),
    "Limits.FileTransfer.GroupGet": (list, 0, "limits.group_get"),
    "Limits.FileTransfer.MaxFileSize": (int, 2**64 - 1, "limits.max_file_size"),
    "Limits.FileTransfer.Counters.MaxBytesTxPerMinute": (int, 2**64 - 1, "limits.max_sent_per_minute"),
    "Limits.FileTransfer.Counters.MaxBytesRxPerMinute": (int, 2**64 - 1, "limits.max_received_per_minute"),
    "Limits.FileTransfer.AllowSuid": (bool, 0, "limits.allow_suid"),
    "Limits.FileTransfer.RegularFilesOnly": (bool, 0, "limits.regular_only"),
    "Limits.FileTransfer.Umask": (str, 0, "limits.umask"),
    # The reference add-on forces both to true, whatever the file says.
    "Limits.FileTransfer.PreserveOwner": (bool, 0, ""),
    "Limits.FileTransfer.PreserveGroup": (bool, 0, ""),
    "Limits.FileTransfer.PreserveMode": (bool, 0, ""),
}

_OF_MENDER_CONF = ("ServerURL", "Servers", "ClientProtocol", "HttpsClient", "SkipVerify", "ServerCertificate")
_SWITCH = "RemoteTerminal"
_SHARED = ("shell", "user")  # keys that mender-python-client had too

_KNOWN = {name.lower(): name for name in (*_KEYS, *_OF_MENDER_CONF, _SWITCH)}
_SECTIONS = {name.rpartition(".")[0].lower() for name in _KEYS if "." in name} | {"limits"}
_KINDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number from 0 to {}",
    list: "a list of strings",
}


def load(places: Places) -> TerminalSettings:
    """Read both files and merge them, the first over the second, key by key.

    Raises `errors.SettingsError` for a file that cannot be read, is not JSON, or has a value that makes no
    sense. Neither file: the terminal is off.
    """
    warnings: list[str] = []
    merged: dict[str, Any] = {}
    for path in (places.data(FILE), f"{places.conf_dir}/{FILE}"):
        content = read(places, path)
        if content is not None:
            merged |= _parse(path, content, warnings)
    return _settle(merged, warnings)


def _parse(path: str, content: bytes, warnings: list[str]) -> dict[str, Any]:
    """Turn one file into `{field: value}`, adding to `warnings`."""
    text, values = read_object(path, content)
    fields: dict[str, Any] = {}

    def descend(members: dict[str, Any], trail: list[str]) -> None:
        for key, value in members.items():
            name = ".".join([*trail, key])
            if name.lower() in _SECTIONS:
                if value is None:
                    continue
                if not isinstance(value, dict):
                    raise errors.SettingsError(wrong(path, text, [*trail, key], name, "an object"))
                descend(value, [*trail, key])
                continue
            known = _KNOWN.get(name.lower())
            if known is None:
                warnings.append(unknown(path, name, _KNOWN))
            elif known == _SWITCH:
                # As mender-python-client read it: "True", true, 1 and yes are all meant.
                fields["switch"] = str(value).lower() in ("true", "1", "yes")
            elif known in _OF_MENDER_CONF:
                warnings.append(f"{path}: {known} belongs into mender.conf; it has no effect here.")
            elif value is not None:
                kind, largest, field = _KEYS[known]
                if not _fits(kind, largest, field, value):
                    expected = (
                        "an octal number in quotes" if "umask" in field else _KINDS[kind].format(largest)
                    )
                    raise errors.SettingsError(wrong(path, text, [*trail, key], known, expected))
                fields[field or known] = value

    descend(values, [])
    return fields


def _fits(kind: type, largest: int, field: str, value: object) -> bool:
    if field == "limits.umask":
        return isinstance(value, str) and len(value) <= 6 and not value.strip("01234567")
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) and is_text(item) for item in value)
    return isinstance(value, kind) and (not isinstance(value, str) or is_text(value))


def _settle(merged: dict[str, Any], warnings: list[str]) -> TerminalSettings:
    """Decide whether the terminal is on, and give the rest its final shape.

    The switch is mender-python-client's; a file without it that says what only the reference add-on
    understands, or whose user that add-on cannot do without, was written for an add-on that is always on.
    """
    switch = merged.pop("switch", None)
    for_reference = any(field not in _SHARED for field in merged) or bool(merged.get("user"))
    on = for_reference if switch is None else switch
    if on and switch is None and not merged.get("user"):
        raise errors.SettingsError(
            f'{FILE} does not say whose shell to start; put "User": "..." into it, or '
            '"RemoteTerminal": false.'
        )
    if merged.pop("stop_expired", True) is False:
        merged.pop("expire_after", None)
        merged.pop("expire_idle", None)
    limits = {
        field.removeprefix("limits."): merged.pop(field)
        for field in list(merged)
        if field.startswith("limits.")
    }
    chosen = {field: value for field, value in merged.items() if field in TerminalSettings._fields}
    for field in ("shell", "width", "height", "max_per_user"):
        if not chosen.get(field):
            chosen.pop(field, None)  # 0 and "" are the reference add-on's way to say "the default"
    for group in (chosen, limits):
        for field, value in group.items():
            if isinstance(value, list):
                group[field] = tuple(value)
    if limits.get("umask") is not None:
        limits["umask"] = int(limits["umask"] or "0", 8) & 0o777
    chroot = limits.get("chroot")
    if chroot and not os.path.isabs(chroot):
        raise errors.SettingsError(
            f"Limits.FileTransfer.Chroot {chroot} is not an absolute path; correct it."
        )
    return TerminalSettings(warnings=tuple(warnings), on=on, limits=FileLimits(**limits), **chosen)
