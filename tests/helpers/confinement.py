"""A directory to confine paths to, and paths that must not leave it."""

import os
from pathlib import Path

import pytest

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users and owners")

MISSING = "{jail}/nothing/../../secret"
"""The one of `ESCAPES` that ends at a missing directory before it could lead outside."""
ESCAPES = [
    "{jail}/../secret",
    "{jail}/a/../../secret",
    "{jail}/a/b/../../../secret",
    "{jail}/./.././secret",
    "{jail}//..//secret",
    MISSING,
    "{jail}/..",
    "{jail}/../jail/file",
    "{jail}break/file",
    "{jail}/../jailbreak/file",
    "{parent}/secret",
    "{parent}/jailbreak/file",
    "/etc/passwd",
    "/",
    "{parent}",
    "/{jail}/../secret",
    "{jail}/out",
    "{jail}/out-absolute",
    "{jail}/out-directory/secret",
    "{jail}/out-directory/jail/file",
    "{jail}/root/etc/passwd",
    "{jail}/etc/passwd",
    "{jail}/sibling/file",
    "{jail}/a/deep",
    "{jail}/twice",
    "{jail}/to-out",
    "{jail}/to-a/deep",
    "{jail}/to-a/up/../secret",
    "{jail}/a/up/out",
    "{jail}/back",
    "{jail}/proc",
    "{jail}/proc/secret",
    "{jail}/self/../secret",
    "{jail}/self/self/../../secret",
]


def make_tree(parent: Path) -> Path:
    """Make a directory "jail" with files and links, and around it files that must not be reached."""
    jail = parent / "jail"
    (jail / "a" / "b").mkdir(parents=True)
    (jail / "file").write_text("inside")
    (jail / "a" / "file").write_text("inside")
    (parent / "secret").write_text("outside")
    (parent / "jailbreak").mkdir()
    (parent / "jailbreak" / "file").write_text("outside")
    for name, target in {
        "to-file": "file",
        "to-a": "a",
        "a/up": "..",
        "a/up-file": "../file",
        "absolute": f"{jail}/a/file",
        "out": "../secret",
        "out-absolute": f"{parent}/secret",
        "out-directory": "..",
        "root": "/",
        "etc": "/etc",
        "sibling": f"{jail}break",
        "a/deep": "../../secret",
        "twice": "to-out",
        "to-out": "a/deep",
        "back": f"../{jail.name}/file",
        "proc": "/proc/self/cwd",
        "circle": "circle",
        "one": "two",
        "two": "one",
        "dangling": "nothing",
        "self": ".",
    }.items():
        (jail / name).symlink_to(target)
    return jail
