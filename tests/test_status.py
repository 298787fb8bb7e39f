"""What `status` tells a person: where the device is, since when, why, and what comes next."""

import re

from helpers.device import Device, Release
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

TIME = r"[0-9-]{10} [0-9:]{8} UTC"


def line(device: Device, name: str) -> str:
    """Return what `status` prints after a name."""
    (found,) = re.findall(rf"^{name} +(.*)$", device.ok("status").out, re.MULTILINE)
    return str(found)


def test_a_device_that_waits_to_be_accepted_is_told_since_when_and_what_is_next(
    device: Device, server: DevServer
) -> None:
    for attempts in ("1 failed attempt", "2 failed attempts"):
        assert device.run("auth").code == 77
        retrying = line(device, "retrying")
        assert re.match(f"auth, {attempts} since {TIME}: .*has not accepted this device yet", retrying)
    facts = device.ok("status", "--json").json
    assert facts["failing_since"]["auth"] > 0
    assert re.fullmatch(
        r"auth in (5[0-9]|60) s \(at once: mender-oneshot run --all --force\)", line(device, "next")
    )


def test_a_step_that_is_no_command_is_shown_in_words(
    accepted: Device, server: DevServer, release: Release
) -> None:
    accepted.sub_updater()
    release()
    accepted.ok("run", "--all")
    server.faults.add(match="PUT */status", count=None, status=503)
    accepted.ok("report", "--success")
    shown = accepted.ok("status").out
    assert "retrying        sending the result, 1 failed attempt since" in shown
    assert "next            sending the result in " in shown


def test_the_last_check_and_inventory_have_a_time(accepted: Device) -> None:
    assert "last check" not in accepted.ok("status").out
    accepted.ok("check-update")
    accepted.ok("send-inventory")
    assert re.fullmatch(TIME, line(accepted, "last check"))
    assert re.fullmatch(TIME, line(accepted, "last inventory"))
    assert line(accepted, "next").startswith("check-update in ")


def test_the_last_update_has_its_time_and_its_reason(
    accepted: Device, server: DevServer, release: Release
) -> None:
    release("release-2", payload_type="app")
    accepted.run("run", "--all")
    accepted.ok("run")
    told = line(accepted, "last update")
    assert re.match(f"release-2, failure, {TIME}: release-2 cannot be installed: ", told)
    assert told.endswith("(mender-oneshot log)")
    assert "last result" not in accepted.ok("status").out
    assert accepted.ok("status", "--json").json["last_update"]["status"] == "failure"


def test_a_lock_that_nobody_ends_is_shown_with_the_way_out(
    accepted: Device, server: DevServer, release: Release
) -> None:
    deployment = release("release-2")
    accepted.sub_updater("exit 0\n")
    accepted.ok("run", "--all")
    accepted.ok("send-inventory")
    until(lambda: "installing" in accepted.ok("status").out, "it is handed off")
    told = line(accepted, "next")
    assert re.fullmatch(
        r"the update fails in (3 h 59|4 h 0) min if nothing is reported "
        r"\(at once: mender-oneshot report --failure\)",
        told,
    )
    accepted.ok("report", "--failure")
    until(lambda: server.status(deployment) == "failure", "the result is reported")
