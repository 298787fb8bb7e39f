"""Start the built-in installer again after a reboot, a power cut or a pause."""

from .. import errors, hand_off, liveness, own_command
from ..context import Context, Outcome


def run(context: Context, *, paced: bool) -> Outcome:
    """Start it unless it runs; raises `errors.NothingInProgress` if no update is being installed."""
    handoff = context.store.state.handoff
    if handoff is None or not handoff.deployment:
        raise errors.NothingInProgress("No update is being installed.")
    deployment, name = handoff.deployment, handoff.artifact_name
    if liveness.sub_updater_runs(context.settings):
        return Outcome("waiting", f"The installation of deployment {deployment} is still running.")
    words = own_command.resume(context.settings)
    # Another name than that of the first start: what that one left behind may still hold its unit.
    unit = f"mender-sub-updater-{deployment}-resumed"
    try:
        hand_off.start(context, deployment, name, words, unit=unit)
    except OSError as error:
        raise errors.TemporaryError(
            f"The built-in installer cannot be started ({error.strerror}); the next run will retry."
        ) from error
    facts = {"deployment": deployment, "artifact_name": name}
    return Outcome("handed-off", f"Resumed the installation of {name or deployment}.", facts)
