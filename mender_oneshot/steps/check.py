"""Request the next deployment from the server."""

import logging

from .. import deployment_log, deployments, device, disk, errors, gates, liveness, plan
from ..answers import Unusable
from ..context import Context, Outcome
from ..paths import ARTIFACT, PART, PROVIDES, UPDATE_LOCK
from ..server import DeviceChanged, Server
from ..state import DELIVERED, Deployment, Result, final_result
from ..transport import host

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 10
"""Attempts to carry out a deployment that the server offers again after each failure."""

NOTHING = Outcome("nothing", "There is no update for this device.", {"deployment": None})


def run(context: Context, *, paced: bool) -> Outcome:
    """Request the next deployment and store it; the answer may also renew, replace or end the current one.

    If `paced`, a deployment that has failed here waits before it is tried again. Raises `errors.NotYet` while
    no request may be made (`_require_free`), and `errors.InvalidResponse` for a deployment that cannot be
    carried out.
    """
    _require_free(context)
    _enter(context)
    try:
        outcome = _check(context, paced)
    except errors.Error:
        gates.run_errors(context, "check-update", "Sync")
        raise
    _leave(context)
    return outcome


def _enter(context: Context) -> None:
    """Run the state scripts that come before a check; raises `errors.TemporaryError` if one prevents it."""
    for action in ("Enter", "Leave"):
        try:
            gates.run(context, "check-update", "Idle", action)
        except (gates.ScriptFailed, errors.ScriptPause) as error:
            log.warning("%s", error)
    try:
        gates.run(context, "check-update", "Sync", "Enter")
    except gates.ScriptFailed as failed:
        gates.run_errors(context, "check-update", "Sync")
        raise errors.TemporaryError(f"{failed} The next run will retry.") from failed


def _leave(context: Context) -> None:
    """Run the state scripts that come after a check; if one fails, what the check found is dropped."""
    try:
        gates.run(context, "check-update", "Sync", "Leave")
    except (gates.ScriptFailed, errors.ScriptPause) as failed:
        gates.run_errors(context, "check-update", "Sync")
        if context.store.state.deployment:
            deployments.drop(context)
        raise errors.TemporaryError(f"{failed} The next run will retry.") from failed


def _check(context: Context, paced: bool) -> Outcome:
    store = context.store
    provides = device.provides(context.settings) | {"device_type": device.device_type(context.settings)}

    def next_deployment(server: Server) -> tuple[str, Deployment | None, str]:
        # Only a current deployment fixes the form: the server itself may have changed since the last one.
        form = store.state.form if store.state.deployment or store.state.form == "v1" else ""
        return server.url, *server.next_deployment(provides, form)

    try:
        url, found, form = deployments.ask(context, next_deployment)
    except Unusable as error:
        raise _fail(context, error) from error
    except DeviceChanged:
        deployments.drop(context)
        store.state = store.state._replace(checked_at=context.now().time)
        return Outcome(
            "conflict",
            "The device's type or artifact name changed during a deployment, so the server has failed it.",
            {"deployment": None},
        )
    store.state = store.state._replace(form=form, checked_at=context.now().time)
    if found is None:
        return _nothing(context, url)
    return _take(context, found._replace(server=url), paced)


def _require_free(context: Context) -> None:
    """Raise `errors.NotYet` while a result is queued, or an update is being installed.

    A request at that time makes the server fail the deployment (device-api.md section 3.3).
    """
    store, now = context.store, context.now()
    if store.state.results:
        raise errors.NotYet("A queued result must be sent first; the next run sends it.")
    if store.state.handoff is None and now.lock and final_result(store.state, now.lock):
        raise errors.NotYet(
            f"The result of deployment {now.lock} was reported, but its sub-updater has not removed "
            f"{UPDATE_LOCK} yet; a run removes it a minute after the report, once the sub-updater has exited."
        )
    if store.state.handoff or now.lock is not None:
        raise errors.NotYet("An update is being installed; check again after the sub-updater has reported.")
    if store.state.deployment is None and now.artifact and liveness.sub_updater_runs(context.settings):
        raise errors.NotYet(
            "The sub-updater of the last update is still running; check again after it has exited."
        )


def _fail(context: Context, unusable: Unusable) -> errors.InvalidResponse:
    """Queue `failure`, once, for a deployment that cannot be carried out, and return the error to raise."""
    store, held = context.store, context.store.state.deployment
    error = errors.InvalidResponse(
        f"Deployment {unusable.deployment} cannot be carried out: {unusable}; check it on the server."
    )
    over = final_result(store.state, unusable.deployment)
    if over:
        _repeat(context, over)
        return error
    store.state = store.state._replace(checked_at=context.now().time)
    if held is None or held.id != unusable.deployment:
        deployment_log.reset(context.settings.log_directory, context.settings.places.datastore)
        store.state = store.state._replace(deployment=Deployment(unusable.deployment, "", "", ""))
    deployments.fail(context, error)
    return error


def _nothing(context: Context, url: str) -> Outcome:
    """Drop the current deployment, if there is one: the server no longer offers it."""
    held = context.store.state.deployment
    if held is None:
        return NOTHING
    deployments.drop(context)
    if held.server and held.server != url:
        sentence = (
            f"Deployment {held.id} came from {host(held.server)}, and {host(url)} offers none; dropped it."
        )
    else:
        sentence = f"{host(url)} no longer offers deployment {held.id}; dropped it."
    return Outcome("withdrawn", sentence, {"deployment": None})


def _take(context: Context, found: Deployment, paced: bool) -> Outcome:
    """Store an offered deployment, or renew the current one if it is the same."""
    store, held = context.store, context.store.state.deployment
    over = final_result(store.state, found.id)
    if over and (over.status != "failure" or over.answer != DELIVERED or over.attempts >= MOST_ATTEMPTS):
        return _repeat(context, over)
    wait = plan.retry_remaining(over, context.now().time) if over and paced else 0
    if over and wait:
        return Outcome(
            "waiting",
            f"Deployment {over.deployment} has failed {over.attempts} times here and is offered again; the "
            f"next attempt is due in {wait:.0f} s.",
            {"deployment": None},
        )
    if held and (held.id, held.artifact_id) == (found.id, found.artifact_id):
        renewed = held._replace(uri=found.uri, expires=found.expires, server=found.server)
        store.save(store.state._replace(deployment=renewed))
    else:
        if held and _same_artifact(held, found):
            log.info(
                "Deployment %s has the same artifact as %s; keeping what was downloaded.", found.id, held.id
            )
            found = found._replace(
                etag=held.etag,
                last_modified=held.last_modified,
                size=held.size,
                boot=held.boot,
                refused=held.refused,
                spliced=held.spliced,
            )
        else:
            # First the files, then the state: the files always belong to the deployment in the state.
            disk.remove(context.data(ARTIFACT), context.data(PART), context.data(PROVIDES))
        deployment_log.reset(context.settings.log_directory, context.settings.places.datastore)
        store.save(store.state._replace(deployment=found._replace(began=context.now().time)))
        log.info("Deployment %s offers %s.", found.id, found.artifact_name)
        if plan.link_is_open(found, context.settings):
            log.warning("Deployment %s: %s", found.id, plan.OPEN_LINK)
    facts = {"deployment": found.id, "artifact_name": found.artifact_name}
    return Outcome("update", f"There is an update: {found.artifact_name} (deployment {found.id}).", facts)


def _same_artifact(held: Deployment, found: Deployment) -> bool:
    """Return whether two deployments are of one server and have the same artifact, which never changes."""
    return bool(held.artifact_id) and (held.server, held.artifact_id, held.artifact_name) == (
        found.server,
        found.artifact_id,
        found.artifact_name,
    )


def _repeat(context: Context, over: Result) -> Outcome:
    """Queue the result of a finished deployment that is offered again."""
    store = context.store
    store.save(store.state._replace(results=(over._replace(sent=False, refusals=0),)))
    return Outcome(
        "over",
        f"Deployment {over.deployment} is already finished; its result will be sent again.",
        {"deployment": None},
    )
