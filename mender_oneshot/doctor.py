"""Check everything that a working device needs, and report what is wrong and what to do about it.

Sends requests to the server and the artifact storage, and runs the scripts; changes nothing.
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
    installation_checks,
    liveness,
    network,
    paths,
    permissions,
    plan,
    snapshot,
    state,
    state_store,
)
from .findings import Finding, finding, several
from .settings import Settings, no_server
from .url import host

CLOCK_TOLERANCE = 3600.0
LITTLE_SPACE = 1 << 20


def examine(settings: Settings, trouble: errors.Error | None = None) -> Iterator[Finding]:
    """Run all checks and yield their findings; a check that fails does not stop the others.

    With `trouble`, the configuration cannot be used and `settings` are defaults, so checks that depend on the
    settings are skipped.
    """
    if trouble:
        yield Finding("configuration", str(trouble), trouble)
    else:
        yield finding("configuration", _configuration, settings)
    yield finding("data directory", _data_directory, settings)
    yield finding("state", _state, settings)
    yield from several("steps", _failing_steps, settings, "No step has failed repeatedly.")
    yield from several(
        "permissions",
        lambda s: map(errors.SettingsError, permissions.problems(s)),
        settings,
        "Only root and this user can change the configuration, the scripts and the data directory.",
    )
    if not trouble:
        yield finding("device type", lambda s: f"The device type is {device.device_type(s)}.", settings)
    yield finding("artifact", _artifact, settings)
    yield finding("identity", _identity, settings)
    yield from _inventory(settings)
    yield from installation_checks.examine(settings)
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
            "SkipVerify disables certificate checks, so anyone on the network can impersonate the server; "
            "remove it."
        )
    found = f"Configured server: {', '.join(settings.servers)}."
    if path := permissions.readable_token(settings):
        found += f" Other users can read the TenantToken in {path}; to prevent that: chmod 600 {path}"
    return found


def _data_directory(settings: Settings) -> str:
    path = settings.places.datastore
    if not os.path.isdir(path):
        disk.require_data_directory(path)
        raise errors.SettingsError(f"The data directory {path} does not exist yet; the first run creates it.")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise disk.failure(f"write to the data directory {path}", OSError(errno.EROFS, ""))
    for one in (path, settings.places.data(paths.LOCK), settings.places.data(paths.STATE)):
        if os.path.exists(one) and not os.access(one, os.W_OK):
            raise errors.SettingsError(_not_writable(one))
    free = disk.free(path)
    if not free:  # no bytes or no inodes
        raise disk.failure(f"write to {path}", OSError(errno.ENOSPC, "", f"{path}/"))
    if free < LITTLE_SPACE:
        raise errors.NoSpace(f"{path} has only {free} bytes left; free some space for an artifact.")
    return f"{path} has {free / 1e6:.0f} MB left for an artifact."


def _not_writable(path: str) -> str:
    if os.geteuid():
        return f"{path} cannot be written to; run this as root."
    # Nothing but an attribute stops root.
    return f"{path} has an attribute that prevents writing (lsattr -d); remove it: chattr -ia {path}"


def _known(settings: Settings) -> state.State:
    """Return the state, or an empty one if it cannot be read, which `_state` reports."""
    try:
        return state_store.load(settings.places.data(paths.STATE))
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
        known = state_store.load(path)
    except state.Unreadable as error:
        raise errors.DiskError(
            f"The state file {path} is corrupt ({error}); the next run will save a copy and start over."
        ) from error
    if known.damaged:
        names = ", ".join(known.damaged[:10])
        raise errors.DiskError(
            f"The state file {path} has invalid members ({names}); the next run will use their defaults."
        )
    now = snapshot.look(settings.places)
    if now.lock is not None:
        return _update_lock(settings, known, now.lock)
    step, wait = plan.due(known, settings, now)
    return f"The next step, {step}, is due." if step else f"The next step is due in {wait:.0f} s."


def _update_lock(settings: Settings, known: state.State, deployment: str) -> str:
    name = deployment or "(unknown)"
    if final := state.final_result(known, deployment):
        return f"Deployment {name} was reported ({final.status}); a run will remove its {paths.UPDATE_LOCK}."
    handed_off = known.handoff and known.handoff.deployment == deployment and known.handoff.artifact_name
    if handed_off or liveness.sub_updater_runs(settings):
        return f"Deployment {name} is being installed."
    path = settings.places.data(paths.UPDATE_LOCK)
    raise errors.SettingsError(
        f"{path} names deployment {name}, which this client did not hand off, and no sub-updater is running; "
        "there are no update checks until its result is reported. If nothing is being installed: "
        "mender-oneshot report --failure"
    )


def _artifact(settings: Settings) -> str:
    name = device.provides(settings)["artifact_name"]
    if name == device.UNKNOWN:
        if os.path.lexists(settings.places.data(paths.BOOTSTRAP_ARTIFACT)):
            return (
                f"The next command installs {paths.BOOTSTRAP_ARTIFACT}, which names the installed artifact."
            )
        raise errors.SettingsError(
            "The name of the installed artifact is not known; put a line artifact_name=<release> into "
            f"{settings.places.conf_dir}/artifact_info."
        )
    return f"The installed artifact is {name}."


def _identity(settings: Settings) -> str:
    known = _known(settings)
    found = identity.read(settings, known)
    if known.owner not in ("", identity.mark(found)):
        raise errors.SettingsError(
            "The state belongs to a device with another identity; the next run will save a copy and "
            "authorize as a new device. If this is the same device, correct the identity script."
        )
    if not identity.is_unique(found):
        raise errors.SettingsError(identity.not_unique(settings, found))
    return f"The identity is {', '.join(f'{name}={value}' for name, value in found.items())}."


def _inventory(settings: Settings) -> Iterator[Finding]:
    """Run the inventory scripts; yield a finding for the whole, and one for each file or line left out."""
    known: dict[str, str] = {}
    with contextlib.suppress(errors.Error):  # another check reports it
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
    from . import keys  # here, so that a broken library is a finding and does not stop the other checks

    keys.try_out()
    path = settings.key_file
    key = keys.load(path)
    if key is None:
        return f"The device key {path} does not exist yet; the first authorization creates it."
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise errors.SettingsError(f"Other users can read the device key {path}; do: chmod 600 {path}")
    return f"The device key {path} is valid."


def _verify_keys(settings: Settings) -> str:
    from . import keys

    for path in settings.artifact_verify_keys:
        if weakness := keys.weakness(keys.load_verify_key(path)):
            raise errors.SettingsError(keys.weak_key_message(path, weakness))
    count = len(settings.artifact_verify_keys)
    held = _known(settings).deployment
    if held and plan.link_is_open(held, settings):
        raise errors.SettingsError(f"Deployment {held.id}: {plan.OPEN_LINK}")
    return f"Signatures required (trusted keys: {count})." if count else "Signatures not required."


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
            f"{url} is a Mender server, but this device's clock is off by {apart / 3600:.0f} hours; set the "
            "clock."
        )
    return f"{url} is a Mender server."


def _link(settings: Settings) -> str:
    """Return the link of a deployment whose artifact has not been downloaded yet, or ""."""
    deployment = _known(settings).deployment
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
    token = _known(settings).token
    now = snapshot.look(settings.places)
    if not credentials.token_is_good(token, settings, now):
        why = "has no valid token"
        if plan.token_is_good(token, settings.servers, now.time):
            why = "has a token that was issued for another device key, TenantToken or DeviceTier"
        raise errors.NotAccepted(
            f"The device {why}; run mender-oneshot auth, then accept the device under Devices > Pending."
        )
    return "The device is authorized."
