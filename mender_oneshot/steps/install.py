"""Verify the artifact, then hand it off to the sub-updater."""

import contextlib
import errno
import logging
import os
from typing import NamedTuple

from .. import (
    acceptance,
    deployments,
    device,
    disk,
    early_check,
    errors,
    hand_off,
    liveness,
    own_command,
    plan,
    provides,
    scripts,
    sub_updater,
)
from ..artifact.verify import Verified
from ..context import Context, Outcome
from ..installer import record
from ..installer.device import new_record
from ..installer.record import Record
from ..paths import ARTIFACT, INSTALLER, PROVIDES, SUB_UPDATER_LOG, UPDATE_LOCK
from ..state import Deployment, Handoff, bounded
from ..text import shown

log = logging.getLogger(__name__)


def run(context: Context, *, paced: bool) -> Outcome:
    """Verify, report `installing`, write `update.lock`, start the sub-updater.

    Raises `errors.NothingInProgress`, `errors.ArtifactRejected`, or `errors.ServerRejected` if the
    sub-updater cannot be started; the last two queue `failure` and leave no lock. After any other error, a
    later run tries again.
    """
    state = context.store.state
    if state.handoff is not None:
        raise errors.NotYet(
            f"Deployment {state.handoff.deployment} is being installed; wait for its sub-updater to report."
        )
    deployment = state.deployment
    if deployment is None:
        raise errors.NothingInProgress("There is no update to install; run check-update first.")
    _require_artifact(context, deployment)
    if liveness.sub_updater_runs(context.settings):
        raise errors.NotYet(
            "The sub-updater of the last update is still running, and only one may run at a time; the next "
            "run will retry."
        )
    _require_nothing_by_hand(context, deployment)
    sub_updater.check_process()
    try:
        _count(context, deployment)
        verified = _verify(context)
        deployment = deployment._replace(verifying=0)
        _set_deployment(context, deployment)
        installer = _installer(context, verified)
        info = _artifact_info(context, verified)
    except (errors.ArtifactRejected, errors.ServerRejected) as error:
        if isinstance(error, errors.ArtifactRejected) and deployment.spliced and not deployment.restarted:
            raise _download_again(context, deployment, error) from error
        deployments.fail(context, error)
        raise
    except errors.SettingsError:
        _set_deployment(context, deployment)  # a missing key does not count against the artifact
        raise
    name = verified.name
    if installer.record is None:  # the built-in installer reports `installing` itself
        gone = _announce(context, deployment)
        if gone:
            return gone
        disk.write_whole(context.data(PROVIDES), info)
    _hand_off(context, deployment._replace(artifact_name=name), installer)
    facts = {"deployment": deployment.id, "artifact_name": name}
    return Outcome("handed-off", f"Handed {name} to {installer.name}.", facts)


def _require_nothing_by_hand(context: Context, deployment: Deployment) -> None:
    """Raise `errors.NotYet` until an installation by hand has ended: there is one record, and one tree."""
    try:
        found = record.load(context.data(INSTALLER))
    except record.Corrupt:
        return
    if found and found.by_hand:
        raise errors.NotYet(
            f"{found.artifact_name} was installed by hand and is neither committed nor rolled back; run "
            f"mender-oneshot commit, rollback or resume, and a later run installs {deployment.artifact_name}."
        )


class _Installer(NamedTuple):
    """What installs an update: its name, its command line, and what the built-in one begins with."""

    name: str
    words: list[str]
    record: Record | None = None


def _installer(context: Context, verified: Verified) -> _Installer:
    """Choose the device's own sub-updater, or else the built-in installer if the payload has a module.

    Raises `errors.ServerRejected` if there is neither, or if it cannot be started.
    """
    settings, artifact = context.settings, context.data(ARTIFACT)
    early_check.require_installer(settings, verified)
    program = settings.places.install_script
    if os.path.lexists(program):
        if obstacle := scripts.obstacle(program):
            raise errors.ServerRejected(_cannot_be_started(f"The sub-updater {program}", obstacle))
        return _Installer(f"the sub-updater {program}", [program, artifact])
    deployment = context.store.state.deployment
    found = new_record(settings, artifact, verified, deployment.id if deployment else "")
    return _Installer("the built-in installer", own_command.resume(settings), found)


def _set_deployment(context: Context, deployment: Deployment) -> None:
    context.store.state = context.store.state._replace(deployment=deployment)


def _require_artifact(context: Context, deployment: Deployment) -> None:
    """Raise an error if there is no artifact, or one that another user could change after it is verified."""
    path = context.data(ARTIFACT)
    if disk.is_own(path):
        return
    if os.path.lexists(path):
        disk.remove(path)
        raise errors.TemporaryError(
            f"Removed {path}, which other users can change; the next run downloads it."
        )
    raise errors.NothingInProgress(f"{deployment.artifact_name} is not downloaded yet; run download first.")


def _count(context: Context, deployment: Deployment) -> None:
    """Count an attempt to verify before it begins, so that one killed for lack of memory counts too."""
    allowed = max(context.settings.retry_download_count, 1)
    if deployment.verifying >= allowed:
        raise errors.ServerRejected(
            f"Giving up on {deployment.artifact_name}: its verification was interrupted {allowed} times."
        )
    _set_deployment(context, deployment._replace(verifying=deployment.verifying + 1))
    context.store.save()


def _download_again(context: Context, deployment: Deployment, error: errors.Error) -> errors.TemporaryError:
    """Drop an artifact whose parts may not belong together, once, and return the error to raise."""
    fresh = deployment._replace(
        size=-1, etag="", last_modified="", refused=0, spliced=False, restarted=True, stalls=0, verifying=0
    )
    context.store.save(context.store.state._replace(deployment=fresh))
    disk.remove(context.data(ARTIFACT))
    return errors.TemporaryError(
        f"{error} It was joined from parts without a strong ETag, so the next run downloads it again."
    )


def _verify(context: Context) -> Verified:
    """Verify the artifact and return its metadata."""
    path = context.data(ARTIFACT)
    try:
        with open(disk.open_to_read(path), "rb") as file:
            verified = acceptance.verify(context.settings, file)
    except OSError as error:
        if error.errno == errno.EIO:
            disk.remove(path)  # downloaded again, it uses other blocks of the disk
        raise disk.failure(f"read {path}", error) from error
    log.info("%s verified%s.", verified.name, ", with its signature" if verified.signed else "")
    return verified


def _artifact_info(context: Context, verified: Verified) -> bytes:
    """Return the content of `artifact_info` after the installation."""
    for key in provides.unwritable(verified):
        log.warning(
            "Skipping %s, which the artifact provides, because artifact_info cannot contain it.", shown(key)
        )
    return provides.artifact_info(device.provides(context.settings), verified)


def _announce(context: Context, deployment: Deployment) -> Outcome | None:
    """Report `installing`; return an outcome if the server no longer has the deployment.

    An unreachable server does not delay a verified artifact: the reference client continues as well
    (device-api.md section 3.2), and the result waits in the queue. Raises the error of the authorization if
    the server has rejected the token or this device.
    """
    try:
        return deployments.report_progress(context, "install", deployment.id, "installing", required=False)
    except errors.TemporaryError as error:
        servers, now = context.settings.servers, context.now().time
        if plan.token_is_good(context.store.state.token, servers, now):
            raise  # the server has rejected this token, and there is no other one
        log.warning("Could not report the status installing: %s", error)
        return None


def _hand_off(context: Context, deployment: Deployment, installer: _Installer) -> None:
    """Start what installs the update so that it outlives this process.

    The hand-off is saved before the start, which cannot be undone: if this process is killed in between, a
    later invocation finds the update being installed and never starts it twice.
    """
    store, now = context.store, context.now()
    name = bounded(deployment.artifact_name)
    handoff = Handoff(
        deployment.id, name, now.boot, now.uptime, context.syslog, deployment.began, deployment.size
    )
    deployment = deployment._replace(starts=deployment.starts + 1)
    store.save(store.state._replace(handoff=handoff, deployment=deployment))
    try:
        disk.write_whole(context.data(UPDATE_LOCK), deployment.id.encode())
        if installer.record:
            record.save(context.data(INSTALLER), installer.record)
        unit = f"mender-sub-updater-{deployment.id}"
        hand_off.start(context, deployment.id, deployment.artifact_name, installer.words, unit=unit)
    except errors.DeadlineExceeded:
        raise  # as after a power cut, the next run decides by the files whether it may have been started
    except (OSError, errors.Error) as error:
        raise _not_started(context, deployment, installer, error) from error
    store.save(store.state._replace(deployment=None))


def _not_started(
    context: Context, deployment: Deployment, installer: _Installer, error: OSError | errors.Error
) -> errors.Error:
    """Undo the hand-off if a later attempt may succeed, else fail the update; return the error to raise."""
    if isinstance(error, OSError):
        why, temporary = scripts.explain(installer.words[0], error), scripts.is_temporary(error)
    else:
        why, temporary = str(error), not isinstance(error, errors.ServerRejected)
    name = installer.name[0].upper() + installer.name[1:]
    if temporary and deployment.starts < max(context.settings.retry_download_count, 1):
        _take_back(context)
        if isinstance(error, (errors.NoSpace, errors.DiskError)):
            return error
        return errors.TemporaryError(
            f"{name} temporarily cannot be started ({why}); the next run will retry."
        )
    failure = errors.ServerRejected(_cannot_be_started(name, why))
    deployments.fail(context, failure)
    disk.remove(context.data(INSTALLER), context.data(UPDATE_LOCK))
    return failure


def _take_back(context: Context) -> None:
    """Undo a hand-off that started nothing, in an order in which `tidy` can continue after a power cut."""
    # Without this file, or with a directory in its place, nothing was started (`plan.never_started`).
    with contextlib.suppress(errors.DiskError, errors.NoSpace):
        disk.remove(context.data(SUB_UPDATER_LOG))
    disk.remove(context.data(UPDATE_LOCK))
    context.store.save(context.store.state._replace(handoff=None))


def _cannot_be_started(name: str, why: str) -> str:
    return f"{name} cannot be started: {why}; the update has failed."
