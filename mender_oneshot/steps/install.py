"""Verify the artifact, then give it into the hands of the sub-updater."""

import errno
import logging
import os
from collections.abc import Callable

from .. import artifact, device, disk, errors, launch, liveness, session
from ..context import Context, Outcome
from ..state import (
    ARTIFACT,
    SUB_UPDATER_FILE,
    SUB_UPDATER_LOCK,
    UPDATE_LOCK,
    Deployment,
    Handoff,
    Result,
    concluded,
)

log = logging.getLogger(__name__)


def run(context: Context) -> Outcome:
    """Verify, report `installing`, write `update.lock`, start the sub-updater.

    Raises `errors.NothingInProgress`, `errors.ArtifactRefused`, or `errors.Refused` where the sub-updater
    cannot be started; the last two leave a queued `failure` and no lock.
    """
    state = context.store.state
    if state.handoff is not None:
        raise errors.NotYet(
            f"Deployment {state.handoff.deployment} is in the sub-updater's hands; wait for its report."
        )
    deployment = state.deployment
    if deployment is None:
        raise errors.NothingInProgress("There is no update to install; ask for one with check-update.")
    _require_artifact(context, deployment)
    if liveness.sub_updater_runs(context.settings):
        raise errors.NotYet(
            "The sub-updater of the last update is still running, and two never run at once; the next run "
            "tries again."
        )
    program = f"{context.settings.places.scripts_dir}/install"
    try:
        _count(context, deployment)
        name = _verify(context)
        context.store.update(deployment=deployment._replace(verifying=0))
        disk.require_target(program)
        if not os.access(program, os.X_OK) or os.path.isdir(program):
            raise errors.Refused(
                f"The sub-updater {program} is missing or not executable; the update has failed."
            )
    except (errors.ArtifactRefused, errors.Refused) as error:
        session.fail(context, error)
        raise
    except errors.SettingsError:
        context.store.update(deployment=deployment)  # a key that is missing says nothing of the artifact
        raise
    if not _announce(context, deployment):
        return Outcome("withdrawn", f"The server has withdrawn deployment {deployment.id}; dropped it.")
    _hand_off(context, deployment._replace(artifact_name=name), program)
    facts = {"deployment": deployment.id, "artifact_name": name}
    return Outcome("handed-off", f"Handed {name} to the sub-updater {program}.", facts)


def _require_artifact(context: Context, deployment: Deployment) -> None:
    """Raise an error if there is no artifact, or one that somebody else could change after it is verified."""
    path = context.data(ARTIFACT)
    if disk.is_own(path):
        return
    if os.path.lexists(path):
        disk.remove(path)
        raise errors.TryLater(f"Removed {path}, which other users can change; the next run downloads it.")
    raise errors.NothingInProgress(f"{deployment.artifact_name} is not downloaded yet; run download first.")


def _count(context: Context, deployment: Deployment) -> None:
    """Count an attempt to verify before it begins: one that kills us, for want of memory, has an end too."""
    allowed = max(context.settings.retry_download_count, 1)
    if deployment.verifying >= allowed:
        raise errors.Refused(
            f"Gave up on {deployment.artifact_name}: {allowed} attempts to verify it have ended half-way."
        )
    context.store.save(deployment=deployment._replace(verifying=deployment.verifying + 1))


def _verify(context: Context) -> str:
    """Verify the artifact and return its name; what is verified here is what is handed off."""
    path = context.data(ARTIFACT)
    try:
        with open(disk.open_to_read(path), "rb") as file:
            verified = artifact.verify(
                file,
                device_type=device.device_type(context.settings),
                provides=device.provides(context.settings),
                check_signature=_signature_check(context),
            )
    except OSError as error:
        if error.errno == errno.EIO:
            disk.remove(path)  # fetched again it lies elsewhere on the disk
        raise disk.failure(f"read {path}", error) from error
    log.info("%s is intact%s.", verified.name, " and signed" if verified.signed else "")
    return verified.name


def _signature_check(context: Context) -> Callable[[bytes, bytes], bool] | None:
    """Return the test of a signature, or None where no key to test with is configured."""
    paths = context.settings.artifact_verify_keys
    if not paths:
        return None
    from .. import keys as key_files  # `cryptography` is dear; only who signs artifacts pays for it

    keys = key_files.load_verify_keys(paths)
    return lambda manifest, signature: key_files.signed_by_one_of(keys, manifest, signature)


def _announce(context: Context, deployment: Deployment) -> bool:
    """Report `installing`; False where the server has withdrawn the deployment.

    A server out of reach does not hold up an artifact that is here and verified: the reference client goes on
    as well (device-api.md section 3.2), and the result waits in its queue.
    """
    problem: errors.Error | None
    try:
        return session.report_progress(context, "install", deployment.id, "installing")
    except errors.TimeOver:
        raise
    except errors.Error as error:
        problem = error
    except errors.Needs as need:
        problem = context.met.get(need.step)
        if problem is None:
            raise
    log.warning("The server does not know that the installation begins: %s", problem)
    return True


def _hand_off(context: Context, deployment: Deployment, program: str) -> None:
    """Start the sub-updater so that it outlives us.

    The intention is on disk before the act that cannot be undone: killed anywhere in between, a later
    invocation sees an update in other hands and never starts it a second time.
    """
    store, now = context.store, context.now()
    handoff = Handoff(deployment.id, deployment.artifact_name, now.boot, now.uptime)
    store.save(handoff=handoff)
    lock = context.data(UPDATE_LOCK)
    try:
        disk.write_whole(lock, deployment.id.encode())
        _start(context, deployment, program)
    except errors.TimeOver:
        raise  # as a power cut: what is on disk tells the next run whether it may have been started
    except (OSError, errors.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        failure = errors.Refused(
            f"The sub-updater {program} cannot be started ({why}); the update has failed."
        )
        log.error("%s", failure)
        failure.logged = True
        store.state = concluded(store.state, Result(deployment.id, "failure", now.time))
        store.save()
        disk.remove(lock)
        raise failure from error
    store.save(deployment=None)


def _start(context: Context, deployment: Deployment, program: str) -> None:
    """Start it, what it says going to `sub-updater.log`."""
    output = context.data(SUB_UPDATER_FILE)
    os.close(disk.open_own(output))
    # From here on it counts as started (plan.never_started); not even a power cut may take that back.
    disk.sync_directory(context.settings.places.datastore)
    unit = f"mender-sub-updater-{deployment.id}"
    words = [program, context.data(ARTIFACT)]
    lock = context.data(SUB_UPDATER_LOCK)
    launch.start(launch.Launch(unit, words, _environment(context, deployment), output, lock))


def _environment(context: Context, deployment: Deployment) -> dict[str, str]:
    settings = context.settings
    return {
        **os.environ,
        "MENDER_DEPLOYMENT_ID": deployment.id,
        # UTF-8 for the sub-updater, whatever the locale: it is what the device is to call itself afterwards.
        "MENDER_ARTIFACT_NAME": os.fsdecode(deployment.artifact_name.encode()),
        "MENDER_DATASTORE_DIR": settings.places.datastore,
        "MENDER_ROOTFS_PART_A": settings.rootfs_part_a,
        "MENDER_ROOTFS_PART_B": settings.rootfs_part_b,
    }
