"""Where Debian's packages come from."""

import contextlib
import glob
import re
import sys
from pathlib import Path


def mirror() -> str:
    """Return the mirror that this machine's own apt uses; end the program if it has none."""
    for path in [*sorted(glob.glob("/etc/apt/sources.list.d/*.sources")), "/etc/apt/sources.list"]:
        with contextlib.suppress(OSError):
            text = Path(path).read_text()
            found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
            if found:
                return found[1]
    sys.exit("There are no apt sources here to make a Debian from.")
