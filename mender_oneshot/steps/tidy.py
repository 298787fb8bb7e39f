"""Clean up after an update: adopt a lock, fail an update that timed out, remove leftover files."""

import logging

from .. import deployments, disk, liveness, plan
from ..context import Context, Outcome
from ..paths import ARTIFACT, INSTALLER, INSTALLER_RESERVE, PART, PROVIDES, UPDATE_LOCK
from ..state import Handoff, final_result

log = logging.getLogger(__name__)


def run(context: Context, *, paced: bool) -> Outcome:
    """Adopt a lock that is not in the state, fail an update that timed out, or remove what an update left.

    Nothing is removed while a sub-updater runs. One that still runs after `InstallTimeoutSeconds` gets
    `plan.PATIENCE` times as long before its update fails.
    """
    store, now = context.store, context.now()
    state = store.state
    if plan.never_started(state, now):
        # First the lock, then the state: a lock that is not in the state would be adopted.
        disk.remove(context.data(UPDATE_LOCK))
        store.save(state._replace(handoff=None))
        return Outcome(
            "taken-back", "The sub-updater was never started; the next run installs the update again."
        )
    if state.handoff is not None and not plan.lock_is_over(state, now):
        limit = context.settings.install_timeout
        patient = plan.installing_for(state.handoff, now) < limit * plan.PATIENCE
        if patient and liveness.sub_updater_runs(context.settings):
            name = state.handoff.deployment or "(unknown)"
            return Outcome(
                "waiting", f"The sub-updater of deployment {name} is still running after {limit} s; waiting."
            )
        return _give_up(context, state.handoff)
    if now.lock is not None and final_result(state, now.lock) is None:
        handoff = Handoff(now.lock, "", now.boot, now.uptime, context.syslog)
        store.save(state._replace(handoff=handoff, deployment=None))
        name = now.lock or "(unknown)"
        return Outcome(
            "adopted", f"Deployment {name} is being installed according to {UPDATE_LOCK}; waiting for it."
        )
    if liveness.sub_updater_runs(context.settings):
        return Outcome(
            "waiting",
            "The sub-updater of the last update is still running; its files will be removed after it exits.",
        )
    # First the files: saving the state may need their space.
    if now.lock is not None:  # otherwise the record is that of an installation by hand
        disk.remove(context.data(INSTALLER_RESERVE), context.data(INSTALLER))
    disk.remove(context.data(UPDATE_LOCK), context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
    store.state = state._replace(handoff=None)
    final = final_result(state, now.lock) if now.lock else None
    if final:
        sentence = f"Deployment {final.deployment} ended with {final.status}; removed its files."
    else:
        sentence = "Removed the files of the last update."
    return Outcome("swept", sentence)


def _give_up(context: Context, handoff: Handoff) -> Outcome:
    """Fail the update of a sub-updater that has not reported in time."""
    seconds = context.settings.install_timeout
    name = handoff.deployment or "(unknown)"
    sentence = (
        f"The sub-updater has not reported deployment {name} within {seconds} s; the update has failed."
    )
    log.error("%s", sentence, extra={"told": True})
    if not handoff.deployment:
        # A lock without an id cannot be compared with the last result: it would be adopted again.
        disk.remove(context.data(UPDATE_LOCK))
    deployments.end(context, handoff.deployment, "failure")
    disk.remove(context.data(INSTALLER_RESERVE), context.data(INSTALLER))
    return Outcome("gave-up", sentence, {"deployment": handoff.deployment})
