"""Reads what the server needs of a `.mender` file: its header, never its payload.

The format is that of `reference/device-api.md` 11. Verifying checksums and signatures is left to the client.
"""

import json
import tarfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import Any

_READER = "reading artifact error: reader: "
_NO_VERSION = (
    f"{_READER}can not read version file: readNext: Failed to get next header: "
    "reader: error reading archive: "
)


class InvalidArtifact(ValueError):
    """The file is not a Mender artifact of version 3; the message gives the reason."""


@dataclass(frozen=True)
class Header:
    """The contents of an artifact's header."""

    name: str
    device_types: tuple[str, ...]
    provides: dict[str, str]
    depends: dict[str, Any]
    clears_provides: tuple[str, ...]
    payload_types: tuple[str | None, ...]
    signed: bool


def read_header(path: Path) -> Header:
    """Read the header of the artifact at `path`, of any size; raise `InvalidArtifact`."""
    try:
        with tarfile.open(path, "r:") as outer:
            return _read(outer)
    except tarfile.ReadError:
        what = (
            "unexpected EOF" if path.stat().st_size < tarfile.BLOCKSIZE else "archive/tar: invalid tar header"
        )
        raise InvalidArtifact(f"{_NO_VERSION}{what}") from None
    except InvalidArtifact as error:
        raise InvalidArtifact(f"{_READER}{error}") from None
    except (tarfile.TarError, EOFError, zlib.error, LZMAError, KeyError, TypeError, ValueError) as error:
        raise InvalidArtifact(f"{_READER}{error}") from None


def _read(outer: tarfile.TarFile) -> Header:
    version = _json(outer, outer.next())
    if version != {"format": "mender", "version": 3}:
        raise InvalidArtifact(f"unsupported format {version}")
    signed = False
    while entry := outer.next():
        if entry.name == "manifest.sig":
            signed = True
        elif entry.name.startswith("header.tar"):
            # Mode "r:*" detects gzip and xz, and zstd from Python 3.14 on.
            with tarfile.open(fileobj=outer.extractfile(entry), mode="r:*") as inner:
                return _header(inner, signed)
        elif entry.name.startswith("data/"):
            break
    raise InvalidArtifact("there is no header")


def _header(inner: tarfile.TarFile, signed: bool) -> Header:
    info = _json(inner, inner.next())
    provides = dict(info["artifact_provides"])
    depends = dict(info["artifact_depends"])
    clears: list[str] = []
    for entry in inner:
        if entry.name.endswith("/type-info"):
            type_info = _json(inner, entry)
            provides |= type_info.get("artifact_provides") or {}
            depends |= type_info.get("artifact_depends") or {}
            clears += type_info.get("clears_artifact_provides") or []
    return Header(
        name=str(info["artifact_provides"]["artifact_name"]),
        device_types=tuple(info["artifact_depends"]["device_type"]),
        provides=provides,
        depends=depends,
        clears_provides=tuple(clears),
        payload_types=tuple(payload["type"] for payload in info["payloads"]),
        signed=signed,
    )


def _json(archive: tarfile.TarFile, entry: tarfile.TarInfo | None) -> Any:
    file = archive.extractfile(entry) if entry else None
    if file is None:
        raise InvalidArtifact("an entry is missing")
    return json.loads(file.read(1024 * 1024))
