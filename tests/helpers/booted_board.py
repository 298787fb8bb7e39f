"""What an installation in a booted system needs: modules that reboot, a health check, payloads."""

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from helpers.machine import write
from helpers.real_artifact import write_artifact
from helpers.waiting import until
from mender_oneshot.devserver import DevServer

CALLS = "opt/calls"
RELEASE = "opt/release"
DATA = "var/lib/mender"
WITHOUT_REBOOT = ["downloading", "installing", "installing"]
WITH_REBOOT = ["downloading", "installing", "rebooting", "installing"]
"""The statuses of an update before the final one."""

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


class Board:
    """A booted system, under `root` for us, and its server; `keep_on` boots it again if it has rebooted."""

    def __init__(
        self, root: Path, server: DevServer, place: Path, keep_on: Callable[[], None], seconds: float = 90
    ) -> None:
        self.root = root
        self.server = server
        self.place = place
        self._keep_on = keep_on
        self._seconds = seconds

    def install(
        self,
        name: str,
        kind: str,
        files: Mapping[str, str | bytes],
        *options: str,
        scripts: tuple[str, ...] = (),
    ) -> str:
        """Deploy an artifact and wait until the update has ended; return the id of the deployment."""
        self.path(CALLS).unlink(missing_ok=True)
        artifact = self.place / f"{name}.mender"
        write_artifact(artifact, kind, files, *options, scripts=recorded(*scripts))
        self.server.upload(artifact)
        deployment = self.server.deploy(name)

        def ended() -> bool:
            time.sleep(0.05)
            self._keep_on()
            return self.server.status(deployment) in ("success", "failure") and not self._left()

        until(ended, f"the update to {name} has ended", self._seconds)
        return deployment

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def text(self, *parts: str) -> str:
        return self.path(*parts).read_text()

    def calls(self) -> list[str]:
        """Return the calls of modules and scripts since the last artifact was deployed."""
        return self.text(CALLS).split()

    def provides(self) -> dict[str, str]:
        """Return what the device provides."""
        provides: dict[str, str] = json.loads(self.text(DATA, "provides.json"))["provides"]
        return provides

    def _left(self) -> set[str]:
        """Return what an update has not removed yet from the data directory."""
        names = {entry.name for entry in self.path(DATA).iterdir()}
        return names & {"installer.json", "update.lock", "artifact.mender", "scripts"}


def recorded(*names: str) -> dict[str, str]:
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
