"""The configuration: two JSON files and a few directories, read once, frozen.

Says where everything lies and how often what is done; knows nothing of state, disk layout of others or
network. Keys and precedence: device-api.md section 7.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from . import disk, errors
from .url import origin, to_ascii


class Places(NamedTuple):
    """Where the files lie: from the environment, `--config`, `--fallback-config` and `--data`."""

    config: str
    fallback: str
    explicit: bool  # --config was given: then it must exist
    conf_dir: str
    scripts_dir: str
    datastore: str

    def data(self, name: str) -> str:
        """Return the path of a file in the data directory."""
        return f"{self.datastore}/{name}"


class Settings(NamedTuple):
    """Everything the user can choose; times in seconds. Names follow the keys of `mender.conf`."""

    places: Places
    warnings: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    tenant_token: str = ""
    device_tier: str = ""
    server_certificate: str = ""
    skip_verify: bool = False
    client_certificate: str = ""
    client_key: str = ""
    auth_private_key: str = ""
    key_type: str = "ed25519"
    update_poll_interval: int = 1800
    inventory_poll_interval: int = 28800
    retry_poll_interval: int = 300
    retry_poll_count: int = 0
    retry_download_count: int = 10
    start_spread: int = 300
    install_timeout: int = 14400
    identity_format: str = ""
    device_type_file: str = ""
    update_log_path: str = ""
    artifact_verify_keys: tuple[str, ...] = ()
    log_level: str = ""
    rootfs_part_a: str = ""
    rootfs_part_b: str = ""

    @property
    def key_file(self) -> str:
        """The device key: the configured one, or `mender-agent.pem` in the data directory."""
        return self.auth_private_key or self.places.data("mender-agent.pem")

    @property
    def log_directory(self) -> str:
        """Where `deployment.log` lies."""
        return self.update_log_path or self.places.datastore


_ONE_OF: dict[str, tuple[str, ...]] = {
    "IdentityFormat": ("string", "list"),
    "KeyType": ("ed25519", "rsa"),
    "DeviceTier": ("standard", "system", "micro"),
}

_FIELDS: dict[str, tuple[type, str]] = {
    "ServerURL": (str, "server_url"),
    "Servers": (list, "servers"),
    "TenantToken": (str, "tenant_token"),
    "DeviceTier": (str, "device_tier"),
    "ServerCertificate": (str, "server_certificate"),
    "SkipVerify": (bool, "skip_verify"),
    "HttpsClient.Certificate": (str, "client_certificate"),
    "HttpsClient.Key": (str, "client_key"),
    "HttpsClient.SSLEngine": (str, "ssl_engine"),
    "Security.AuthPrivateKey": (str, "auth_private_key"),
    "Security.SSLEngine": (str, "ssl_engine"),
    "KeyType": (str, "key_type"),
    "UpdatePollIntervalSeconds": (int, "update_poll_interval"),
    "InventoryPollIntervalSeconds": (int, "inventory_poll_interval"),
    "RetryPollIntervalSeconds": (int, "retry_poll_interval"),
    "RetryPollCount": (int, "retry_poll_count"),
    "RetryDownloadCount": (int, "retry_download_count"),
    "StartSpreadSeconds": (int, "start_spread"),
    "InstallTimeoutSeconds": (int, "install_timeout"),
    "IdentityFormat": (str, "identity_format"),
    "DeviceTypeFile": (str, "device_type_file"),
    "UpdateLogPath": (str, "update_log_path"),
    "ArtifactVerifyKey": (str, "artifact_verify_key"),
    "ArtifactVerifyKeys": (list, "artifact_verify_keys"),
    "DaemonLogLevel": (str, "log_level"),
    "RootfsPartA": (str, "rootfs_part_a"),
    "RootfsPartB": (str, "rootfs_part_b"),
}

_SECTIONS = ("HttpsClient", "Security")

# Keys of the reference clients that have no meaning here; a shared file may well hold them.
_OF_OTHERS = (
    "BootUtilitiesGetNextActivePart",
    "BootUtilitiesSetActivePart",
    "ClientProtocol",
    "Connectivity",
    "DBus",
    "ModuleTimeoutSeconds",
    "RemoteTerminal",
    "ShellCommand",
    "StateScriptRetryIntervalSeconds",
    "StateScriptRetryTimeoutSeconds",
    "StateScriptTimeoutSeconds",
    "UpdateControlMapBootExpirationTimeSeconds",
    "UpdateControlMapExpirationTimeSeconds",
    "UpdateControlMapPollIntervalSeconds",
    "User",
)

_ZERO_HAS_MEANING = ("RetryPollCount", "InstallTimeoutSeconds", "StartSpreadSeconds")

_KINDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number, 0 or more",
    list: "a list",
    dict: "an object",
}


def find_places(config: str = "", fallback: str = "", datastore: str = "") -> Places:
    """Say where everything lies: the command line first, then the environment, then the defaults."""
    environment = os.environ
    conf_dir = environment.get("MENDER_CONF_DIR") or "/etc/mender"
    datastore = datastore or environment.get("MENDER_DATASTORE_DIR") or "/var/lib/mender"
    datastore = os.path.abspath(datastore)
    return Places(
        config=config or f"{conf_dir}/mender.conf",
        fallback=fallback or f"{datastore}/mender.conf",
        explicit=bool(config),
        conf_dir=conf_dir,
        scripts_dir=environment.get("MENDER_DATA_DIR") or "/usr/share/mender",
        datastore=datastore,
    )


def no_server(settings: Settings) -> errors.SettingsError:
    """Say that there is no server to talk to."""
    return errors.SettingsError(
        f'No server is configured; put {{"ServerURL": "https://..."}} into {settings.places.config}.'
    )


def load(places: Places) -> Settings:
    """Read both files and merge them, the first over the second, key by key.

    Raises `errors.SettingsError` for a file that cannot be read, is not JSON, or has a value of the wrong
    type. Unknown keys end up in `Settings.warnings`.
    """
    warnings: list[str] = []
    merged: dict[str, Any] = {}
    for path in (places.fallback, places.config):
        content = read(places, path)
        if content is None:
            if places.explicit and path == places.config:
                raise errors.SettingsError(f"There is no configuration file {path}; check --config.")
            continue
        values = parse(path, content, warnings)
        if "server_url" in values or "servers" in values:
            merged.pop("server_url", None)
            merged.pop("servers", None)
        merged.update(values)
    return _settle(places, merged, warnings)


def read(places: Places, path: str) -> bytes | None:
    """Return the content of a configuration file, None if there is none; raises `errors.SettingsError`."""
    if path.startswith(f"{places.datastore}/") and not os.path.isdir(places.datastore):
        return None  # what is wrong with the data directory, its first user says
    try:
        return disk.read(path)
    except errors.Error as error:
        raise errors.SettingsError(str(error)) from error


def parse(path: str, content: bytes, warnings: list[str]) -> dict[str, Any]:
    """Turn one file into `{field: value}`, adding to `warnings`; raises `errors.SettingsError`."""
    text, values = read_object(path, content)
    fields: dict[str, Any] = {}
    for name, trail, value in _entries(path, text, values):
        known = _KNOWN.get(name.lower())
        if known is None:
            warnings.append(unknown(path, name))
        elif known in _FIELDS and value is not None:  # null is as good as no value, as in the other clients
            kind, field = _FIELDS[known]
            if not _fits(known, kind, value):
                raise errors.SettingsError(wrong(path, text, trail, known, _expected(known, kind)))
            if _is_set(known, kind, value):
                fields[field] = value.lower() if known in _ONE_OF else value
    return fields


def read_object(path: str, content: bytes) -> tuple[str, dict[str, Any]]:
    """Return the text of a file and the JSON object in it; raises `errors.SettingsError`."""
    try:
        text = content.decode("utf-8-sig")
        values = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise errors.SettingsError(f"{path} is not JSON: {error.msg} at {where}; mend it.") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise errors.SettingsError(f"{path} is not JSON in UTF-8; write it again.") from error
    if not isinstance(values, dict):
        raise errors.SettingsError(f"{path} must hold one JSON object: {{...}} at line 1, column 1; mend it.")
    return text, values


def _entries(path: str, text: str, values: Mapping[str, Any]) -> Iterable[tuple[str, list[str], Any]]:
    """Yield (dotted name, the keys that lead to it, value), the two nested objects flattened."""
    for key, value in values.items():
        section = next((s for s in _SECTIONS if s.lower() == key.lower()), None)
        if section is None:
            yield key, [key], value
        elif isinstance(value, dict):
            for inner, inner_value in value.items():
                yield f"{section}.{inner}", [key, inner], inner_value
        elif value is not None:
            raise errors.SettingsError(wrong(path, text, [key], section, "an object"))


def _fits(name: str, kind: type, value: object) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**31
    if name == "Servers":
        return isinstance(value, list) and all(_server_url(entry) is not None for entry in value)
    if kind is list:
        return isinstance(value, list) and all(isinstance(entry, str) and is_text(entry) for entry in value)
    if name in _ONE_OF:  # "" is no choice, as in the other clients
        return isinstance(value, str) and (not value or value.lower() in _ONE_OF[name])
    return isinstance(value, kind) and (not isinstance(value, str) or is_text(value))


def _is_set(name: str, kind: type, value: object) -> bool:
    """Return whether a value counts: 0 is no interval, and "" is no choice."""
    return bool(value) or (kind is not int and name not in _ONE_OF) or name in _ZERO_HAS_MEANING


def is_text(value: str) -> bool:
    """Say whether a string can be a path or go into a request: no NUL, no half characters."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _server_url(entry: object) -> str | None:
    """Return the URL in an element of `Servers`: `{"ServerURL": ...}`."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key.lower() == "serverurl" and isinstance(value, str):
                return value
    return None


def _expected(name: str, kind: type) -> str:
    if name == "Servers":
        return 'a list of {"ServerURL": "https://..."}'
    if name in _ONE_OF:
        return " or ".join(f'"{choice}"' for choice in _ONE_OF[name])
    return "a list of strings" if kind is list else _KINDS[kind]


def wrong(path: str, text: str, trail: list[str], name: str, expected: str) -> str:
    """Say where in a file a value is that is not of the kind its key wants; `trail` is the keys to it."""
    line, column = _position(text, trail)
    return f"{path}: {name} must be {expected} (line {line}, column {column}); mend it."


def _position(text: str, trail: list[str]) -> tuple[int, int]:
    """Find the line and column of the value that a trail of keys leads to (json keeps no positions)."""
    place = 0
    for key in trail:
        # The last of several members of one name is the one that counts.
        place = dict(_members(text, text.index("{", place))).get(key, place)
    return text.count("\n", 0, place) + 1, place - (text.rfind("\n", 0, place) + 1) + 1


def _members(text: str, start: int) -> Iterable[tuple[str, int]]:
    """Yield each key of the JSON object that begins at `start`, and the place of its value."""
    from json.decoder import JSONDecoder  # only a mistake pays for it

    read = JSONDecoder().raw_decode

    blank = " \t\r\n"
    place = start
    while text[place] != "}":
        place += 1
        place += len(text) - place - len(text[place:].lstrip(blank))
        if text[place] == "}":
            return
        key, place = read(text, place)
        place = text.index(":", place) + 1
        place += len(text) - place - len(text[place:].lstrip(blank))
        yield key, place
        _, place = read(text, place)
        place += len(text) - place - len(text[place:].lstrip(blank))


def unknown(path: str, name: str, known: Mapping[str, str] | None = None) -> str:
    """Say that a key is not known, and which it may have been; `known` maps small letters to the spelling."""
    from difflib import get_close_matches  # only a mistake pays for it

    known = _KNOWN if known is None else known
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {known[close[0]]}?" if close else "; it has no effect."
    return f"{path}: the key {name} is not known{hint}"


def _settle(places: Places, merged: dict[str, Any], warnings: list[str]) -> Settings:
    """Fold the few keys that belong together, and make the frozen result."""
    if merged.pop("ssl_engine", ""):
        raise errors.SettingsError(
            "SSLEngine is set, but hardware key stores are not supported here; use a key file and remove it."
        )
    if bool(merged.get("client_certificate")) != bool(merged.get("client_key")):
        raise errors.SettingsError("HttpsClient needs both Certificate and Key; add the one that is missing.")
    first = merged.pop("server_url", "")
    others = [_server_url(entry) or "" for entry in merged.pop("servers", [])]
    if first and others:
        warnings.append("Both ServerURL and Servers are set; ServerURL is tried first, then the others.")
    servers = []
    for url in [first, *others] if first else others:
        url = url.rstrip("/")
        ascii_url = to_ascii(url)
        if url and not ascii_url:
            raise errors.SettingsError(
                f'The server "{url}" has letters in it that DNS does not have; write its name as xn--...'
            )
        if origin(ascii_url) is None:
            raise errors.SettingsError(f'The server "{url}" is not a URL; write it as https://host.')
        url = ascii_url
        if url not in servers:
            servers.append(url)
    verify_key = merged.pop("artifact_verify_key", "")
    verify_keys = ([verify_key] if verify_key else []) + merged.pop("artifact_verify_keys", [])
    return Settings(
        places=places,
        warnings=tuple(warnings),
        servers=tuple(servers),
        artifact_verify_keys=tuple(verify_keys),
        **merged,
    )


_KNOWN = {name.lower(): name for name in [*_FIELDS, *_OF_OTHERS]}
