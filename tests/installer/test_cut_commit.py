"""Power is cut in the commit of a module that answers alike in the old system and after the commit.

The `rootfs-image` of the Mender client is such a module. The root file system tells the two apart.
"""

import signal
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.other_root import other_root
from helpers.real_daemon import need

MODULE = """#!/bin/sh
echo "$1" >>{root}/calls
trial() {{ [ "$(cat {root}/trial)" = 1 ]; }}
case $1 in
NeedsArtifactReboot) echo Automatic ;;
SupportsRollback) echo Yes ;;
ArtifactInstall) echo 1 >{root}/trial ;;
ArtifactVerifyReboot) trial ;;
ArtifactVerifyRollbackReboot) ! trial ;;
ArtifactCommit) [ ! -e {root}/cut-before ] || kill -9 $PPID $$; trial || exit 1; echo 0 >{root}/trial
    [ ! -e {root}/cut-after ] || kill -9 $PPID ;;
ArtifactRollback) echo 0 >{root}/trial ;;
esac
"""


class Slots:
    """A device with two root file systems; the installation has rebooted into the second."""

    def __init__(self, device: Device, artifact: Path) -> None:
        self.device = device
        self.second = other_root(device.root / "slot")
        assert device.run("install", str(artifact)).code == 4

    def cut(self, when: str) -> None:
        """Cut the power in the commit."""
        (self.device.root / f"cut-{when}").touch()
        assert self.device.run("commit", wrapper=self.second).code == -signal.SIGKILL
        (self.device.root / f"cut-{when}").unlink()

    @property
    def calls(self) -> list[str]:
        return (self.device.root / "calls").read_text().split()

    @property
    def release(self) -> str:
        return self.device.ok("show-artifact").out.strip()


@pytest.fixture
def slots(device: Device, tmp_path: Path) -> Slots:
    need("unshare")
    module = device.scripts / "modules" / "v3" / "slots"
    module.parent.mkdir(parents=True)
    module.write_text(MODULE.format(root=device.root))
    module.chmod(0o755)
    (device.conf / "artifact_info").write_text("artifact_name=release-1\n")
    return Slots(device, make_artifact(tmp_path / "a.mender", payload_type="slots"))


def test_a_commit_that_was_made_is_not_rolled_back(slots: Slots) -> None:
    slots.cut("after")
    assert slots.device.run("resume", wrapper=slots.second).code == 0
    assert slots.release == "release-2"
    assert "ArtifactRollback" not in slots.calls
    assert slots.calls.count("ArtifactCommit") == 1


def test_a_commit_that_was_not_made_is_made(slots: Slots) -> None:
    slots.cut("before")
    assert slots.device.run("resume", wrapper=slots.second).code == 0
    assert slots.release == "release-2"
    assert (slots.device.root / "trial").read_text() == "0\n"


def test_the_old_system_that_the_boot_loader_brings_back_is_kept(slots: Slots) -> None:
    slots.cut("before")
    (slots.device.root / "trial").write_text("0\n")
    done = slots.device.run("resume")
    assert done.code == 70
    assert "the old system has come back" in done.err
    assert slots.release == "release-1"
