"""Put in order what nobody else will: locks and artifacts left behind, and a sub-updater gone silent."""

import logging

from .. import deployments, disk, liveness, plan
from ..context import Context, Outcome
from ..paths import ARTIFACT, PART, PROVIDES, UPDATE_LOCK
from ..state import Handoff, Result, final_result, with_final_result

log = logging.getLogger(__name__)


def run(context: Context, *, paced: bool) -> Outcome:
    """Take over a lock the state does not know, sweep away one that is over, or give up on a sub-updater.

    Nothing is swept while a sub-updater runs, and one that is slow is not given up at once.
    """
    store, now = context.store, context.now()
    state = store.state
    if plan.never_started(state, now):
        # First the lock, then the state: a lock that the state does not know would be waited for.
        disk.remove(context.data(UPDATE_LOCK))
        store.save(state._replace(handoff=None))
        return Outcome("taken-back", "The sub-updater was never started; the installation begins again.")
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
            "adopted", f"{UPDATE_LOCK} says that deployment {name} is being installed; waiting for it."
        )
    if liveness.sub_updater_runs(context.settings):
        return Outcome(
            "waiting",
            "The sub-updater of the last update is still running; its files stay until it has ended.",
        )
    # First what takes up room: the state may need it.
    disk.remove(context.data(UPDATE_LOCK), context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
    store.state = state._replace(handoff=None)
    final = final_result(state, now.lock) if now.lock else None
    if final:
        sentence = f"Deployment {final.deployment} ended with {final.status}; removed what it left behind."
    else:
        sentence = "Removed what the last update left behind."
    return Outcome("swept", sentence)


def _give_up(context: Context, handoff: Handoff) -> Outcome:
    """Report a failure in the name of a sub-updater that has not said anything for too long."""
    seconds = context.settings.install_timeout
    name = handoff.deployment or "(unknown)"
    sentence = f"The sub-updater has not reported deployment {name} within {seconds} s; giving it up."
    log.error("%s", sentence, extra={"told": True})
    if not handoff.deployment:
        # Nothing in a lock without an id tells that it was waited for: it would be taken over again.
        disk.remove(context.data(UPDATE_LOCK))
    store = context.store
    failure = Result(handoff.deployment, "failure", context.now().time)
    store.state = with_final_result(store.state, failure)
    deployments.save_or_make_room(context)
    return Outcome("gave-up", sentence, {"deployment": handoff.deployment})
