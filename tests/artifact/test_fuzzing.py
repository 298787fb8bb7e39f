"""Any bytes in any place of an artifact: accepted, or rejected in one line."""

import json
from dataclasses import replace
from typing import Any

from helpers import corpus
from helpers.corpus import END, Artifact, header, header_info, member
from helpers.verifying import verify, with_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mender_oneshot.artifact.verify import Verified
from mender_oneshot.errors import ArtifactRejected

WHOLE = Artifact(
    scripts={"ArtifactInstall_Enter_00": b"#!/bin/sh\n"},
    type_info={"type": "app", "artifact_provides": {"a": "b"}, "clears_artifact_provides": ["a.*"]},
    meta_data={"a": [1]},
    signature=b"c2lnbmF0dXJl",
)

quick = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["app", "board"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["type"]), inner),
    max_leaves=8,
)


def accepted_or_refused(data: bytes, **options: Any) -> Verified | None:
    try:
        return verify(data, **options)
    except ArtifactRejected as refused:
        text = str(refused)
    assert text.isprintable()
    return None


@quick
@given(st.binary(max_size=4096))
def test_any_bytes_are_rejected(data: bytes) -> None:
    assert accepted_or_refused(data) is None


@quick
@given(
    st.sampled_from(["", ".gz", ".xz"]),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 600), st.binary(max_size=600)), max_size=4),
)
def test_an_artifact_with_pieces_replaced_is_rejected_or_has_the_same_members(
    suffix: str, changes: list[tuple[int, int, bytes]]
) -> None:
    data = replace(WHOLE, suffix=suffix).bytes()
    whole = verify(data)
    for at, length, other in changes:
        data = data[:at] + other + data[at + length :]
    assert accepted_or_refused(data) in (None, whole)


@quick
@given(st.binary(max_size=3000), st.sampled_from(["", ".gz", ".xz"]), st.booleans())
def test_any_bytes_with_the_right_checksum_are_accepted_or_rejected(
    inner: bytes, suffix: str, stored: bool
) -> None:
    if stored:
        bent = [Artifact(stored_header=inner or b"\0"), Artifact(stored_payload=inner or b"\0")]
    else:
        bent = [Artifact(header_tar=inner), Artifact(payload_tar=inner)]
    for made in bent:
        accepted_or_refused(replace(made, suffix=suffix).bytes())


@quick
@given(st.binary(max_size=512), st.integers(0, 512), st.binary(max_size=3000))
def test_any_header_block_with_the_right_checksum_is_accepted_or_rejected(
    block: bytes, at: int, rest: bytes
) -> None:
    base = bytearray(header(b"app", 15))
    base[at : at + len(block)] = block[: 512 - at]
    accepted_or_refused(with_files(corpus.checksummed(bytes(base)) + rest, app=b"content of app\n"))


@quick
@given(st.binary(max_size=600), st.sampled_from([b"x", b"L"]))
def test_any_extended_header_is_accepted_or_rejected(records: bytes, kind: bytes) -> None:
    payload = member("extended", records, kind=kind) + member("app", b"content of app\n") + END
    accepted_or_refused(with_files(payload, app=b"content of app\n"))


@quick
@given(jsons, jsons, jsons, jsons)
def test_any_json_in_the_header_is_accepted_or_rejected(one: Any, two: Any, three: Any, four: Any) -> None:
    for written in (
        one,
        header_info(payloads=one, artifact_provides=two),
        header_info(artifact_depends=three),
    ):
        accepted_or_refused(Artifact(header_info=written).bytes())
    for type_info in (one, {"type": "app", "artifact_provides": two, "artifact_depends": three}):
        accepted_or_refused(Artifact(type_info=type_info, meta_data=json.dumps(four).encode()).bytes())
    accepted_or_refused(Artifact(version=json.dumps(one).encode()).bytes())


@quick
@given(st.text(), st.text())
def test_any_name_that_is_accepted_is_read_as_it_was_written(name: str, device: str) -> None:
    written = header_info(
        artifact_provides={"artifact_name": name}, artifact_depends={"device_type": [device]}
    )
    verified = accepted_or_refused(Artifact(header_info=written).bytes(), device_type=device)
    if verified:
        assert verified.name == name
        assert len(f"MENDER_ARTIFACT_NAME={name}".splitlines()) == 1
        name.encode()


@quick
@given(st.binary(max_size=2000))
def test_any_manifest_and_any_signature_are_accepted_or_rejected(data: bytes) -> None:
    accepted_or_refused(Artifact(manifest=data).bytes())
    accepted_or_refused(Artifact(signature=data).bytes(), check_signature=lambda _manifest, _signature: True)
