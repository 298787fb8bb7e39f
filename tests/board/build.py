"""All files of a board, built once and kept until one of their sources changes."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mender_oneshot.devserver import certificates

from . import boot_loader, disk, packages, root_fs
from .layout import CACHE, DATA, GUEST_SERVER, HERE, REPO
from .mirror import mirror

OLD, NEW, NEXT = "release-1", "release-2", "release-3"
DEVICE_TYPE = "board"

_SOURCES = ["boot_loader.py", "build.py", "disk.py", "layout.py", "packages.py", "root_fs.py"]


class Built(NamedTuple):
    """The files of a board, which are only read."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk before the first boot: `OLD` in slot A."""
        return self.directory / "disk.img"

    @property
    def server(self) -> Path:
        """The directory with the server's CA."""
        return self.directory / "server"

    def root(self, release: str) -> Path:
        """Return the image of a release, as it is in a slot."""
        return self.directory / f"{release}.ext4"

    def artifact(self, release: str) -> Path:
        """Return the artifact of a release."""
        return self.directory / f"{release}.mender"


def build(change: root_fs.Change | None = None, name: str = "board") -> Built:
    """Build what is missing; `change` changes the client in all roots, and `name` tells such boards apart."""
    CACHE.mkdir(parents=True, exist_ok=True)
    more = [HERE / "broken.py"] if change else []
    directory = CACHE / f"{name}-{_digest(more)[:12]}"
    built = Built(directory)
    if (directory / "done").exists():
        return built
    print(f"Building the board in {directory.relative_to(REPO)} ...", flush=True)
    built.server.mkdir(parents=True, exist_ok=True)
    ca, _ = certificates.make(built.server, (GUEST_SERVER,))
    debian = packages.archive(mirror())
    for release in (OLD, NEW, NEXT):
        root_fs.build(built.root(release), debian, ca, release, change)
    for release in (NEW, NEXT):
        make_artifact(built.artifact(release), built.root(release), release)
    loader, data = directory / "loader.ext2", directory / "data.ext4"
    boot_loader.build_partition(loader)
    content = directory / "data"
    content.mkdir(exist_ok=True)
    (content / "device_type").write_text(f"device_type={DEVICE_TYPE}\n")
    root_fs.make_file_system(data, root_fs.JOURNALED, DATA.size, content)
    disk.build(built.disk, loader, built.root(OLD), data)
    (directory / "done").touch()
    return built


def make_artifact(path: Path, image: Path, release: str) -> None:
    """Write the artifact of an image."""
    subprocess.run(
        [
            *("mender-artifact", "--compression", "gzip", "write", "rootfs-image", "--no-progress"),
            *("-t", DEVICE_TYPE, "-n", release, "-f", str(image), "-o", str(path)),
        ],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _digest(more: Sequence[Path]) -> str:
    """Return a digest of all that the files are made from, Debian's packages excepted."""
    files = [*more, *(HERE / source for source in _SOURCES)]
    for directory in (REPO / "mender_oneshot", HERE / "root", HERE / "initrd", HERE / "loader"):
        files += [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    found = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(f"{path.relative_to(REPO)} {content}\n".encode())
    return found.hexdigest()
