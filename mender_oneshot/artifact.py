"""Whether a Mender artifact (format version 3) is whole, signed and for this device, in one pass over it.

Writes nothing: a payload is decompressed to be hashed, and handed to whoever asks. Knows the artifact format;
knows no key (the caller checks the signature) and no device (the caller says what it is and provides).

The format: https://github.com/mendersoftware/mender-artifact, Documentation/artifact-format-v3.md, and what
mender-artifact 3.9.0 writes. The rules of acceptance: src/artifact of https://github.com/mendersoftware/mender.
Every text is a stranger's: sizes, numbers and nesting have a limit, and memory stays a few MiB for any file,
but for the window a decompressor must keep (`decompress.XZ_MEMORY_MAX`, `ZSTD_WINDOW_LOG_MAX`).
"""

import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from .artifact_json import as_object, as_text, as_texts, given, parsed, texts_by_key
from .decompress import SUFFIXES, uncompressed
from .errors import ArtifactRejected
from .tar import PIECE, Member, Reader, damaged, is_safe_name, shown

VERSION_MAX = 1024  # the real one has 31 bytes
SIGNATURE_MAX = 8 * 1024  # RSA of 16384 bits makes 2732 bytes
MANIFEST_MAX = 1024 * 1024  # some ten thousand files, and some 4 MiB of memory; it is signed over as one text
JSON_MAX = 256 * 1024  # hostile JSON takes up to 35 times its size once parsed
# Only state scripts make a header.tar large, and a device runs few and small ones: 1000 is ten for each of
# the places where a script can run. The limits end a compression bomb before it has cost any time.
HEADER_MAX = 16 * 1024 * 1024
SCRIPTS_MAX = 1000
# Each is compared with each of the device's provides; mender-artifact writes three.
CLEARS_MAX = 1000

_HEADERS = tuple("header.tar" + suffix for suffix in SUFFIXES)
_PAYLOADS = tuple("data/0000.tar" + suffix for suffix in SUFFIXES)
_AUGMENTED = ("manifest-augment", *("header-augment.tar" + suffix for suffix in SUFFIXES))
_MANIFEST_LINE = re.compile("([0-9a-f]{64})  (.+)")
_NO_PROVIDES: Mapping[str, str] = {}


Receive = Callable[[str, Iterator[bytes]], None]
"""Called for each file of the payload, with its name and its content, which is not verified yet."""


def discard(_name: str, pieces: Iterator[bytes]) -> None:
    """Receive a file that nobody needs."""
    for _ in pieces:
        pass


class PayloadFile(NamedTuple):
    """A file of the payload."""

    name: str
    size: int
    sha256: str


class Verified(NamedTuple):
    """What a verified artifact says of itself.

    `provides` and `clears_provides` are the payload's; `depends` holds all conditions but the device type.
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
    file: BinaryIO,
    *,
    device_type: str,
    provides: Mapping[str, str] = _NO_PROVIDES,
    check_signature: Callable[[bytes, bytes], bool] | None = None,
    receive: Receive = discard,
) -> Verified:
    """Read an artifact from its first byte to its last; raise `ArtifactRejected` unless all of it is right.

    `check_signature(manifest, signature)` is the device's keys; without it, as in the reference client, a
    signature is not looked at. Signature, manifest and header are judged before any byte of the payload.
    `receive` gets the files as they are read, so what it does with them must be undone if this raises.
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
    info, type_info = _read_header(_hashed(outer.body(), stored), header.name)
    _check_sum(sums, header.name, stored.hexdigest())
    verified = _verified(info, type_info, signed=check_signature is not None)
    _check_device(verified, device_type, provides)

    member = outer.next()
    # mender-artifact writes an empty data/0000.tar for no payload; the reference client needs none.
    if member or verified.payload_type is not None:
        payload = _expect(member, *_PAYLOADS)
        files = _check_payload(outer.body(), payload.name, verified, sums, receive)
        verified = verified._replace(files=tuple(files))
        if extra := outer.next():
            raise damaged(f"{shown(extra.name)} stands after the payload")
    for name in sums:
        raise damaged(f"the manifest lists {shown(name)}, which is not there")
    return verified


def _expect(member: Member | None, *names: str) -> Member:
    if member is None:
        raise damaged(f"it ends where {names[0]} should be")
    if member.name in _AUGMENTED:
        raise ArtifactRejected(
            f"The artifact has an augmented part ({member.name}), which is not supported; "
            "deploy one that was built without."
        )
    if member.name not in names:
        raise damaged(f"{shown(member.name)} stands where {names[0]} should be")
    return member


def _check_version(data: bytes) -> None:
    version = as_object(parsed(data, "version"), "version")
    if version != {"format": "mender", "version": 3}:
        raise ArtifactRejected(
            f"The artifact says {shown(data.decode())} of its format, "
            "and only mender, version 3 is supported; build it as that."
        )


def _check_signature(check: Callable[[bytes, bytes], bool], manifest: bytes, signature: bytes | None) -> None:
    if signature is None:
        raise ArtifactRejected(
            "The artifact is not signed, and this device accepts signed ones only; "
            "sign it with mender-artifact and upload it again."
        )
    try:
        raw = binascii.a2b_base64(signature, strict_mode=True)
    except ValueError:
        raise damaged("its signature is not base64") from None
    if not check(manifest, raw):
        raise ArtifactRejected(
            "The artifact's signature was made by none of the keys this device trusts, or its manifest was "
            "changed afterwards; sign it with the right key and upload it again."
        )


def _sums(manifest: bytes) -> dict[str, str]:
    """The checksum of each name in a manifest: `sha256sum`'s lines, each name once."""
    try:
        lines = manifest.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise damaged("its manifest is not UTF-8") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _MANIFEST_LINE.fullmatch(line)
        if not match or not is_safe_name(match[2]):
            raise damaged(f"line {number} of its manifest is not a checksum, two blanks and a safe name")
        if match[2] in sums:
            raise damaged(f"its manifest lists {shown(match[2])} twice")
        sums[match[2]] = match[1]
    # Sorted with the separator first, what is in a directory follows it at once.
    paths = sorted(f"{name}/".replace("/", "\0") for name in sums)
    for path, next_path in zip(paths, paths[1:], strict=False):
        if next_path.startswith(path):
            name = path[:-1].replace("\0", "/")
            raise damaged(f"its manifest lists {shown(name)} as a file and as a directory")
    return sums


def _check_sum(sums: dict[str, str], name: str, actual: str) -> None:
    """Tick a name off: what is left of `sums` at the end was listed and never seen."""
    listed = sums.pop(name, None)
    if listed is None:
        raise damaged(f"{shown(name)} is there twice or not in the manifest")
    if listed != actual:
        raise damaged(f"{shown(name)} does not match its checksum in the manifest")


def _hashed(pieces: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _read_header(stored: Iterator[bytes], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON objects header-info and type-info of a header.tar; the scripts and meta-data only pass by."""
    header = Reader(_at_most(HEADER_MAX, uncompressed(stored, name), name), name)
    _expect(header.next(), "header-info")
    info = as_object(parsed(header.content(JSON_MAX), "header-info"), "header-info")
    scripts: set[str] = set()
    while (member := header.next()) and re.fullmatch("scripts/[^/]+", member.name):
        if member.name in scripts or len(scripts) == SCRIPTS_MAX:
            raise damaged(f"{name} has {shown(member.name)} twice, or more than {SCRIPTS_MAX} scripts")
        scripts.add(member.name)
    _expect(member, "headers/0000/type-info")
    type_info = as_object(parsed(header.content(JSON_MAX), "type-info"), "type-info")
    if member := header.next():
        _expect(member, "headers/0000/meta-data")
        # Empty in every rootfs-image that mender-artifact writes.
        if data := header.content(JSON_MAX):
            as_object(parsed(data, "meta-data"), "meta-data")
        if extra := header.next():
            raise damaged(f"{shown(extra.name)} stands after the meta-data in {name}")
    return info, type_info


def _at_most(limit: int, pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    for piece in pieces:
        limit -= len(piece)
        if limit < 0:
            raise damaged(f"{name} is larger than {HEADER_MAX} bytes")
        yield piece


def _verified(info: dict[str, Any], type_info: dict[str, Any], *, signed: bool) -> Verified:
    payloads = info.get("payloads")
    if not isinstance(payloads, list) or len(payloads) != 1:
        raise damaged("its header-info does not name exactly one payload")
    payload_type = as_object(payloads[0], "payload of header-info").get("type")
    if payload_type is not None:
        payload_type = as_text(payload_type, "payload type")
    # mender-artifact leaves the type of a rootfs-image empty; the reference client puts up with that too
    # (src/artifact/v3/header/header.cpp, "workaround").
    named_again = type_info.get("type", "")
    if named_again != payload_type and (named_again, payload_type) != ("", "rootfs-image"):
        raise damaged("its header-info and its type-info name different payload types")

    named = as_object(info.get("artifact_provides"), "artifact_provides")
    depends = texts_by_key(info.get("artifact_depends"), "artifact_depends")
    if not depends.get("device_type"):
        raise damaged("its header-info names no device type")
    for key, texts in texts_by_key(given(type_info, "artifact_depends", {}), "artifact_depends").items():
        # Named in both places, both must hold. A set: two long lists would take minutes.
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
    """Return the patterns of the provides that an artifact clears: all of them if it names none."""
    patterns = as_texts(given(type_info, "clears_artifact_provides", ["*"]), "clears_artifact_provides")
    if len(patterns) > CLEARS_MAX:
        raise damaged(f"it clears more than {CLEARS_MAX} patterns of provides")
    return patterns


def _check_device(artifact: Verified, device_type: str, provides: Mapping[str, str]) -> None:
    """Refuse what is not for this device (src/mender-update/context/context.cpp, ArtifactMatchesContext)."""
    if device_type not in artifact.device_types:
        raise ArtifactRejected(
            f"The artifact {shown(artifact.name)} is for device type {_listed(artifact.device_types)}, "
            f"and this device is {shown(device_type)}; deploy one that was built for it."
        )
    for key, wanted in artifact.depends.items():
        if provides.get(key) not in wanted:
            has = shown(provides[key]) if key in provides else "none"
            raise ArtifactRejected(
                f"The artifact {shown(artifact.name)} needs {shown(key)} to be {_listed(wanted)}, "
                f"and this device has {has}; deploy what it depends on first."
            )


def _listed(texts: tuple[str, ...]) -> str:
    if not texts:
        return "nothing at all"
    more = f" or {len(texts) - 5} others" if len(texts) > 5 else ""
    return " or ".join(shown(text) for text in texts[:5]) + more


def _check_payload(
    stored: Iterator[bytes], name: str, artifact: Verified, sums: dict[str, str], receive: Receive
) -> Iterator[PayloadFile]:
    payload = Reader(uncompressed(stored, name), name)
    while member := payload.next():
        if artifact.payload_type is None:
            raise damaged(f"it has no payload type, and {shown(member.name)} for a payload")
        listed_as = f"data/0000/{member.name}"
        if listed_as not in sums:
            raise damaged(f"{shown(listed_as)} is there twice or not in the manifest")
        digest = hashlib.sha256()
        pieces = _hashed(payload.body(), digest)
        receive(member.name, pieces)
        discard(member.name, pieces)
        _check_sum(sums, listed_as, digest.hexdigest())
        yield PayloadFile(member.name, member.size, digest.hexdigest())
