"""Builds small `.mender` files of format version 3, as `mender-artifact` does (device-api.md 11)."""

import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAYLOAD = {
    "dest_dir": b"/tmp",
    "filename": b"hello",
    "permissions": b"644",
    "hello": b"Hello from release-2\n",
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gz": lambda raw: gzip.compress(raw, mtime=0),
    "xz": lzma.compress,
}
SUFFIX = {"none": "", "gz": ".gz", "xz": ".xz"}


def make_artifact(
    path: Path,
    name: str = "release-2",
    device_types: Sequence[str] = ("board",),
    payload: Mapping[str, bytes] = PAYLOAD,
    compression: str = "gz",
    payload_type: str | None = "app",
    *,
    provides: Mapping[str, str] | None = None,
    depends: Mapping[str, Sequence[str]] | None = None,
    header_depends: Mapping[str, Sequence[str]] | None = None,
    meta_data: Mapping[str, Any] | bytes | None = None,
    checksums: Mapping[str, str] | None = None,
    version: bytes = b'{"format":"mender","version":3}',
    scripts: Mapping[str, str] | None = None,
    clears: Sequence[str] | None = None,
) -> Path:
    """Write an artifact to `path` and return the path.

    `scripts` are state scripts by name; `provides`, `clears` and `depends` go into type-info,
    `header_depends` into header-info; `checksums` replaces and adds lines of the manifest, for artifacts that
    must not verify.
    """
    pack, suffix = COMPRESS[compression], SUFFIX[compression]
    header_info = {
        "payloads": [{"type": payload_type}],
        "artifact_provides": {"artifact_name": name},
        "artifact_depends": {"device_type": list(device_types), **(header_depends or {})},
    }
    type_info: dict[str, Any] = {"type": payload_type}
    if provides is not None:
        type_info["artifact_provides"] = dict(provides)
    if clears is not None:
        type_info["clears_artifact_provides"] = list(clears)
    if depends is not None:
        type_info["artifact_depends"] = {key: list(values) for key, values in depends.items()}
    header = {
        "header-info": json.dumps(header_info).encode(),
        **{f"scripts/{script}": text.encode() for script, text in (scripts or {}).items()},
        "headers/0000/type-info": json.dumps(type_info).encode(),
        "headers/0000/meta-data": _meta_data(meta_data),
    }
    packed_header = pack(_tar(header))
    sums = {
        **{f"data/0000/{file}": _sha256(content) for file, content in payload.items()},
        f"header.tar{suffix}": _sha256(packed_header),
        "version": _sha256(version),
        **(checksums or {}),
    }
    manifest = "".join(f"{digest}  {file}\n" for file, digest in sums.items()).encode()
    members = {
        "version": version,
        "manifest": manifest,
        f"header.tar{suffix}": packed_header,
        f"data/0000.tar{suffix}": pack(_tar(payload)),
    }
    path.write_bytes(_tar(members))
    return path


def _meta_data(given: Mapping[str, Any] | bytes | None) -> bytes:
    if isinstance(given, bytes):
        return given
    return b"" if given is None else json.dumps(given).encode()


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
