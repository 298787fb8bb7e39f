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

from .artifact import BadArtifact, Header, read_header
from .validation import Refusal

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
        """The artifact's name, which several artifacts for different device types may share."""
        return self.header.name

    def to_json(self) -> dict[str, Any]:
        """What is the same in every list of the management API."""
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


class Store:
    """The artifacts of one directory; they outlive the server, under the same ids."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.artifacts: dict[str, Artifact] = {}
        for path in directory.glob(f"{UPLOAD}*"):
            path.unlink()  # of a server that was killed in the middle of an upload
        for path in sorted(directory.glob("*.mender"), key=lambda path: path.stat().st_mtime):
            # An object whose bytes a fault has changed is no artifact any more: it is left alone.
            with contextlib.suppress(BadArtifact):
                self.artifacts[path.stem] = _artifact(path.stem, path)

    def receive(self, chunks: Iterable[bytes]) -> Path:
        """Write an upload into a file of its own; the caller then adds or unlinks it."""
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
        """Take in a received file; one name serves a device type only once, as on the real server."""
        header = read_header(received)
        for other in self.named(header.name):
            if set(other.header.device_types) & set(header.device_types):
                raise Refusal(409, "an artifact with the same name and depends already exists")
        artifact_id = str(uuid.uuid4())
        path = self.directory / f"{artifact_id}.mender"
        received.rename(path)
        self.artifacts[artifact_id] = _artifact(artifact_id, path, description)
        return self.artifacts[artifact_id]

    def replace_bytes(self, artifact_id: str, content: bytes | None) -> None:
        """Put other bytes into the object's place (None: every bit flipped), under the same link.

        By a new file, so that a download under way ends with the bytes it began with.
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
        """All artifacts of one name."""
        return [artifact for artifact in self.artifacts.values() if artifact.name == name]

    def remove(self, artifact_id: str) -> None:
        """Delete an artifact, or 404."""
        if artifact_id not in self.artifacts:
            raise Refusal(404, "Resource not found")
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
