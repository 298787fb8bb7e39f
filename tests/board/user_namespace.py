"""Programs for which the files of the user who builds the board belong to root."""

import os
import subprocess
from collections.abc import Mapping, Sequence


def run(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a program, as root of a user namespace if the user is not root; raises CalledProcessError."""
    prefix = ["unshare", "--map-root-user"] if os.geteuid() else []
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(
        [*prefix, *words],
        env={**os.environ, "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
