"""Run `verify FILE` and `extract FILE DIRECTORY`, which use no lock, no state and no network.

So a sub-updater can call them at any time.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, BinaryIO

from . import acceptance, errors
from .artifact.verify import Verified
from .context import Outcome
from .new_directory import NewDirectory
from .settings import Settings


def verify(settings: Settings, path: str) -> Outcome:
    """Verify an artifact (`-` is stdin) and describe it; raises `errors.ArtifactRejected`."""
    with _opened(path) as file, _read_errors(path):
        verified = acceptance.verify(settings, file)
    signature = "its signature is valid" if verified.signed else "no signature was checked"
    return Outcome("accepted", f"{verified.name} would be accepted; {signature}.", _facts(verified))


def extract(settings: Settings, path: str, directory: str) -> Outcome:
    """Write the payload files of a valid artifact to a new directory.

    The file is read once. The directory appears atomically, after the last byte is verified.
    """
    with _opened(path) as file, _removed_if_terminated(), NewDirectory(directory) as new:
        with _read_errors(path):
            verified = acceptance.verify(settings, file, new.write)
        new.publish()
    number = len(verified.files)
    sentence = f"Extracted {number} file{'' if number == 1 else 's'} of {verified.name} to {new.path}."
    return Outcome("extracted", sentence, {"directory": new.path, **_facts(verified)})


def lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the facts of `verify` as lines for people."""
    rows = [
        ("name", facts["artifact_name"]),
        ("group", facts["artifact_group"] or "none"),
        ("device types", ", ".join(facts["device_types"])),
        ("payload type", facts["payload_type"] or "none"),
        ("signed", "yes" if facts["signed"] else "not checked: no ArtifactVerifyKey is set"),
        *(("provides", f"{key}={value}") for key, value in facts["provides"].items()),
        *(("depends", f"{key}={' or '.join(values)}") for key, values in facts["depends"].items()),
        *(("clears", pattern) for pattern in facts["clears_provides"]),
        *(("file", f"{file['sha256']} {file['size']:>10} {file['name']}") for file in facts["files"]),
    ]
    return [f"{label:<15} {text}" for label, text in rows]


def _facts(verified: Verified) -> dict[str, Any]:
    return {
        "artifact_name": verified.name,
        "artifact_group": verified.group,
        "device_types": list(verified.device_types),
        "payload_type": verified.payload_type,
        "signed": verified.signed,
        "provides": dict(verified.provides),
        "depends": {key: list(values) for key, values in verified.depends.items()},
        "clears_provides": list(verified.clears_provides),
        "files": [file._asdict() for file in verified.files],
    }


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open an artifact, which may be a FIFO."""
    if path == "-":
        yield sys.stdin.buffer
        return
    with _read_errors(path):
        file = open(path, "rb")  # noqa: SIM115  # closed below; errors of its user have other messages
    with file:
        yield file


@contextlib.contextmanager
def _read_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        name = "stdin" if path == "-" else path
        raise errors.DiskError(f"Cannot read the artifact {name}: {why}; check the file.") from error


@contextlib.contextmanager
def _removed_if_terminated() -> Iterator[None]:
    """Exit by an exception on SIGTERM and SIGHUP, so that cleanup runs."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
