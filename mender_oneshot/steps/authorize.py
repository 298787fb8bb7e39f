"""Request a token from the server, with the identity and the key of the device."""

import base64
import json
import logging
from itertools import takewhile

from .. import credentials, device, errors, identity, keys, plan
from ..context import Context, Outcome
from ..server import Server
from ..settings import no_server
from ..snapshot import Snapshot
from ..state import Token
from ..transport import host

log = logging.getLogger(__name__)


class Paused(errors.ServerPause):
    """A server has asked for a pause that is still in force."""


def run(context: Context, *, paced: bool) -> Outcome:
    """Request a token from each server in turn until one issues it.

    Raises `errors.NotAccepted` if a server has not accepted the device, else an error of one of the servers.
    """
    settings, store = context.settings, context.store
    if not settings.servers:
        raise no_server(settings)
    body, signature = request(context)
    failures: dict[str, errors.Error] = {}
    for url in settings.servers:
        try:
            jwt = _request_token(context, url, body, signature)
        except errors.DeadlineExceeded:
            raise
        except errors.Error as error:
            if not isinstance(error, Paused):
                log.info("%s", error)
            failures[url] = error
            continue
        _save_token(context, jwt, url)
        return Outcome("authorized", f"{host(url)} has accepted this device.", {"server": url})
    for failure in failures.values():
        context.store_pause("auth", failure)
    known = store.state.token
    if known and isinstance(failures.get(known.server), errors.NotAccepted):
        store.state = store.state._replace(token=None)
    raise _most_important(list(failures.values()))


def _request_token(context: Context, url: str, body: bytes, signature: str) -> str:
    """Request a token from one server; raises `Paused` while that server has asked for a pause."""
    now = context.now().time
    wait = plan.asked_pause(context.store.state, "auth", url, now)
    if wait:
        raise Paused(plan.pause_in_words(context.store.state, wait, now))
    server = Server(context.settings, url)
    context.connection.replace(server)
    return server.authorize(body, signature)


def _save_token(context: Context, jwt: str, url: str) -> None:
    """Save a new token.

    It may mean that the server lost its record of this device: the inventory is sent again, and the newer
    form of `next` is tried again, unless a deployment is in progress.
    """
    store = context.store
    store.save(
        store.state._replace(
            token=read(jwt, url, context.now())._replace(credentials=credentials.current(context.settings)),
            owner=identity.mark(context.identity.result()),
            inventory_digest="",
            form=store.state.form if store.state.deployment else "",
        )
    )


def _most_important(failures: list[errors.Error]) -> errors.Error:
    """Return the error to end with: the last rejection, else the last error that is not after a pause."""
    rejections = [error for error in failures if isinstance(error, errors.NotAccepted)]
    before_pause = list(takewhile(lambda error: not isinstance(error, Paused), failures))
    return (rejections or before_pause or failures[:1])[-1]


def request(context: Context) -> tuple[bytes, str]:
    """Return the body of the request, and the signature over exactly these bytes."""
    settings = context.settings
    form = identity.format_in_use(settings, context.store.state)
    # Checked before a key is generated: if there is no device type, the partition of the data directory may
    # not be mounted.
    device.device_type(settings)
    found = context.identity.result()
    context.store.state = context.store.state._replace(identity_format=form)
    key = keys.load(settings.key_file)
    if key is None:
        keys.make(settings)
        key = keys.load(settings.key_file)
    if key is None:
        raise errors.DiskError(
            f"The device key {settings.key_file} disappeared after it was written; check the file system."
        )
    members = {
        "id_data": identity.id_data(found),
        "pubkey": keys.public_pem(key),
        "tenant_token": settings.tenant_token,
    }
    if settings.device_tier:
        members["tier"] = settings.device_tier
    body = json.dumps(members, separators=(",", ":")).encode()
    return body, base64.b64encode(keys.sign(key, body)).decode()


def read(jwt: str, server: str, now: Snapshot) -> Token:
    """Return a token with its times (device-api.md section 1.5); without any, it is valid until a 401."""
    try:
        payload = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires, issued = float(claims["exp"]), float(claims["iat"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
        return Token(jwt, server, now.time)
    if not 0 < issued < expires < 1e12:
        return Token(jwt, server, now.time)
    return Token(jwt, server, now.time, lifetime=expires - issued, expires=expires)
