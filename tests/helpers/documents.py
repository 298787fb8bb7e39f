"""Read the man pages and the README."""

import re
from pathlib import Path

from helpers.device import REPO

README = REPO / "README.md"
PROGRAM, CONFIGURATION, CONTRACT = (
    REPO / "docs" / "man" / name
    for name in ("mender-oneshot.1", "mender-oneshot.conf.5", "mender-oneshot-sub-updater.7")
)


def plain(line: str) -> str:
    """Return the words of a line of roff, without its fonts."""
    line = re.sub(r"\\f.", "", line).replace(r"\-", "-").replace(r"\(dq", '"').replace("\\ ", " ")
    assert "\\" not in line, f"an escape that this helper does not translate: {line}"
    return line


def example(page: Path) -> str:
    """Return the first example of a man page, as roff."""
    source = page.read_text()
    return source[source.index(".EX\n") + 4 : source.index(".EE\n")]


def small_sub_updaters() -> dict[str, str]:
    """Return the sub-updater of the man page and the one of the README."""
    (of_the_readme,) = re.findall(
        r"^```sh\n(#!/bin/sh\n.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL
    )
    return {"man page": plain(example(CONTRACT)), "README": of_the_readme}
