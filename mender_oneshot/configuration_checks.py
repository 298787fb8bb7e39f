"""Read all configuration files, and list all of their faults at once."""

from collections.abc import Iterator
from typing import NamedTuple

from . import errors, network, pem, permissions
from . import settings as client
from .config_file import Faults, Unreadable
from .findings import Warned
from .paths import Places
from .settings import Settings
from .terminal import settings as terminal
from .terminal.settings import TerminalSettings


class Configuration(NamedTuple):
    """What the files set, without the values that are invalid, and the faults of both kinds of files."""

    settings: Settings
    terminal: TerminalSettings
    faults: tuple[errors.SettingsError, ...] = ()
    terminal_faults: tuple[errors.SettingsError, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether both files of the client could be read, so that each valid setting is in `settings`."""
        return not any(isinstance(fault, Unreadable) for fault in self.faults)


def load(places: Places) -> Configuration:
    """Read `mender.conf` and `mender-connect.conf`; raises nothing."""
    faults: Faults = []
    terminal_faults: Faults = []
    settings = client.load(places, faults)
    own = terminal.load(places, terminal_faults)
    return Configuration(settings, own, tuple(faults), tuple(terminal_faults))


def problems(found: Configuration) -> Iterator[Exception]:
    """Yield an exception for each fault, and for each value that cannot be used on this device."""
    settings = found.settings
    yield from found.faults
    if not settings.servers and not found.faults:
        yield client.no_server(settings)
    yield from map(errors.SettingsError, settings.warnings)
    yield from server_certificate(settings)
    yield from client_certificate(settings)
    if settings.skip_verify:
        yield errors.SettingsError(
            "SkipVerify disables certificate checks, so anyone on the network can impersonate the server; "
            "remove it."
        )
    if path := permissions.readable_token(settings):
        yield Warned(f"Other users can read the TenantToken in {path}; prevent that: chmod 600 {path}")
    yield from found.terminal_faults
    yield from map(Warned, found.terminal.warnings)


def server_certificate(settings: Settings) -> Iterator[errors.Error]:
    """Yield an error if ServerCertificate cannot be used; connections to a public CA work even so."""
    try:
        network.check(settings._replace(client_certificate="", client_key=""))
    except errors.Error as error:
        yield error


def client_certificate(settings: Settings) -> Iterator[errors.Error]:
    """Yield an error for the client certificate and its key if they cannot be used; no connection works."""
    if not settings.client_certificate:
        return
    named = {
        "HttpsClient.Certificate": settings.client_certificate,
        "HttpsClient.Key": settings.client_key,
    }
    missing = [f"{name} {path} {why}" for name, path in named.items() if (why := pem.unreadable(path))]
    yield from map(errors.SettingsError, missing)
    if not missing:
        try:
            network.check(settings._replace(server_certificate=""))
        except errors.Error as error:
            yield error
