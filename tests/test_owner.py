"""A token, and all else in the state, belongs to one identity, key and tenant."""

import json
import shutil

import pytest
from helpers.device import IDENTITY, Device, Release
from helpers.terminal_peer import need_the_extra

from mender_oneshot.devserver import DevServer

ANOTHER = "#!/bin/sh\necho mac=de:ad:be:ef:00:02\n"
COPY = "mender-oneshot.json.other-device"


def another_identity(device: Device) -> None:
    device.script("identity/mender-device-identity", ANOTHER)


def another_form(device: Device) -> None:
    device.configure(IdentityFormat="list")


def another_tenant(device: Device) -> None:
    device.configure(TenantToken="another.tenant.token")


def another_tier(device: Device) -> None:
    device.configure(DeviceTier="system")


def another_key(device: Device) -> None:
    kept = (device.data / "mender-oneshot.json").read_bytes()
    device.ok("bootstrap", "--force")
    (device.data / "mender-oneshot.json").write_bytes(kept)


def no_key(device: Device) -> None:
    (device.data / "mender-agent.pem").unlink()


def another_key_file(device: Device) -> None:
    key = device.data / "mender-agent.pem"
    kept = key.read_bytes()
    device.ok("bootstrap", "--force")
    key.rename(device.root / "own.pem")
    key.write_bytes(kept)
    device.configure(Security={"AuthPrivateKey": str(device.root / "own.pem")})


OTHERS = {
    "identity": another_identity,
    "form of the identity": another_form,
    "tenant": another_tenant,
    "tier": another_tier,
    "key": another_key,
    "no key": no_key,
    "key file": another_key_file,
}
COMMANDS = ("check-update", "send-inventory", "run --all --force", "run --force")


@pytest.fixture
def before(accepted: Device) -> tuple[Device, str]:
    """An accepted device, and its token."""
    accepted.ok("run", "--all")
    return accepted, accepted.token


@pytest.mark.parametrize(
    ("change", "command"),
    [
        *((change, "auth") for change in OTHERS),
        *((change, command) for change in ("identity", "tenant") for command in COMMANDS),
    ],
)
def test_a_token_is_not_used_by_another(
    before: tuple[Device, str], server: DevServer, change: str, command: str
) -> None:
    device, token = before
    OTHERS[change](device)
    server.jwt_lifetime += 60  # or a token of the same second would be the same token
    asked = len(server.requests)
    if command == "auth":
        done = device.run("doctor", "--json")
        wrong = {check["name"] for check in done.json["checks"] if not check["ok"]}
        assert wrong & {"identity", "authorization"}
        if "identity" not in wrong:
            assert not device.ok("status", "--json").json["authorized"]
    device.run(*command.split())
    device.run(*command.split())
    seen = server.requests[asked:]
    assert [one for one in seen if one.path.endswith("/auth_requests")]
    assert not [one for one in seen if token in str(one.headers)]


def test_what_is_the_same_asks_nothing_again(before: tuple[Device, str], server: DevServer) -> None:
    device, token = before
    asked = len(server.requests)
    for words in ("auth", "check-update", "send-inventory"):
        device.ok(words)
    assert device.token == token
    assert not [one for one in server.requests[asked:] if one.path.endswith("/auth_requests")]
    assert not (device.data / COPY).exists()


def test_a_state_of_an_older_version_is_adopted(before: tuple[Device, str], server: DevServer) -> None:
    device, token = before
    old = {name: device.state["token"][name] for name in ("jwt", "server", "at", "lifetime", "expires")}
    device.alter_state(token=old, owner=None)
    device.ok("check-update")
    assert device.token == token
    another_tenant(device)
    asked = len(server.requests)
    device.run("check-update")
    assert server.requests[asked].path.endswith("/auth_requests")


def test_an_identity_script_that_fails_says_nothing_of_another_device(before: tuple[Device, str]) -> None:
    device, token = before
    device.script("identity/mender-device-identity", "#!/bin/sh\nexit 1\n")
    done = device.run("check-update")
    assert (done.code, "Cannot check whether" in done.err) == (0, True)
    assert device.token == token


def copied(device: Device) -> Device:
    """The device that has got a copy of the other's disk."""
    another_identity(device)
    return device


def test_what_belongs_to_the_other_device_is_set_aside(
    before: tuple[Device, str], server: DevServer, release: Release
) -> None:
    device, _ = before
    release()
    device.ok("check-update")
    device.ok("download")
    old = device.state
    done = copied(device).ok("run", "--json")
    assert [step["outcome"] for step in done.json["steps"]] == ["other-device"]
    assert COPY in done.json["steps"][0]["message"]
    kept = json.loads((device.data / COPY).read_text())
    assert (kept["deployment"], "token" in kept) == (old["deployment"], False)
    assert not (device.data / "artifact.mender").exists()
    assert set(device.state) == {"schema", "spread", "identity_format", "owner"}
    assert device.spread != old["spread"]
    assert device.run("auth").code == 77
    assert len(server.devices) == 2


@pytest.mark.parametrize("command", ["download", "install"])
def test_an_update_of_the_other_device_is_not_carried_on(
    before: tuple[Device, str], release: Release, command: str
) -> None:
    device, _ = before
    device.sub_updater("touch $MENDER_DATASTORE_DIR/called\n")
    release()
    device.ok("check-update")
    if command == "install":
        device.ok("download")
    assert copied(device).run(command).code in (2, 77)
    assert not (device.data / "called").exists()
    assert not device.handed_off


def test_a_result_of_the_other_device_is_not_sent(
    before: tuple[Device, str], server: DevServer, release: Release
) -> None:
    device, token = before
    device.sub_updater()
    deployment = release()
    device.ok("run", "--all", "--force")
    (device.data / "artifact.mender").chmod(0o600)
    asked = len(server.requests)
    answer = copied(device).ok("report", "--success", "--json").json
    assert answer["outcome"] == "other-device"
    assert not [one for one in server.requests[asked:] if token in str(one.headers)]
    assert server.status(deployment) == "installing"
    # Its sub-updater has its files until it removes the lock.
    assert (device.data / "update.lock").read_bytes() == b""
    assert (device.data / "artifact.mender").exists()
    assert device.run("report", "--success").code == 2
    (device.data / "update.lock").unlink()
    device.run("run", "--force")
    assert not (device.data / "artifact.mender").exists()


def test_a_queued_result_of_the_other_device_is_not_sent(
    before: tuple[Device, str], server: DevServer, release: Release
) -> None:
    device, _ = before
    device.sub_updater('rm "$MENDER_DATASTORE_DIR/update.lock"\n')
    deployment = release()
    device.ok("run", "--all", "--force")
    server.faults.add(match="PUT */status", status=503)
    assert device.ok("report", "--success", "--json").json["outcome"] == "queued"
    device.forget_failures()
    copied(device).ok("run")
    assert not device.queued_results
    assert not device.last_status
    assert server.status(deployment) == "installing"


@pytest.mark.parametrize("held", ["a queued result", "a sub-updater at work", "both"])
@pytest.mark.parametrize("lock", ["kept", "removed"])
def test_an_identity_that_comes_back_gets_its_own_state(
    before: tuple[Device, str], server: DevServer, release: Release, held: str, lock: str
) -> None:
    """A network interface that came up late, say: it was never another device."""
    device, _ = before
    device.sub_updater()
    deployment = release()
    device.ok("run", "--all", "--force")
    first = device.state
    if held != "a sub-updater at work":
        server.faults.add(match="PUT */status", status=503)
        assert device.ok("report", "--success", "--json").json["outcome"] == "queued"
    if lock == "removed":
        (device.data / "update.lock").unlink()
    copied(device).run("run", "--all", "--force")
    device.script("identity/mender-device-identity", IDENTITY)
    done = device.ok("run", "--all", "--force", "--json").json
    assert done["steps"][0]["outcome"] == "other-device"
    assert "continues with its own" in done["steps"][0]["message"]
    assert device.spread == first["spread"]
    if held != "a queued result":
        assert device.state["handoff"] == first["handoff"] if held == "a sub-updater at work" else True
        device.run("report", "--success")
    device.ok("run", "--all", "--force")
    assert server.status(deployment) == "success"
    # The lock is that of an update that has ended, and no update waits for it.
    device.forget_failures()
    device.age_last_result()
    device.ok("run", "--all")
    assert not (device.data / "update.lock").exists()
    assert len(server.devices) == 2


def test_two_devices_from_one_image_both_come_in(before: tuple[Device, str], server: DevServer) -> None:
    first, token = before
    second = Device(first.root.parent / "second", first.python)
    second.configure(**first.settings)
    shutil.copytree(first.data, second.data, dirs_exist_ok=True)
    another_identity(second)
    assert second.run("run", "--all", "--force").code == 77
    server.accept()
    second.ok("run", "--all", "--force")
    first.ok("run", "--all", "--force")
    assert len(server.devices) == 2
    assert first.token == token
    assert second.spread != first.spread


@pytest.mark.parametrize("change", ["identity", "tenant", "key"])
def test_the_terminal_does_not_use_the_token_of_another(
    before: tuple[Device, str], server: DevServer, change: str
) -> None:
    device, token = before
    need_the_extra(device.python)
    (device.conf / "mender-connect.conf").write_text('{"RemoteTerminal": "True"}')
    OTHERS[change](device)
    server.jwt_lifetime += 60  # or a token of the same second would be the same token
    asked = len(server.requests)
    device.run("terminal", "--wait", "15")
    seen = server.requests[asked:]
    assert seen[0].path.endswith("/auth_requests")
    assert not [one for one in seen if token in str(one.headers)]
