"""Read HTTP response heads within limits that apply to the whole head.

`http.client` limits only the length of a line and the number of lines in a block. It skips only the interim
response 100, although a client must skip all of them (RFC 9110 section 15.2), puts no limit on the number of
interim responses and trailers, and takes the first of several lengths.
"""

import http.client
import time
from typing import Any

HEAD_BYTES = 1 << 17
HEAD_SECONDS = 300.0
LONGEST_LINE = 1 << 16
FIRST_FINAL = 200


class HeadTooLarge(http.client.HTTPException):
    """The head of a response, including interim responses, or its trailers are over the limit."""


class Contradiction(http.client.HTTPException):
    """The head gives more than one Content-Length, so that the end of the body is not known."""


class _Head:
    """A stream of lines that is limited to `HEAD_BYTES` bytes and `HEAD_SECONDS` seconds in all."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._left = HEAD_BYTES
        self._end = time.monotonic() + HEAD_SECONDS

    def readline(self, limit: int) -> bytes:
        """Return the next line, or its first `limit` bytes, or b"" at the end.

        Raises `HeadTooLarge` or `TimeoutError` when the limits of the stream are exceeded.
        """
        line = b""
        while len(line) < limit and not line.endswith(b"\n"):
            ahead = self.stream.peek(1)  # blocks for one packet at most, so that the time limit is checked
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
        """Do nothing: `http.client` calls this, but the stream is only read."""

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()


class Reply(http.client.HTTPResponse):
    """A response that skips interim responses, for requests and for a proxy's CONNECT."""

    fp: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = _Head(self.fp)

    def begin(self) -> None:
        """Read the head with the limits of `_Head`; read the body from the stream itself."""
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):
                self.fp = self.fp.stream
        lengths = ",".join(self.headers.get_all("Content-Length", ()))
        if len({length.strip() for length in lengths.split(",")}) > 1:
            raise Contradiction

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
