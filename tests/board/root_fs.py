"""The root file systems: Debian, this tree's client and the files in `root/`, as an image for a slot."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import packages, user_namespace
from .layout import HERE, REPO, ROOT_A

# In the order in which they can be loaded.
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net"),
)
_DIRECTORIES = [
    "boot/grub",
    "dev",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/lib/mender",
    "var/spool/cron/crontabs",
    "etc/mender",
    "usr/bin",
    "usr/sbin",
]

READ_ONLY = (
    *("-t", "ext4", "-b", "4096", "-N", "4096"),
    *("-O", "none,filetype,sparse_super,dir_index,extent,large_file"),
)
"""What is mounted read-only needs no journal, and GRUB supports these features."""
SIMPLE = ("-t", "ext2", "-b", "1024", "-O", "^resize_inode")
JOURNALED = ("-t", "ext4", "-b", "4096", "-O", "has_journal,^metadata_csum_seed,^orphan_file,^resize_inode")

_TIME = "1767225600"
_UUID = "6d656e64-6572-4f6e-a573-686f74426f61"

Change = Callable[[Path], None]
"""Makes a release out of the usual root, given as a directory."""


def build(image: Path, debian: Path, ca: Path, release: str, change: Change | None = None) -> None:
    """Write the image of one release."""
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        root = Path(name) / "root"
        root.mkdir(mode=0o755)
        packages.extract(debian, root)
        for directory in _DIRECTORIES:
            (root / directory).mkdir(parents=True, exist_ok=True)
        _move_kernel(root, Path(name) / "initrd")
        _link_busybox(root)
        _install_client(root)
        shutil.copytree(HERE / "root", root, dirs_exist_ok=True)
        shutil.copy(REPO / "cron/busybox-crontab", root / "var/spool/cron/crontabs/root")
        shutil.copy(ca, root / "etc/mender/ca.pem")
        (root / "etc/mender/artifact_info").write_text(f"artifact_name={release}\n")
        if change:
            change(root)
        _compile(root)
        make_file_system(image, READ_ONLY, ROOT_A.size, root)


def replace(path: Path, old: str, new: str) -> None:
    """Replace text in a file of a root; raise LookupError if it is not there."""
    text = path.read_text()
    if old not in text:
        raise LookupError(f"{path.name} does not have {old!r} any more; correct what replaces it")
    path.write_text(text.replace(old, new))


def make_file_system(image: Path, options: Sequence[str], size: int, content: Path) -> None:
    """Write an image of a file system with the content of a directory; its files belong to root.

    `options` are those of mke2fs that choose the kind: `READ_ONLY`, `SIMPLE` or `JOURNALED`.
    """
    image.unlink(missing_ok=True)
    user_namespace.run(
        [
            *("mke2fs", "-q", "-F", *options, "-m", "0", "-d", str(content)),
            *("-U", _UUID, "-E", f"hash_seed={_UUID}", str(image), f"{size >> 10}k"),
        ],
        {"E2FSPROGS_FAKE_TIME": _TIME},
    )


def _move_kernel(root: Path, initrd: Path) -> None:
    """Give the kernel its name in the boot loader, and its drivers to an initrd."""
    kernel = next((root / "boot").glob("vmlinuz-*"))
    kernel.rename(root / "boot/vmlinuz")
    for directory in ("bin", "dev", "modules", "proc", "root", "sys"):
        (initrd / directory).mkdir(parents=True)
    found = {path.stem: path for path in (root / "usr/lib/modules").rglob("*.ko")}
    for name in MODULES:
        shutil.copy(found[name], initrd / "modules")
    (initrd / "modules/order").write_text("".join(f"{name}\n" for name in MODULES))
    shutil.copy(root / "usr/bin/busybox", initrd / "bin")
    shutil.copy(HERE / "initrd/init", initrd)
    shutil.rmtree(root / "usr/lib/modules")
    names = "".join(f"{path.relative_to(initrd)}\n" for path in sorted(initrd.rglob("*")))
    packed = subprocess.run(
        ["busybox", "cpio", "-o", "-H", "newc"],
        cwd=initrd,
        input=names.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    (root / "boot/initrd").write_bytes(packed.stdout)


def _link_busybox(root: Path) -> None:
    listed = subprocess.run(["busybox", "--list-full"], capture_output=True, text=True, check=True)
    for line in listed.stdout.split():
        path = root / (line if line.startswith("usr/") else f"usr/{line}")
        if path.parent.is_dir() and not path.exists():
            path.symlink_to("/usr/bin/busybox")
    (root / "usr/sbin/init").unlink(missing_ok=True)
    (root / "usr/sbin/init").symlink_to("/usr/bin/busybox")


def _install_client(root: Path) -> None:
    subprocess.run(
        ["make", "-s", "-C", str(REPO), "install", f"DESTDIR={root}", "COMPILE=no"],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    shutil.rmtree(root / "usr/local/share/man")
    shutil.rmtree(root / "usr/local/share/doc")
    # busybox crond does not read it.
    shutil.rmtree(root / "etc/cron.d")


def _compile(root: Path) -> None:
    """Compile all Python of a root by its own interpreter, which runs here with its own libraries."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    loader, python = libraries / "ld-linux-x86-64.so.2", root / "usr/bin" / packages.PYTHON
    for name, options in (("usr/lib", ["-b"]), ("usr/local/share", [])):
        # Templates in the standard library do not compile.
        subprocess.run(
            [
                *(
                    str(loader),
                    "--library-path",
                    str(libraries),
                    str(python),
                    "-m",
                    "compileall",
                    "-q",
                    *options,
                ),
                *("-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash", str(root / name)),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONHOME": str(root / "usr")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    # An update writes every byte of a slot, so the sources of Debian's libraries are left out.
    for path in (root / "usr/lib").rglob("*.py"):
        path.unlink()
    for path in list((root / "usr/lib").rglob("__pycache__")):
        shutil.rmtree(path)
    if not list((root / "usr/local/share/mender-oneshot/mender_oneshot/__pycache__").glob("cli.*.pyc")):
        raise RuntimeError("the client was not compiled")
