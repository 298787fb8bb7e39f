"""Names and locations of all files."""

import os
from typing import NamedTuple


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
