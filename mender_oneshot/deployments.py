"""Requests to the server as an accepted device, and what its answers mean for the current deployment.

Shared by several steps; not a step itself.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from . import disk, errors, gates, history, plan
from .context import Context, Outcome
from .paths import ARTIFACT, PART, PROVIDES
from .server import DeploymentGone, Server
from .state import Result, with_final_result
from .transport import host

T = TypeVar("T")

log = logging.getLogger(__name__)


def ask(context: Context, call: Callable[[Server], T]) -> T:
    """Return the result of a call to the server; if there is no valid token, authorize first and call again.

    The second call may go to another one of `Servers`. Raises the error of the step `auth` if that fails, and
    `errors.InvalidToken` if the server rejects the new token as well.
    """
    try:
        return call(_server(context))
    except errors.InvalidToken as error:
        log.info("%s", error)
    context.perform("auth")
    return call(_server(context))


def _server(context: Context) -> Server:
    """Return the server that issued the token; raises `errors.InvalidToken` if there is no valid one."""
    token, connection = context.store.state.token, context.connection
    if token is None or not plan.token_is_good(token, context.settings.servers, context.now().time):
        raise errors.InvalidToken("There is no valid token; run mender-oneshot auth.")
    server = connection.server
    if server is None or server.url != token.server:
        server = Server(context.settings, token.server)
        connection.replace(server)
    server.token = token.jwt
    return server


def report_progress(
    context: Context, step: str, deployment: str, status: str, *, required: bool
) -> Outcome | None:
    """Report an intermediate status; return an outcome if the server no longer has the deployment.

    In that case the deployment has been dropped here as well. Any other answer is only logged, as in the
    reference client: these statuses are optional, and a gateway that blocks them must not block the update.
    The status is skipped while the server has asked for a pause of this step.

    Raises what `ask` raises if there is no valid token. If no answer comes, raises an `errors.Error` if
    `required`, and only logs it otherwise.
    """

    def put(server: Server) -> Outcome | None:
        if plan.asked_pause(context.store.state, step, server.url, context.now().time):
            log.info("The status %s is not sent: the server has asked for a pause.", status)
            return None
        try:
            server.put_status(deployment, status)
        except DeploymentGone as gone:
            verb = "has aborted" if gone.aborted else "does not know"
            sentence = f"{server_name(context)} {verb} deployment {deployment} ({gone}); dropped it."
            drop(context)
            return Outcome("withdrawn", sentence, {"deployment": deployment})
        except (errors.InvalidToken, errors.DeadlineExceeded):
            raise
        except errors.Error as error:
            if required and not _is_answer(error):
                raise
            context.store_pause(step, error)
            log.warning("Could not report the status %s: %s", status, error)
        return None

    return ask(context, put)


def _is_answer(error: errors.Error) -> bool:
    """Return whether an error is an answer, from the server or from a gateway in front of it."""
    if isinstance(error, errors.TemporaryError):
        return bool(error.host)
    answers = (errors.ServerRejected, errors.InvalidResponse)
    return isinstance(error, answers) and not isinstance(error, errors.UntrustedServer)


def server_name(context: Context) -> str:
    """Return the host of the server that this invocation talks to."""
    server = context.connection.server
    return host(server.url) if server else "The server"


def aborted(result: Result) -> Outcome:
    """Return the outcome of a result whose deployment the server has aborted, so that it was dropped."""
    advice = "; roll the update back" if result.status == "success" else ""
    return Outcome(
        "aborted",
        f"The server has aborted deployment {result.deployment}, so the result {result.status} was dropped"
        f"{advice}.",
        {"deployment": result.deployment, "status": result.status},
    )


def drop(context: Context) -> None:
    """Drop the current deployment and what was downloaded of it."""
    before = context.store.state
    context.store.save(before._replace(deployment=None))
    if before.deployment:
        history.add(context.settings, before, Result(before.deployment.id, "aborted", context.now().time))
    disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))


def save_or_make_room(context: Context) -> None:
    """Save the state of a finished update; if the disk is full, remove its artifact and try again."""
    try:
        context.store.save()
    except errors.NoSpace:
        with contextlib.suppress(errors.Error):
            disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
        context.store.save()


def end(context: Context, deployment: str, status: str) -> None:
    """Save the final status of the current update, durably, and keep its log; `deliver` sends the status.

    Raises `errors.NoSpace` or `errors.DiskError` if it cannot be saved.
    """
    store = context.store
    before, result = store.state, Result(deployment, status, context.now().time)
    store.state = with_final_result(before, result)
    save_or_make_room(context)
    history.add(context.settings, before, result)


def fail(context: Context, error: errors.Error) -> None:
    """Fail the current deployment: queue `failure`, with the error as the last line of its log.

    The state scripts Download_Error follow if Download_Enter was run.
    """
    state = context.store.state
    if state.deployment is None:
        return
    log.error("%s", error)
    error.logged = True
    end(context, state.deployment.id, "failure")
    disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
    if state.deployment.entered:
        gates.run_errors(context, "download", "Download")
