"""Builds the artifact of a configuration deployment: no payload files, the values are its meta-data."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

PAYLOAD_TYPE = "mender-configure"
PROVIDES = "data-partition.mender-configure.version"
CLEARS = "data-partition.mender-configure.*"


def build(name: str, device_type: str, values: Mapping[str, Any]) -> bytes:
    """Return an uncompressed artifact for one device type, with `values` as its meta-data."""
    version = b'{"format":"mender","version":3}'
    header_info = {
        "payloads": [{"type": PAYLOAD_TYPE}],
        "artifact_provides": {"artifact_name": name},
        "artifact_depends": {"device_type": [device_type]},
    }
    type_info = {
        "type": PAYLOAD_TYPE,
        "artifact_provides": {PROVIDES: name},
        "clears_artifact_provides": [CLEARS],
    }
    header = _tar(
        {
            "header-info": _json(header_info),
            "headers/0000/type-info": _json(type_info),
            "headers/0000/meta-data": _json(values),
        }
    )
    sums = {"header.tar": header, "version": version}
    manifest = "".join(f"{hashlib.sha256(data).hexdigest()}  {file}\n" for file, data in sums.items())
    members = {
        "version": version,
        "manifest": manifest.encode(),
        "header.tar": header,
        "data/0000.tar": _tar({}),
    }
    return _tar(members)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o600
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
