"""Take down the final status that a sub-updater reports. Sending it is the step `deliver`."""

import os

from .. import errors, session
from ..context import Context, Outcome
from ..state import Result, concluded, final_result


def record(context: Context, status: str) -> Outcome | None:
    """Put "success" or "failure" into the state, durably; None: the way to the server is free for it.

    The first result of a deployment stands: saying it again is fine, and changes nothing. Raises
    `errors.NothingInProgress` where no update is in anybody's hands, or another one than the caller's.
    """
    store, now = context.store, context.now()
    state = store.state
    in_hand = state.handoff.deployment if state.handoff else now.lock or ""
    # What the sub-updater was told at the hand-off; it is gone after a reboot.
    deployment = os.environ.get("MENDER_DEPLOYMENT_ID") or in_hand
    last = final_result(state, deployment) if deployment else None
    if last:
        if last.status == status:
            sentence = f"Deployment {last.deployment} is reported as {status} already; nothing to do."
            return None if state.results else Outcome("already", sentence, {"deployment": last.deployment})
        raise errors.NothingInProgress(
            f"Deployment {last.deployment} is reported as {last.status} already, and the first result stands."
        )
    if not in_hand:
        raise errors.NothingInProgress("No update is in progress, so there is nothing to report.")
    if deployment != in_hand:
        raise errors.NothingInProgress(
            f"Deployment {deployment} is not in progress, but {in_hand} is; nothing was reported."
        )
    store.state = concluded(state, Result(deployment, status, now.time))
    session.save_or_make_room(context)
    return None
