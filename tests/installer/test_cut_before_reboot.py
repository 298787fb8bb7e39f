"""Power is cut when the boot loader starts the new system next, but before the reboot was to be made."""

import pytest
from helpers.artifacts import make_artifact
from helpers.device import Device
from helpers.other_root import other_root
from helpers.real_daemon import need
from helpers.update_module import Recorder
from helpers.waiting import until

from mender_oneshot.devserver import DevServer
from mender_oneshot.installer.record import is_worked_on
from mender_oneshot.paths import INSTALLER_LOCK

CUT, PAUSE = "kill -9 $PPID $$", "exit 21"
CASES = [
    ("NeedsArtifactReboot", CUT),
    ("ArtifactReboot_Enter", CUT),
    ("ArtifactReboot_Enter", PAUSE),
    ("ArtifactReboot", CUT),
]


@pytest.mark.parametrize(("place", "code"), CASES)
def test_the_new_system_is_not_rebooted_again(
    accepted: Device, server: DevServer, place: str, code: str
) -> None:
    need("unshare")
    # The time since the boot is that of this machine, which may have been up for days.
    accepted.configure(StateScriptRetryIntervalSeconds=1, InstallTimeoutSeconds=0)
    module = Recorder(accepted, reboot="Yes")
    second = other_root(accepted.root / "slot")
    path = accepted.root / "release-2.mender"
    server.upload(make_artifact(path, payload_type=module.name, scripts=module.scripts()))
    deployment = server.deploy("release-2")
    module.at(place, code)
    accepted.ok("run", "--all")
    until(lambda: not (module.faults / place).exists(), "the fault has happened")
    until(lambda: not is_worked_on(str(accepted.data / INSTALLER_LOCK)), "the installer has ended")
    accepted.reboot()
    before = module.calls.count("ArtifactReboot")
    until(lambda: "Resumed" in accepted.run("run", wrapper=second).out, "it is resumed")
    until(lambda: server.status(deployment) == "success", "it is committed", seconds=60)
    assert module.calls.count("ArtifactReboot") == before
    assert "ArtifactRollback" not in module.calls
