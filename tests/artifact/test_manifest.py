"""The version, the manifest and the signature of an artifact."""

from typing import Any

import pytest
from helpers import corpus
from helpers.corpus import Artifact
from helpers.verifying import rejection, verify


@pytest.mark.parametrize(
    "version",
    [
        {"format": "mender", "version": 2},
        {"format": "mender", "version": "3"},
        {"format": "other", "version": 3},
        {"format": "mender"},
        {"format": "mender", "version": 3, "more": 1},
        {"format": ["\n" * 90], "version": {"a": [1]}},
        {},
        [],
        b"",
        b"3",
        b"{",
        b'{"format":"mender","version":3}' + b" " * 1000,
        b'{"format":"mender","version":2,"version":3}',
        b"[" * 1000,
        b'{"version":' + b"[" * 450 + b"]" * 450 + b"}",
        b"\xff\xfe",
    ],
)
def test_a_version_other_than_mender_3_is_rejected(version: Any) -> None:
    rejection(Artifact(version=corpus.as_json(version)).bytes())


SUM = "0" * 64


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (f"{SUM}  data/0000/absent\n", "lists data/0000/absent, which is missing"),
        (f"{SUM}  header-augment.tar\n", "lists header-augment.tar, which is missing"),
        (f"{SUM}  version\n", "lists version twice"),
        (f"{SUM}  data/0000/app\n", "lists data/0000/app twice"),
        (f"{'A' * 64}  data/0000/x\n", "line 4 of its manifest"),
        (f"{'0' * 63}  data/0000/x\n", "line 4"),
        (f"{'0' * 65}  data/0000/x\n", "line 4"),
        (f"{SUM} data/0000/x\n", "line 4"),
        (f"{SUM}\tdata/0000/x\n", "line 4"),
        (f"{SUM} *data/0000/x\n", "line 4"),
        (f"{SUM}  data/0000/x\r\n", "line 4"),
        (f"{SUM}  \n", "line 4"),
        (f"{SUM}\n", "line 4"),
        ("\n", "line 4"),
        (f"{SUM}  /etc/passwd\n", "line 4"),
        (f"{SUM}  data/0000/../x\n", "line 4"),
        (f"{SUM}  data/0000/\n", "line 4"),
        (f"{SUM}  data/0000/a\0b\n", "line 4"),
        (f"{SUM}  data/0000/a\x1bb\n", "line 4"),
        (f"{SUM}  data/0000/{'e' * 5000}\n", "line 4"),
        (f"{SUM}  data/0000/x\n" * 20000, "manifest in the file is larger than 1048576 bytes"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_a_manifest_with_an_extra_or_malformed_line_is_rejected(more: str | bytes, why: str) -> None:
    manifest = Artifact().parts()["manifest"] + (more.encode() if isinstance(more, str) else more)
    assert why in rejection(Artifact(manifest=manifest).bytes())


def test_a_manifest_with_a_missing_or_wrong_line_is_rejected() -> None:
    manifest = Artifact().parts()["manifest"]
    lines = manifest.splitlines(keepends=True)
    assert len(lines) == 3
    for number, name in enumerate(("data/0000/app", "header.tar", "version")):
        fewer = b"".join(lines[:number] + lines[number + 1 :])
        assert f"{name} is a duplicate or not in the manifest" in rejection(Artifact(manifest=fewer).bytes())
        wrong = manifest.replace(lines[number][:64], SUM.encode())
        assert f"{name} does not match its checksum" in rejection(Artifact(manifest=wrong).bytes())
    rejection(Artifact(manifest=b"").bytes())


def test_a_manifest_without_its_last_line_break_is_accepted() -> None:
    verify(Artifact(manifest=Artifact().parts()["manifest"].removesuffix(b"\n")).bytes())


def test_with_keys_an_unsigned_or_wrongly_signed_artifact_is_rejected() -> None:
    signed = Artifact(signature=b"c2lnbmF0dXJl")
    asked: list[tuple[bytes, bytes]] = []

    def check(manifest: bytes, signature: bytes) -> bool:
        asked.append((manifest, signature))
        return signature == b"signature"

    assert verify(signed.bytes(), check_signature=check).signed
    assert asked == [(signed.parts()["manifest"], b"signature")]
    assert not verify(signed.bytes()).signed
    assert "not signed" in rejection(Artifact().bytes(), check_signature=check)
    assert "none of the keys" in rejection(Artifact(signature=b"b3RoZXI=").bytes(), check_signature=check)


@pytest.mark.parametrize(
    "signature",
    [b"c2lnbmF0dXJl\n", b"c2ln bmF0dXJl", b"c2lnbmF0dXJ", b"====", b"\xff\xff", b"c2ln=mF0", b"A"],
)
def test_a_signature_must_be_strict_base64(signature: bytes) -> None:
    def never(_manifest: bytes, _signature: bytes) -> bool:
        raise AssertionError

    made = Artifact(signature=signature).bytes()
    assert "not base64" in rejection(made, check_signature=never)
    assert not verify(made).signed


def test_a_signature_has_a_limit() -> None:
    assert "manifest.sig in the file is larger than 8192 bytes" in rejection(
        Artifact(signature=b"A" * 8196).bytes()
    )


def test_the_signature_is_checked_before_the_manifest_is_read() -> None:
    made = Artifact(signature=b"b3RoZXI=", manifest=b"nonsense", header_tar=b"nonsense").bytes()
    assert "none of the keys" in rejection(made, check_signature=lambda _manifest, _signature: False)


def test_a_name_that_is_a_file_and_a_directory_is_rejected() -> None:
    manifest = Artifact().parts()["manifest"]
    for name in ("data/0000/app/part", "data/0000/app/a/b"):
        more = manifest + f"{'0' * 64}  {name}\n".encode()
        assert "lists data/0000/app as a file and as a directory" in rejection(
            Artifact(manifest=more).bytes()
        )
    more = manifest + f"{'0' * 64}  data/0000/app.more\n".encode()
    assert "lists data/0000/app.more, which is missing" in rejection(Artifact(manifest=more).bytes())
