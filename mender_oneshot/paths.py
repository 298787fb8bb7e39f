"""Names and locations of all files."""

import os
from typing import NamedTuple

# In the data directory.
STATE = "mender-oneshot.json"
STATE_OF_OTHER_DEVICE = f"{STATE}.other-device"
UNREADABLE = ".unreadable"
"""The suffix of a copy of a state file that cannot be read."""
LOCK = "mender-oneshot.lock"
TERMINAL_LOCK = "mender-oneshot-terminal.lock"
DEVICE_KEY = "mender-agent.pem"
DEVICE_TYPE = "device_type"
PART = "artifact.part"
ARTIFACT = "artifact.mender"
BY_HAND_ARTIFACT = "by-hand.mender"
"""What `install URL` has downloaded."""
PROVIDES = "artifact.provides"
UPDATE_LOCK = "update.lock"
HISTORY = "history.json"
HISTORY_LOGS = "logs"
"""The directory of the logs of deployments that have ended."""
DEPLOYMENT_LOG = "deployment.log"
SUB_UPDATER_LOG = "sub-updater.log"
SUB_UPDATER_LOCK = "sub-updater.lock"
INSTALLER = "installer.json"
INSTALLER_RESERVE = "installer.reserve"
INSTALLER_LOCK = "installer.lock"
MODULE_PROCESS = "module.pid"
STORED_PROVIDES = "provides.json"
BOOTSTRAP_ARTIFACT = "bootstrap.mender"
MODULE_TREE = "modules/v3/payloads/0000/tree"
ARTIFACT_SCRIPTS = "scripts"
"""The directory of the state scripts of an artifact."""
STORE_OF_MENDER_CLIENT = "mender-store"
"""The database of the Go and C++ clients."""

TERMINAL_CONFIG = "mender-connect.conf"
"""In the data directory and in the directory of the configuration."""


class Places(NamedTuple):
    """Where the files are, from the command line, the environment and the defaults."""

    config: str
    fallback: str
    explicit: bool  # --config was given, so the file must exist
    conf_dir: str
    scripts_dir: str
    datastore: str

    def data(self, name: str) -> str:
        """Return the path of a file in the data directory."""
        return f"{self.datastore}/{name}"

    @property
    def are_default(self) -> bool:
        """Whether these are the places that the timers and crontabs use."""
        return self == _DEFAULT

    @property
    def artifact_info(self) -> str:
        """What the installed artifact provides."""
        return f"{self.conf_dir}/artifact_info"

    @property
    def identity_script(self) -> str:
        """The script that prints the identity."""
        return f"{self.scripts_dir}/identity/mender-device-identity"

    @property
    def inventory_scripts(self) -> str:
        """The directory of the scripts that print the inventory."""
        return f"{self.scripts_dir}/inventory"

    @property
    def install_script(self) -> str:
        """The sub-updater."""
        return f"{self.scripts_dir}/install"

    @property
    def device_configuration(self) -> str:
        """What the update module `mender-configure` has applied: /var/lib/mender-configure/... by default."""
        return f"{self.datastore}-configure/device-config.json"

    @property
    def modules(self) -> str:
        """The directory of the device's own update modules."""
        return f"{self.scripts_dir}/modules/v3"

    @property
    def state_scripts(self) -> str:
        """The directory of the device's own state scripts."""
        return f"{self.conf_dir}/scripts"

    @property
    def health_checks(self) -> str:
        """The directory of the checks that an update must pass before it is committed."""
        return f"{self.conf_dir}/checks.d"


_DEFAULT = Places(
    "/etc/mender/mender.conf",
    "/var/lib/mender/mender.conf",
    False,
    "/etc/mender",
    "/usr/share/mender",
    "/var/lib/mender",
)


def find_places(config: str = "", fallback: str = "", datastore: str = "") -> Places:
    """Locate the files: the command line overrides the environment, which overrides the defaults."""
    environment = os.environ
    conf_dir = environment.get("MENDER_CONF_DIR") or "/etc/mender"
    datastore = datastore or environment.get("MENDER_DATASTORE_DIR") or "/var/lib/mender"
    datastore = os.path.abspath(datastore)
    return Places(
        config=config or f"{conf_dir}/mender.conf",
        fallback=fallback or f"{datastore}/mender.conf",
        explicit=bool(config),
        conf_dir=conf_dir,
        scripts_dir=environment.get("MENDER_DATA_DIR") or "/usr/share/mender",
        datastore=datastore,
    )
