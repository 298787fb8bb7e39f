"""Fetch the artifact of the deployment in hand, from where the last invocation came to."""

import errno
import logging
import os
from collections.abc import Iterator
from itertools import chain

from .. import deployments, disk, errors, resume
from ..context import Context, Outcome
from ..resume import Action, OnDisk
from ..server import Server
from ..state import ARTIFACT, PART, Deployment, bounded
from ..transport import Response, host

SYNC_BYTES = 1 << 20
"""Bytes between two fsyncs, and thus the most that a power cut can spoil at the end of `artifact.part`."""

LINK_MARGIN = 60.0
FRESH_LINK = 300.0

log = logging.getLogger(__name__)


def run(context: Context) -> Outcome:
    """Download the artifact; raises `errors.NothingInProgress`, or what kept it from being completed.

    Attempts that bring nothing are counted, and after `RetryDownloadCount` of them the deployment has failed.
    """
    deployment = context.store.state.deployment
    if deployment is None:
        raise errors.NothingInProgress("There is no update to download; ask for one with check-update.")
    if disk.is_own(context.data(ARTIFACT)):
        return Outcome("downloaded", f"{deployment.artifact_name} is downloaded already.", _facts(deployment))
    if link_is_stale(deployment, context.store.state.checked_at, context.now().time):
        raise errors.Needs(
            "check-update", errors.TemporaryError("The artifact's link has expired; asking again later.")
        )
    gone = deployments.report_progress(context, "download", deployment.id, "downloading")
    if gone:
        return gone
    part = PartialDownload(context.data(PART))
    try:
        before = part.size
        _fetch(context, part)
        part.finish(context.data(ARTIFACT))
    except (errors.Error, errors.Needs) as error:
        _drop_what_cannot_be_resumed(context, part, error)
        _count(context, error, progress=_is_progress(context, part, before))
        raise
    finally:
        part.close()
    deployment = context.store.state.deployment or deployment
    sentence = f"Downloaded {deployment.artifact_name}, {in_words(part.size)}."
    return Outcome("downloaded", sentence, _facts(deployment) | {"bytes": part.size})


def link_is_stale(deployment: Deployment, checked_at: float, now: float) -> bool:
    """Say whether the link is at its end; one that came just now is not, whatever our clock makes of it."""
    just_now = checked_at <= now < checked_at + FRESH_LINK
    return bool(deployment.expires) and now >= deployment.expires - LINK_MARGIN and not just_now


def _facts(deployment: Deployment) -> dict[str, object]:
    return {"deployment": deployment.id, "artifact_name": deployment.artifact_name}


def _drop_what_cannot_be_resumed(context: Context, part: "PartialDownload", error: Exception) -> None:
    """Free the disk of bytes that the next attempt would throw away, or of an object that may never end."""
    held = context.store.state.deployment
    endless = held and held.size < 0 and isinstance(error, errors.NoSpace)
    if held and (endless or not resume.can_resume(_known(part, held))):
        part.truncate(0)


def _known(part: "PartialDownload", deployment: Deployment) -> OnDisk:
    return OnDisk(part.size, deployment.size, deployment.etag, deployment.last_modified, deployment.refused)


def _is_progress(context: Context, part: "PartialDownload", before: int) -> bool:
    """Say whether an attempt brought new bytes, and enough of them."""
    held = context.store.state.deployment
    size = held.size if held else -1
    return not part.started_over and resume.is_progress(part.size - before, size)


def _count(context: Context, error: errors.Error | errors.Needs, *, progress: bool) -> None:
    """Count an attempt that brought nothing; the last one that is allowed makes the deployment a failure.

    A link that has ended is none, before there was a fresh one.
    """
    store = context.store
    deployment = store.state.deployment
    if deployment is None or (isinstance(error, errors.Needs) and error.step not in context.met):
        return
    if progress:
        # The link works after all: the pauses begin at the shortest again.
        failures = {step: failure for step, failure in store.state.failures.items() if step != "download"}
        store.update(deployment=deployment._replace(stalls=0), failures=failures)
        return
    store.update(deployment=deployment._replace(stalls=deployment.stalls + 1))
    allowed = context.settings.retry_download_count
    if deployment.stalls + 1 >= allowed:
        cause = error.otherwise if isinstance(error, errors.Needs) else error
        final = errors.ServerRejected(
            f"Gave up on {deployment.artifact_name} after {allowed} attempts without a new byte: {cause}"
        )
        deployments.fail(context, final)
        raise final from cause


def _fetch(context: Context, part: "PartialDownload") -> None:
    """Bring the part file to its full size."""
    server = deployments.connect(context)
    deployment = context.store.state.deployment
    if deployment is None:
        return
    boot = context.now().boot
    if part.size and deployment.boot != boot:
        part.truncate(trusted(part.size))
        context.store.save(deployment=deployment._replace(boot=boot))
    if deployment.size >= 0:
        part.make_room(deployment.size)  # before the server sends what there is no room for
    whole = False
    while True:
        deployment = context.store.state.deployment or deployment
        known = _known(part, deployment)
        if known.size >= 0 and known.offset == known.size:
            return
        if whole or not resume.can_resume(known) or 0 <= known.size < known.offset:
            known = OnDisk()
        before = part.size
        move = _request(context, server, part, known)
        if move is Action.AGAIN:
            log.info("What is on disk does not fit the object on %s; starting over.", host(deployment.uri))
            whole = True
        elif move is Action.WEAKER:
            context.store.save(deployment=deployment._replace(refused=deployment.refused + 1))
        else:
            held = context.store.state.deployment
            if move is Action.COMPLETE or held is None or held.size < 0 or part.size >= held.size:
                return
            whole = False
            # Less than the rest came, as the answer announced; the next part is asked for at once.
            if not resume.is_progress(part.size - before, held.size):
                raise errors.TemporaryError(f"{host(deployment.uri)} sends too little at a time.")


def trusted(size: int) -> int:
    """Return how much of a part file can be believed after a power cut.

    Everything but the last megabyte was synced; what came after may be lost, or zeros.
    """
    return max(0, size - SYNC_BYTES)


def _request(context: Context, server: Server, part: "PartialDownload", known: OnDisk) -> Action:
    """Ask once, write what comes, and return what the answer was."""
    deployment = context.store.state.deployment
    if deployment is None:
        return Action.COMPLETE
    where = host(deployment.uri)
    with server.open_artifact(deployment.uri, known) as response:
        answer = resume.answer(response.status, response.headers)
        decision = resume.decide(answer, known)
        if decision.move in (Action.AGAIN, Action.WEAKER, Action.COMPLETE):
            return decision.move
        if decision.move is Action.EXPIRED:
            error = errors.TemporaryError(
                f"{where} answered {answer.status} to a fresh link; the next run asks again."
            )
            raise errors.Needs("check-update", error)
        if decision.move is Action.ENCODED:
            raise errors.InvalidResponse(
                f"Something before {where} compresses the artifact on the way; switch it off."
            )
        if decision.move is Action.REFUSED:
            raise server.artifact_error(deployment.uri, response)
        pieces = response.pieces()
        if decision.move is Action.FRESH:
            pieces = _artifact(response, pieces)
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
            part.truncate(decision.start)
            spliced = deployment.spliced or not resume.is_certain(answer, known)
            deployment = deployment._replace(size=decision.size, spliced=spliced)
            log.info("Resuming at %s of %s.", in_words(part.size), in_words(decision.size))
        context.store.save(deployment=deployment)
        _write(context, pieces, part, decision)
    return decision.move


def _artifact(response: Response, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an artifact again, once its beginning has been seen.

    Raises `errors.InvalidResponse` for a page or an error that was answered with 200: it must not replace the
    bytes on disk.
    """
    beginning = b""
    for piece in pieces:
        beginning += piece
        if len(beginning) >= len(resume.MAGIC):
            break
    if not beginning.startswith(resume.MAGIC):
        kind = response.headers.get("content-type", "no content type")[:60]
        raise errors.InvalidResponse(
            f"{host(response.url)} answered {response.status} with {kind!r}, not an artifact; check the "
            "storage, and that no portal is in between."
        )
    return chain((beginning,), pieces)


def _write(
    context: Context, pieces: Iterator[bytes], part: "PartialDownload", decision: resume.Decision
) -> None:
    """Write the body, and raise `errors.TemporaryError` if it ends before it should."""
    size, end = decision.size, decision.end
    part.make_room(size)
    try:
        for piece in pieces:
            part.append(piece)
            if part.size > end >= 0:
                part.truncate(0)
                raise errors.InvalidResponse(
                    "The artifact is longer than its server said; look at the storage."
                )
            context.progress(part.size, size)
        if part.size < end:
            raise errors.TemporaryError("Connection lost; the next run will resume.")
    except (errors.TemporaryError, errors.DeadlineExceeded) as error:
        total = in_words(size) if size >= 0 else "an unknown size"
        raise type(error)(f"At {in_words(part.size)} of {total}: {error}") from error


def in_words(size: int) -> str:
    """Write a size for people."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 100_000 else f"{size / 1e6:.1f} MB"


class PartialDownload:
    """`artifact.part`: written behind its end, synced every megabyte."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.started_over = False
        try:
            # What is handed off must be what was verified, so nobody else may hold it open for writing.
            self._descriptor = disk.open_own(path, os.O_RDWR)
            self.size = os.fstat(self._descriptor).st_size
            if self.size:
                # Whoever wrote this may have been killed before it was synced.
                os.fsync(self._descriptor)
        except OSError as error:
            raise disk.failure(f"open {path}", error) from error
        self._synced = self.size

    def close(self) -> None:
        """Sync what was written and close; an error here has nobody left to act on it."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            log.warning("%s", disk.failure(f"sync {self.path}", error))
        finally:
            os.close(self._descriptor)

    def make_room(self, size: int) -> None:
        """Raise `errors.NoSpace` if the rest of the object, and the state after it, will not fit."""
        disk.require_file_size(self.path, size)
        missing = max(size - self.size, 0) + disk.STATE_RESERVE
        try:
            free = disk.free(self._descriptor)
        except OSError as error:
            raise disk.failure(f"look for room beside {self.path}", error) from error
        if not free:  # not a byte, or not an inode
            raise disk.failure(f"write {self.path}", OSError(errno.ENOSPC, "", self.path))
        if free < missing:
            raise errors.NoSpace(
                f"No room for the artifact: {in_words(missing)} are needed in {os.path.dirname(self.path)}, "
                f"{in_words(free)} are free; make room, and the next run will resume."
            )

    def append(self, piece: bytes) -> None:
        """Write behind the end; raises `errors.NoSpace` or `errors.DiskError`, and what fitted stays."""
        view = memoryview(piece)
        try:
            if self.size + len(piece) - self._synced > SYNC_BYTES:
                os.fsync(self._descriptor)
                self._synced = self.size
            while view:
                written = os.write(self._descriptor, view)
                self.size += written
                view = view[written:]
        except OSError as error:
            raise disk.failure(f"write {self.path}", error) from error
        self.make_room(0)

    def truncate(self, size: int) -> None:
        """Cut the file."""
        try:
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
        except OSError as error:
            raise disk.failure(f"cut {self.path}", error) from error
        self.size = self._synced = size

    def start_over(self) -> None:
        """Throw away what is there; an attempt that has to is one without a new byte, whatever it brings.

        Raises `errors.InvalidResponse` the second time: such an attempt would never end.
        """
        if self.size and self.started_over:
            raise errors.InvalidResponse(
                "The storage gives the same object in parts that do not fit; check it."
            )
        self.started_over = self.started_over or self.size > 0
        self.truncate(0)

    def finish(self, target: str) -> None:
        """Give the complete file its final name, durably."""
        try:
            os.fsync(self._descriptor)
            os.replace(self.path, target)
            disk.sync_directory(os.path.dirname(target))
        except OSError as error:
            raise disk.failure(f"write {target}", error) from error
