"""Everything that a working device needs, looked at one after the other: what is wrong, and what to do.

Asks the server a question, runs the scripts; changes nothing.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from . import attributes, credentials, device, disk, errors, libraries, moment, plan, script, state, trust
from .settings import Settings, no_server

CLOCK_TOLERANCE = 3600.0
LITTLE_SPACE = 1 << 20


class Finding(NamedTuple):
    """One thing looked at: a stable name, what was found, and the error where something is wrong."""

    name: str
    sentence: str
    error: errors.Error | None = None


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at one thing after the other; what is missing does not keep the others from being looked at."""
    checks: dict[str, Callable[[Settings], str]] = {
        "configuration": _configuration,
        "data directory": _data_directory,
        "state": _state,
        "device type": lambda settings: f"The device type is {device.device_type(settings)}.",
        "artifact": _artifact,
        "identity": _identity,
        "device key": _device_key,
        "verify keys": _verify_keys,
        "sub-updater": _sub_updater,
    }
    for name, check in checks.items():
        yield _finding(name, check, settings)
    yield from _inventory(settings)
    for url in settings.servers:
        yield _finding("server", partial(_server, url), settings)
    yield _finding("authorization", _authorization, settings)


def _finding(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(name, check(settings))
    except errors.Error as error:
        return Finding(name, str(error), error)
    except OSError as problem:  # a disk may answer no question at all
        failure = disk.failure(f"examine the {name}", problem)
        return Finding(name, str(failure), failure)
    except BaseException as problem:
        unusable = libraries.unusable(problem)
        if unusable is None:
            raise
        return Finding(name, str(unusable), unusable)


def _configuration(settings: Settings) -> str:
    if not settings.servers:
        raise no_server(settings)
    if settings.warnings:
        raise errors.SettingsError(settings.warnings[0])
    trust.check(settings)
    if settings.skip_verify:
        raise errors.SettingsError(
            "SkipVerify is set, so anybody on the network can pose as the server; remove it."
        )
    return f"mender.conf names {', '.join(settings.servers)}."


def _data_directory(settings: Settings) -> str:
    path = settings.places.datastore
    if not os.path.isdir(path):
        disk.require_data_directory(path)
        raise errors.SettingsError(f"There is no data directory {path}; make it, or let a first run do so.")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise disk.failure(f"write to the data directory {path}", OSError(errno.EROFS, ""))
    if not os.access(path, os.W_OK):
        raise errors.SettingsError(f"The data directory {path} cannot be written to; run this as root.")
    free = disk.free(path)
    if not free:  # not a byte, or not an inode
        raise disk.failure(f"write to {path}", OSError(errno.ENOSPC, "", f"{path}/"))
    if free < LITTLE_SPACE:
        raise errors.NoSpace(f"{path} has only {free} bytes left; make room for an artifact.")
    return f"{path} has {free / 1e6:.0f} MB left for an artifact."


def _state(settings: Settings) -> str:
    path = settings.places.data(state.FILE)
    try:
        known = state.load(path)
    except state.Unreadable as error:
        raise errors.DiskError(
            f"The state {path} cannot be used ({error}); the next run sets it aside and starts afresh."
        ) from error
    if known.damaged:
        raise errors.DiskError(
            f"Members of the state {path} cannot be read ({', '.join(known.damaged[:10])}); the next run "
            "starts them from their defaults."
        )
    now = moment.look(settings.places)
    if now.lock is not None:
        return f"Deployment {now.lock or '(unknown)'} is in the sub-updater's hands."
    step, wait = plan.due(known, settings, now)
    return f"The next step, {step}, is due." if step else f"The next step is due in {wait:.0f} s."


def _artifact(settings: Settings) -> str:
    name = device.provides(settings)["artifact_name"]
    if name == "unknown":
        raise errors.SettingsError(
            "The installed artifact is not known; put a line artifact_name=<release> into "
            f"{settings.places.conf_dir}/artifact_info."
        )
    return f"The artifact installed is {name}."


def _identity(settings: Settings) -> str:
    try:
        known = state.load(settings.places.data(state.FILE))
    except state.Unreadable:
        known = state.State()
    found = device.identity(settings, credentials.identity_form(settings, known))
    if known.owner not in ("", credentials.mark(found)):
        raise errors.SettingsError(
            "The state belongs to a device with another identity; the next run sets it aside and authorizes "
            "as a new device. If this is the same device, correct the identity script."
        )
    if not device.tells_apart(found):
        raise errors.SettingsError(credentials.no_identity(settings, found))
    return f"The identity is {', '.join(f'{name}={value}' for name, value in found.items())}."


def _inventory(settings: Settings) -> Iterator[Finding]:
    """Run the inventory scripts; yield one finding for each file or line that adds nothing."""
    known: dict[str, str] = {}
    with contextlib.suppress(errors.Error):  # a finding of another check
        known = attributes.own(settings)
    problems: tuple[str, ...] = ()

    def run(settings: Settings) -> str:
        nonlocal problems
        found = attributes.collect(settings, known, patient=False)
        problems = found.problems
        return f"The inventory has {len(found.attributes)} attributes."

    yield _finding("inventory", run, settings)
    for problem in problems:
        yield Finding("inventory", problem, errors.SettingsError(problem))


def _device_key(settings: Settings) -> str:
    from . import keys  # a library that cannot be used is a finding of this check, not the end of all

    keys.try_out()
    path = settings.key_file
    key = keys.load(path)
    if key is None:
        return f"There is no device key {path} yet; the first authorization makes it."
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise errors.SettingsError(f"Others can read the device key {path}; do: chmod 600 {path}")
    return f"The device key {path} can be used."


def _verify_keys(settings: Settings) -> str:
    from . import keys

    for path in settings.artifact_verify_keys:
        if weakness := keys.weakness(keys.load_verify_key(path)):
            raise errors.SettingsError(keys.weak_key_sentence(path, weakness))
    count = len(settings.artifact_verify_keys)
    try:
        held = state.load(settings.places.data(state.FILE)).deployment
    except state.Unreadable:
        held = None
    if held and plan.link_is_open(held, settings):
        raise errors.SettingsError(f"Deployment {held.id}: {plan.OPEN_LINK}")
    return (
        f"Artifacts have to be signed, by one of {count} keys." if count else "Artifacts need no signature."
    )


def _sub_updater(settings: Settings) -> str:
    path = f"{settings.places.scripts_dir}/install"
    disk.require_target(path)
    if obstacle := script.obstacle(path):
        raise errors.SettingsError(
            f"The sub-updater {path} cannot be started: {obstacle}; without it no update can be installed."
        )
    return f"The sub-updater {path} is there."


def _server(url: str, settings: Settings) -> str:
    from .server import Server

    server = Server(settings, url)
    try:
        clock = server.greet()
    finally:
        server.close()
    apart = abs(clock - time.time()) if clock else 0
    if apart > CLOCK_TOLERANCE:
        raise errors.SettingsError(
            f"{url} answers, but its clock and ours are {apart / 3600:.0f} hours apart; set the clock."
        )
    return f"{url} answers as a Mender server does."


def _authorization(settings: Settings) -> str:
    try:
        token = state.load(settings.places.data(state.FILE)).token
    except state.Unreadable:
        token = None
    now = moment.look(settings.places)
    if not credentials.token_is_good(token, settings, now):
        why = "has no token"
        if plan.token_is_good(token, settings.servers, now.time):
            why = "has another key, TenantToken or DeviceTier than its token was issued for"
        raise errors.NotAccepted(
            f"The device {why}; run mender-oneshot auth, and accept it under Devices > Pending."
        )
    return "The device is authorized."
