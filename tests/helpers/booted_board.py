"""What an installation in a booted system needs: modules that reboot, a health check, payloads."""

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from helpers.machine import write

CALLS = "opt/calls"
RELEASE = "opt/release"

# Installs a name. It verifies by the boot id that a reboot has happened.
MODULE = """#!/bin/sh
set -eu
call=$1
case $call in
NeedsArtifactReboot) echo {answer}; exit 0 ;;
SupportsRollback) echo Yes; exit 0 ;;
Provide*) exit 0 ;;
esac
echo "$call" >> /opt/calls
boot=/proc/sys/kernel/random/boot_id
case $call in
ArtifactInstall)
    cp /opt/release tmp/old
    cp files/release /opt/release
    cat $boot > tmp/boot
    ;;
ArtifactReboot | ArtifactRollbackReboot)
    reboot
    ;;
ArtifactVerifyReboot)
    [ "$(cat tmp/boot)" != "$(cat $boot)" ]
    ;;
ArtifactRollback)
    cp tmp/old /opt/release
    cat $boot > tmp/boot
    ;;
ArtifactVerifyRollbackReboot)
    [ "$(cat tmp/boot)" != "$(cat $boot)" ]
    ;;
esac
sync
"""

CHECK = """#!/bin/sh
[ "$(cat /opt/release)" != bad ] || { echo "the application of this release does not start" >&2; exit 1; }
"""

SCRIPT = """#!/bin/sh
echo {name} >> /opt/calls
echo "this is {name}"
"""


def prepare(root: Path) -> None:
    """Put the modules `automatic` and `by-itself`, a health check and a release into a system."""
    for name, answer in (("automatic", "Automatic"), ("by-itself", "Yes")):
        write(root / f"usr/share/mender/modules/v3/{name}", MODULE.format(answer=answer), 0o755)
    write(root / "etc/mender/checks.d/10-application", CHECK, 0o755)
    write(root / RELEASE, "first\n")


def scripts(*names: str) -> dict[str, str]:
    """Return state scripts that record that they have run."""
    return {f"{name}_00": SCRIPT.format(name=name) for name in names}


def tar(files: Mapping[str, str]) -> bytes:
    """Return a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()


def package(place: Path, version: str) -> bytes:
    """Return a Debian package that contains one file, /opt/hello, with its version."""
    tree = place / f"hello-{version}"
    control = (
        f"Package: hello-board\nVersion: {version}\nArchitecture: all\nMaintainer: Board <board@invalid>\n"
    )
    write(tree / "DEBIAN/control", f"{control}Description: a test\n")
    write(tree / "opt/hello", f"{version}\n")
    path = place / f"hello-{version}.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, path], check=True, capture_output=True)
    return path.read_bytes()
