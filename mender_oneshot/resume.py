"""Decide what to do with the response to a request for an artifact: append it, start over, or fail.

Pure functions of the headers and of what is on disk. A partial download is continued unless the response
contradicts it: the artifact has its own checksums, and if they fail after it was continued without a strong
validator, it is downloaded again, once. RFC 9110: sections 8.8.3 (ETag), 13.1.5 (If-Range), 14.4
(Content-Range).
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

MAX_SIZE = 1 << 50
LONGEST_VALUE = 512
ENOUGH = 32768
MAGIC = b"version"
"""The first bytes of every artifact: the name of its first member."""


class Answer(NamedTuple):
    """The parts of a response that the decision needs: header values as sent, "" if absent."""

    status: int
    length: str = ""
    content_range: str = ""
    etag: str = ""
    last_modified: str = ""
    encoding: str = ""


def answer(status: int, headers: Mapping[str, str]) -> Answer:
    """Return the `Answer` for a status and headers, whose names are in lower case.

    Transfer-Encoding overrides Content-Length (RFC 9112 section 6.3).
    """
    names = ("content-length", "content-range", "etag", "last-modified", "content-encoding")
    picked = Answer(status, *(_one_line(headers.get(name, "")) for name in names))
    return picked._replace(length="") if "transfer-encoding" in headers else picked


def _one_line(value: str) -> str:
    """Return a header value, or "" (absent) if it is folded, too long or not printable."""
    value = value.strip(" \t")
    return value if len(value) <= LONGEST_VALUE and value.isprintable() else ""


class OnDisk(NamedTuple):
    """A partial download: the number of bytes on disk, and what is known of the object they are from."""

    offset: int = 0
    size: int = -1  # of the whole object in bytes; -1: unknown
    etag: str = ""
    last_modified: str = ""
    refused: int = 0  # how many conditions, strongest first, the hosts of this object have ignored


class Action(Enum):
    """What to do next."""

    APPEND = "append the body to the bytes on disk"
    FRESH = "write the body from the first byte"
    AGAIN = "discard the bytes on disk and request the whole object"
    WEAKER = "request the rest again, with the next condition"
    COMPLETE = "everything is on disk"
    EXPIRED = "request a new link from the server"
    ENCODED = "a proxy changed the encoding of the body"
    REFUSED = "the response contains no artifact"


class Decision(NamedTuple):
    """An action, the size of the whole object, and the part of it that the body contains, in bytes."""

    move: Action
    size: int = -1  # -1: unknown
    start: int = 0
    end: int = -1  # the byte after the last one; -1: unknown


def conditions(known: OnDisk) -> list[str]:
    """Return the possible values of `If-Range`, strongest first; "" means a range without a condition.

    They are a strong ETag, the date, and nothing, and are tried in turn: nodes of a CDN have different ETags,
    and some answer 200 to any ETag. The artifact's own checksums decide in the end. A range without a
    condition requires that the size is known, because only the size then tells one object from another.
    """
    found = []
    if known.etag.startswith('"') and known.etag.endswith('"') and len(known.etag) > 1:
        found.append(known.etag)
    if known.last_modified:
        found.append(known.last_modified)
    if known.size >= 0:
        found.append("")
    return found


def condition(known: OnDisk) -> str | None:
    """Return the next condition to try, or None if the rest cannot be requested."""
    left = conditions(known)[known.refused :]
    return left[0] if known.offset > 0 and left else None


def can_resume(known: OnDisk) -> bool:
    """Return whether the rest of the object can be requested."""
    return condition(known) is not None


def still_refused(known: OnDisk, size: int, answer: Answer) -> int:
    """Return how many conditions to skip for an object that is downloaded from its first byte again.

    If a host ignored all conditions for an object of the same size, only the last one is tried next time.
    """
    if not known.offset or size != known.size:
        return 0
    return max(0, len(conditions(OnDisk(0, size, answer.etag, answer.last_modified))) - 1)


def is_strong(known: OnDisk) -> bool:
    """Return whether the next condition is a strong ETag, which identifies the object."""
    return bool(known.etag) and condition(known) == known.etag


def is_certain(answer: Answer, known: OnDisk) -> bool:
    """Return whether a range is certainly of the object on disk: the answer repeats its strong ETag.

    A host that does not support `If-Range` sends the rest of any newer object, often without an ETag.
    """
    return is_strong(known) and answer.etag == known.etag


def is_progress(brought: int, size: int) -> bool:
    """Return whether an attempt downloaded enough to count as progress: 1 % of the object, or 32 KiB.

    `brought` and `size` are in bytes. Without this limit, a host that sends one byte per attempt, or an
    endless object of unknown size, would keep a deployment in progress forever.
    """
    return size >= 0 and brought >= min(ENOUGH, max(1, size // 100))


def decide(answer: Answer, known: OnDisk) -> Decision:
    """Decide what to do with a response; `known.offset` is 0 if the whole object was requested."""
    if answer.status in (400, 401, 403, 404, 410):
        return Decision(Action.EXPIRED)
    if answer.status == 416 and known.offset:
        total = unsatisfied_range(answer.content_range)
        return Decision(Action.COMPLETE if known.offset == total == known.size else Action.AGAIN)
    if answer.status not in (200, 203, 206):
        return Decision(Action.REFUSED)
    if answer.encoding.lower() not in ("", "identity"):
        return Decision(Action.ENCODED)
    if answer.status != 206:
        return _decide_whole(answer, known)
    return _decide_rest(answer, known) if known.offset else _decide_first_part(answer)


def _decide_whole(answer: Answer, known: OnDisk) -> Decision:
    """Decide about a 200 or 203: the whole object, perhaps in answer to a range."""
    size = content_length(answer.length)
    if known.offset and size == known.size >= 0 and _has_weaker(known):
        return Decision(Action.WEAKER)
    return Decision(Action.FRESH, size, 0, size)


def _decide_first_part(answer: Answer) -> Decision:
    """Decide about a 206 although the whole object was requested; its first bytes are of use."""
    span = content_range(answer.content_range)
    if span is None:
        return Decision(Action.REFUSED)
    first, last, size = span
    if first or size < 0:
        return Decision(Action.REFUSED)
    return Decision(Action.FRESH, size, 0, last + 1)


def _decide_rest(answer: Answer, known: OnDisk) -> Decision:
    """Decide about a 206 in answer to a range."""
    span = content_range(answer.content_range)
    if span is None:
        return Decision(Action.AGAIN)
    first, last, size = span
    if not _fits(answer, known, first, last, size):
        return Decision(Action.AGAIN)
    if not _agrees(answer, known):
        return Decision(Action.WEAKER if _has_weaker(known) else Action.AGAIN)
    return Decision(Action.APPEND, known.size if known.size >= 0 else size, first, last + 1)


def _has_weaker(known: OnDisk) -> bool:
    return can_resume(known._replace(refused=known.refused + 1))


def _agrees(answer: Answer, known: OnDisk) -> bool:
    """Return whether the validator that was sent as condition is unchanged or missing in the answer."""
    asked = condition(known)
    theirs = answer.etag if is_strong(known) else answer.last_modified
    return not asked or not theirs or asked == theirs


def _fits(answer: Answer, known: OnDisk, first: int, last: int, size: int) -> bool:
    """Return whether a 206 joins the bytes on disk; it may overlap them, and end before the object does."""
    total = known.size if known.size >= 0 else size
    if first > known.offset or last < known.offset or not last < total or size not in (-1, total):
        return False
    return not answer.length or content_length(answer.length) == last - first + 1


def content_length(text: str) -> int:
    """Return `Content-Length` in bytes, or -1 if it is missing, invalid or larger than `MAX_SIZE`.

    A list that repeats one number is that number (RFC 9110 section 8.6).
    """
    values = {value.strip() for value in text.split(",")}
    text = values.pop()
    if values or not re.fullmatch("[0-9]{1,19}", text):
        return -1
    return int(text) if int(text) <= MAX_SIZE else -1


def content_range(text: str) -> tuple[int, int, int] | None:
    """Return first, last and size of `Content-Range: bytes first-last/size`; -1 for an unknown size ("*").

    Accepts the spellings that curl accepts: "bytes=", and no unit. Returns None for anything else.
    """
    pattern = r"(?:bytes)?[\s:=]*([0-9]{1,19})\s*-\s*([0-9]{1,19})\s*/\s*([0-9]{1,19}|\*)"
    found = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    size = -1 if found[3] == "*" else int(found[3])
    return (first, last, size) if first <= last < (MAX_SIZE if size < 0 else size) <= MAX_SIZE else None


def unsatisfied_range(text: str) -> int:
    """Return the size in `Content-Range: bytes */size` of a 416, or -1 for anything else."""
    found = re.fullmatch(r"(?:bytes)?[\s:=]*\*\s*/\s*([0-9]{1,19})", text.strip(), re.IGNORECASE)
    return int(found[1]) if found else -1
