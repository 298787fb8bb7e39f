"""Send the oldest queued result, a failure with its log, until the server has it or calls it void."""

import logging

from .. import deployment_log, deployments, errors
from ..context import Context, Outcome
from ..server import DeploymentGone, Server, TooLarge
from ..state import ABORTED, DELIVERED, UNKNOWN, Result, answered

MAX_REFUSALS = 10
MAX_LOG_ATTEMPTS = 50
"""Attempts to bring the log through to a server that has the status: some four hours, then updates go on."""

log = logging.getLogger(__name__)


def run(context: Context) -> Outcome:
    """Deliver one result; raises an `errors.Error` where it has to stay in the queue."""
    result = context.store.state.results[0]
    try:
        return _deliver(context, result)
    except DeploymentGone as void:
        if void.aborted:
            _done(context, ABORTED)
            return deployments.aborted(result)
        _done(context, UNKNOWN)
        sentence = (
            f"The server does not know deployment {result.deployment} ({void}); dropped the result "
            f"{result.status}."
        )
        return Outcome("void", sentence, _facts(result))
    except (
        errors.ServerRejected,
        errors.InvalidResponse,
        errors.TemporaryError,
        errors.DeadlineExceeded,
    ) as error:
        result = context.store.state.results[0]
        refused = isinstance(error, errors.ServerRejected) and not isinstance(error, errors.UntrustedServer)
        limit = MAX_REFUSALS if refused else MAX_LOG_ATTEMPTS
        if not refused and not result.sent:
            # The status itself is worth waiting for, however long the server is in trouble or somebody else
            # answers in its place.
            raise
        if isinstance(error, errors.TemporaryError) and error.retry_after:
            raise
        # Nothing else may be asked while a result waits, so a "no" for ever must have an end.
        if result.refusals + 1 >= limit:
            log.error("%s", error)
            _done(context, DELIVERED if result.sent else "")
            what = "log" if result.sent else "result"
            sentence = (
                f"The server has not taken the {what} of {result.deployment} {limit} times; dropped it."
            )
            return Outcome("refused", sentence, _facts(result))
        _note(context, result._replace(refusals=result.refusals + 1))
        raise


def _deliver(context: Context, result: Result) -> Outcome:
    server = deployments.connect(context)
    if not result.sent:
        server.put_status(result.deployment, result.status)
        result = result._replace(sent=True, refusals=0)
        if result.status == "failure":
            # The server has the status: a power cut from here on must not send it twice.
            _note(context, result)
            context.store.save()
    if result.status == "failure":
        _send_log(context, server, result)
    _done(context, DELIVERED)
    return Outcome(
        "delivered", f"Reported {result.status} for deployment {result.deployment}.", _facts(result)
    )


def _send_log(context: Context, server: Server, result: Result) -> None:
    """Upload the log; where it is too large in spite of all, its last part, and else none."""
    settings = context.settings
    places = settings.log_directory, settings.places.datastore
    for limit in (deployment_log.BODY_LIMIT, deployment_log.BODY_LIMIT // 8):
        try:
            server.put_log(result.deployment, deployment_log.collect(*places, result.at, limit))
        except TooLarge:
            continue
        return
    log.warning("The server finds even the end of the log too large; it goes without.")


def _note(context: Context, result: Result) -> None:
    context.store.update(results=(result, *context.store.state.results[1:]))


def _done(context: Context, answer: str) -> None:
    store = context.store
    store.state = answered(store.state, store.state.results[0], answer)
    store.save()


def _facts(result: Result) -> dict[str, str]:
    return {"deployment": result.deployment, "status": result.status}
