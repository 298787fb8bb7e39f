"""What to do with the answer to a request for an artifact: append, start over, or something else.

Pure: functions of the headers and of what is on disk. Bytes are joined as long as nothing speaks against it:
the artifact has checksums of its own, and what was joined without a strong validator and fails them is
fetched anew, once. RFC 9110: sections 8.8.3 (ETag), 13.1.5 (If-Range), 14.4 (Content-Range).
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

MAX_SIZE = 1 << 50
LONGEST_VALUE = 512
ENOUGH = 32768
MAGIC = b"version"
"""How an artifact begins: with the name of its first member."""


class Answer(NamedTuple):
    """The part of an HTTP answer that matters; header values as sent, "" where absent."""

    status: int
    length: str = ""
    content_range: str = ""
    etag: str = ""
    last_modified: str = ""
    encoding: str = ""


def answer(status: int, headers: Mapping[str, str]) -> Answer:
    """Pick what matters out of an answer's headers, their names in lower case.

    Transfer-Encoding overrides Content-Length (RFC 9112 section 6.3).
    """
    names = ("content-length", "content-range", "etag", "last-modified", "content-encoding")
    picked = Answer(status, *(_one_line(headers.get(name, "")) for name in names))
    return picked._replace(length="") if "transfer-encoding" in headers else picked


def _one_line(value: str) -> str:
    """Return a header's value if it is a short line; a folded, long or unprintable one counts as absent."""
    value = value.strip(" \t")
    return value if len(value) <= LONGEST_VALUE and value.isprintable() else ""


class OnDisk(NamedTuple):
    """What we have: the bytes on disk, and what was remembered of the object they came from."""

    offset: int = 0
    size: int = -1
    etag: str = ""
    last_modified: str = ""
    refused: int = 0  # conditions, the strongest first, that this object's hosts have not honoured


class Action(Enum):
    """What to do next."""

    APPEND = "write the body behind the bytes on disk"
    FRESH = "write the body from the first byte on"
    AGAIN = "forget the bytes on disk and ask for the whole object"
    WEAKER = "ask for the rest again, under the next condition"
    COMPLETE = "everything is on disk"
    EXPIRED = "ask the server for a new link"
    ENCODED = "something on the way changed the body's encoding"
    REFUSED = "nothing that an artifact could come from"


class Decision(NamedTuple):
    """A move, the size of the whole object in bytes (-1: unknown), and the part of it that the body is."""

    move: Action
    size: int = -1
    start: int = 0
    end: int = -1  # the byte after the last one; -1: unknown


def conditions(known: OnDisk) -> list[str]:
    """Return what `If-Range` may hold, the strongest first; "" is a range without a condition.

    A strong ETag, the date, nothing. Nodes of a CDN have ETags of their own, and some answer 200 to any ETag,
    so each is tried in turn; the artifact's own checksums decide in the end. Without a condition only the
    length tells one object from another, so it has to be known.
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
    """Return the condition that comes next, None if the rest cannot be asked for."""
    left = conditions(known)[known.refused :]
    return left[0] if known.offset > 0 and left else None


def can_resume(known: OnDisk) -> bool:
    """Say whether asking for the rest makes sense."""
    return condition(known) is not None


def still_refused(known: OnDisk, size: int, answer: Answer) -> int:
    """Return how many conditions need no second try, now that the object is fetched from its first byte.

    A host that ignored them all is next asked under the last one only: its 200 is then of use at once.
    """
    if not known.offset or size != known.size:
        return 0
    return max(0, len(conditions(OnDisk(0, size, answer.etag, answer.last_modified))) - 1)


def is_strong(known: OnDisk) -> bool:
    """Say whether the next condition is a strong ETag, by which two objects cannot be mixed up."""
    return bool(known.etag) and condition(known) == known.etag


def is_certain(answer: Answer, known: OnDisk) -> bool:
    """Say whether the answer to a range is about the object on disk: it repeats the strong ETag asked for.

    A host that does not know `If-Range` sends the rest of whatever it has now, often without an ETag.
    """
    return is_strong(known) and answer.etag == known.etag


def is_progress(brought: int, size: int) -> bool:
    """Say whether an attempt brought enough bytes to count: a hundredth of the object, or 32 KiB.

    A host that gives one byte to each attempt, or an object of unknown size that never ends, would else hold
    a deployment for good.
    """
    return size >= 0 and brought >= min(ENOUGH, max(1, size // 100))


def decide(answer: Answer, known: OnDisk) -> Decision:
    """Decide what to do with an answer; `known.offset` is 0 where the whole object was asked for."""
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
        size = content_length(answer.length)
        if known.offset and size == known.size >= 0 and _has_weaker(known):
            return Decision(Action.WEAKER)
        return Decision(Action.FRESH, size, 0, size)
    span = content_range(answer.content_range)
    if span is None:
        return Decision(Action.AGAIN if known.offset else Action.REFUSED)
    first, last, size = span
    if not known.offset:
        return (
            Decision(Action.FRESH, size, 0, last + 1)
            if first == 0 and size >= 0
            else Decision(Action.REFUSED)
        )
    if not _fits(answer, known, first, last, size):
        return Decision(Action.AGAIN)
    if not _agrees(answer, known):
        return Decision(Action.WEAKER if _has_weaker(known) else Action.AGAIN)
    return Decision(Action.APPEND, known.size if known.size >= 0 else size, first, last + 1)


def _has_weaker(known: OnDisk) -> bool:
    return can_resume(known._replace(refused=known.refused + 1))


def _agrees(answer: Answer, known: OnDisk) -> bool:
    """Say whether what the condition was about has the same value in the answer, if the answer has it."""
    asked = condition(known)
    theirs = answer.etag if is_strong(known) else answer.last_modified
    return not asked or not theirs or asked == theirs


def _fits(answer: Answer, known: OnDisk, first: int, last: int, size: int) -> bool:
    """Say whether a 206 joins the bytes on disk; it may begin earlier, and end before the object does."""
    total = known.size if known.size >= 0 else size
    if first > known.offset or last < known.offset or not last < total or size not in (-1, total):
        return False
    return not answer.length or content_length(answer.length) == last - first + 1


def content_length(text: str) -> int:
    """Read `Content-Length`; -1 for anything that is not a plausible number of bytes.

    The same number several times, as a list, is that number (RFC 9110 section 8.6).
    """
    values = {value.strip() for value in text.split(",")}
    text = values.pop()
    if values or not re.fullmatch("[0-9]{1,19}", text):
        return -1
    return int(text) if int(text) <= MAX_SIZE else -1


def content_range(text: str) -> tuple[int, int, int] | None:
    """Read `Content-Range: bytes first-last/size` as three numbers, -1 for an unknown size ("*").

    The spellings that curl accepts: "bytes=", and no unit. None for anything else.
    """
    pattern = r"(?:bytes)?[\s:=]*([0-9]{1,19})\s*-\s*([0-9]{1,19})\s*/\s*([0-9]{1,19}|\*)"
    found = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    size = -1 if found[3] == "*" else int(found[3])
    return (first, last, size) if first <= last < (MAX_SIZE if size < 0 else size) <= MAX_SIZE else None


def unsatisfied_range(text: str) -> int:
    """Read the size in `Content-Range: bytes */size` of a 416; -1 for anything else."""
    found = re.fullmatch(r"(?:bytes)?[\s:=]*\*\s*/\s*([0-9]{1,19})", text.strip(), re.IGNORECASE)
    return int(found[1]) if found else -1
