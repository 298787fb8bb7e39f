"""Read the permissions of files."""

import stat
from pathlib import Path


def mode(path: Path) -> int:
    """Return the permissions of a file, or of a link itself."""
    return stat.S_IMODE(path.lstat().st_mode)
