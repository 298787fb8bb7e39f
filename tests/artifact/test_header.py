"""What the header of an artifact may contain: header-info, type-info, meta-data, depends."""

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest
from helpers import corpus
from helpers.corpus import END, HEADER_INFO, Artifact, header_info, member
from helpers.verifying import MIB, rejection, verify

DEVICES = {"device_type": ["board"]}

NAMED = {"artifact_name": "release-1"}


@pytest.mark.parametrize(
    "header_info",
    [
        {},
        [],
        b"",
        b"null",
        b"{",
        b'{"a":1}{"b":2}',
        b"\xff",
        b"\xef\xbb\xbf" + corpus.as_json(HEADER_INFO),
        corpus.as_json(HEADER_INFO)[:-1] + b',"payloads":[{"type":"app"}]}',
        header_info(payloads=[]),
        header_info(payloads=[{"type": "app"}, {"type": "app"}]),
        header_info(payloads=[None]),
        header_info(payloads={"type": "app"}),
        header_info(payloads=None),
        header_info(payloads=[{"type": "other"}]),
        header_info(payloads=[{"type": ""}]),
        header_info(payloads=[{"type": 1}]),
        header_info(payloads=[{"type": ["app"]}]),
        header_info(payloads=[{}]),
        header_info(artifact_provides=None),
        header_info(artifact_provides={}),
        header_info(artifact_provides=[]),
        header_info(artifact_provides={"artifact_name": ""}),
        header_info(artifact_provides={"artifact_name": 1}),
        header_info(artifact_provides={"artifact_name": None}),
        header_info(artifact_provides={"artifact_name": "two\nlines"}),
        header_info(artifact_provides={"artifact_name": "nul\0"}),
        header_info(artifact_provides={"artifact_name": "lone \ud800 surrogate"}),
        header_info(artifact_provides={**NAMED, "artifact_group": 1}),
        header_info(artifact_provides={**NAMED, "artifact_group": []}),
        header_info(artifact_provides={**NAMED, "artifact_group": "two\nlines"}),
        header_info(artifact_depends=None),
        header_info(artifact_depends={}),
        header_info(artifact_depends=[]),
        header_info(artifact_depends={"device_type": []}),
        header_info(artifact_depends={"device_type": [1]}),
        header_info(artifact_depends={"device_type": [["board"]]}),
        header_info(artifact_depends={"device_type": ["board", ""]}),
        header_info(artifact_depends={"device_type": ["board", "a\nb"]}),
        header_info(artifact_depends={"device_type": {"board": 1}}),
        header_info(artifact_depends={**DEVICES, "artifact_name": 7}),
        header_info(artifact_depends={**DEVICES, "artifact_name": []}),
        header_info(artifact_depends={**DEVICES, "artifact_name": [None]}),
        header_info(artifact_depends={**DEVICES, "": ["x"]}),
    ],
)
def test_an_invalid_header_info_is_rejected(header_info: Any) -> None:
    rejection(Artifact(header_info=header_info).bytes())


@pytest.mark.parametrize(
    "type_info",
    [
        [],
        b"",
        b"null",
        {},
        {"type": "other"},
        {"type": None},
        {"type": ""},
        {"type": ["app"]},
        {"type": "app", "artifact_provides": []},
        {"type": "app", "artifact_provides": {"a": 1}},
        {"type": "app", "artifact_provides": {"a": ["b"]}},
        {"type": "app", "artifact_provides": {"a": "two\nlines"}},
        {"type": "app", "artifact_provides": {"a\n": "b"}},
        {"type": "app", "artifact_provides": {"": "b"}},
        {"type": "app", "artifact_provides": {"\ud800": "b"}},
        {"type": "app", "artifact_depends": {"a": 1}},
        {"type": "app", "artifact_depends": {"a": {"b": "c"}}},
        {"type": "app", "artifact_depends": [1]},
        {"type": "app", "clears_artifact_provides": {"a": "b"}},
        {"type": "app", "clears_artifact_provides": [1]},
        {"type": "app", "clears_artifact_provides": "a"},
        b'{"type":"app","type":"app"}',
        b'{"type":"app","a":NaN}',
        b'{"type":"app","a":-Infinity}',
        b'{"type":"app","a":' + b"9" * 100_000 + b"}",
        b'{"type":"app","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 40_000,
        b'{"type":"app","a":"' + b"x" * 300_000 + b'"}',
    ],
)
def test_an_invalid_type_info_is_rejected(type_info: Any) -> None:
    rejection(Artifact(type_info=type_info).bytes())


@pytest.mark.parametrize(
    "meta_data", [b"[]", b"null", b" ", b"{", b'{"a":1,"a":2}', b"[" * 100_000, b"x" * 300_000]
)
def test_invalid_meta_data_is_rejected(meta_data: bytes) -> None:
    rejection(Artifact(meta_data=meta_data).bytes())


def test_unknown_keys_of_the_header_are_ignored() -> None:
    verify(
        Artifact(
            header_info=header_info(later={"a": [1.5, True]}), type_info={"type": "app", "later": 1}
        ).bytes()
    )


def test_only_a_rootfs_image_may_leave_out_its_type_the_second_time() -> None:
    rootfs = header_info(payloads=[{"type": "rootfs-image"}])
    for type_info in ({}, {"type": ""}, {"type": "rootfs-image"}):
        assert (
            verify(Artifact(header_info=rootfs, type_info=type_info).bytes()).payload_type == "rootfs-image"
        )
    rejection(Artifact(header_info=rootfs, type_info={"type": "app"}).bytes())


def test_the_members_of_the_header_have_one_order() -> None:
    made = Artifact(scripts={"ArtifactInstall_Enter_00": b"#!/bin/sh\n"}, meta_data={})
    members = made.header_members()
    for order in itertools.permutations(members):
        if list(order) != members:
            rejection(replace(made, header_tar=b"".join(order) + END).bytes())
    for number in range(len(members)):
        twice = members[: number + 1] + members[number:]
        rejection(replace(made, header_tar=b"".join(twice) + END).bytes())
        for other in ("headers/0001/type-info", "headers/0000/files", "scripts/a/b", "scripts", "other"):
            more = [*members[:number], member(other, b"{}"), *members[number:]]
            rejection(replace(made, header_tar=b"".join(more) + END).bytes())
    # Scripts and meta-data only may be absent.
    verify(replace(made, header_tar=members[0] + members[2] + END).bytes())
    rejection(replace(made, header_tar=b"".join(members[1:]) + END).bytes())
    rejection(replace(made, header_tar=members[0] + members[1] + members[3] + END).bytes())
    rejection(replace(made, header_tar=END).bytes())


def test_an_artifact_may_have_1000_scripts_and_not_1001() -> None:
    verify(Artifact(scripts={f"ArtifactInstall_Enter_00_{number}": b"" for number in range(1000)}).bytes())
    more = {f"ArtifactInstall_Enter_00_{number}": b"" for number in range(1001)}
    assert "more than 1000 scripts" in rejection(Artifact(scripts=more).bytes())


@pytest.mark.parametrize(
    "name",
    [
        "version",
        "Download_Enter_00",
        "Idle_Leave_00",
        "ArtifactInstall_Enter",
        "ArtifactInstall_Enter_0",
        "ArtifactInstall_Enter_000",
        "ArtifactInstall_Enter_00 two",
        "ArtifactInstall_Enter_00_",
        "ArtifactVerify_Enter_00",
        "ArtifactInstall_enter_00",
        "ArtifactInstall_Enter_00_a/b",
        "install.sh",
    ],
)
def test_a_script_with_another_name_makes_the_artifact_invalid(name: str) -> None:
    rejection(Artifact(scripts={name: b"#!/bin/sh\n"}).bytes())


def test_there_is_a_limit_to_what_is_cleared() -> None:
    verify(Artifact(type_info={"type": "app", "clears_artifact_provides": ["a"] * 1000}).bytes())
    more = Artifact(type_info={"type": "app", "clears_artifact_provides": ["a"] * 1001}).bytes()
    assert "has more than 1000 patterns" in rejection(more)


def test_there_is_a_limit_to_the_whole_header() -> None:
    made = Artifact(scripts={"ArtifactInstall_Enter_00": bytes(16 * MIB)})
    for suffix in ("", ".gz", ".xz"):
        assert "is larger than 16777216 bytes" in rejection(replace(made, suffix=suffix).bytes())


def empty(**bent: Any) -> Artifact:
    return Artifact(
        header_info=header_info(payloads=[{"type": None}]), type_info={"type": None}, files={}, **bent
    )


def test_an_artifact_of_no_payload_may_have_an_empty_archive_or_none() -> None:
    assert verify(empty().bytes()).payload_type is None
    rejection(replace(empty(), type_info={}).bytes())
    assert verify(b"".join(empty().members()[:-1]) + END).payload_type is None
    rejection(b"".join(replace(Artifact(), files={}).members()[:-1]) + END)


def test_an_artifact_of_no_payload_with_a_file_is_rejected() -> None:
    assert "no payload type, but app" in rejection(replace(empty(), files={"app": b""}).bytes())


def test_an_artifact_for_other_device_types_is_rejected() -> None:
    many = header_info(artifact_depends={"device_type": [f"board-{number}" for number in range(1000)]})
    assert verify(Artifact(header_info=many).bytes(), device_type="board-999")
    assert rejection(Artifact(header_info=many).bytes(), device_type="board") == (
        "The artifact release-1 is for device type board-0 or board-1 or board-2 or board-3 or board-4 "
        "or 995 others, but this device is board; deploy one that was built for it."
    )
    for other in ("", "Board", "board ", "boar"):
        assert "is for device type board, but this device is" in rejection(
            Artifact().bytes(), device_type=other
        )


@pytest.mark.parametrize(
    ("in_header", "in_type_info", "provides", "missing"),
    [
        ({}, {}, {}, None),
        ({"artifact_name": ["a", "b"]}, {}, {"artifact_name": "b"}, None),
        (
            {"artifact_name": ["a", "b"]},
            {},
            {"artifact_name": "c"},
            "artifact_name to be a or b, but this device has c",
        ),
        ({"artifact_name": ["a"]}, {}, {}, "artifact_name to be a, but this device has none"),
        ({"artifact_group": ["g"]}, {}, {"artifact_group": "h"}, "artifact_group"),
        ({}, {"shape": "round"}, {"shape": "round"}, None),
        ({}, {"shape": ["round", "flat"]}, {"shape": "flat"}, None),
        ({}, {"shape": ["round", "flat"]}, {"shape": "high"}, "shape"),
        ({}, {"shape": "round"}, {"Shape": "round"}, "shape"),
        ({}, {"a": "1", "b": "2"}, {"a": "1"}, "b to be 2"),
        ({"artifact_name": ["a", "b"]}, {"artifact_name": ["b", "c"]}, {"artifact_name": "b"}, None),
        (
            {"artifact_name": ["a", "b"]},
            {"artifact_name": ["b", "c"]},
            {"artifact_name": "a"},
            "to be b, but",
        ),
        ({}, {"device_type": "board"}, {}, None),
        ({}, {"device_type": "other"}, {}, "is for device type none"),
    ],
)
def test_an_artifact_whose_dependencies_are_not_met_is_rejected(
    in_header: dict[str, Any], in_type_info: dict[str, Any], provides: dict[str, str], missing: str | None
) -> None:
    made = Artifact(
        header_info=header_info(artifact_depends={**DEVICES, **in_header}),
        type_info={"type": "app", "artifact_depends": in_type_info},
    ).bytes()
    if missing is None:
        verify(made, provides=provides)
    else:
        assert missing in rejection(made, provides=provides)


def test_long_lists_of_what_it_depends_on_take_no_time() -> None:
    wanted = [f"{number:x}" for number in range(30_000)]
    made = Artifact(
        header_info=header_info(artifact_depends={**DEVICES, "artifact_name": wanted}),
        type_info={"type": "app", "artifact_depends": {"artifact_name": wanted[::-1]}},
    ).bytes()
    begun = time.process_time()
    verify(made, provides={"artifact_name": "7"})
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"version": b"[]"}, "its version is not a JSON object"),
        ({"version": b"{"}, "its version is not JSON with unique keys"),
        ({"header_info": []}, "its header-info is not a JSON object"),
        ({"header_info": b"{"}, "its header-info is not JSON with unique keys"),
        ({"header_info": header_info(payloads=None)}, "its header-info does not list exactly one payload"),
        ({"header_info": header_info(payloads=[None])}, "its payload of header-info is not a JSON object"),
        ({"header_info": header_info(payloads=[{"type": 1}])}, "its payload type is missing or"),
        ({"header_info": header_info(artifact_provides=None)}, "its artifact_provides is not a JSON object"),
        ({"header_info": header_info(artifact_provides={})}, "its artifact_name is missing or"),
        (
            {"header_info": header_info(artifact_provides={"artifact_name": "a", "artifact_group": 1})},
            "its artifact_group is missing or",
        ),
        ({"header_info": header_info(artifact_depends=None)}, "its artifact_depends is not a JSON object"),
        ({"header_info": header_info(artifact_depends={"device_type": []})}, "has no device type"),
        (
            {"header_info": header_info(artifact_depends={"device_type": [1]})},
            "its artifact_depends is missing or",
        ),
        ({"type_info": []}, "its type-info is not a JSON object"),
        ({"type_info": b"{"}, "its type-info is not JSON with unique keys"),
        (
            {"type_info": {"type": "app", "artifact_provides": []}},
            "its artifact_provides is not a JSON object",
        ),
        ({"type_info": {"type": "app", "artifact_provides": {"a": 1}}}, "its a is missing or"),
        (
            {"type_info": {"type": "app", "artifact_provides": {"": "b"}}},
            "its artifact_provides is missing or",
        ),
        (
            {"type_info": {"type": "app", "artifact_depends": [1]}},
            "its artifact_depends is not a JSON object",
        ),
        (
            {"type_info": {"type": "app", "clears_artifact_provides": {}}},
            "its clears_artifact_provides is not a list of strings",
        ),
        (
            {"type_info": {"type": "app", "clears_artifact_provides": [1]}},
            "its clears_artifact_provides is missing or",
        ),
        ({"meta_data": b"[]"}, "its meta-data is not a JSON object"),
        ({"meta_data": b"{"}, "its meta-data is not JSON with unique keys"),
    ],
    ids=str,
)
def test_the_message_names_the_member_that_is_wrong(part: dict[str, Any], what: str) -> None:
    assert what in rejection(Artifact(**part).bytes())
