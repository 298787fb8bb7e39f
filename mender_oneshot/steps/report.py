"""Take down the final status that a sub-updater reports. Sending it is the step `deliver`."""

import os

from .. import deployments, errors
from ..context import Context, Outcome
from ..state import ABORTED, Result, concluded, final_result


def record(context: Context, status: str) -> Outcome | None:
    """Put "success" or "failure" into the state, durably; None: the way to the server is free for it.

    The first result of a deployment stands: saying it again is fine, and changes nothing. Raises
    `errors.NothingInProgress` if no update is in progress, or another one than the caller's.
    """
    store, now = context.store, context.now()
    state = store.state
    in_hand = state.handoff.deployment if state.handoff else now.lock or ""
    # Set at the hand-off; gone after a reboot, but inherited by the daemons that a sub-updater started.
    told = os.environ.get("MENDER_DEPLOYMENT_ID", "")
    if told and in_hand and told != in_hand:
        raise errors.NothingInProgress(
            f"MENDER_DEPLOYMENT_ID is {told[:128]}, but deployment {in_hand} is in progress, so nothing was "
            f"reported; unset MENDER_DEPLOYMENT_ID to report the result of {in_hand}."
        )
    deployment = told or in_hand
    last = final_result(state, deployment)
    if last:
        if last.status == status and last.answer == ABORTED:
            return deployments.aborted(last)
        if last.status == status:
            sentence = f"Deployment {last.deployment} is reported as {status} already; nothing to do."
            return None if state.results else Outcome("already", sentence, {"deployment": last.deployment})
        raise errors.NothingInProgress(
            f"Deployment {last.deployment} is reported as {last.status} already, and the first result stands."
        )
    if not in_hand:
        raise errors.NothingInProgress("No update is in progress, so there is nothing to report.")
    store.state = concluded(state, Result(deployment, status, now.time))
    deployments.save_or_make_room(context)
    return None
