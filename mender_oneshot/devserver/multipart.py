"""Takes a multipart/form-data body apart as it comes in, without ever holding a whole file."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser

from .validation import Refusal

FIELD_LIMIT = 1024 * 1024


class Stream:
    """A buffered view of the body."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def until(self, mark: bytes) -> Iterator[bytes]:
        """The bytes before `mark`, piece by piece, then step over it; 400 when it never comes."""
        while True:
            at = self._buffer.find(mark)
            if at >= 0:
                found, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
                yield found
                return
            # The mark may have begun in what we have: keep that much.
            safe = max(0, len(self._buffer) - len(mark) + 1)
            found, self._buffer = self._buffer[:safe], self._buffer[safe:]
            yield found
            chunk = next(self._chunks, b"")
            if not chunk:
                raise Refusal(400, "multipart: NextPart: EOF")
            self._buffer += chunk

    def small(self, mark: bytes) -> bytes:
        """The bytes before `mark` at once, if they are not too many."""
        return self.whole(self.until(mark))

    def whole(self, pieces: Iterator[bytes]) -> bytes:
        """All of the pieces, if they are not too many."""
        parts, size = [], 0
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size > FIELD_LIMIT:
                raise Refusal(400, "form field too large")
        return b"".join(parts)


@dataclass
class Part:
    """The file in a form on its way in: the name it was sent with, the fields before it, its bytes."""

    filename: str
    fields: dict[str, str]
    pieces: Iterator[bytes]


def parse(
    content_type: str, chunks: Iterator[bytes], file_field: str, receive: Callable[[Part], None]
) -> dict[str, str]:
    """The small fields; the field called `file_field` goes to `receive` when it comes, which may be never."""
    kind, _, rest = content_type.partition(";")
    boundary = re.search(r'boundary="?([^";]+)"?', rest)
    if kind.strip().lower() not in ("multipart/form-data", "multipart/mixed") or not boundary:
        raise Refusal(415, "Bad Content-Type, expected 'multipart/form-data', 'multipart/mixed'")
    line = b"--" + boundary[1].strip().encode()
    stream = Stream(chunks)
    fields: dict[str, str] = {}
    received = False
    stream.small(line)
    while stream.small(b"\r\n").strip() != b"--":
        head = stream.small(b"\r\n\r\n")
        name = str(BytesHeaderParser().parsebytes(head).get_param("name", "", "Content-Disposition"))
        pieces = stream.until(b"\r\n" + line)
        if name == file_field and not received:
            received = True
            receive(Part(_filename(head), fields, pieces))
            for _ in pieces:
                pass
        else:
            fields[name] = stream.whole(pieces).decode("utf-8", "surrogateescape")
    return fields


def _filename(head: bytes) -> str:
    """The name of a part's file as Go has it: without directories, its bytes kept; `email` loses some."""
    found = re.search(rb'filename="((?:[^"\\]|\\.)*)"', head)
    name = re.sub(rb"\\(.)", rb"\1", found[1]) if found else b""
    return name.decode("utf-8", "surrogateescape").rpartition("/")[2]
