"""The origin of the artifacts: expiring links, ranges, and errors like those of S3; rejects tokens."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from urllib.parse import quote, urlencode

from .artifact_store import Artifact
from .model import Model
from .routing import File, Request, Response, Route

PATH = "/storage/{artifact_id}"
_STAMP = "%Y%m%dT%H%M%SZ"


class StorageApi:
    """Makes links and serves the artifacts, as S3 does for a presigned GET (device-api.md 5)."""

    def __init__(self, model: Model, link_lifetime: float) -> None:
        self._model = model
        self.link_lifetime = link_lifetime

    @property
    def routes(self) -> list[Route]:
        """The only route of this origin."""
        return [Route("GET", PATH, self.get)]

    def link(self, origin: str, artifact: Artifact) -> tuple[str, float]:
        """Return a new link to an artifact, and when it expires (Unix time)."""
        now = self._model.clock()
        expire = now + self.link_lifetime
        date = datetime.fromtimestamp(int(now), UTC).strftime(_STAMP)
        # Whole seconds on S3; here a lifetime may be shorter than a second, for tests.
        expires = f"{expire - int(now):.3f}".rstrip("0").rstrip(".")
        path = PATH.format(artifact_id=artifact.id)
        query = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Date": date,
            "X-Amz-Expires": expires,
            "X-Amz-SignedHeaders": "host",
            "response-content-disposition": f'attachment; filename="{artifact.name}.mender"',
            "X-Amz-Signature": self._model.signer.mac(path, date, expires),
        }
        return f"{origin}{path}?{urlencode(query, quote_via=quote)}", expire

    def get(self, request: Request) -> Response:
        """Return an object, or one range of it."""
        rejection = self._rejection(request)
        if rejection:
            return rejection
        fault, artifact_id = request.fault, request.params["artifact_id"]
        if artifact_id not in self._model.store.artifacts:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        if fault and fault.change:
            content = fault.change.encode() if isinstance(fault.change, str) else fault.change
            self._model.store.replace_bytes(artifact_id, content if isinstance(content, bytes) else None)
        artifact = self._model.store.artifacts[artifact_id]
        modified = formatdate(artifact.modified, usegmt=True)
        if request.headers.get("If-Match", artifact.etag) not in (artifact.etag, "*"):
            return _error(412, "PreconditionFailed", "A precondition you specified did not hold.")
        headers = {
            "Content-Type": "application/vnd.mender-artifact",
            "Accept-Ranges": "bytes",
            "ETag": artifact.etag,
            "Last-Modified": modified,
        }
        requested = request.headers.get("Range")
        if request.headers.get("If-Range", artifact.etag) not in (artifact.etag, modified):
            requested = None  # RFC 9110 13.1.5: the object has changed, so send all of it
        if fault and fault.ignore_range:
            requested = None
        part = byte_range(requested, artifact.size)
        if part is None:
            return Response(200, headers, File.open(artifact.path, 0, artifact.size))
        start, end = part
        if start >= artifact.size:
            response = _error(416, "InvalidRange", "The requested range is not satisfiable")
            response.headers["Content-Range"] = f"bytes */{artifact.size}"
            return response
        if fault and fault.wrong_range is not None and fault.wrong_range is not False:
            start = (start - 1 if start else 1) if fault.wrong_range is True else fault.wrong_range
        headers["Content-Range"] = f"bytes {start}-{end}/{artifact.size}"
        return Response(206, headers, File.open(artifact.path, start, end + 1 - start))

    def _rejection(self, request: Request) -> Response | None:
        if "Authorization" in request.headers:
            # S3 accepts one authentication mechanism, and the query already is one.
            return _error(400, "InvalidArgument", "Only one auth mechanism allowed")
        date, expires = request.query.get("X-Amz-Date", ""), request.query.get("X-Amz-Expires", "")
        signature = request.query.get("X-Amz-Signature")
        if signature is None:
            return _error(403, "AccessDenied", "Access Denied.")
        if not self._model.signer.mac_matches(signature, request.path, date, expires):
            text = "The request signature we calculated does not match the signature you provided."
            return _error(403, "SignatureDoesNotMatch", text)
        issued = datetime.strptime(date, _STAMP).replace(tzinfo=UTC)
        end = issued + timedelta(seconds=float(expires))
        if self._model.clock() >= end.timestamp() or (request.fault and request.fault.expired):
            return _error(403, "AccessDenied", "Request has expired")
        return None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and the last byte of a single range, None for the whole object.

    The start may exceed the size of the object; the caller has to check.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or match[0].endswith("=-"):
        return None  # No range, several ranges, or an invalid one: S3 sends the whole object.
    if not match[1]:
        length = int(match[2])
        return (max(0, size - length), size - 1) if length else (size, size)
    start, end = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and end < start:
        return None
    return start, min(end, size - 1)


def _error(status: int, code: str, text: str) -> Response:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{text}</Message></Error>'
    )
    return Response(status, {"Content-Type": "application/xml"}, body.encode())
