"""The checks of `doctor` for the servers, the token and the storage of a deployment."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from . import configuration_checks, credentials, errors, paths, plan, snapshot, state, state_store
from .configuration_checks import Configuration
from .findings import Finding, Skipped, finding
from .settings import Settings
from .units import duration
from .url import host, without_login

CLOCK_TOLERANCE = 3600.0


def examine(found: Configuration) -> Iterator[Finding]:
    """Yield the findings about the servers, the token and the storage."""
    settings = found.settings

    obstacle = "" if settings.servers else "no server is configured"
    if any(configuration_checks.client_certificate(settings)):
        obstacle = "HttpsClient cannot be used"

    def skip(settings: Settings) -> str:
        raise Skipped(f"Not checked, because {obstacle}.")

    for url in settings.servers or ("",):
        yield finding("server", if_known(found, skip if obstacle else partial(_server, url)), settings)
    authorization = _authorization if settings.servers else skip
    yield finding("authorization", if_known(found, authorization), settings)
    if uri := _link(settings):
        yield finding("storage", skip if obstacle else partial(_storage, uri), settings)


def known_state(settings: Settings) -> state.State:
    """Return the state, or an empty one if it cannot be read, which `_state` reports."""
    try:
        return state_store.load(settings.places.data(paths.STATE))
    except (state.Unreadable, errors.Error):
        return state.State()


def if_known(found: Configuration, check: Callable[[Settings], str]) -> Callable[[Settings], str]:
    """Return a check that is skipped if a file that may set what it needs cannot be read."""

    def skip(settings: Settings) -> str:
        raise Skipped("Not checked, because the configuration cannot be read.")

    return check if found.is_known else skip


def _server(url: str, settings: Settings) -> str:
    from .server import Server

    server, shown = Server(settings, url), without_login(url)
    try:
        clock = server.greet()
    finally:
        server.close()
    apart = abs(clock - time.time()) if clock else 0
    if apart > CLOCK_TOLERANCE:
        raise errors.SettingsError(
            f"{shown} is a Mender server, but the clock of this device is off by {duration(round(apart))}; "
            f"set it: date -s @{clock:.0f}"
        )
    return f"{shown} is a Mender server."


def _link(settings: Settings) -> str:
    """Return the link of a deployment whose artifact has not been downloaded yet, or ""."""
    deployment = known_state(settings).deployment
    return deployment.uri if deployment and not snapshot.look(settings.places).artifact else ""


def _storage(uri: str, settings: Settings) -> str:
    from .transport import Transport

    parts = urlsplit(uri)
    transport = Transport(settings)
    try:
        # Not the link itself, which may be valid for one request only.
        with transport.send("GET", f"{parts.scheme}://{parts.netloc}/", None, {}):
            return f"The artifact storage {host(uri)} is reachable."
    except errors.Error as error:
        message = f"The artifact storage in the server's link is not reachable: {error}"
        raise errors.TemporaryError(message) from error
    finally:
        transport.close()


def _authorization(settings: Settings) -> str:
    token = known_state(settings).token
    now = snapshot.look(settings.places)
    if not credentials.token_is_good(token, settings, now):
        raise errors.NotAccepted(
            f"{_no_token(token, settings, now)}; accept the device on the server under Devices > Pending, "
            "and get a token: mender-oneshot auth"
        )
    return "The device is authorized."


def _no_token(token: state.Token | None, settings: Settings, now: snapshot.Snapshot) -> str:
    """Return why the token cannot be used, as the beginning of a message."""
    if token is None:
        return "The device has no token"
    if token.server not in settings.servers:
        return f"The device has no token for the configured server, but one for {host(token.server)}"
    if plan.token_is_good(token, settings.servers, now.time):
        return "The device has a token that was issued for another device key, TenantToken or DeviceTier"
    return "The token of the device has expired"
