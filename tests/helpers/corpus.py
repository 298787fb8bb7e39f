"""Artifacts built byte by byte, so that a test can change any byte; `tarfile` writes valid archives only."""

import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

END = bytes(1024)
POSIX = b"ustar\x0000"
GNU = b"ustar  \0"

HEADER_INFO: dict[str, Any] = {
    "payloads": [{"type": "app"}],
    "artifact_provides": {"artifact_name": "release-1"},
    "artifact_depends": {"device_type": ["board"]},
}
TYPE_INFO: dict[str, Any] = {"type": "app"}


def header_info(**changed: Any) -> dict[str, Any]:
    """Return the header-info of a good artifact with some of its members changed."""
    return {**HEADER_INFO, **changed}


def header(
    name: bytes,
    size: int = 0,
    *,
    kind: bytes = b"0",
    magic: bytes = POSIX,
    prefix: bytes = b"",
    size_field: bytes | None = None,
    linkname: bytes = b"",
    mtime: int = 0,
    owner: bytes = b"",
    fields: Mapping[int, bytes] = MappingProxyType({}),
) -> bytes:
    """Return one block with a correct checksum; `fields` are bytes to write at a position."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:124] = b"0000600\x000000000\x000000000\x00"
    block[124:136] = size_field or b"%011o\x00" % size
    block[136:148] = b"%011o\x00" % mtime
    block[156:157] = kind
    block[157 : 157 + len(linkname)] = linkname
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[265 : 265 + len(owner)] = owner
    for at, value in fields.items():
        block[at : at + len(value)] = value
    assert len(block) == 512
    return checksummed(bytes(block))


def checksummed(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\x00 " % sum(blank) + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(name: str | bytes, content: bytes = b"", **bent: Any) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return header(raw, len(content), **bent) + padded(content)


def pax(records: dict[str, str] | bytes, name: str = "PaxHeaders.0/x") -> bytes:
    """Return a pax extended header, to precede a member."""
    if isinstance(records, bytes):
        return member(name, records, kind=b"x")
    return member(name, b"".join(pax_record(*item) for item in records.items()), kind=b"x")


def pax_record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def long_name(name: bytes) -> bytes:
    """GNU tar's long name, to stand before a member."""
    return member("././@LongLink", name + b"\0", kind=b"L", magic=GNU)


def compressed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix == ".xz":
        return lzma.compress(data, preset=1)
    assert suffix == ""
    return data


def xz_with_dictionary(data: bytes, code: int) -> bytes:
    """Return an xz stream with another dictionary size: 40 is 4 GiB - 1, 30 is 128 MiB, 28 is 64 MiB."""
    stream = bytearray(lzma.compress(data, preset=1))
    length = (stream[12] + 1) * 4
    assert stream[14:16] == b"\x21\x01", "a block header with the one filter LZMA2"
    stream[16] = code
    stream[12 + length - 4 : 12 + length] = zlib.crc32(stream[12 : 12 + length - 4]).to_bytes(4, "little")
    return bytes(stream)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


@dataclass
class Artifact:
    """The parts of an artifact; a part that is None is built from the others."""

    version: bytes = b'{"format":"mender","version":3}'
    header_info: Any = field(default_factory=lambda: HEADER_INFO)
    scripts: dict[str, bytes] = field(default_factory=dict)
    type_info: Any = field(default_factory=lambda: TYPE_INFO)
    meta_data: Any = None
    files: dict[str, bytes] = field(default_factory=lambda: {"app": b"content of app\n"})
    suffix: str = ""
    header_tar: bytes | None = None
    """Uncompressed."""
    payload_tar: bytes | None = None
    """Uncompressed."""
    stored_header: bytes | None = None
    stored_payload: bytes | None = None
    manifest: bytes | None = None
    signature: bytes | None = None
    end: bytes = END

    def header_members(self) -> list[bytes]:
        members = [member("header-info", as_json(self.header_info))]
        members += [member(f"scripts/{name}", text) for name, text in self.scripts.items()]
        members.append(member("headers/0000/type-info", as_json(self.type_info)))
        if self.meta_data is not None:
            members.append(member("headers/0000/meta-data", as_json(self.meta_data)))
        return members

    def parts(self) -> dict[str, bytes]:
        """Return the outer members, in order."""
        header_tar = b"".join(self.header_members()) + END if self.header_tar is None else self.header_tar
        if self.payload_tar is None:
            payload_tar = b"".join(member(name, text) for name, text in self.files.items()) + END
        else:
            payload_tar = self.payload_tar
        stored_header = self.stored_header or compressed(header_tar, self.suffix)
        stored_payload = self.stored_payload or compressed(payload_tar, self.suffix)
        sums = {f"data/0000/{name}": text for name, text in self.files.items()}
        sums |= {f"header.tar{self.suffix}": stored_header, "version": self.version}
        manifest = "".join(f"{sha256(text)}  {name}\n" for name, text in sums.items()).encode()
        parts = {
            "version": self.version,
            "manifest": manifest if self.manifest is None else self.manifest,
        }
        if self.signature is not None:
            parts["manifest.sig"] = self.signature
        parts[f"header.tar{self.suffix}"] = stored_header
        parts[f"data/0000.tar{self.suffix}"] = stored_payload
        return parts

    def members(self) -> list[bytes]:
        return [member(name, content) for name, content in self.parts().items()]

    def bytes(self) -> bytes:
        return b"".join(self.members()) + self.end


PAYLOAD = member("app", b"content of app\n") + END
"""The archive of the payload of `Artifact()`."""
