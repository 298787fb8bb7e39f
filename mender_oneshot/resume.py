"""What to do with the answer to a request for an artifact: append, start over, or something else.

Pure: functions of the headers and of what is on disk. A splice of two objects must be impossible, so every
doubt means starting over. RFC 9110: sections 8.8.3 (ETag), 13.1.5 (If-Range), 14.4 (Content-Range).
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

MAX_SIZE = 1 << 50
LONGEST_VALUE = 512


class Answer(NamedTuple):
    """The part of an HTTP answer that matters; header values as sent, "" where absent."""

    status: int
    length: str = ""
    content_range: str = ""
    etag: str = ""
    last_modified: str = ""
    encoding: str = ""


def answer(status: int, headers: Mapping[str, str]) -> Answer:
    """Pick what matters out of an answer's headers, their names in lower case."""
    names = ("content-length", "content-range", "etag", "last-modified", "content-encoding")
    return Answer(status, *(_one_line(headers.get(name, "")) for name in names))


def _one_line(value: str) -> str:
    """Return a header's value if it is a short line; a folded, long or unprintable one counts as absent."""
    value = value.strip(" \t")
    return value if len(value) <= LONGEST_VALUE and value.isprintable() else ""


class Known(NamedTuple):
    """What we have: the bytes on disk, and what was remembered of the object they came from."""

    offset: int = 0
    size: int = -1
    etag: str = ""
    last_modified: str = ""


class Move(Enum):
    """What to do next."""

    APPEND = "write the body behind the bytes on disk"
    FRESH = "write the body from the first byte on"
    AGAIN = "forget the bytes on disk and ask for the whole object"
    COMPLETE = "everything is on disk"
    EXPIRED = "ask the server for a new link"
    ENCODED = "something on the way changed the body's encoding"
    REFUSED = "nothing that an artifact could come from"


class Decision(NamedTuple):
    """A move, and the size of the whole object in bytes (-1: unknown)."""

    move: Move
    size: int = -1


def validator(known: Known) -> str:
    """Return what `If-Range` can hold: a strong ETag, else the date, else "": then nothing may be resumed."""
    if known.etag.startswith('"') and known.etag.endswith('"') and len(known.etag) > 1:
        return known.etag
    return known.last_modified


def can_resume(known: Known) -> bool:
    """Say whether asking for the rest makes sense."""
    return known.offset > 0 and known.size >= 0 and validator(known) != ""


def decide(answer: Answer, known: Known) -> Decision:
    """Decide what to do with an answer; `known.offset` is 0 where the whole object was asked for."""
    if answer.status in (403, 404, 410):
        return Decision(Move.EXPIRED)
    if answer.status == 416 and known.offset:
        total = unsatisfied_range(answer.content_range)
        return Decision(Move.COMPLETE if known.offset == total == known.size else Move.AGAIN, known.size)
    if answer.status not in (200, 206):
        return Decision(Move.REFUSED)
    if answer.encoding.lower() not in ("", "identity"):
        return Decision(Move.ENCODED)
    if answer.status == 200:
        return Decision(Move.FRESH, content_length(answer.length))
    if not known.offset:
        return Decision(Move.REFUSED)
    return Decision(Move.APPEND if _continues(answer, known) else Move.AGAIN, known.size)


def _continues(answer: Answer, known: Known) -> bool:
    """Say whether a 206 is the rest of the very object whose beginning is on disk."""
    span = content_range(answer.content_range)
    if span is None or span != (known.offset, known.size - 1, known.size):
        return False
    if answer.length and content_length(answer.length) != known.size - known.offset:
        return False
    # Each of the two that both sides name has to agree; a weak ETag alone says nothing of bytes.
    return all(
        ours == theirs
        for ours, theirs in ((known.etag, answer.etag), (known.last_modified, answer.last_modified))
        if ours and theirs
    )


def content_length(text: str) -> int:
    """Read `Content-Length`; -1 for anything that is not a plausible number of bytes."""
    text = text.strip()
    if not re.fullmatch("[0-9]{1,19}", text):
        return -1
    return int(text) if int(text) <= MAX_SIZE else -1


def content_range(text: str) -> tuple[int, int, int] | None:
    """Read `Content-Range: bytes first-last/size`; None for anything else, "*" as the size included."""
    found = re.fullmatch(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", text.strip(), re.IGNORECASE)
    if found is None:
        return None
    first, last, size = (int(number) for number in found.groups())
    return (first, last, size) if first <= last < size <= MAX_SIZE else None


def unsatisfied_range(text: str) -> int:
    """Read the size in `Content-Range: bytes */size` of a 416; -1 for anything else."""
    found = re.fullmatch(r"bytes \*/([0-9]{1,19})", text.strip(), re.IGNORECASE)
    return int(found[1]) if found else -1
