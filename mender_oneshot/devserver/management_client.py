"""A client of the management API, for the commands."""

import base64
import http.client
import json
import os
import secrets
import ssl
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .management_api import LOGIN, PER_PAGE_LIMIT
from .management_deployments import ARTIFACTS
from .running_server import Endpoint

_SECONDS = 60.0
_CHUNK = 1024 * 1024


class Failed(Exception):
    """A command failed; the text is a sentence for the user, `code` the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Rejected(Exception):
    """The server answered with an error; the text is that of the server."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ManagementClient:
    """A user who is logged in at a server.

    All methods raise Rejected for an answer with an error, and Failed (69) if the server does not answer.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        login = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
        token = self._send("POST", LOGIN, {"Authorization": f"Basic {login}"}, b"")[0].decode()
        self._authorization = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        """Return the JSON of an endpoint."""
        return json.loads(self._send("GET", path, self._authorization)[0])

    def text(self, path: str) -> str:
        """Return the text of an endpoint."""
        return self._send("GET", path, self._authorization)[0].decode(errors="replace")

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list that the server splits into pages."""
        number = 1
        while items := self.get(f"{path}?page={number}&per_page={PER_PAGE_LIMIT}"):
            yield from items
            number += 1

    def send(self, method: str, path: str, body: dict[str, Any]) -> str:
        """Send JSON; return the id at the end of the Location header, empty if there is none."""
        headers = self._authorization | {"Content-Type": "application/json"}
        return self._send(method, path, headers, json.dumps(body).encode())[1]

    def upload(self, path: Path) -> str:
        """Upload an artifact piece by piece and return its id; raise OSError if the file cannot be read."""
        with open(path, "rb") as file:
            boundary = secrets.token_hex(16)
            head = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="artifact"; filename="artifact.mender"'
                "\r\nContent-Type: application/octet-stream\r\n\r\n"
            ).encode()
            tail = f"\r\n--{boundary}--\r\n".encode()
            size = os.fstat(file.fileno()).st_size
            headers = self._authorization | {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head) + size + len(tail)),
            }
            return self._send("POST", ARTIFACTS, headers, _pieces(head, file, tail))[1]

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | Iterator[bytes] | None = None
    ) -> tuple[bytes, str]:
        """Return the body of the answer and the last part of its Location header."""
        connection = self._connection()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            text = f"The server {self._endpoint.url} does not answer ({reason}); check its output."
            raise Failed(text, os.EX_UNAVAILABLE) from None
        finally:
            connection.close()
        if answer.status >= 400:
            raise Rejected(answer.status, _error_text(content, answer.reason))
        return content, answer.getheader("Location", "").rpartition("/")[2]

    def _connection(self) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self._endpoint.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_SECONDS)
        context = ssl.create_default_context(cafile=self._endpoint.ca)
        return http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)


def _pieces(head: bytes, file: IO[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from iter(lambda: file.read(_CHUNK), b"")
    yield tail


def _error_text(content: bytes, reason: str) -> str:
    """Return the error in the body of an answer, or else the words of its status line."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return reason
