"""Coverage-guided fuzzing of `artifact.verify`; not a test, for it needs atheris and never ends by itself.

Any exception but `ArtifactRejected` is a finding, as is a rejection that is not one plain sentence.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    export PYTHONPATH=.:tests
    /tmp/fuzz/bin/python tests/fuzz/artifact.py -max_total_time=180 -max_len=16384 /tmp/fuzz/corpus

The corpus directory keeps what was found, so that the next run resumes from there; artifacts that are whole
are put into it first. Most inputs have their checksums corrected (see `correct`), else none would pass them.
"""

import hashlib
import importlib
import io
import sys
from pathlib import Path
from typing import Any

from helpers import corpus

# Not a plain import: atheris is not among the tools the other checks run with.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mender_oneshot"]):
    from mender_oneshot import errors
    from mender_oneshot.artifact import verify as artifact


def members(data: bytes) -> list[tuple[int, bytes, int]]:
    """Offset of header, name and size of the members, as far as they make sense."""
    found: list[tuple[int, bytes, int]] = []
    at = 0
    while at + 512 <= len(data) and data[at] and len(found) < 20:
        try:
            size = int(data[at + 124 : at + 135], 8)
        except ValueError:
            size = 0
        found.append((at, data[at : at + 100].rstrip(b"\0"), size))
        at += 512 + (size + 511) // 512 * 512
    return found


def correct(data: bytes) -> bytes:
    """Right the checksums of the tar headers, of nested ones too, and the sums in the manifest."""
    whole = bytearray(data)
    sums = {}
    for at, name, size in members(data):
        whole[at : at + 512] = corpus.checksummed(bytes(whole[at : at + 512]))
        body = slice(at + 512, at + 512 + size)
        if name in (b"header.tar", b"data/0000.tar") and size <= len(data):
            inner = bytearray(whole[body])
            for inner_at, inner_name, inner_size in members(bytes(inner)):
                inner[inner_at : inner_at + 512] = corpus.checksummed(bytes(inner[inner_at : inner_at + 512]))
                content = inner[inner_at + 512 : inner_at + 512 + inner_size]
                if name == b"data/0000.tar":
                    sums[b"data/0000/" + inner_name] = hashlib.sha256(content).hexdigest()
            whole[body] = inner
        sums[name] = hashlib.sha256(whole[body]).hexdigest()
    for at, name, size in members(data):
        if name == b"manifest" and size <= len(data):
            body = slice(at + 512, at + 512 + size)
            lines = bytes(whole[body]).split(b"\n")
            for number, line in enumerate(lines):
                if len(line) > 66 and line[66:] in sums:
                    lines[number] = sums[line[66:]].encode() + line[64:]
            whole[body] = b"\n".join(lines)
    return bytes(whole)


SEPARATOR = b"\n\n"


def from_parts(data: bytes, suffix: str) -> bytes:
    """A well-formed artifact around texts and a payload that are not: this reaches what `correct` cannot."""
    texts = [*data.split(SEPARATOR, 4), b"", b"", b"", b""]
    return corpus.Artifact(
        header_info=texts[0],
        type_info=texts[1],
        meta_data=texts[2] or None,
        signature=texts[3] or None,
        payload_tar=texts[4] or None,
        suffix=suffix,
    ).bytes()


def one_input(data: bytes) -> None:
    """The first byte says what the rest is, and whether there is a verify key."""
    if not data:
        return
    choice, data = data[0], data[1:]
    if choice & 4:
        data = from_parts(data, (".gz", ".xz", "", "")[choice >> 3 & 3])
    elif choice & 1:
        data = correct(data)
    check = (lambda manifest, signature: len(signature) > 2) if choice & 2 else None
    try:
        artifact.verify(
            io.BytesIO(data), device_type="board", provides={"artifact_name": "a"}, check_signature=check
        )
    except errors.ArtifactRejected as refusal:
        text = str(refusal)
        assert text.isprintable(), text
        assert text.endswith("."), text


def seeds() -> list[bytes]:
    whole = corpus.Artifact(
        scripts={"ArtifactInstall_Enter_00": b"#!/bin/sh\n"},
        type_info={
            "type": "app",
            "artifact_provides": {"a": "b"},
            "artifact_depends": {"artifact_name": ["a"]},
            "clears_artifact_provides": ["a.*"],
        },
        meta_data={"a": [1, None, {"b": "c"}]},
        signature=b"c2lnbmF0dXJl",
    )
    long = "n" * 150
    named = corpus.Artifact(
        files={long: b"content"},
        payload_tar=corpus.pax({"path": long, "mtime": "1.5"})
        + corpus.member(long[:100], b"content")
        + corpus.END,
    )
    empty = corpus.Artifact(
        files={},
        header_info={**corpus.HEADER_INFO, "payloads": [{"type": None}]},
        type_info={"type": None},
    )
    made = [whole, named, empty, corpus.Artifact(suffix=".gz"), corpus.Artifact(suffix=".xz")]
    texts = [
        SEPARATOR.join(
            [
                corpus.as_json(one.header_info),
                corpus.as_json(one.type_info),
                b'{"a":1}',
                b"c2lnbmF0dXJl",
                one.payload_tar or b"",
            ]
        )
        for one in (whole, named, empty)
    ]
    return [bytes([choice]) + one.bytes() for one in made for choice in (0, 1, 2)] + [
        bytes([choice]) + text for text in texts for choice in (4, 6, 12, 20)
    ]


if __name__ == "__main__":
    kept = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if kept:
        kept[0].mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (kept[0] / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
