"""The life of a device, told with separate invocations: the main job."""

import os
import subprocess
import sys
from pathlib import Path

from helpers.device import Device, Release
from helpers.seen import final_status
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

INSTALLS_AND_REPORTS = """set -e
echo "installing $1"
cp "$1" "$MENDER_DATASTORE_DIR/installed"
echo artifact_name=$MENDER_ARTIFACT_NAME > "$MENDER_CONF_DIR/artifact_info"
$ONESHOT report --success
rm "$MENDER_DATASTORE_DIR/update.lock"
"""


def test_from_a_fresh_device_to_a_reported_update(
    device: Device, server: DevServer, release: Release
) -> None:
    device.sub_updater(INSTALLS_AND_REPORTS)
    assert "Created a new device key" in device.ok("bootstrap").out
    assert device.run("auth").code == 77
    server.accept()
    device.ok("auth")
    device.ok("send-inventory")
    assert device.ok("check-update", "--exit-code").out == "There is no update for this device.\n"
    deployment = release()
    assert device.run("check-update", "--exit-code").code == 16
    device.ok("download")
    device.ok("install")
    server.wait_for(final_status)
    until(lambda: not (device.data / "update.lock").exists(), "the sub-updater takes its lock away")
    device.ok("run", "--all")
    assert server.status_history(deployment)[-3:] == ["downloading", "installing", "success"]
    assert device.ok("show-artifact").out == "release-2\n"
    assert not (device.data / "update.lock").exists()
    assert not (device.data / "artifact.mender").exists()
    # The lie of the land after an update: the next poll is clean.
    assert device.ok("check-update", "--json").json["outcome"] == "nothing"
    assert server.status(deployment) == "success"


def test_run_all_goes_from_check_to_hand_off(accepted: Device, server: DevServer, release: Release) -> None:
    accepted.sub_updater(INSTALLS_AND_REPORTS)
    release()
    answer = accepted.ok("run", "--all", "--json").json
    assert [step["step"] for step in answer["steps"]] == ["check-update", "download", "install"]
    assert [step["outcome"] for step in answer["steps"]] == ["update", "downloaded", "handed-off"]
    assert answer["schema"] == 1
    server.wait_for(final_status)


def test_run_alone_does_one_step_at_a_time(device: Device, server: DevServer, release: Release) -> None:
    device.sub_updater(INSTALLS_AND_REPORTS)
    assert device.run("run").code == 77
    server.accept()
    release()
    device.forget_failures()
    steps = [device.ok("run", "--json").json["steps"] for _ in range(4)]
    assert [[step["step"] for step in one] for one in steps] == [
        ["auth"],
        ["check-update"],
        ["download"],
        ["install"],
    ]
    server.wait_for(final_status)


def test_a_run_with_nothing_due_is_silent_asks_nothing_and_writes_nothing(
    accepted: Device, server: DevServer
) -> None:
    accepted.ok("run", "--all")
    before = {path: path.stat().st_mtime_ns for path in accepted.data.iterdir()}
    asked = len(server.requests)
    for words in (["run"], ["run", "--all"], ["--max-runtime", "60", "run"]):
        done = accepted.ok(*words)
        assert (done.out, done.err) == ("", "")
    assert len(server.requests) == asked
    assert {path: path.stat().st_mtime_ns for path in accepted.data.iterdir()} == before


def test_run_keeps_to_the_intervals_and_named_commands_do_not(accepted: Device, server: DevServer) -> None:
    accepted.ok("run", "--all")
    asked = len(server.requests)
    accepted.ok("check-update")
    accepted.ok("send-inventory")
    assert len(server.requests) == asked + 2
    accepted.ok("run")
    assert len(server.requests) == asked + 2
    accepted.ok("run", "--force")
    assert len(server.requests) == asked + 3


def test_the_update_interval_comes_from_the_configuration(accepted: Device, server: DevServer) -> None:
    accepted.ok("run", "--all")
    asked = len(server.requests)
    accepted.make_hours_old("check-update", 1)
    accepted.configure(UpdatePollIntervalSeconds=7200)
    accepted.ok("run")
    assert len(server.requests) == asked
    accepted.configure(UpdatePollIntervalSeconds=3500)
    accepted.ok("run")
    assert server.requests[-1].path.endswith("/next")


def test_called_through_the_old_clients_name(accepted: Device, tmp_path: Path) -> None:
    """Sub-updaters written for mender-python-client call it by that name."""
    tool = Path(sys.executable).with_name("mender-oneshot")
    link = tmp_path / "mender-python-client"
    link.symlink_to(tool)
    (accepted.data / "update.lock").write_text("0b66857d-6ced-4d67-90fd-1635c1a0dc4f")
    for words, code in ((["show-artifact"], 0), (["report", "--success"], 0), (["daemon"], 64)):
        done = subprocess.run([link, *words], env=accepted.env(), capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert "timer" in done.stderr


def test_the_sub_updater_outlives_us_with_its_output_kept(
    accepted: Device, server: DevServer, release: Release, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    accepted.sub_updater(
        f"echo hello from $1\ncut -d' ' -f6 /proc/$$/stat > {tmp_path}/session\n"
        f"read go < {gate}\n{INSTALLS_AND_REPORTS}"
    )
    release()
    accepted.ok("run", "--all")
    # Our process has ended; the sub-updater still waits at the gate, in a session of its own.
    gate.write_text("go\n")
    server.wait_for(final_status)
    assert int((tmp_path / "session").read_text()) != os.getsid(0)
    assert f"hello from {accepted.data}/artifact.mender" in (accepted.data / "sub-updater.log").read_text()
