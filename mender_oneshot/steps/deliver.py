"""Send the oldest queued result, and the log if it is a failure."""

import logging

from .. import deployment_log, deployments, errors, history
from ..context import Context, Outcome
from ..server import DeploymentGone, Server, TooLarge
from ..state import ABORTED, DELIVERED, UNKNOWN, Result, answered

MAX_REFUSALS = 10
MAX_LOG_ATTEMPTS = 50
"""Attempts to upload the log to a server that has the status: about four hours, then updates continue."""

log = logging.getLogger(__name__)


def run(context: Context, *, paced: bool) -> Outcome:
    """Deliver one result; raises an `errors.Error` if it has to stay in the queue."""
    return deployments.ask(context, lambda server: _deliver(context, server))


def _deliver(context: Context, server: Server) -> Outcome:
    """Send the oldest result, and decide what an error means for it.

    An invalid token, or an authorization that fails, is not an answer to the result and never counts.
    """
    try:
        return _send(context, server)
    except DeploymentGone as gone:
        return _gone(context, gone)
    except (
        errors.ServerRejected,
        errors.InvalidResponse,
        errors.TemporaryError,
        errors.DeadlineExceeded,
    ) as error:
        outcome = _count(context, error)
        if outcome is None:
            raise
        return outcome


def _gone(context: Context, gone: DeploymentGone) -> Outcome:
    """Drop the oldest result, because the server no longer has its deployment."""
    result = context.store.state.results[0]
    if gone.aborted:
        _done(context, ABORTED)
        return deployments.aborted(result)
    _done(context, UNKNOWN)
    name, status = result.deployment, result.status
    sentence = f"The server does not know deployment {name} ({gone}); dropped the result {status}."
    return Outcome("void", sentence, _facts(result))


def _count(context: Context, error: errors.Error) -> Outcome | None:
    """Count a failed attempt at the oldest result; return an outcome if it was the last one, else None.

    No other request is made while a result is queued, so the attempts must end even if all are rejected.
    """
    result = context.store.state.results[0]
    rejected = isinstance(error, errors.ServerRejected) and not isinstance(error, errors.UntrustedServer)
    if not rejected and not result.sent:
        return None  # the status waits as long as the server fails, or another host answers in its place
    if isinstance(error, errors.TemporaryError) and error.retry_after:
        return None
    limit = MAX_REFUSALS if rejected else MAX_LOG_ATTEMPTS
    if result.refusals + 1 < limit:
        _update(context, result._replace(refusals=result.refusals + 1))
        return None
    log.error("%s", error)
    _done(context, DELIVERED if result.sent else "")
    what = "log" if result.sent else "result"
    sentence = f"The server did not accept the {what} of {result.deployment} in {limit} attempts; dropped it."
    return Outcome("refused", sentence, _facts(result))


def _send(context: Context, server: Server) -> Outcome:
    result = context.store.state.results[0]
    if not result.sent:
        server.put_status(result.deployment, result.status)
        result = result._replace(sent=True, refusals=0)
        if result.status == "failure":
            # The server has the status; it must not be sent again after a power cut.
            _update(context, result)
            context.store.save()
    if result.status == "failure":
        _send_log(context, server, result)
    _done(context, DELIVERED)
    sentence = f"Reported {result.status} for deployment {result.deployment}"
    if result.status == "failure":
        sentence += history.reason(context.settings, result.deployment).removesuffix(".")
    return Outcome("delivered", f"{sentence}.", _facts(result))


def _send_log(context: Context, server: Server, result: Result) -> None:
    """Upload the log; if the server finds it too large, its last part; if that is too large as well, none."""
    settings = context.settings
    places = settings.log_directory, settings.places.datastore
    for limit in (deployment_log.BODY_LIMIT, deployment_log.BODY_LIMIT // 8):
        try:
            server.put_log(result.deployment, deployment_log.collect(*places, result.at, limit))
        except TooLarge:
            continue
        return
    log.warning("The log is too large for the server even after truncation; not sent.")


def _update(context: Context, result: Result) -> None:
    store = context.store
    store.state = store.state._replace(results=(result, *store.state.results[1:]))


def _done(context: Context, answer: str) -> None:
    store = context.store
    store.state = answered(store.state, store.state.results[0], answer)
    store.save()


def _facts(result: Result) -> dict[str, str]:
    return {"deployment": result.deployment, "status": result.status}
