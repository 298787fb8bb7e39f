"""Verify an artifact in memory, and check the words of a rejection."""

import io
from typing import Any

import pytest

from helpers.corpus import Artifact
from mender_oneshot.artifact import verify as artifact
from mender_oneshot.artifact.verify import Verified
from mender_oneshot.errors import ArtifactRejected

MIB = 1024 * 1024


def verify(data: bytes, **options: Any) -> Verified:
    """Verify an artifact for a device of type "board"."""
    return artifact.verify(io.BytesIO(data), **{"device_type": "board", **options})


def rejection(data: bytes, **options: Any) -> str:
    """Return the message that an artifact is rejected with; check that it is one printable line."""
    with pytest.raises(ArtifactRejected) as caught:
        verify(data, **options)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith("The artifact")
    assert text.endswith(".")
    assert len(text) < 1000
    assert "None" not in text
    assert caught.value.exit_code == 65
    return text


def rejected_or_same(data: bytes, whole: Verified) -> bool:
    """Return whether an artifact is rejected; fail if it is accepted with other content than `whole`."""
    try:
        assert verify(data) == whole
    except ArtifactRejected:
        return True
    return False


def with_files(payload_tar: bytes, **files: bytes) -> bytes:
    """Return an artifact with these files in its manifest and any bytes as the archive of its payload."""
    return Artifact(files=files, payload_tar=payload_tar).bytes()
