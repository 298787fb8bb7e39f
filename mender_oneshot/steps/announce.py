"""Report an intermediate status of the update that is being installed (used by the built-in installer)."""

from .. import deployments, errors, plan
from ..context import Context, Outcome
from ..server import DeploymentGone, Server


def run(context: Context, *, status: str) -> Outcome:
    """Report a status; the outcome is `announced`, `paused` or `aborted`. Raises an `errors.Error`."""
    handoff = context.store.state.handoff
    if handoff is None or not handoff.deployment:
        raise errors.NothingInProgress("No update is in progress, so there is nothing to report.")
    deployment = handoff.deployment

    def put(server: Server) -> Outcome:
        facts = {"deployment": deployment, "status": status}
        if plan.asked_pause(context.store.state, "install", server.url, context.now().time):
            return Outcome(
                "paused", f"The status {status} is not sent: the server has asked for a pause.", facts
            )
        try:
            server.put_status(deployment, status)
        except DeploymentGone as gone:
            verb = "has aborted" if gone.aborted else "does not know"
            sentence = f"{deployments.server_name(context)} {verb} deployment {deployment} ({gone})."
            return Outcome("aborted", sentence, facts)
        except errors.Error as error:
            context.store_pause("install", error)
            raise
        return Outcome("announced", f"Reported {status} for deployment {deployment}.", facts)

    return deployments.ask(context, put)
