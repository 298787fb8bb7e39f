"""Parses a multipart/form-data body while it arrives, without holding a whole file in memory."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser

from .validation import HTTPError

FIELD_LIMIT = 1024 * 1024


class BodyReader:
    """A buffered reader of the body; raises HTTPError 400 if the body ends too early."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def pieces_until(self, mark: bytes) -> Iterator[bytes]:
        """Yield the bytes before `mark`, piece by piece, and consume the mark."""
        while True:
            at = self._buffer.find(mark)
            if at >= 0:
                found, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
                yield found
                return
            # The end of the buffer may be the beginning of the mark, so keep that much.
            safe = max(0, len(self._buffer) - len(mark) + 1)
            found, self._buffer = self._buffer[:safe], self._buffer[safe:]
            yield found
            chunk = next(self._chunks, b"")
            if not chunk:
                raise HTTPError(400, "multipart: NextPart: EOF")
            self._buffer += chunk

    def read_until(self, mark: bytes) -> bytes:
        """Return the bytes before `mark`, at most `FIELD_LIMIT`; raise HTTPError 400."""
        return self.collect(self.pieces_until(mark))

    def collect(self, pieces: Iterator[bytes]) -> bytes:
        """Return all of the pieces, at most `FIELD_LIMIT` bytes; raise HTTPError 400."""
        parts, size = [], 0
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size > FIELD_LIMIT:
                raise HTTPError(400, "form field too large")
        return b"".join(parts)


@dataclass
class Part:
    """The file of a form while it arrives: its name, the fields before it, its bytes."""

    filename: str
    fields: dict[str, str]
    pieces: Iterator[bytes]


def parse(
    content_type: str, chunks: Iterator[bytes], file_field: str, receive: Callable[[Part], None]
) -> dict[str, str]:
    """Return the small fields; pass the first field called `file_field` to `receive` when it arrives.

    `receive` is not called if there is no such field. Raise HTTPError 415 for another Content-Type, and 400
    for a malformed form or a field that is too large.
    """
    kind, _, rest = content_type.partition(";")
    boundary = re.search(r'boundary="?([^";]+)"?', rest)
    if kind.strip().lower() not in ("multipart/form-data", "multipart/mixed") or not boundary:
        raise HTTPError(415, "Bad Content-Type, expected 'multipart/form-data', 'multipart/mixed'")
    delimiter = b"--" + boundary[1].strip().encode()
    reader = BodyReader(chunks)
    fields: dict[str, str] = {}
    received = False
    reader.read_until(delimiter)
    while reader.read_until(b"\r\n").strip() != b"--":
        head = reader.read_until(b"\r\n\r\n")
        name = str(BytesHeaderParser().parsebytes(head).get_param("name", "", "Content-Disposition"))
        pieces = reader.pieces_until(b"\r\n" + delimiter)
        if name == file_field and not received:
            received = True
            receive(Part(_filename(head), fields, pieces))
            for _ in pieces:
                pass
        else:
            fields[name] = reader.collect(pieces).decode("utf-8", "surrogateescape")
    return fields


def _filename(head: bytes) -> str:
    """Return a part's file name as Go does: without directories, its bytes kept (`email` loses some)."""
    found = re.search(rb'filename="((?:[^"\\]|\\.)*)"', head)
    name = re.sub(rb"\\(.)", rb"\1", found[1]) if found else b""
    return name.decode("utf-8", "surrogateescape").rpartition("/")[2]
