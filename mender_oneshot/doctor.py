"""Everything that a working device needs, looked at one after the other: what is wrong, and what to do.

Asks the server a question, runs the scripts; changes nothing.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from . import (
    attributes,
    credentials,
    device,
    disk,
    errors,
    identity,
    liveness,
    network,
    paths,
    permissions,
    plan,
    scripts,
    snapshot,
    state,
)
from .findings import Finding, finding, several
from .settings import Settings, no_server
from .url import host

CLOCK_TOLERANCE = 3600.0
LITTLE_SPACE = 1 << 20


def examine(settings: Settings, trouble: errors.Error | None = None) -> Iterator[Finding]:
    """Look at one thing after the other; what is missing does not keep the others from being looked at.

    With `trouble`, the configuration cannot be used and the settings are defaults, so nothing is examined
    that depends on them.
    """
    if trouble:
        yield Finding("configuration", str(trouble), trouble)
    else:
        yield finding("configuration", _configuration, settings)
    yield finding("data directory", _data_directory, settings)
    yield finding("state", _state, settings)
    yield from several("steps", _failing_steps, settings, "No step fails again and again.")
    yield from several(
        "permissions",
        lambda s: map(errors.SettingsError, permissions.problems(s)),
        settings,
        "Nobody else can change the configuration, the scripts or the data directory.",
    )
    if not trouble:
        yield finding("device type", lambda s: f"The device type is {device.device_type(s)}.", settings)
    yield finding("artifact", _artifact, settings)
    yield finding("identity", _identity, settings)
    yield from _inventory(settings)
    yield finding("sub-updater", _sub_updater, settings)
    if trouble:
        return
    yield finding("device key", _device_key, settings)
    yield finding("verify keys", _verify_keys, settings)
    for url in settings.servers:
        yield finding("server", partial(_server, url), settings)
    yield finding("authorization", _authorization, settings)
    if uri := _link(settings):
        yield finding("storage", partial(_storage, uri), settings)


def _configuration(settings: Settings) -> str:
    if not settings.servers:
        raise no_server(settings)
    if settings.warnings:
        raise errors.SettingsError(settings.warnings[0])
    network.check(settings)
    if settings.skip_verify:
        raise errors.SettingsError(
            "SkipVerify is set, so anybody on the network can pose as the server; remove it."
        )
    found = f"mender.conf names {', '.join(settings.servers)}."
    if path := permissions.readable_token(settings):
        found += f" Other users can read the TenantToken in {path}; if they should not, do: chmod 600 {path}"
    return found


def _data_directory(settings: Settings) -> str:
    path = settings.places.datastore
    if not os.path.isdir(path):
        disk.require_data_directory(path)
        raise errors.SettingsError(f"There is no data directory {path}; make it, or let a first run do so.")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise disk.failure(f"write to the data directory {path}", OSError(errno.EROFS, ""))
    for one in (path, settings.places.data(paths.LOCK), settings.places.data(paths.STATE)):
        if os.path.exists(one) and not os.access(one, os.W_OK):
            raise errors.SettingsError(_not_writable(one))
    free = disk.free(path)
    if not free:  # not a byte, or not an inode
        raise disk.failure(f"write to {path}", OSError(errno.ENOSPC, "", f"{path}/"))
    if free < LITTLE_SPACE:
        raise errors.NoSpace(f"{path} has only {free} bytes left; make room for an artifact.")
    return f"{path} has {free / 1e6:.0f} MB left for an artifact."


def _not_writable(path: str) -> str:
    if os.geteuid():
        return f"{path} cannot be written to; run this as root."
    # Root may write to everything else.
    return f"{path} has an attribute that keeps even root from writing (lsattr -d); do: chattr -ia {path}"


def _known(settings: Settings) -> state.State:
    """Return the state, empty if it cannot be read: that is a finding of its own check."""
    try:
        return state.load(settings.places.data(paths.STATE))
    except (state.Unreadable, errors.Error):
        return state.State()


def _failing_steps(settings: Settings) -> Iterator[errors.Error]:
    for step, failure in _known(settings).failures.items():
        if failure.failed and failure.times > 1:
            why = failure.why or "no reason is known."
            yield errors.TemporaryError(f"The step {step} has failed {failure.times} times in a row: {why}")


def _state(settings: Settings) -> str:
    path = settings.places.data(paths.STATE)
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
    now = snapshot.look(settings.places)
    if now.lock is not None:
        return _update_lock(settings, known, now.lock)
    step, wait = plan.due(known, settings, now)
    return f"The next step, {step}, is due." if step else f"The next step is due in {wait:.0f} s."


def _update_lock(settings: Settings, known: state.State, deployment: str) -> str:
    name = deployment or "(unknown)"
    if final := state.final_result(known, deployment):
        return f"Deployment {name} was reported ({final.status}); its {paths.UPDATE_LOCK} is removed soon."
    handed_off = known.handoff and known.handoff.deployment == deployment and known.handoff.artifact_name
    if handed_off or liveness.sub_updater_runs(settings):
        return f"Deployment {name} is in the sub-updater's hands."
    path = settings.places.data(paths.UPDATE_LOCK)
    raise errors.SettingsError(
        f"{path} names deployment {name}, which was not handed off by this client, and no sub-updater is "
        "running; until it is reported, no update is looked for. If nothing is being installed, do: "
        "mender-oneshot report --failure"
    )


def _artifact(settings: Settings) -> str:
    name = device.provides(settings)["artifact_name"]
    if name == "unknown":
        raise errors.SettingsError(
            "The installed artifact is not known; put a line artifact_name=<release> into "
            f"{settings.places.conf_dir}/artifact_info."
        )
    return f"The artifact installed is {name}."


def _identity(settings: Settings) -> str:
    known = _known(settings)
    found = identity.read(settings, known)
    if known.owner not in ("", identity.mark(found)):
        raise errors.SettingsError(
            "The state belongs to a device with another identity; the next run sets it aside and authorizes "
            "as a new device. If this is the same device, correct the identity script."
        )
    if not identity.is_unique(found):
        raise errors.SettingsError(identity.not_unique(settings, found))
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

    yield finding("inventory", run, settings)
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
    held = _known(settings).deployment
    if held and plan.link_is_open(held, settings):
        raise errors.SettingsError(f"Deployment {held.id}: {plan.OPEN_LINK}")
    return (
        f"Artifacts have to be signed, by one of {count} keys." if count else "Artifacts need no signature."
    )


def _sub_updater(settings: Settings) -> str:
    path = settings.places.install_script
    disk.require_target(path)
    if obstacle := scripts.obstacle(path):
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


def _link(settings: Settings) -> str:
    """Return the link of a deployment that is still to be downloaded, or ""."""
    deployment = _known(settings).deployment
    return deployment.uri if deployment and not snapshot.look(settings.places).artifact else ""


def _storage(uri: str, settings: Settings) -> str:
    from .transport import Transport

    parts = urlsplit(uri)
    transport = Transport(settings)
    try:
        # Not the link itself: a download is not for us to begin, and the link may be good for one request.
        with transport.send("GET", f"{parts.scheme}://{parts.netloc}/", None, {}):
            return f"The storage {host(uri)}, which the server's link names, answers."
    except errors.Error as error:
        sentence = f"The storage that the server's link names does not answer: {error}"
        raise errors.TemporaryError(sentence) from error
    finally:
        transport.close()


def _authorization(settings: Settings) -> str:
    token = _known(settings).token
    now = snapshot.look(settings.places)
    if not credentials.token_is_good(token, settings, now):
        why = "has no token"
        if plan.token_is_good(token, settings.servers, now.time):
            why = "has another key, TenantToken or DeviceTier than its token was issued for"
        raise errors.NotAccepted(
            f"The device {why}; run mender-oneshot auth, and accept it under Devices > Pending."
        )
    return "The device is authorized."
