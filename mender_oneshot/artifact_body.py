"""Write the body of a response to the disk, if it is that of an artifact."""

from collections.abc import Iterator
from itertools import chain

from . import errors, resume
from .context import Progress
from .early_check import EarlyCheck
from .partial_download import PartialDownload, in_words
from .resume import Decision
from .transport import Response, host


def beginning_checked(response: Response) -> Iterator[bytes]:
    """Return the pieces of a body, after a check that they begin like an artifact.

    Raises `errors.InvalidResponse` otherwise: a web page or an error with status 200 must not replace the
    bytes on disk.
    """
    pieces, beginning = response.pieces(), b""
    for piece in pieces:
        beginning += piece
        if len(beginning) >= len(resume.MAGIC):
            break
    if not beginning.startswith(resume.MAGIC):
        kind = response.headers.get("content-type", "no content type")[:60]
        raise errors.InvalidResponse(
            f"{host(response.url)} answered {response.status} with {kind!r}, not an artifact; check the "
            "storage, and that no captive portal intercepts the connection."
        )
    return chain((beginning,), pieces)


def append(
    pieces: Iterator[bytes],
    part: PartialDownload,
    decision: Decision,
    early: EarlyCheck | None,
    progress: Progress,
) -> None:
    """Append a body; raises `errors.TemporaryError` if it is too short, `InvalidResponse` if too long.

    Raises the errors of `EarlyCheck.look` as soon as the header is there.
    """
    size, end = decision.size, decision.end
    part.make_room(size)
    try:
        for piece in pieces:
            part.append(piece)
            if part.size > end >= 0:
                part.truncate(0)
                raise errors.InvalidResponse(
                    "The artifact is longer than announced; check the artifact storage."
                )
            if early:
                early.look(part.descriptor, part.size, size - part.size)
            progress(part.size, size)
        if part.size < end:
            raise errors.NetworkError("Connection lost; the next attempt will resume.")
    except (errors.TemporaryError, errors.DeadlineExceeded) as error:
        total = in_words(size) if size >= 0 else "an unknown size"
        raise type(error)(f"At {in_words(part.size)} of {total}: {error}") from error
