"""The artifacts on disk: one file each, read and written in chunks, never whole in memory."""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .artifact import Header, InvalidArtifact, read_header
from .validation import HTTPError

CHUNK = 256 * 1024
UPLOAD = "upload-"


@dataclass(frozen=True)
class Artifact:
    """One uploaded artifact; `etag` is the MD5 of its bytes, as S3 makes it for a plain upload."""

    id: str
    header: Header
    path: Path
    size: int
    modified: float
    etag: str
    description: str = ""

    @property
    def name(self) -> str:
        """The artifact's name; artifacts for different device types may share it."""
        return self.header.name

    def to_json(self) -> dict[str, Any]:
        """Return the members that every list of the management API has."""
        header = self.header
        return {
            "id": self.id,
            "name": header.name,
            "description": self.description,
            "device_types_compatible": list(header.device_types),
            "info": {"format": "mender", "version": 3},
            "signed": header.signed,
            "updates": [
                {"type_info": {"type": kind}, "files": [], "meta_data": {}} for kind in header.payload_types
            ],
            "artifact_provides": header.provides,
            "artifact_depends": header.depends,
            "clears_artifact_provides": list(header.clears_provides),
            "size": self.size,
        }


class ArtifactStore:
    """The artifacts of one directory; they keep their ids when the server is restarted."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.artifacts: dict[str, Artifact] = {}
        for path in directory.glob(f"{UPLOAD}*"):
            path.unlink()  # left by a server that was killed during an upload
        for path in sorted(directory.glob("*.mender"), key=lambda path: path.stat().st_mtime):
            # An object whose bytes a fault has replaced may not be an artifact any more; it is ignored.
            with contextlib.suppress(InvalidArtifact):
                self.artifacts[path.stem] = _artifact(path.stem, path)

    def receive(self, chunks: Iterable[bytes]) -> Path:
        """Write an upload to a new file and return its path; the caller then adds or unlinks it."""
        descriptor, name = tempfile.mkstemp(".part", UPLOAD, self.directory)
        try:
            with open(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def add(self, received: Path, description: str = "") -> Artifact:
        """Add a received file, which is renamed.

        Raise HTTPError 409 if there is an artifact with the same name for one of its device types, as on the
        real server, and `InvalidArtifact`.
        """
        header = read_header(received)
        for other in self.named(header.name):
            if set(other.header.device_types) & set(header.device_types):
                raise HTTPError(409, "an artifact with the same name and depends already exists")
        artifact_id = str(uuid.uuid4())
        path = self.directory / f"{artifact_id}.mender"
        received.rename(path)
        self.artifacts[artifact_id] = _artifact(artifact_id, path, description)
        return self.artifacts[artifact_id]

    def replace_bytes(self, artifact_id: str, content: bytes | None) -> None:
        """Replace the bytes of an object (None: invert every bit), under the same link.

        The bytes go to a new file, so that a download in progress ends with the bytes it began with. Raise
        KeyError if there is no such artifact.
        """
        artifact = self.artifacts[artifact_id]
        if content is None:
            table = bytes(255 - number for number in range(256))
            with artifact.path.open("rb") as file:
                received = self.receive(iter(lambda: file.read(CHUNK).translate(table), b""))
        else:
            received = self.receive([content])
        received.replace(artifact.path)
        self.artifacts[artifact_id] = _artifact(
            artifact_id, artifact.path, artifact.description, artifact.header
        )

    def named(self, name: str) -> list[Artifact]:
        """Return all artifacts with one name."""
        return [artifact for artifact in self.artifacts.values() if artifact.name == name]

    def remove(self, artifact_id: str) -> None:
        """Delete an artifact; raise HTTPError 404 if there is none."""
        if artifact_id not in self.artifacts:
            raise HTTPError(404, "Resource not found")
        self.artifacts.pop(artifact_id).path.unlink(missing_ok=True)


def _artifact(artifact_id: str, path: Path, description: str = "", header: Header | None = None) -> Artifact:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    stat = path.stat()
    return Artifact(
        artifact_id,
        header or read_header(path),
        path,
        stat.st_size,
        stat.st_mtime,
        f'"{digest.hexdigest()}"',
        description,
    )
