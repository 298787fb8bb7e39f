"""The part of Debian that the board's root file systems consist of, fetched once by mmdebstrap."""

import fnmatch
import subprocess
import tarfile
from pathlib import Path

from .layout import CACHE

PACKAGES = (
    "busybox-static",
    "e2fsprogs",
    "linux-image-cloud-amd64",
    "python3",
    "python3-click",
    "python3-cryptography",
    "python3-urllib3",
)
SUITE = "bookworm"
PYTHON = "python3.11"

_LIBRARIES = (
    *("blkid", "bz2", "c", "cap", "com_err", "crypto", "dl", "e2p", "expat", "ext2fs", "ffi", "gcc_s"),
    *("lzma", "m", "nsl", "pthread", "resolv", "rt", "ssl", "util", "uuid", "z"),
)
_KEPT = (
    *("./bin", "./lib", "./lib64", "./sbin"),
    *("./boot/vmlinuz-*", "./usr/lib64/*"),
    *("./usr/bin/busybox", "./usr/bin/python3*", "./usr/sbin/e2fsck"),
    *("./usr/lib/python3/*", f"./usr/lib/{PYTHON}/*"),
    *(f"./usr/lib/x86_64-linux-gnu/lib{name}.so*" for name in _LIBRARIES),
    *("./usr/lib/x86_64-linux-gnu/ld-linux-*", "./usr/lib/x86_64-linux-gnu/ossl-modules/*"),
    *(f"./usr/lib/modules/*/{name}.ko" for name in ("virtio*", "failover", "net_failover")),
)
_UNUSED = (
    *("asyncio", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "sqlite3", "test", "tkinter", "turtle"),
    *("unittest", "xmlrpc", "lib-dynload/_codecs_", "config-"),
)
_LEFT_OUT = (*(f"./usr/lib/{PYTHON}/{name}*" for name in _UNUSED), "./usr/lib/python3/dist-packages/pip/*")


def archive(mirror: str) -> Path:
    """Return a tar file of a Debian with `PACKAGES`, extracted but not configured; it is made once."""
    path = CACHE / "debian.tar"
    wanted = CACHE / "debian.packages"
    words = " ".join([SUITE, *PACKAGES])
    if path.exists() and wanted.exists() and wanted.read_text() == words:
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *(
                "mmdebstrap",
                "--quiet",
                "--format=tar",
                "--variant=extract",
                f"--include={','.join(PACKAGES)}",
            ),
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            *(SUITE, f"{path}.new", mirror),
        ],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    Path(f"{path}.new").replace(path)
    wanted.write_text(words)
    return path


def extract(path: Path, directory: Path) -> None:
    """Extract what the board needs; the rest is twice as large as all of that."""
    with tarfile.open(path) as debian:
        members = [member for member in debian if _is_kept(member.name)]
        # Python 3.11.2, of Debian 12, has no filters; newer ones warn if there is none.
        debian.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
        debian.extractall(directory, members)


def _is_kept(name: str) -> bool:
    kept, left_out = (
        any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for patterns in (_KEPT, _LEFT_OUT)
    )
    return kept and not left_out
