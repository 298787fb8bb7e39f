"""Talking to the server as an accepted device, and what the answers mean for the deployment in hand.

What several steps share; no step of its own.
"""

import contextlib
import logging

from . import disk, errors, plan
from .context import Context, Outcome
from .server import DeploymentGone, Server
from .state import ARTIFACT, PART, PROVIDES, Result, concluded
from .transport import host

log = logging.getLogger(__name__)


def connect(context: Context) -> Server:
    """Return the server that gave us the token; raises `errors.Needs` where there is no good one."""
    token = context.store.state.token
    if token is None or not plan.token_is_good(token, context.settings.servers, context.now().time):
        raise errors.Needs("auth", errors.NotAccepted("There is no good token; run mender-oneshot auth."))
    if context.server is None or context.server.url != token.server:
        context.close()
        context.server = Server(context.settings, token.server)
    context.server.token = token.jwt
    return context.server


def report_progress(context: Context, step: str, deployment: str, status: str) -> Outcome | None:
    """Report an intermediate status; return an outcome if the server has no such deployment any more.

    Then everything of it has been dropped. Raises an `errors.Error` if no answer comes. Every other answer is
    only logged, as in the reference client: these statuses are optional, and a gateway that blocks them must
    not block the update. While the server wants a pause of this step, the status is left out.
    """
    server = connect(context)
    if plan.asked_pause(context.store.state, step, server.url, context.now().time):
        log.info("The status %s is not sent: the server has asked for a pause.", status)
        return None
    try:
        server.put_status(deployment, status)
    except DeploymentGone as void:
        verb = "has aborted" if void.aborted else "does not know"
        sentence = f"{server_name(context)} {verb} deployment {deployment} ({void}); dropped it."
        drop(context)
        return Outcome("withdrawn", sentence, {"deployment": deployment})
    except errors.UntrustedServer:
        raise
    except (errors.ServerRejected, errors.InvalidResponse, errors.TemporaryError) as error:
        if isinstance(error, errors.TemporaryError) and not error.host:
            raise
        context.keep_away(step, error)
        log.warning("The status %s is not taken: %s", status, error)
    return None


def server_name(context: Context) -> str:
    """Return the host of the server that this invocation talks to."""
    return host(context.server.url) if context.server else "The server"


def aborted(result: Result) -> Outcome:
    """Say that the server has aborted the deployment of a result, which was dropped."""
    advice = "; roll the update back" if result.status == "success" else ""
    return Outcome(
        "aborted",
        f"The server has aborted deployment {result.deployment}, so the result {result.status} was dropped"
        f"{advice}.",
        {"deployment": result.deployment, "status": result.status},
    )


def drop(context: Context) -> None:
    """Forget the deployment in hand and what was downloaded of it."""
    context.store.save(deployment=None)
    disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))


def save_or_make_room(context: Context) -> None:
    """Save the state of an update that is over, at the price of its artifact where the disk is full."""
    try:
        context.store.save()
    except errors.NoSpace:
        with contextlib.suppress(errors.Error):
            disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
        context.store.save()


def fail(context: Context, error: errors.Error) -> None:
    """Give up the deployment in hand: queue `failure`, with the error as the last line of its log."""
    state = context.store.state
    if state.deployment is None:
        return
    log.error("%s", error)
    error.logged = True
    context.store.state = concluded(state, Result(state.deployment.id, "failure", context.now().time))
    save_or_make_room(context)
    disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
