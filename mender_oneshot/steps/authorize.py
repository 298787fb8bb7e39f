"""Get a token from the server, with the identity and the key of the device."""

import base64
import json
import logging

from .. import credentials, device, errors, keys, plan
from ..context import Context, Outcome
from ..server import Server
from ..settings import no_server
from ..snapshot import Snapshot
from ..state import Token
from ..transport import host

log = logging.getLogger(__name__)


def run(context: Context) -> Outcome:
    """Ask each server in turn until one gives a token.

    Raises `errors.NotAccepted` where a server knows the device but has not accepted it, else the last error.
    """
    settings = context.settings
    if not settings.servers:
        raise no_server(settings)
    body, signature = request(context)
    refusal: errors.Error | None = None
    refusals: list[errors.Error] = []
    refused_by: list[str] = []
    paused = False
    for url in settings.servers:
        now = context.now().time
        wait = plan.asked_pause(context.store.state, "auth", url, now)
        if wait:  # another server of the list may be free
            refusals.append(errors.TemporaryError(plan.pause_in_words(context.store.state, wait, now)))
            refusal = refusal or refusals[-1]
            paused = True
            continue
        context.close()
        context.server = server = Server(settings, url)
        try:
            jwt = server.authorize(body, signature)
        except errors.DeadlineExceeded:
            raise
        except errors.Error as error:
            log.info("%s", error)
            refusals.append(error)
            if isinstance(error, errors.NotAccepted):
                refused_by.append(url)
            if isinstance(error, errors.NotAccepted) or not (
                paused or isinstance(refusal, errors.NotAccepted)
            ):
                refusal = error
            continue
        token = read(jwt, url, context.now())._replace(credentials=credentials.current(settings))
        # A new token may mean that the server lost our record: the inventory goes again, and `next` is asked
        # in its newer form again, unless a deployment is under way.
        form = context.store.state.form if context.store.state.deployment else ""
        identity = credentials.mark(context.identity) if context.identity else ""
        context.store.save(token=token, owner=identity, inventory_digest="", form=form)
        return Outcome("authorized", f"{host(url)} has accepted this device.", {"server": url})
    for one in refusals:
        context.keep_away("auth", one)
    known = context.store.state.token
    if known and known.server in refused_by:
        context.store.update(token=None)
    raise refusal or errors.TemporaryError("No server was asked.")


def request(context: Context) -> tuple[bytes, str]:
    """Return the body of the request, and the signature over exactly these bytes."""
    settings = context.settings
    form = credentials.identity_form(settings, context.store.state)
    # Before a key is made: a data directory without a device type may be an empty one in place of this
    # device's, whose partition is not mounted.
    device.device_type(settings)
    if context.identity_error:  # the script takes its time: it is not asked twice
        raise context.identity_error
    identity = context.identity or credentials.identity(settings, context.store.state)
    context.identity = identity
    context.store.update(identity_format=form)
    key = keys.load(settings.key_file)
    if key is None:
        keys.make(settings)
        key = keys.load(settings.key_file)
    if key is None:
        raise errors.DiskError(f"The device key {settings.key_file} is gone again; look at the file system.")
    members = {
        "id_data": credentials.id_data(identity),
        "pubkey": keys.public_pem(key),
        "tenant_token": settings.tenant_token,
    }
    if settings.device_tier:
        members["tier"] = settings.device_tier
    body = json.dumps(members, separators=(",", ":")).encode()
    return body, base64.b64encode(keys.sign(key, body)).decode()


def read(jwt: str, server: str, now: Snapshot) -> Token:
    """Take the times out of a token (device-api.md section 1.5); one that has none is good until a 401."""
    try:
        payload = jwt.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires, issued = float(claims["exp"]), float(claims["iat"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
        return Token(jwt, server, now.time)
    if not 0 < issued < expires < 1e12:
        return Token(jwt, server, now.time)
    return Token(jwt, server, now.time, lifetime=expires - issued, expires=expires)
