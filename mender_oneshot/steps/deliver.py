"""Send the oldest queued result, a failure with its log, until the server has it or calls it void."""

import logging

from .. import deployment_log, errors, session
from ..context import Context, Outcome
from ..server import TooLarge, Void
from ..state import Result

MAX_REFUSALS = 10

log = logging.getLogger(__name__)


def run(context: Context) -> Outcome:
    """Deliver one result; raises an `errors.Error` where it has to stay in the queue."""
    result = context.store.state.results[0]
    try:
        return _deliver(context, result)
    except Void as void:
        _done(context)
        sentence = (
            f"The result of deployment {result.deployment} is void for the server ({void}); dropped it."
        )
        return Outcome("void", sentence, _facts(result))
    except (errors.Refused, errors.BadAnswer) as error:
        # Nothing else may be asked while a result waits, so a "no" for ever must have an end.
        result = context.store.state.results[0]
        if result.refusals + 1 >= MAX_REFUSALS:
            log.error("%s", error)
            _done(context)
            return Outcome(
                "refused", f"The server refused the result {MAX_REFUSALS} times; dropped it.", _facts(result)
            )
        _note(context, result._replace(refusals=result.refusals + 1))
        raise


def _deliver(context: Context, result: Result) -> Outcome:
    server = session.connect(context)
    if not result.sent:
        server.put_status(result.deployment, result.status)
        result = result._replace(sent=True)
        if result.status == "failure":
            # The server has the status: a power cut from here on must not send it twice.
            _note(context, result)
            context.store.save()
    if result.status == "failure":
        settings = context.settings
        messages = deployment_log.collect(settings.log_directory, settings.places.datastore, result.at)
        try:
            server.put_log(result.deployment, messages)
        except TooLarge:
            server.put_log(result.deployment, deployment_log.fit(messages, deployment_log.BODY_LIMIT // 8))
    _done(context)
    return Outcome(
        "delivered", f"Reported {result.status} for deployment {result.deployment}.", _facts(result)
    )


def _note(context: Context, result: Result) -> None:
    context.store.update(results=(result, *context.store.state.results[1:]))


def _done(context: Context) -> None:
    context.store.save(results=context.store.state.results[1:])


def _facts(result: Result) -> dict[str, str]:
    return {"deployment": result.deployment, "status": result.status}
