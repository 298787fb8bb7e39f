"""Record the final status that a sub-updater reports, then send it by the step `deliver`."""

import os

from .. import deployments, errors, history
from ..context import Context, Outcome
from ..state import ABORTED, final_result


def run(context: Context, *, status: str) -> Outcome:
    """Record "success" or "failure", then send what is queued; what cannot be sent now stays in the queue.

    Raises `errors.NothingInProgress` if no update is in progress, or another one than the caller's. Outcomes
    and errors have `syslog` set if the run that handed the update off wrote to the syslog.
    """
    handoff = context.store.state.handoff
    syslog = handoff is not None and handoff.syslog
    try:
        outcome = _record(context, status)
        if outcome is None or context.store.state.results:
            outcome = _deliver(context, status)
    except errors.Error as error:
        error.syslog = syslog
        raise
    return outcome._replace(syslog=syslog)


def _deliver(context: Context, status: str) -> Outcome:
    """Send the queued results, oldest first; the outcome is that of the last one."""
    while True:
        try:
            outcome = context.perform("deliver")
        except errors.Error as error:
            return _queued(context, status, error)
        if not context.store.state.results:
            return outcome


def _queued(context: Context, status: str, error: errors.Error) -> Outcome:
    """Return the outcome for a result that stays in the queue because of an error."""
    deployment = context.store.state.results[-1].deployment
    why = history.reason(context.settings, deployment).removesuffix(".") if status == "failure" else ""
    sentence = f"Deployment {deployment} ended with {status}{why}. A later run reports it: {error}"
    return Outcome("queued", sentence, {"deployment": deployment, "status": status})


def _record(context: Context, status: str) -> Outcome | None:
    """Save the result, durably; return an outcome if it needs no sending.

    The first result of a deployment is final; reporting it again changes nothing.
    """
    store, now = context.store, context.now()
    state = store.state
    installing = state.handoff.deployment if state.handoff else now.lock or ""
    # Set at the hand-off; not set after a reboot, but inherited by daemons that a sub-updater started.
    wanted = os.environ.get("MENDER_DEPLOYMENT_ID", "")
    if wanted and installing and wanted != installing:
        raise errors.NothingInProgress(
            f"MENDER_DEPLOYMENT_ID is {wanted[:128]}, but deployment {installing} is in progress, so nothing "
            f"was reported; unset MENDER_DEPLOYMENT_ID to report the result of {installing}."
        )
    deployment = wanted or installing
    last = final_result(state, deployment)
    if last:
        if last.status == status and last.answer == ABORTED:
            return deployments.aborted(last)
        if last.status == status:
            sentence = f"Deployment {last.deployment} was already reported as {status}; nothing to do."
            return None if state.results else Outcome("already", sentence, {"deployment": last.deployment})
        raise errors.NothingInProgress(
            f"Deployment {last.deployment} was already reported as {last.status}; the first result is final."
        )
    if not installing:
        raise errors.NothingInProgress("No update is in progress, so there is nothing to report.")
    deployments.end(context, deployment, status)
    return None
