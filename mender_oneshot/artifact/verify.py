"""Verify an artifact in one pass: its format, checksums, signature, device type and dependencies.

Writes nothing. The caller checks the signature, describes the device, and receives the payload. An artifact
is untrusted input: sizes, numbers and nesting have limits, and memory stays at a few MiB for any file, except
for the window of a decompressor (`decompress.XZ_MEMORY_MAX`, `ZSTD_WINDOW_LOG_MAX`).
"""

import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ..errors import ArtifactRejected
from ..text import shown
from .decompress import SUFFIXES, uncompressed
from .header_json import as_object, as_text, as_texts, given, parsed, texts_by_key
from .refusal import corrupt
from .tar import PIECE, Member, Reader, is_safe_name

# Bytes of the members that are read as a whole.
VERSION_MAX = 1024  # mender-artifact writes 31
SIGNATURE_MAX = 8 * 1024  # RSA of 16384 bits makes 2732 bytes
MANIFEST_MAX = 1024 * 1024  # about ten thousand files, and 4 MiB of memory; it is signed as a whole
JSON_MAX = 256 * 1024  # malicious JSON takes up to 35 times its size once parsed
# Only state scripts make a header.tar large, and a device runs few and small ones: 1000 are ten for each
# state. The limits stop a compression bomb early.
HEADER_MAX = 16 * 1024 * 1024
SCRIPTS_MAX = 1000
# Each pattern is compared with each of the device's provides; mender-artifact writes three.
CLEARS_MAX = 1000

_HEADERS = tuple("header.tar" + suffix for suffix in SUFFIXES)
_PAYLOADS = tuple("data/0000.tar" + suffix for suffix in SUFFIXES)
_AUGMENTED = ("manifest-augment", *("header-augment.tar" + suffix for suffix in SUFFIXES))
_STATES = "Install|Reboot|Commit|Rollback|RollbackReboot|Failure"
_SCRIPT = re.compile(rf"scripts/Artifact({_STATES})_(Enter|Leave|Error)_[0-9]{{2}}(_\S+)?")
_MANIFEST_LINE = re.compile("([0-9a-f]{64})  (.+)")
_NO_PROVIDES: Mapping[str, str] = {}


Receive = Callable[[str, int, Iterator[bytes]], None]
"""Called for each file of the payload, with its name, its size and its content, which is not yet verified."""

ReceiveScript = Callable[[str, Iterator[bytes]], None]
"""Called for each state script, with its name and its content, before the header's checksum is verified."""


class Readable(Protocol):
    """A file that an artifact is read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`, and none at the end."""


class Header(NamedTuple):
    """The JSON objects of an artifact's header; `meta_data` is None if there is none, or an empty one."""

    info: Mapping[str, Any]
    type_info: Mapping[str, Any]
    meta_data: Mapping[str, Any] | None


def discard(_name: str, _size: int, pieces: Iterator[bytes]) -> None:
    """Read a file of the payload and drop its content."""
    for _ in pieces:
        pass


class PayloadFile(NamedTuple):
    """A file of the payload."""

    name: str
    size: int
    sha256: str


class Verified(NamedTuple):
    """The metadata of a verified artifact.

    `provides` and `clears_provides` are the payload's; `depends` has all dependencies except the device type.
    """

    name: str
    group: str
    device_types: tuple[str, ...]
    payload_type: str | None
    provides: Mapping[str, str]
    clears_provides: tuple[str, ...]
    depends: Mapping[str, tuple[str, ...]]
    signed: bool
    files: tuple[PayloadFile, ...] = ()


def verify(
    file: Readable,
    *,
    device_type: str,
    provides: Mapping[str, str] = _NO_PROVIDES,
    check_signature: Callable[[bytes, bytes], bool] | None = None,
    receive: Receive = discard,
    receive_script: ReceiveScript | None = None,
    begin: Callable[["Verified", Header], None] | None = None,
) -> Verified:
    """Read an artifact from its first byte to its last; raise `ArtifactRejected` unless all of it is valid.

    `check_signature(manifest, signature)` tests the signature with the keys of the device; without it, a
    signature is ignored, as in the reference client. Signature, manifest and header are checked before the
    payload is read. `receive_script` and `receive` get scripts and files as they are read, so their effects
    must be undone if this raises; `begin` is called between them, with a header that is verified.
    """
    outer = Reader(iter(lambda: file.read(PIECE), b""), "the file")
    _expect(outer.next(), "version")
    version = outer.content(VERSION_MAX)
    _check_version(version)
    _expect(outer.next(), "manifest")
    manifest = outer.content(MANIFEST_MAX)

    member = outer.next()
    signature: bytes | None = None
    if member and member.name == "manifest.sig":
        signature = outer.content(SIGNATURE_MAX)
        member = outer.next()
    if check_signature:
        _check_signature(check_signature, manifest, signature)
    sums = _sums(manifest)
    _check_sum(sums, "version", hashlib.sha256(version).hexdigest())

    header = _expect(member, *_HEADERS)
    stored = hashlib.sha256()
    read = _read_header(_hashed(outer.body(), stored), header.name, receive_script)
    _check_sum(sums, header.name, stored.hexdigest())
    verified = _verified(dict(read.info), dict(read.type_info), signed=check_signature is not None)
    _check_device(verified, device_type, provides)
    if begin:
        begin(verified, read)

    member = outer.next()
    # mender-artifact writes an empty data/0000.tar for no payload; the reference client needs none.
    if member or verified.payload_type is not None:
        payload = _expect(member, *_PAYLOADS)
        files = _check_payload(outer.body(), payload.name, verified, sums, receive)
        verified = verified._replace(files=tuple(files))
        if extra := outer.next():
            raise corrupt(f"found {shown(extra.name)} after the payload")
    for name in sums:
        raise corrupt(f"the manifest lists {shown(name)}, which is missing")
    return verified


def _expect(member: Member | None, *names: str) -> Member:
    if member is None:
        raise corrupt(f"it ends before {names[0]}")
    if member.name in _AUGMENTED:
        raise ArtifactRejected(
            f"The artifact has an augmented part ({member.name}), which is not supported; "
            "build one without it."
        )
    if member.name not in names:
        raise corrupt(f"found {shown(member.name)}, expected {names[0]}")
    return member


def _check_version(data: bytes) -> None:
    version = as_object(parsed(data, "version"), "version")
    if version != {"format": "mender", "version": 3}:
        raise ArtifactRejected(
            f"The artifact has the format {shown(data.decode())}, "
            "but only mender, version 3, is supported; build it in that format."
        )


def _check_signature(check: Callable[[bytes, bytes], bool], manifest: bytes, signature: bytes | None) -> None:
    if signature is None:
        raise ArtifactRejected(
            "The artifact is not signed, but this device accepts only signed ones; "
            "sign it with mender-artifact and upload it again."
        )
    try:
        raw = binascii.a2b_base64(signature, strict_mode=True)
    except ValueError:
        raise corrupt("its signature is not base64") from None
    if not check(manifest, raw):
        raise ArtifactRejected(
            "The artifact was signed by none of the keys that this device trusts, or its manifest was "
            "changed afterwards; sign it with the right key and upload it again."
        )


def _sums(manifest: bytes) -> dict[str, str]:
    """Return the checksum of each name in a manifest, which has the lines of `sha256sum`, each name once."""
    try:
        lines = manifest.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise corrupt("its manifest is not UTF-8") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _MANIFEST_LINE.fullmatch(line)
        if not match or not is_safe_name(match[2]):
            raise corrupt(f"line {number} of its manifest is malformed")
        if match[2] in sums:
            raise corrupt(f"its manifest lists {shown(match[2])} twice")
        sums[match[2]] = match[1]
    # Sorted with the separator first, the content of a directory follows directly after it.
    paths = sorted(f"{name}/".replace("/", "\0") for name in sums)
    for path, next_path in zip(paths, paths[1:], strict=False):
        if next_path.startswith(path):
            name = path[:-1].replace("\0", "/")
            raise corrupt(f"its manifest lists {shown(name)} as a file and as a directory")
    return sums


def _check_sum(sums: dict[str, str], name: str, actual: str) -> None:
    """Compare a checksum with the manifest's, and remove it from `sums`: the rest is still expected."""
    listed = sums.pop(name, None)
    if listed is None:
        raise corrupt(f"{shown(name)} is a duplicate or not in the manifest")
    if listed != actual:
        raise corrupt(f"{shown(name)} does not match its checksum in the manifest")


def _hashed(pieces: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _read_header(stored: Iterator[bytes], name: str, receive_script: ReceiveScript | None) -> Header:
    """Return the JSON objects of a header.tar, and pass its scripts on."""
    header = Reader(_at_most(HEADER_MAX, uncompressed(stored, name), name), name)
    _expect(header.next(), "header-info")
    info = as_object(parsed(header.content(JSON_MAX), "header-info"), "header-info")
    scripts: set[str] = set()
    while (member := header.next()) and member.name.startswith("scripts/"):
        if not _SCRIPT.fullmatch(member.name) or "/" in member.name.removeprefix("scripts/"):
            raise corrupt(f"{shown(member.name)} is not the name of a state script of an artifact")
        if member.name in scripts or len(scripts) == SCRIPTS_MAX:
            raise corrupt(f"{name} has {shown(member.name)} twice, or more than {SCRIPTS_MAX} scripts")
        scripts.add(member.name)
        if receive_script:
            receive_script(member.name.removeprefix("scripts/"), header.body())
    _expect(member, "headers/0000/type-info")
    type_info = as_object(parsed(header.content(JSON_MAX), "type-info"), "type-info")
    meta_data = None
    if member := header.next():
        _expect(member, "headers/0000/meta-data")
        # Empty in every rootfs-image that mender-artifact writes.
        if data := header.content(JSON_MAX):
            meta_data = as_object(parsed(data, "meta-data"), "meta-data")
        if extra := header.next():
            raise corrupt(f"found {shown(extra.name)} after the meta-data in {name}")
    return Header(info, type_info, meta_data)


def _at_most(limit: int, pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    for piece in pieces:
        limit -= len(piece)
        if limit < 0:
            raise corrupt(f"{name} is larger than {HEADER_MAX} bytes")
        yield piece


def _verified(info: dict[str, Any], type_info: dict[str, Any], *, signed: bool) -> Verified:
    payloads = info.get("payloads")
    if not isinstance(payloads, list) or len(payloads) != 1:
        raise corrupt("its header-info does not list exactly one payload")
    payload_type = as_object(payloads[0], "payload of header-info").get("type")
    if payload_type is not None:
        payload_type = as_text(payload_type, "payload type")
    # mender-artifact leaves the type of a rootfs-image empty, and the reference client accepts that
    # (src/artifact/v3/header/header.cpp, "workaround").
    second_type = type_info.get("type", "")
    if second_type != payload_type and (second_type, payload_type) != ("", "rootfs-image"):
        raise corrupt("its header-info and its type-info have different payload types")

    named = as_object(info.get("artifact_provides"), "artifact_provides")
    depends = texts_by_key(info.get("artifact_depends"), "artifact_depends")
    if not depends.get("device_type"):
        raise corrupt("its header-info has no device type")
    for key, texts in texts_by_key(given(type_info, "artifact_depends", {}), "artifact_depends").items():
        # If a key is in both places, both must match. A set, because two long lists would take minutes.
        allowed = set(texts)
        depends[key] = tuple(text for text in depends.get(key, texts) if text in allowed)
    device_types = depends.pop("device_type")
    provides = as_object(given(type_info, "artifact_provides", {}), "artifact_provides")
    return Verified(
        name=as_text(named.get("artifact_name"), "artifact_name"),
        group=as_text(given(named, "artifact_group", ""), "artifact_group", True),
        device_types=device_types,
        payload_type=payload_type,
        provides={as_text(key, "artifact_provides"): as_text(provides[key], key, True) for key in provides},
        clears_provides=_clears(type_info),
        depends=depends,
        signed=signed,
    )


def _clears(type_info: dict[str, Any]) -> tuple[str, ...]:
    """Return the patterns of the provides that an artifact clears: "*" if it has none of its own."""
    patterns = as_texts(given(type_info, "clears_artifact_provides", ["*"]), "clears_artifact_provides")
    if len(patterns) > CLEARS_MAX:
        raise corrupt(f"it has more than {CLEARS_MAX} patterns of provides to clear")
    return patterns


def _check_device(artifact: Verified, device_type: str, provides: Mapping[str, str]) -> None:
    """Reject an artifact for others (src/mender-update/context/context.cpp, ArtifactMatchesContext)."""
    if device_type not in artifact.device_types:
        raise ArtifactRejected(
            f"The artifact {shown(artifact.name)} is for device type {_listed(artifact.device_types)}, "
            f"but this device is {shown(device_type)}; deploy one that was built for it."
        )
    for key, wanted in artifact.depends.items():
        if provides.get(key) not in wanted:
            has = shown(provides[key]) if key in provides else "none"
            raise ArtifactRejected(
                f"The artifact {shown(artifact.name)} needs {shown(key)} to be {_listed(wanted)}, "
                f"but this device has {has}; deploy what it depends on first."
            )


def _listed(texts: tuple[str, ...]) -> str:
    if not texts:
        return "none"
    more = f" or {len(texts) - 5} others" if len(texts) > 5 else ""
    return " or ".join(shown(text) for text in texts[:5]) + more


def _check_payload(
    stored: Iterator[bytes], name: str, artifact: Verified, sums: dict[str, str], receive: Receive
) -> Iterator[PayloadFile]:
    payload = Reader(uncompressed(stored, name), name)
    while member := payload.next():
        if artifact.payload_type is None:
            raise corrupt(f"it has no payload type, but {shown(member.name)} as payload")
        listed_as = f"data/0000/{member.name}"
        if listed_as not in sums:
            raise corrupt(f"{shown(listed_as)} is a duplicate or not in the manifest")
        digest = hashlib.sha256()
        pieces = _hashed(payload.body(), digest)
        receive(member.name, member.size, pieces)
        discard(member.name, member.size, pieces)
        _check_sum(sums, listed_as, digest.hexdigest())
        yield PayloadFile(member.name, member.size, digest.hexdigest())
