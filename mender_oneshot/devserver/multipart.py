"""Takes a multipart/form-data body apart as it comes in, without ever holding a whole file."""

import re
from collections.abc import Callable, Iterator
from email.parser import BytesHeaderParser
from pathlib import Path

from mender_oneshot.devserver.rules import Refusal

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
        parts, size = [], 0
        for piece in self.until(mark):
            parts.append(piece)
            size += len(piece)
            if size > FIELD_LIMIT:
                raise Refusal(400, "form field too large")
        return b"".join(parts)


def parse(
    content_type: str, chunks: Iterator[bytes], file_field: str, receive: Callable[[Iterator[bytes]], Path]
) -> tuple[dict[str, str], Path | None]:
    """The small fields, and what `receive` made of the field called `file_field`."""
    kind, _, rest = content_type.partition(";")
    boundary = re.search(r'boundary="?([^";]+)"?', rest)
    if kind.strip().lower() not in ("multipart/form-data", "multipart/mixed") or not boundary:
        raise Refusal(415, "Bad Content-Type, expected 'multipart/form-data', 'multipart/mixed'")
    line = b"--" + boundary[1].strip().encode()
    stream = Stream(chunks)
    fields: dict[str, str] = {}
    received: Path | None = None
    try:
        stream.small(line)
        while stream.small(b"\r\n").strip() != b"--":
            headers = BytesHeaderParser().parsebytes(stream.small(b"\r\n\r\n"))
            name = str(headers.get_param("name", "", "Content-Disposition"))
            if name == file_field and received is None:
                received = receive(stream.until(b"\r\n" + line))
            else:
                fields[name] = stream.small(b"\r\n" + line).decode(errors="replace")
    except Refusal:
        if received:
            received.unlink()
        raise
    return fields, received
