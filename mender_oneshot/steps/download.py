"""Download the artifact of the current deployment, from where the last invocation stopped."""

import logging

from .. import artifact_body, deployments, disk, errors, gates, resume
from ..context import Context, Outcome
from ..early_check import EarlyCheck, NothingInstallsIt
from ..partial_download import PartialDownload, in_words, trusted
from ..paths import ARTIFACT, PART
from ..resume import Action, OnDisk
from ..server import Server
from ..state import Deployment, bounded
from ..transport import host

LINK_MARGIN = 60.0
FRESH_LINK = 300.0

log = logging.getLogger(__name__)


def run(context: Context, *, paced: bool) -> Outcome:
    """Download the artifact; if its link has expired, get a new one by check-update, once.

    Raises `errors.NothingInProgress`, or what kept the download from being completed. Attempts that bring no
    new byte are counted, and after `RetryDownloadCount` of them the deployment has failed.
    """
    deployment = _current(context)
    if disk.is_own(context.data(ARTIFACT)):
        return Outcome("downloaded", f"{deployment.artifact_name} is downloaded already.", _facts(deployment))
    deployment = _enter(context, deployment)
    reported = ""
    if link_is_stale(deployment, context.store.state.checked_at, context.now().time):
        log.info("The artifact's link has expired; requesting a new one.")
    else:
        try:
            return _download(context, deployment)
        except errors.LinkExpired as error:
            log.info("%s", error)
            reported = deployment.id
    renewed = context.perform("check-update")
    if paced and context.store.state.deployment is None:
        return renewed  # the deployment is no longer offered
    deployment = _current(context)
    return _download(context, deployment, report=deployment.id != reported, last_link=True)


def _enter(context: Context, deployment: Deployment) -> Deployment:
    """Let the state scripts Download_Enter decide, once; raises `errors.ScriptPause` if one asks for a pause.

    If one fails, so does the deployment: raises `errors.ServerRejected`.
    """
    if deployment.entered:
        return deployment
    try:
        gates.run(context, "download", "Download", "Enter")
    except gates.ScriptFailed as failed:
        store = context.store
        store.state = store.state._replace(deployment=deployment._replace(entered=True))
        error = errors.ServerRejected(f"{failed} The update has failed.")
        deployments.fail(context, error)
        raise error from failed
    deployment = deployment._replace(entered=True)
    _save(context, deployment)
    return deployment


def _current(context: Context) -> Deployment:
    deployment = context.store.state.deployment
    if deployment is None:
        raise errors.NothingInProgress("There is no update to download; run check-update first.")
    return deployment


def _save(context: Context, deployment: Deployment) -> None:
    context.store.save(context.store.state._replace(deployment=deployment))


def link_is_stale(deployment: Deployment, checked_at: float, now: float) -> bool:
    """Return whether the link has expired; one that is minutes old has not, even if our clock says so."""
    just_now = checked_at <= now < checked_at + FRESH_LINK
    return bool(deployment.expires) and now >= deployment.expires - LINK_MARGIN and not just_now


def _facts(deployment: Deployment) -> dict[str, object]:
    return {"deployment": deployment.id, "artifact_name": deployment.artifact_name}


def _download(
    context: Context, deployment: Deployment, *, report: bool = True, last_link: bool = False
) -> Outcome:
    """Report `downloading`, unless told not to, then fetch the artifact.

    Raises `errors.LinkExpired` if the storage rejects the link, which counts as an attempt if `last_link`.
    """
    if report:
        aborted = deployments.report_progress(
            context, "download", deployment.id, "downloading", required=True
        )
        if aborted:
            return aborted
    size = deployments.ask(context, lambda server: _attempt(context, server, last_link))
    deployment = _current(context)
    sentence = f"Downloaded {deployment.artifact_name}, {in_words(size)}."
    return Outcome("downloaded", sentence, _facts(deployment) | {"bytes": size})


def _attempt(context: Context, server: Server, last_link: bool) -> int:
    """Bring the artifact to its full size and its final name, and return its size in bytes."""
    part = PartialDownload(context.data(PART))
    try:
        before = part.size
        _fetch(context, server, part)
        part.finish(context.data(ARTIFACT))
    except (errors.ArtifactRejected, NothingInstallsIt) as error:
        deployments.fail(context, error)
        raise
    except errors.Error as error:
        _drop_what_cannot_be_resumed(context, part, error)
        if last_link or not isinstance(error, errors.LinkExpired):
            _count(context, error, progress=_is_progress(context, part, before))
        raise
    finally:
        part.close()
    return part.size


def _drop_what_cannot_be_resumed(context: Context, part: PartialDownload, error: errors.Error) -> None:
    """Free the disk of bytes that the next attempt would replace, or of an object that may never end."""
    deployment = _current(context)
    endless = deployment.size < 0 and isinstance(error, errors.NoSpace)
    if endless or not resume.can_resume(_known(part, deployment)):
        part.truncate(0)


def _known(part: PartialDownload, deployment: Deployment) -> OnDisk:
    return OnDisk(part.size, deployment.size, deployment.etag, deployment.last_modified, deployment.refused)


def _is_progress(context: Context, part: PartialDownload, before: int) -> bool:
    """Return whether an attempt brought new bytes, and enough of them."""
    return not part.started_over and resume.is_progress(part.size - before, _current(context).size)


def _count(context: Context, error: errors.Error, *, progress: bool) -> None:
    """Count an attempt that brought nothing; after the last one that is allowed, the deployment has failed.

    Raises `errors.ServerRejected` in that case.
    """
    store, deployment = context.store, _current(context)
    if progress:
        # The link works after all: the back-off starts again with the shortest pause.
        failures = {step: failure for step, failure in store.state.failures.items() if step != "download"}
        store.state = store.state._replace(deployment=deployment._replace(stalls=0), failures=failures)
        return
    stalls, allowed = deployment.stalls + 1, context.settings.retry_download_count
    store.state = store.state._replace(deployment=deployment._replace(stalls=stalls))
    if stalls >= allowed:
        final = errors.ServerRejected(
            f"Giving up on {deployment.artifact_name}: no progress in {allowed} attempts: {error}"
        )
        deployments.fail(context, final)
        raise final from error


def _fetch(context: Context, server: Server, part: PartialDownload) -> None:
    """Bring the part file to its full size."""
    _distrust_after_reboot(context, part)
    if _current(context).size >= 0:
        part.make_room(_current(context).size)  # before the server sends what does not fit
    whole = False
    while True:
        deployment = _current(context)
        known = _known(part, deployment)
        if known.size >= 0 and known.offset == known.size:
            return
        if whole or not resume.can_resume(known) or 0 <= known.size < known.offset:
            known = OnDisk()
        before = part.size
        action = _request(context, server, part, known)
        if action is Action.AGAIN:
            log.info(
                "The partial download does not match the object on %s; starting over.", host(deployment.uri)
            )
            whole = True
        elif action is Action.WEAKER:
            _save(context, deployment._replace(refused=deployment.refused + 1))
        elif action is Action.COMPLETE or _is_complete(context, part):
            return
        else:
            whole = False
            # The answer was complete, but announced only a part of the rest; request the next part at once.
            if not resume.is_progress(part.size - before, _current(context).size):
                raise errors.TemporaryError(
                    f"{host(deployment.uri)} sends too few bytes at a time; check the artifact storage."
                )


def _is_complete(context: Context, part: PartialDownload) -> bool:
    size = _current(context).size
    return size < 0 or part.size >= size


def _distrust_after_reboot(context: Context, part: PartialDownload) -> None:
    """Cut off the bytes that may not have been synced before a reboot, which may have been a power cut."""
    deployment, boot = _current(context), context.now().boot
    if part.size and deployment.boot != boot:
        part.truncate(trusted(part.size))
        _save(context, deployment._replace(boot=boot))


def _request(context: Context, server: Server, part: PartialDownload, known: OnDisk) -> Action:
    """Send one request, write the bytes of the answer, and return what kind of answer it was."""
    deployment = _current(context)
    where = host(deployment.uri)
    with server.open_artifact(deployment.uri, known) as response:
        answer = resume.answer(response.status, response.headers)
        decision = resume.decide(answer, known)
        if decision.move in (Action.AGAIN, Action.WEAKER, Action.COMPLETE):
            return decision.move
        if decision.move is Action.EXPIRED:
            raise errors.LinkExpired(
                f"{where} rejected the artifact's link ({answer.status}); the next run requests a new one."
            )
        if decision.move is Action.ENCODED:
            raise errors.InvalidResponse(
                f"A proxy in front of {where} compresses the artifact (Content-Encoding); disable that."
            )
        if decision.move is Action.REFUSED:
            raise server.artifact_error(deployment.uri, response)
        if decision.move is Action.FRESH:
            pieces = artifact_body.beginning_checked(response)
            part.start_over()
            deployment = deployment._replace(
                size=decision.size,
                etag=bounded(answer.etag),
                last_modified=bounded(answer.last_modified),
                boot=context.now().boot,
                refused=resume.still_refused(known, decision.size, answer),
                spliced=False,
            )
        else:
            pieces = response.pieces()
            part.truncate(decision.start)
            spliced = deployment.spliced or not resume.is_certain(answer, known)
            deployment = deployment._replace(size=decision.size, spliced=spliced)
            log.info("Resuming at %s of %s.", in_words(part.size), in_words(decision.size))
        _save(context, deployment)
        early = None if deployment.spliced else EarlyCheck(context.settings)
        artifact_body.append(pieces, part, decision, early, context.progress)
    return decision.move
