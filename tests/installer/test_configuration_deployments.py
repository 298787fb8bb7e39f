"""The server's configuration deployments: no payload files, the values are the artifact's meta-data."""

import json

import pytest
from helpers.device import Device
from helpers.raw_user import CONFIGURATION, RawUser
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

# The calls of upstream's module of this name, with the device's directories in place of the system's.
MODULE = """#!/bin/sh
set -e
config={root}/device-config.json
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
    program.write_text(MODULE.format(root=device.root))
    program.chmod(0o755)
    apply(device, "exit 0")
    return device


def apply(device: Device, code: str) -> None:
    program = device.root / "apply"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)


def applied(device: Device) -> object:
    return json.loads((device.root / "device-config.json").read_text())


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
