"""The configuration of the client, `mender.conf`: read once, then immutable.

Keys and precedence: device-api.md section 7.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from . import config_file, errors, paths
from .config_file import FLAG, TEXT, TEXTS, Faults, Keys, Kind, Unreadable, choice, fail, number
from .paths import Places
from .url import origin, to_ascii, without_login


class Settings(NamedTuple):
    """The settings; times in seconds. The names follow the keys of `mender.conf`."""

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
    start_spread: int = 3600
    install_timeout: int = 14400
    module_timeout: int = 14400
    state_script_timeout: int = 3600
    state_script_retry_timeout: int = 1800
    state_script_retry_interval: int = 60
    commit_timeout: int = 2160
    identity_format: str = ""
    device_type_file: str = ""
    update_log_path: str = ""
    artifact_verify_keys: tuple[str, ...] = ()
    log_level: str = ""
    rootfs_part_a: str = ""
    rootfs_part_b: str = ""

    @property
    def key_file(self) -> str:
        """The path of the device key: the configured one, or `mender-agent.pem` in the data directory."""
        return self.auth_private_key or self.places.data(paths.DEVICE_KEY)

    @property
    def log_directory(self) -> str:
        """The directory of `deployment.log`."""
        return self.update_log_path or self.places.datastore


def _server_url(entry: object) -> str | None:
    """Return the URL in an element of `Servers`, {"ServerURL": URL}, None if it has another form."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key.lower() == "serverurl" and isinstance(value, str):
                return value
    return None


_NUMBER = number(2**31)
_SERVERS = Kind(
    lambda value: isinstance(value, list) and all(_server_url(entry) is not None for entry in value),
    'a list of {"ServerURL": "https://..."}',
    convert=lambda value: tuple(_server_url(entry) or "" for entry in value),
)

KEYS: Keys = {
    "ServerURL": (TEXT, "server_url"),
    "Servers": (_SERVERS, "servers"),
    "TenantToken": (TEXT, "tenant_token"),
    "DeviceTier": (choice("standard", "system", "micro"), "device_tier"),
    "ServerCertificate": (TEXT, "server_certificate"),
    "SkipVerify": (FLAG, "skip_verify"),
    "HttpsClient.Certificate": (TEXT, "client_certificate"),
    "HttpsClient.Key": (TEXT, "client_key"),
    "HttpsClient.SSLEngine": (TEXT, "ssl_engine"),
    "Security.AuthPrivateKey": (TEXT, "auth_private_key"),
    "Security.SSLEngine": (TEXT, "ssl_engine"),
    "KeyType": (choice("ed25519", "rsa"), "key_type"),
    "UpdatePollIntervalSeconds": (_NUMBER, "update_poll_interval"),
    "InventoryPollIntervalSeconds": (_NUMBER, "inventory_poll_interval"),
    "RetryPollIntervalSeconds": (_NUMBER, "retry_poll_interval"),
    "RetryPollCount": (_NUMBER, "retry_poll_count"),
    "RetryDownloadCount": (_NUMBER, "retry_download_count"),
    "StartSpreadSeconds": (_NUMBER, "start_spread"),
    "InstallTimeoutSeconds": (_NUMBER, "install_timeout"),
    "ModuleTimeoutSeconds": (_NUMBER, "module_timeout"),
    "StateScriptTimeoutSeconds": (_NUMBER, "state_script_timeout"),
    "StateScriptRetryTimeoutSeconds": (_NUMBER, "state_script_retry_timeout"),
    "StateScriptRetryIntervalSeconds": (_NUMBER, "state_script_retry_interval"),
    "CommitTimeoutSeconds": (_NUMBER, "commit_timeout"),
    "IdentityFormat": (choice("string", "list"), "identity_format"),
    "DeviceTypeFile": (TEXT, "device_type_file"),
    "UpdateLogPath": (TEXT, "update_log_path"),
    "ArtifactVerifyKey": (TEXT, "artifact_verify_key"),
    "ArtifactVerifyKeys": (TEXTS, "artifact_verify_keys"),
    "DaemonLogLevel": (TEXT, "log_level"),
    "RootfsPartA": (TEXT, "rootfs_part_a"),
    "RootfsPartB": (TEXT, "rootfs_part_b"),
}

# Settings of the reference clients that do not apply here; a file may be shared with one of them.
OF_OTHER_CLIENTS = (
    "BootUtilitiesGetNextActivePart",
    "BootUtilitiesSetActivePart",
    "ClientProtocol",
    "Connectivity",
    "DBus",
    "RemoteTerminal",
    "ShellCommand",
    "UpdateControlMapBootExpirationTimeSeconds",
    "UpdateControlMapExpirationTimeSeconds",
    "UpdateControlMapPollIntervalSeconds",
    "User",
)

_NO_EFFECT = dict.fromkeys(OF_OTHER_CLIENTS, "")

_DEFAULT_IF_ZERO_OR_EMPTY = {
    name
    for name, (kind, _) in KEYS.items()
    if kind is _NUMBER or name in ("DeviceTier", "KeyType", "IdentityFormat")
} - {"RetryPollCount", "InstallTimeoutSeconds", "StartSpreadSeconds"}


def no_server(settings: Settings) -> errors.SettingsError:
    """Return the error for a configuration without a server."""
    return errors.SettingsError(
        f'No server is configured; put {{"ServerURL": "https://..."}} into {settings.places.config}, or set '
        "the device up: mender-oneshot setup"
    )


def load(places: Places, faults: Faults | None = None) -> Settings:
    """Read both files and merge them, the first over the second, key by key.

    Raises `errors.SettingsError` for a file that cannot be read, is not JSON, or has an invalid value. With
    `faults`, adds all such errors to it instead, and returns the settings that are valid. Keys that have no
    effect are named in `Settings.warnings`.
    """
    warnings: list[str] = []
    merged: dict[str, Any] = {}
    for path in (places.fallback, places.config):
        try:
            fields = _fields(places, path, warnings, faults)
        except Unreadable as error:
            fail(error, faults)
            continue
        if "server_url" in fields or "servers" in fields:
            merged.pop("server_url", None)
            merged.pop("servers", None)
        merged |= fields
    return _settings(places, merged, warnings, faults)


def _fields(places: Places, path: str, warnings: list[str], faults: Faults | None) -> dict[str, Any]:
    content = config_file.read(places, path)
    if content is not None:
        return parse(path, content, warnings, faults)
    if places.explicit and path == places.config:
        raise Unreadable(f"There is no configuration file {path}; check --config.")
    return {}


def parse(path: str, content: bytes, warnings: list[str], faults: Faults | None = None) -> dict[str, Any]:
    """Return the value of each field that a file sets; adds to `warnings`, raises `errors.SettingsError`.

    With `faults`, only `config_file.Unreadable` is raised; other errors are added to it.
    """
    values = config_file.parse(path, content, KEYS, _NO_EFFECT, warnings, faults)
    return {
        KEYS[name][1]: value
        for name, value in values.items()
        if value or name not in _DEFAULT_IF_ZERO_OR_EMPTY
    }


def _settings(places: Places, merged: dict[str, Any], warnings: list[str], faults: Faults | None) -> Settings:
    """Check the fields that depend on each other, and combine those that mean the same."""
    if merged.pop("ssl_engine", ""):
        problem = (
            "SSLEngine is set, but hardware key stores are not supported here; use a key file and remove it."
        )
        fail(errors.SettingsError(problem), faults)
    if bool(merged.get("client_certificate")) != bool(merged.get("client_key")):
        problem = "HttpsClient needs both Certificate and Key; add the one that is missing."
        fail(errors.SettingsError(problem), faults)
        merged |= {"client_certificate": "", "client_key": ""}
    first, others = merged.pop("server_url", ""), merged.pop("servers", ())
    if first and others:
        warnings.append("Both ServerURL and Servers are set; ServerURL is tried first, then the others.")
    urls = (first, *others) if first else others
    verify_key = merged.pop("artifact_verify_key", "")
    verify_keys = ((verify_key,) if verify_key else ()) + merged.pop("artifact_verify_keys", ())
    return Settings(
        places=places,
        warnings=tuple(warnings),
        servers=tuple(dict.fromkeys(_normalized(urls, faults))),
        artifact_verify_keys=verify_keys,
        **merged,
    )


def _normalized(urls: Iterable[str], faults: Faults | None) -> Iterator[str]:
    """Yield the URLs of servers in ASCII, without a slash at the end; raises `errors.SettingsError`."""
    for url in urls:
        url = url.rstrip("/")
        ascii_url, server = to_ascii(url), f'The server "{without_login(url)}"'
        if url and not ascii_url:
            problem = f"{server} has letters in it that DNS does not have; write its name as xn--..."
            fail(errors.SettingsError(problem), faults)
        elif origin(ascii_url) is None:
            fail(errors.SettingsError(f"{server} is not a URL; write it as https://host."), faults)
        else:
            yield ascii_url
