"""The server's configuration deployments: no payload files, the values are the artifact's meta-data."""

import json
from pathlib import Path

import pytest
from helpers.device import MENDERS, Device, newest_only, one_sentence
from helpers.raw_user import CONFIGURATION, RawUser
from helpers.waiting import until

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.deviceconfig_api import CONFIGURATIONS

# The calls of upstream's module of this name, with the device's directories in place of the system's.
MODULE = """#!/bin/sh
set -e
config={configuration}
backup=$2/device-config-backup.json
put() {{
    cp "$1" "$2.tmp"
    sync "$2.tmp"
    mv "$2.tmp" "$2"
    sync "$(dirname "$2")"
}}
apply() {{
    code=0
    {root}/apply "$config" || code=$?
    [ $code -eq 20 ] || exit $code
    touch "$2/needs-reboot"
}}
case $1 in
SupportsRollback) echo Yes ;;
ArtifactInstall)
    [ ! -e "$config" ] || put "$config" "$backup"
    put "$2/header/meta-data" "$config"
    apply "$@"
    ;;
NeedsArtifactReboot) if [ -e "$2/needs-reboot" ]; then echo Automatic; else echo No; fi ;;
ArtifactRollback)
    if [ -e "$backup" ]; then
        put "$backup" "$config"
        apply "$@"
    fi
    ;;
esac
"""


@pytest.fixture
def device(device: Device) -> Device:
    """A device with the module, and a program that applies a configuration."""
    modules = device.scripts / "modules" / "v3"
    modules.mkdir(parents=True)
    program = modules / "mender-configure"
    configuration(device).parent.mkdir()
    program.write_text(MODULE.format(root=device.root, configuration=configuration(device)))
    program.chmod(0o755)
    apply(device, "exit 0")
    return device


def configuration(device: Device) -> Path:
    """Beside the data directory, as /var/lib/mender-configure is beside /var/lib/mender."""
    return device.root / "lib-configure" / "device-config.json"


def apply(device: Device, code: str) -> None:
    program = device.root / "apply"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)


def applied(device: Device) -> object:
    return json.loads(configuration(device).read_text())


def deploy(device: Device, server: DevServer, values: object) -> str:
    """Deploy a configuration and let the device install it; return the deployment's final status."""
    deployment = RawUser(server).deploy_configuration(server.device().id, values)
    device.ok("run", "--all", "--force")
    until(lambda: server.status(deployment) in ("success", "failure"), "it has a result")
    until(lambda: not (device.data / "update.lock").exists(), "the installer has ended")
    return server.status(deployment)


def test_the_module_gets_the_values(accepted: Device, server: DevServer) -> None:
    assert deploy(accepted, server, CONFIGURATION) == "success"
    assert applied(accepted) == CONFIGURATION
    provides = accepted.ok("show-provides", "--json").json["provides"]
    assert provides["data-partition.mender-configure.version"] == provides["artifact_name"]
    assert provides["artifact_name"].startswith("configuration-")


def test_values_that_cannot_be_applied_are_rolled_back(accepted: Device, server: DevServer) -> None:
    assert deploy(accepted, server, CONFIGURATION) == "success"
    name = accepted.ok("show-artifact").out
    apply(accepted, 'grep -q Oslo "$1"')
    assert deploy(accepted, server, {"timezone": "Mars/Olympus"}) == "failure"
    assert applied(accepted) == CONFIGURATION
    assert accepted.ok("show-artifact").out == name


def test_an_empty_configuration_is_applied_as_well(accepted: Device, server: DevServer) -> None:
    assert deploy(accepted, server, {}) == "success"
    assert applied(accepted) == {}


def test_a_device_without_the_module_fails_the_deployment(accepted: Device, server: DevServer) -> None:
    (accepted.scripts / "modules" / "v3" / "mender-configure").unlink()
    deployment = RawUser(server).deploy_configuration(server.device().id)
    done = accepted.run("run", "--all")
    assert done.code == 69
    assert "'mender-configure'" in done.err
    accepted.run("run")
    assert server.status(deployment) == "failure"


def reported(server: DevServer) -> object:
    """What the server shows as the configuration that the device has applied."""
    return RawUser(server)("GET", f"{CONFIGURATIONS}/{server.device().id}").json.get("reported")


def test_the_next_inventory_reports_what_was_applied(accepted: Device, server: DevServer) -> None:
    assert deploy(accepted, server, CONFIGURATION) == "success"
    accepted.ok("send-inventory")
    assert reported(server) == CONFIGURATION


def test_a_device_without_a_configuration_reports_none(accepted: Device, server: DevServer) -> None:
    accepted.ok("send-inventory")
    assert not [seen for seen in server.requests if "deviceconfig" in seen.path]


@newest_only
@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_a_corrupt_configuration_does_not_hold_up_the_inventory(
    accepted: Device, server: DevServer, content: str
) -> None:
    configuration(accepted).write_text(content)
    one_sentence(accepted.run("send-inventory"), 0, "is not JSON")
    assert reported(server) is None


@newest_only
@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_server_that_takes_no_configuration_gets_the_inventory(
    accepted: Device, server: DevServer, status: int
) -> None:
    configuration(accepted).write_text('{"timezone": "UTC"}')
    server.faults.add(match="PUT */deviceconfig/*", status=status, body=MENDERS)
    done = accepted.ok("send-inventory")
    assert done.err == ""
    assert server.device().attributes["artifact_name"] == "release-1"
    accepted.ok("send-inventory")
    assert reported(server) == {"timezone": "UTC"}


@newest_only
def test_a_rejected_token_is_renewed_for_the_configuration(accepted: Device, server: DevServer) -> None:
    configuration(accepted).write_text('{"timezone": "UTC"}')
    server.faults.add(match="PUT */deviceconfig/*", status=401, body=MENDERS)
    accepted.ok("send-inventory")
    assert reported(server) == {"timezone": "UTC"}


@newest_only
def test_a_pause_that_the_service_asks_for_binds_the_next_inventory(
    accepted: Device, server: DevServer
) -> None:
    configuration(accepted).write_text('{"timezone": "UTC"}')
    server.faults.add(match="PUT */deviceconfig/*", retry_after=600)
    accepted.ok("send-inventory")
    one_sentence(accepted.run("send-inventory"), 75, "asked for a pause")
