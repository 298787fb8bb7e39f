"""The update module `script`: runs each file of the payload, in the order of their names."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Sequence

from . import programs, tree
from .call import run


def install(update: str) -> None:
    """Run the files until one fails; raises `errors.Error` then."""
    programs.extend_path()
    directory = f"{update}/files"
    # The names that a shell's `*` matches, in its order in the C locale.
    names = sorted(name for name in os.listdir(os.fsencode(directory)) if not name.startswith(b"."))
    if not names:
        raise tree.bad_payload("it has no files")
    for name in names:
        _run(os.path.join(directory, os.fsdecode(name)))


def _run(path: str) -> None:
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IXUSR)
    try:
        code = subprocess.run([path], stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise programs.not_started(path, error) from error
        # Without an interpreter in its first line it is a shell script, as for any shell.
        code = subprocess.run(["/bin/sh", path], stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        raise programs.failed(path, code)


def main(argv: Sequence[str]) -> int:
    """Run one call of the protocol."""
    return run(argv, {}, {"ArtifactInstall": install})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
