"""The new system lacks the update module that installed it."""

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

REBOOT = "#!/bin/sh\\necho reboot >>{calls}\\nkill -9 $PPID\\n"
WITHOUT_MODULE = """
mount -t tmpfs none $slot{modules}
mount -t tmpfs none $slot/usr/local/sbin
printf '{reboot}' >$slot/usr/local/sbin/reboot
chmod +x $slot/usr/local/sbin/reboot
"""


@pytest.fixture
def module(accepted: Device) -> Recorder:
    need("unshare")
    return Recorder(accepted, reboot="Yes")


def wrapper(device: Device, module: Recorder) -> tuple[str, ...]:
    reboot = REBOOT.format(calls=module.log)
    more = WITHOUT_MODULE.format(modules=module.program.parent, reboot=reboot)
    return other_root(device.root / "slot", more)


def test_it_is_rebooted_once_so_that_the_old_system_rolls_back(
    accepted: Device, server: DevServer, module: Recorder
) -> None:
    # The time since the boot is that of this machine, which may have been up for days.
    accepted.configure(InstallTimeoutSeconds=0)
    second = wrapper(accepted, module)
    server.upload(make_artifact(accepted.root / "release-2.mender", payload_type=module.name))
    deployment = server.deploy("release-2")
    module.at("ArtifactReboot", "kill -9 $PPID")
    accepted.ok("run", "--all")
    until(lambda: "ArtifactReboot" in module.calls, "it reboots")
    until(lambda: not is_worked_on(str(accepted.data / INSTALLER_LOCK)), "the installer has ended")
    accepted.reboot()
    assert "Resumed" in accepted.run("run", wrapper=second).out
    until(lambda: "reboot" in module.calls, "it returns to the old system")
    assert "Resumed" in accepted.ok("run").out
    until(lambda: server.status(deployment) == "failure", "it has ended")
    assert accepted.ok("show-artifact").out == "release-1\n"
    assert module.calls.count("reboot") == 1
    assert "ArtifactRollback" in module.calls


def test_by_hand_nothing_is_begun_that_cannot_be_ended(accepted: Device, module: Recorder) -> None:
    second = wrapper(accepted, module)
    artifact = make_artifact(accepted.root / "release-2.mender", payload_type=module.name)
    assert accepted.run("install", str(artifact)).code == 4
    for command in ("commit", "rollback"):
        done = accepted.run(command, wrapper=second)
        assert done.code == 78
        assert "there is no update module for the payload type 'fake'" in done.err
    assert accepted.run("rollback").code == 0
    assert accepted.ok("show-artifact").out == "release-1\n"
