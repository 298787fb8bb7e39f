"""The update module `deb`: installs the Debian packages of the payload with one `dpkg -i`."""

import os
import sys
from collections.abc import Sequence

from . import programs, tree
from .call import run


def install(update: str) -> None:
    """Install every `*.deb`; raises `errors.Error` if there is none or dpkg fails."""
    programs.extend_path()
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    directory = f"{update}/files"
    names = sorted(
        name for name in os.listdir(directory) if name.endswith(".deb") and not name.startswith(".")
    )
    if not names:
        raise tree.bad_payload("it has no file whose name ends in .deb")
    programs.run([programs.require("dpkg"), "-i", *(f"{directory}/{name}" for name in names)])


def main(argv: Sequence[str]) -> int:
    """Run one call of the protocol."""
    return run(argv, {}, {"ArtifactInstall": install})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
