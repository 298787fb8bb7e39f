"""What a device provides after an artifact is installed: the file beside the artifact, and its rules."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device

from mender_oneshot import provides
from mender_oneshot.artifact.verify import Verified
from mender_oneshot.devserver import DevServer
from mender_oneshot.errors import ArtifactRejected
from mender_oneshot.key_values import parse

INSTALLED = {
    "artifact_name": "old",
    "artifact_group": "stable",
    "rootfs-image.app.version": "1",
    "other": "x",
}


def after(
    installed: dict[str, str] = INSTALLED,
    new: dict[str, str] | None = None,
    clears: tuple[str, ...] = (),
    group: str = "",
) -> list[str]:
    artifact = Verified("new", group, ("board",), "app", new or {}, clears, {}, False)
    content = provides.artifact_info(installed, artifact)
    # What is read again is what was written.
    read = parse(content.decode(), strip=True)
    assert [f"{key}={value}" for key, [value] in read.items()] == content.decode().splitlines()
    return content.decode().splitlines()


KEPT = ["artifact_name=new", "artifact_group=stable", "rootfs-image.app.version=1", "other=x"]


@pytest.mark.parametrize(
    ("clears", "gone"),
    [
        ((), []),
        (("*",), ["rootfs-image.app.version=1", "other=x"]),
        (("rootfs-image.*",), ["rootfs-image.app.version=1"]),
        (("rootfs-image.app.*", "other"), ["rootfs-image.app.version=1", "other=x"]),
        (("*.version",), ["rootfs-image.app.version=1"]),
        (("*app*",), ["rootfs-image.app.version=1"]),
        (("root*app*ion",), ["rootfs-image.app.version=1"]),
        (("**",), ["rootfs-image.app.version=1", "other=x"]),
        (("artifact_group",), ["artifact_group=stable"]),
        (("artifact_*",), ["artifact_group=stable"]),
        # A whole key, not its beginning and its end.
        (
            (
                "oth",
                "ther",
                "her",
                "otherother",
                "other*r",
                "*other*x",
                "x*",
                "",
                "o.her",
                "[o]ther",
                "rootfs",
            ),
            [],
        ),
        (("*longer-than-any-of-these-keys-can-be", "x*longer-than-any-of-these-keys-can-be"), []),
    ],
)
def test_what_an_artifact_clears(clears: tuple[str, ...], gone: list[str]) -> None:
    assert after(clears=clears) == [line for line in KEPT if line not in gone]


def test_what_an_artifact_provides_comes_after_what_it_clears() -> None:
    new = {"rootfs-image.app.version": "2", "more": "a=b"}
    assert after(new=new, clears=("rootfs-image.app.*",)) == [
        "artifact_name=new",
        "artifact_group=stable",
        "other=x",
        "rootfs-image.app.version=2",
        "more=a=b",
    ]
    assert after(group="beta")[:2] == ["artifact_name=new", "artifact_group=beta"]
    assert after(installed={"artifact_name": "unknown"}) == ["artifact_name=new"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("artifact_name", "evil"),
        ("artifact_group", "evil"),
        (" artifact_name", "evil"),
        ("artifact_name=evil", ""),
        ("\u00a0artifact_name", "evil"),
        ("a=b", "c"),
        ("key", "value "),
    ],
)
def test_what_would_be_read_as_something_else_is_left_out(key: str, value: str) -> None:
    artifact = Verified("new", "", ("board",), "app", {key: value}, (), {}, False)
    assert list(provides.unwritable(artifact)) == [key]
    assert after(new={key: value}) == KEPT


def test_there_is_a_limit_that_the_device_can_read_again() -> None:
    after(new={"key": "x" * 65_000})
    with pytest.raises(ArtifactRejected, match="more than 65536 bytes"):
        after(new={"key": "x" * 65_500})


def test_many_patterns_take_little_time() -> None:
    installed = {f"{'a' * 30}{number}": "x" for number in range(1500)}
    after(installed, clears=tuple(f"{'a*' * 20}b{number}" for number in range(1000)))


def test_the_file_lies_beside_the_artifact_until_the_update_is_over(
    accepted: Device, server: DevServer, tmp_path: Path
) -> None:
    device = accepted
    (device.conf / "artifact_info").write_text("artifact_name=release-1\nother=x\nrootfs-image.app.old=1\n")
    device.sub_updater(f"cp {device.data}/artifact.provides {device.root}/seen; : >{device.root}/done\n")
    made = make_artifact(tmp_path / "r", provides={"rootfs-image.app.version": "2"})
    server.upload(made)
    server.deploy("release-2")
    for step in ("check-update", "download", "install"):
        device.ok(step)
    path = device.data / "artifact.provides"
    assert path.stat().st_mode == 0o100600
    # Without clears_artifact_provides nothing of the old release stays.
    assert path.read_text() == "artifact_name=release-2\nrootfs-image.app.version=2\n"
    device.ok("report", "--success")
    os.unlink(device.data / "update.lock")
    device.ok("run", "--all", "--force")
    assert not path.exists()


def test_it_is_removed_with_an_aborted_deployment(
    accepted: Device, server: DevServer, release: Callable[..., str]
) -> None:
    deployment = release()
    accepted.ok("check-update")
    accepted.ok("download")
    (accepted.data / "artifact.provides").write_text("artifact_name=earlier\n")
    server.abort(deployment)
    accepted.run("install")
    assert not (accepted.data / "artifact.provides").exists()
    assert not (accepted.data / "artifact.mender").exists()
