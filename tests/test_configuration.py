"""The client installs configuration deployments."""

from helpers.device import Device
from helpers.raw_user import RawUser

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.artifact import read_header


def test_a_configuration_is_handed_to_the_sub_updater(accepted: Device, server: DevServer) -> None:
    accepted.sub_updater('cp "$1" "$MENDER_DATASTORE_DIR/taken"; $ONESHOT report --success\n')
    deployment = RawUser(server).deploy_configuration(server.device().id)
    accepted.ok("run", "--all")
    server.wait_for(lambda seen: b'"success"' in seen.body)
    assert server.status_history(deployment)[-1] == "success"
    assert read_header(accepted.data / "taken").name == f"configuration-{deployment}"
