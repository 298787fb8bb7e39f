"""`history` and `log`: what became of the last deployments."""

import pytest
from helpers.device import Device, Release
from helpers.seen import final_status
from helpers.update_module import Recorder
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

FAILS = "echo the flash is worn out\n$ONESHOT report --failure\nrm $MENDER_DATASTORE_DIR/update.lock\n"
SUCCEEDS = FAILS.replace("--failure", "--success")


def update(device: Device, server: DevServer, release: Release, name: str, script: str) -> str:
    """Carry out one update to its end."""
    device.sub_updater(script)
    deployment = release(name)
    device.ok("run", "--all", "--force")
    until(lambda: server.status(deployment) in ("success", "failure"), "the update has ended")
    until(lambda: not (device.data / "update.lock").exists(), "its sub-updater has ended")
    return deployment


def test_a_device_without_updates_has_no_history(device: Device) -> None:
    assert device.ok("history").out == "No deployment has ended on this device yet.\n"
    assert device.ok("history", "--json").json["deployments"] == []
    done = device.run("log")
    assert done.code == 2
    assert done.err == "There is no deployment yet; mender-oneshot history lists them.\n"


def test_each_update_is_listed_with_its_result_and_reason(
    accepted: Device, server: DevServer, release: Release
) -> None:
    good = update(accepted, server, release, "release-2", SUCCEEDS)
    bad = update(accepted, server, release, "release-3", FAILS)
    newest, why, oldest = accepted.ok("history").out.splitlines()
    assert newest[20:].startswith("UTC  failure  release-3  ")
    assert why == "    the flash is worn out"
    assert oldest[20:].startswith("UTC  success  release-2  ")
    first, second = accepted.ok("history", "--json").json["deployments"]
    assert (first["deployment"], first["status"], first["why"]) == (bad, "failure", "the flash is worn out")
    assert (second["deployment"], second["status"], second["why"]) == (good, "success", "")
    assert 0 < second["began"] <= second["ended"] <= first["began"] <= first["ended"]
    assert second["size"] > 1000


def test_a_log_is_found_by_the_name_or_the_beginning_of_the_id(
    accepted: Device, server: DevServer, release: Release
) -> None:
    good = update(accepted, server, release, "release-2", SUCCEEDS.replace("worn out", "new"))
    update(accepted, server, release, "release-3", FAILS)
    assert "the flash is worn out" in accepted.ok("log").out
    for wanted in ("release-2", good, good[:8]):
        text = accepted.ok("log", wanted).out
        assert "offers release-2" in text
        assert "info    the flash is new" in text
    assert accepted.ok("log", good, "--json").json["deployment"] == good
    assert accepted.run("log", "release-9").code == 2


def test_the_log_of_the_update_under_way_comes_first(
    accepted: Device, server: DevServer, release: Release
) -> None:
    update(accepted, server, release, "release-2", SUCCEEDS)
    deployment = release("release-3")
    accepted.ok("check-update")
    assert "offers release-3" in accepted.ok("log").out
    assert accepted.ok("log", "--json").json["deployment"] == deployment
    assert "offers release-2" in accepted.ok("log", "release-2").out


def test_an_aborted_deployment_is_listed(accepted: Device, server: DevServer, release: Release) -> None:
    deployment = release("release-2")
    accepted.ok("check-update")
    server.abort(deployment)
    accepted.run("download")
    assert accepted.ok("history", "--json").json["deployments"][0]["status"] == "aborted"


def test_a_failed_artifact_is_listed_with_the_reason(
    accepted: Device, server: DevServer, release: Release
) -> None:
    release("release-2", payload_type="app")
    accepted.run("run", "--all")
    (entry,) = accepted.ok("history", "--json").json["deployments"]
    assert "there is no update module for the payload type 'app'" in entry["why"]


def test_ten_deployments_and_their_logs_are_kept(
    accepted: Device, server: DevServer, release: Release
) -> None:
    for number in range(12):
        release(f"release-{number}", payload_type="app", size=1)
        accepted.run("run", "--all", "--force")
        accepted.run("run")
    entries = accepted.ok("history", "--json").json["deployments"]
    assert [entry["artifact_name"] for entry in entries] == [f"release-{n}" for n in range(11, 1, -1)]
    kept = {path.name for path in (accepted.data / "logs").iterdir()}
    assert kept == {f"{entry['deployment']}.log" for entry in entries}


def test_the_built_in_installers_update_is_listed(
    accepted: Device, server: DevServer, release: Release
) -> None:
    module = Recorder(accepted)
    module.at("ArtifactInstall", "echo no space for the application; exit 1")
    release("release-2", payload_type=module.name)
    accepted.ok("run", "--all")
    server.wait_for(final_status)
    assert "no space for the application" in accepted.ok("log").out
    (entry,) = accepted.ok("history", "--json").json["deployments"]
    assert "ArtifactInstall" in entry["why"]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 99, b"[]", b'{"deployments": 3}', b'{"deployments": [3, {}]}']
)
def test_a_corrupt_history_counts_as_empty(
    accepted: Device, server: DevServer, release: Release, content: bytes
) -> None:
    (accepted.data / "history.json").write_bytes(content)
    assert accepted.ok("history", "--json").json["deployments"] == []
    update(accepted, server, release, "release-2", SUCCEEDS)
    assert len(accepted.ok("history", "--json").json["deployments"]) == 1


def test_a_history_that_cannot_be_written_stops_no_update(
    accepted: Device, server: DevServer, release: Release
) -> None:
    (accepted.data / "logs").write_text("a file")
    (accepted.data / "history.json").mkdir()
    deployment = update(accepted, server, release, "release-2", SUCCEEDS)
    assert server.status(deployment) == "success"
