"""The checks of `doctor` for installations: sub-updater, modules, scripts, slots, boot loader."""

import os
from collections.abc import Callable, Iterator
from functools import partial

from . import disk, errors, paths, scripts, unit_files
from .findings import Finding, Skipped, Warned, finding, several
from .installer import modules, state_scripts
from .modules import block_device, programs, rootfs_image
from .modules.slots import Board
from .settings import Settings

Problems = Iterator[errors.Error]

BOOT_UNIT = "mender-sub-updater-boot.service"


def examine(settings: Settings) -> Iterator[Finding]:
    """Run the checks for what this device has, and yield their findings."""
    yield finding("sub-updater", _sub_updater, settings)
    if os.path.lexists(settings.places.install_script) and settings.places.are_default:
        yield finding("boot", _boot, settings)
    if os.path.lexists(settings.places.state_scripts):
        yield from _several("state scripts", _state_scripts, settings, "can be started")
    if os.path.lexists(settings.places.install_script):
        return
    yield from _several("update modules", _modules, settings, "can be started")
    if os.path.lexists(settings.places.health_checks):
        yield from _several("health checks", _health_checks, settings, "can be started")
    if settings.rootfs_part_a or settings.rootfs_part_b:
        yield finding("slots", partial(slots, board=Board()), settings)


def _several(
    name: str, check: Callable[[Settings], Problems], settings: Settings, fine: str
) -> Iterator[Finding]:
    return several(name, check, settings, f"All {name} {fine}.")


def _sub_updater(settings: Settings) -> str:
    path = settings.places.install_script
    disk.require_target(path)
    if not os.path.lexists(path):
        types = ", ".join(modules.payload_types(settings))
        return f"There is none; the built-in installer can install these payload types: {types}."
    if obstacle := scripts.obstacle(path):
        raise errors.SettingsError(
            f"No update can be installed, because the sub-updater {path} cannot be started: {obstacle}"
        )
    return f"The sub-updater {path} can be started."


def _boot(settings: Settings) -> str:
    """Check that a unit calls the sub-updater at boot, which ends an update after a power cut."""
    path = settings.places.install_script
    if not os.path.isdir(unit_files.SYSTEMD):
        raise Skipped(f"Your start scripts must call {path} at boot; without systemd that was not checked.")
    services = set(unit_files.services(("ExecStart", path)))
    if found := services & set(unit_files.enabled()):
        return f"The unit {min(found)} calls the sub-updater at boot."
    why = f"No unit calls {path} at boot, so an update that a power cut interrupts is not resumed"
    unit = min(services) if services else BOOT_UNIT
    if not services:
        why += f"; install {BOOT_UNIT} of docs/examples"
    raise Warned(f"{why}; enable it: systemctl enable {unit}")


def _modules(settings: Settings) -> Problems:
    for payload_type in modules.payload_types(settings):
        if obstacle := modules.obstacle(settings, payload_type):
            yield errors.SettingsError(f"Payloads of type {payload_type!r} cannot be installed: {obstacle}.")
    datastore = settings.places.datastore
    if os.path.isdir(datastore) and os.statvfs(datastore).f_flag & os.ST_NOEXEC:
        yield errors.SettingsError(
            f"{datastore} is mounted noexec, so the state scripts of an artifact cannot run and its update "
            "fails; remount the partition without noexec."
        )


def _state_scripts(settings: Settings) -> Problems:
    directory = settings.places.state_scripts
    for name in _names(directory):
        path = f"{directory}/{name}"
        match = state_scripts.NAME.fullmatch(name)
        if name == "version":
            continue
        if match is None:
            yield errors.SettingsError(
                f"{path} is never run, because its name is not STATE_ACTION_NN; rename it, for example to "
                "Download_Enter_00."
            )
        elif match[1] in state_scripts.OF_ARTIFACT:
            yield errors.SettingsError(
                f"{path} is never run, because scripts of this state belong into the artifact; add it there "
                "with mender-artifact write --script."
            )
        elif obstacle := scripts.obstacle(path):
            yield errors.SettingsError(f"The state script {path} cannot be started: {obstacle}.")
    try:
        state_scripts.check_version(directory)
    except state_scripts.ScriptFailed as error:
        yield errors.SettingsError(f"{error} Correct or remove {directory}/version.")


def _health_checks(settings: Settings) -> Problems:
    directory = settings.places.health_checks
    for name in _names(directory):
        if obstacle := scripts.obstacle(f"{directory}/{name}"):
            yield errors.SettingsError(f"The health check {directory}/{name} cannot be started: {obstacle}.")


def _names(directory: str) -> list[str]:
    """Return the names in a directory without hidden ones; raises `errors.DiskError`."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError as error:
        raise disk.failure(f"read {directory}", error) from error


def slots(settings: Settings, board: Board) -> str:
    """Compare the slots, the boot loader environment and the mounted root file system.

    Raises `errors.SettingsError` if they do not fit.
    """
    if any(os.path.lexists(settings.places.data(name)) for name in (paths.INSTALLER, paths.UPDATE_LOCK)):
        return "Not checked, because an update is being installed."
    programs.extend_path()
    try:
        found = rootfs_image.survey(board)
        rootfs_image.require_active(found)
        running, other = (block_device.size(slot.path) for slot in (found.running, found.other))
    except errors.Error as error:
        raise errors.SettingsError(str(error)) from error
    if found.environment.upgrade_available:
        raise errors.SettingsError(
            "The boot loader environment has upgrade_available=1 although no update is being installed, so a "
            "reboot may change the slot; the next update corrects that, or do: fw_setenv upgrade_available 0"
        )
    if running != other:
        raise errors.SettingsError(
            f"{found.running.path} has {running} bytes and {found.other.path} has {other}, so an image that "
            "fits into one slot may not fit into the other; make the partitions the same size."
        )
    return f"{found.running.path} is running, {found.other.path} is free for the next update."
