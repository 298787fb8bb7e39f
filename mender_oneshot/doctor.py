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

from . import (
    attributes,
    configuration_checks,
    device,
    disk,
    errors,
    identity,
    installation_checks,
    liveness,
    other_clients,
    paths,
    permissions,
    plan,
    schedule_checks,
    server_checks,
    snapshot,
    state,
    state_store,
    terminal_checks,
    unit_files,
)
from .configuration_checks import Configuration
from .findings import Finding, Skipped, finding, several
from .server_checks import if_known, known_state
from .settings import Settings
from .units import duration, when
from .url import without_login

OLDEST = 1735689600.0
"""The year 2025 in seconds since 1970: an earlier time is that of a clock that is not set."""
LITTLE_SPACE = 1 << 20


def examine(found: Configuration) -> Iterator[Finding]:
    """Run all checks and yield their findings; a check that fails does not stop the others.

    Checks that depend on a configuration file that cannot be read are skipped.
    """
    settings = found.settings
    servers = f"Configured server: {', '.join(map(without_login, settings.servers))}."
    yield from several("configuration", lambda s: configuration_checks.problems(found), settings, servers)
    yield from several(
        "permissions",
        lambda s: map(errors.SettingsError, permissions.problems(s)),
        settings,
        "Only root and this user can change the configuration, the scripts and the data directory.",
    )
    yield finding("clock", _clock, settings)
    yield finding("data directory", _data_directory, settings)
    yield finding("state", _state, settings)
    yield from several("steps", _failing_steps, settings, "No step has failed repeatedly.")
    yield finding("schedule", schedule_checks.schedule, settings)
    yield finding("contact", _contact, settings)
    yield from several(
        "other clients", other_clients.problems, settings, "No other Mender client is running."
    )
    yield finding("device type", if_known(found, _device_type), settings)
    yield finding("artifact", _artifact, settings)
    yield finding("identity", _identity, settings)
    yield from _inventory(settings)
    yield from installation_checks.examine(settings)
    if found.terminal.on:
        yield finding("terminal", partial(terminal_checks.check, own=found.terminal), settings)
    yield finding("device key", if_known(found, _device_key), settings)
    yield from _verify_keys(found)
    yield from server_checks.examine(found)


def _device_type(settings: Settings) -> str:
    return f"The device type is {device.device_type(settings)}."


def _clock(settings: Settings) -> str:
    """Check the clock against the age of this program; `_server` compares it with the server's."""
    now = time.time()
    if now < OLDEST:
        command = (
            "timedatectl set-ntp true" if os.path.isdir(unit_files.SYSTEMD) else "date -s 'YYYY-MM-DD hh:mm'"
        )
        raise errors.SettingsError(
            f"The clock is at {when(now)}, so certificates are not valid yet; set it: {command}"
        )
    return f"The clock is at {when(now)}."


def _contact(settings: Settings) -> str:
    known, now = _readable_state(settings), snapshot.look(settings.places)
    installing = now.lock is not None or known.deployment is not None
    return schedule_checks.contact(settings, known, now, installing=installing)


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


def _readable_state(settings: Settings) -> state.State:
    """Return the state; raise `Skipped` if it cannot be read, which `_state` reports."""
    try:
        return state_store.load(settings.places.data(paths.STATE))
    except (state.Unreadable, errors.Error) as error:
        raise Skipped("Not checked, because the state cannot be read.") from error


def _failing_steps(settings: Settings) -> Iterator[errors.Error]:
    for step, failure in _readable_state(settings).failures.items():
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
    age = max(0, round(time.time() - os.stat(path).st_mtime))
    raise errors.SettingsError(
        f"{path}, {duration(age)} old, names deployment {name}, which this client did not hand off, and no "
        "sub-updater is running; there are no update checks until its result is reported. If nothing is "
        "being installed: mender-oneshot report --failure"
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
    known = known_state(settings)
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


def _verify_keys(found: Configuration) -> Iterator[Finding]:
    """Yield a finding for each key that is unusable or weak, or one for all."""
    count = len(found.settings.artifact_verify_keys)
    fine = f"Signatures required (trusted keys: {count})." if count else "Signatures not required."
    if not found.is_known:
        yield finding("verify keys", if_known(found, lambda s: fine), found.settings)
        return
    yield from several("verify keys", _weak_keys, found.settings, fine)


def _weak_keys(settings: Settings) -> Iterator[errors.Error]:
    from . import keys

    for path in settings.artifact_verify_keys:
        try:
            if weakness := keys.weakness(keys.load_verify_key(path)):
                yield errors.SettingsError(keys.weak_key_message(path, weakness))
        except errors.Error as error:
            yield error
    held = known_state(settings).deployment
    if held and plan.link_is_open(held, settings):
        yield errors.SettingsError(f"Deployment {held.id}: {plan.OPEN_LINK}")
