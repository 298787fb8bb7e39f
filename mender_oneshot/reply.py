"""Reading the head of an HTTP answer within limits that hold for the whole of it.

`http.client` limits each line and the number of lines in a block. It skips no interim answer except 100,
though a client must skip them all (RFC 9110 section 15.2). It reads those and trailers without end.
"""

import http.client
import time
from typing import Any

HEAD_BYTES = 1 << 17
HEAD_SECONDS = 300.0
LONGEST_LINE = 1 << 16
FIRST_FINAL = 200


class HeadTooLarge(http.client.HTTPException):
    """The head of an answer, with its interim answers, or its trailers exceed the limit."""


class _Head:
    """A stream that yields lines, up to a number of bytes and of seconds in all."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._left = HEAD_BYTES
        self._end = time.monotonic() + HEAD_SECONDS

    def readline(self, limit: int) -> bytes:
        """Return the next line, its first `limit` bytes, or b"" at the end."""
        line = b""
        while len(line) < limit and not line.endswith(b"\n"):
            ahead = self.stream.peek(1)  # waits for one packet at most, so that the clock is looked at
            piece: bytes = self.stream.read(min(ahead.find(b"\n") + 1 or len(ahead), limit - len(line)))
            if not piece:
                break
            line += piece
            self._left -= len(piece)
            if self._left < 0:
                raise HeadTooLarge(f"more than {HEAD_BYTES} bytes")
            if time.monotonic() > self._end:
                raise TimeoutError
        return line

    def flush(self) -> None:
        """Do nothing: what is read needs no flush."""

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()


class Reply(http.client.HTTPResponse):
    """An answer whose interim answers are skipped, to a server's request and to a proxy's CONNECT."""

    fp: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = _Head(self.fp)

    def begin(self) -> None:
        """Read the head; what follows is read from the stream itself."""
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):
                self.fp = self.fp.stream

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            status = found[1]
            if status >= FIRST_FINAL or status == http.client.SWITCHING_PROTOCOLS:
                return found
            http.client.parse_headers(self.fp)

    def _read_and_discard_trailer(self) -> None:
        trailer = _Head(self.fp)
        while trailer.readline(LONGEST_LINE) not in (b"\r\n", b"\n", b""):
            pass
