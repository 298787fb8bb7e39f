"""Download the artifact of `install URL`, which no server offers and which gets no token."""

import logging
import time

from .. import artifact_body, disk, errors, resume
from ..context import Progress
from ..early_check import EarlyCheck
from ..partial_download import PartialDownload
from ..paths import BY_HAND_ARTIFACT
from ..resume import Action, OnDisk
from ..server import Server
from ..settings import Settings
from ..url import host, origin

RETRY_SECONDS = 1.0
"""Between two attempts, if the connection was lost."""

log = logging.getLogger(__name__)


def download(settings: Settings, url: str, progress: Progress) -> str:
    """Download an artifact to the data directory and return its path; the file is durable.

    Resumes after a lost connection, until `RetryDownloadCount` attempts in a row have brought nothing. A file
    that an earlier call has left is replaced; after an error there is none. Raises `errors.UsageError` for an
    invalid URL, and what kept the download from being completed.
    """
    if origin(url) is None:
        raise errors.UsageError(f"The URL of the artifact is not valid ({host(url)}); correct it.")
    if url.lower().startswith("http:") and not settings.artifact_verify_keys:
        log.warning(
            "The artifact comes over plain http and no ArtifactVerifyKey is set, so it may be replaced on "
            "the network; use https, or set ArtifactVerifyKey."
        )
    path = settings.places.data(BY_HAND_ARTIFACT)
    disk.remove(path)
    server, part = Server(settings, url), PartialDownload(path)
    try:
        _Download(settings, server, url, part, progress).complete()
    except BaseException:
        disk.remove(path)
        raise
    finally:
        part.close()
        server.close()
    return path


class _Download:
    """One download: the file, and what is known of the object that its bytes are from."""

    def __init__(
        self, settings: Settings, server: Server, url: str, part: PartialDownload, progress: Progress
    ) -> None:
        self._settings = settings
        self._server = server
        self._url = url
        self._part = part
        self._progress = progress
        self._known = OnDisk()

    def complete(self) -> None:
        """Request the rest until everything is on disk."""
        stalls, allowed = 0, max(self._settings.retry_download_count, 1)
        while True:
            before, lost = self._part.size, None
            try:
                if self._request():
                    return
            except errors.TemporaryError as error:
                # No run repeats this command.
                why = str(error).replace("the next run will retry", "try again later")
                lost = errors.NetworkError(why)
                lost.word = error.word
                if error.host or not self._part.size:
                    raise lost from error  # the host has answered that it is busy, or cannot be reached
            brought = self._part.size - before
            stalls = 0 if resume.is_progress(brought, self._known.size) else stalls + 1
            if stalls >= allowed:
                raise errors.NetworkError(
                    f"Giving up on the artifact at {host(self._url)} after {stalls} attempts without progress"
                    f"{f': {lost}' if lost else '; check that host'}"
                ) from lost
            if lost:
                log.info("Resuming the download: %s", lost)
                time.sleep(RETRY_SECONDS)

    def _request(self) -> bool:
        """Send one request and write its answer; return whether everything is on disk."""
        known = self._known._replace(offset=self._part.size)
        with self._server.open_artifact(self._url, known, role="") as response:
            answer = resume.answer(response.status, response.headers)
            decision = resume.decide(answer, known)
            if decision.move is Action.COMPLETE:
                return True
            if decision.move is Action.AGAIN:
                self._part.start_over()
                self._known = OnDisk()
                return False
            if decision.move is Action.WEAKER:
                self._known = known._replace(refused=known.refused + 1)
                return False
            if decision.move is Action.ENCODED:
                raise errors.InvalidResponse(
                    f"A proxy in front of {host(self._url)} compresses the artifact (Content-Encoding); "
                    "disable that."
                )
            if decision.move is Action.FRESH:
                pieces = artifact_body.beginning_checked(response)
                self._part.start_over()
                refused = resume.still_refused(known, decision.size, answer)
                self._known = OnDisk(0, decision.size, answer.etag, answer.last_modified, refused)
            elif decision.move is Action.APPEND:
                pieces = response.pieces()
                self._part.truncate(decision.start)
                self._known = known._replace(size=decision.size)
            else:
                raise self._server.artifact_error(self._url, response)
            artifact_body.append(pieces, self._part, decision, EarlyCheck(self._settings), self._progress)
        return self._known.size < 0 or self._part.size >= self._known.size
