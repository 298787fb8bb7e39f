"""Artifacts that no module can take: rejected before anything is changed, with a sentence."""

import json
from pathlib import Path

import pytest
from helpers.device import Device, newest_only
from helpers.update_module import TREE, Recorder, next_install

pytestmark = newest_only


@pytest.fixture
def device(tmp_path: Path, python: str) -> Device:
    """A device without a server."""
    return Device(tmp_path / "device", python)


@pytest.fixture
def module(device: Device) -> Recorder:
    return Recorder(device)


def nothing_done(device: Device, module: Recorder) -> None:
    assert module.calls == []
    for name in (TREE, "scripts", "installer.json"):
        assert not (device.data / name).exists()
    assert device.ok("show-artifact").out == "release-1\n"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("other", 78),
        ("Fake", 78),
        ("../v3/fake", 78),
        ("../../../bin/sh", 78),
        ("a/b", 78),
        ("/bin/sh", 78),
        (".", 78),
        ("..", 78),
        ("x" * 300, 78),
        ("fake ", 78),
        ("", 65),
        ("fake\0", 65),
        ("fake\n", 65),
        ("\x1b[2J", 65),
    ],
)
def test_a_payload_type_without_a_module_is_rejected(
    device: Device, module: Recorder, kind: str, code: int
) -> None:
    done = device.run("install", module.artifact(device, payload_type=kind))
    assert done.code == code, done
    assert len(done.err.splitlines()) == 1
    assert len(done.err) < 1000
    assert "there is no update module for the payload type" in done.err or code == 65
    assert done.err.strip().isprintable()
    nothing_done(device, module)


@pytest.mark.parametrize("name", ["a/b", "b/", "files/../a", "x" * 300])
def test_a_payload_file_in_a_directory_is_rejected(device: Device, module: Recorder, name: str) -> None:
    done = device.run("install", module.artifact(device, payload={"good": b"1", name: b"2"}))
    assert done.code in (65, 70), done
    assert "Traceback" not in done.err
    assert "ArtifactInstall" not in module.calls
    assert not (device.data / TREE).exists()
    next_install(device, module)


@pytest.mark.parametrize("name", ["a b", "$(reboot)", "ä", "-x" * 100])
def test_an_odd_name_of_a_payload_file_is_kept(device: Device, module: Recorder, name: str) -> None:
    device.ok("install", module.artifact(device, payload={name: b"1"}))
    assert [path.name for path in (device.data / TREE / "files").iterdir()] == [name]


META_DATA = {
    "empty": (b"", "null"),
    "empty object": (b"{}", "{}"),
    "object": (b'{"b": 2.50, "a": "\\u00e4"}', None),
}
# Of those that tests/artifact has, one of each kind.
BAD_META_DATA = {"null": b"null", "no JSON": b"{", "huge": b'{"a":"' + b"x" * 300_000 + b'"}'}


@pytest.mark.parametrize("case", META_DATA)
def test_meta_data_is_one_object_or_nothing(device: Device, module: Recorder, case: str) -> None:
    content, expected = META_DATA[case]
    device.ok("install", module.artifact(device, meta_data=content))
    found = (device.data / TREE / "header" / "meta-data").read_text()
    assert found == expected if expected else json.loads(found) == json.loads(content)


@pytest.mark.parametrize("case", BAD_META_DATA)
def test_other_meta_data_is_rejected(device: Device, module: Recorder, case: str) -> None:
    done = device.run("install", module.artifact(device, meta_data=BAD_META_DATA[case]))
    assert done.code == 65, done
    assert "meta-data" in done.err
    assert len(done.err.splitlines()) == 1
    nothing_done(device, module)


def test_depends_that_are_not_met_are_named(device: Device, module: Recorder) -> None:
    done = device.run("install", module.artifact(device, depends={"app.version": ["1", "2"]}))
    assert done.code == 65
    assert "needs app.version to be 1 or 2, but this device has none" in done.err
    nothing_done(device, module)
    device.ok("install", module.artifact(device, provides={"app.version": "1"}))
    device.ok("commit")
    device.ok("install", module.artifact(device, "release-3", depends={"app.version": ["1", "2"]}))


@pytest.mark.parametrize(
    "name", ["Download_Enter_00", "ArtifactInstall_Enter_0", "version", "a/b", "install"]
)
def test_a_script_that_no_state_has_makes_the_artifact_invalid(
    device: Device, module: Recorder, name: str
) -> None:
    done = device.run("install", module.artifact(device, scripts={name: "#!/bin/sh\n"}))
    assert done.code == 65, done
    assert f"scripts/{name} is not the name of a state script" in done.err
    nothing_done(device, module)
