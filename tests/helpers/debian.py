"""A real Debian 12 to install into: made once by debootstrap, then a view of it for each test."""

import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.device import REPO

CACHE = REPO / "build" / "debian-12"

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "python3",
    "python3-click",
    "python3-cryptography",
    "python3-cffi-backend",  # named, for debootstrap does not follow what is provided under another name
    "python3-msgpack",
    "python3-urllib3",
    "python3-wsproto",
)


def need_root(*programs: str) -> None:
    """Skip the test where a program is missing, or where we may not mount."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    if os.geteuid() or tried.returncode:
        pytest.skip(f"making a system of one's own needs root and the right to mount: {tried.stderr.strip()}")


def mirror() -> str:
    """Return the mirror that this machine's own apt uses."""
    for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")) + ["/etc/apt/sources.list"]:
        with contextlib.suppress(OSError):
            found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+)", Path(path).read_text(), re.MULTILINE)
            if found:
                return found[1]
    pytest.skip("no apt sources here to make a Debian from")


def rootfs() -> Path:
    """Return the directory of the Debian that all tests share; it is read-only."""
    need_root("debootstrap")
    CACHE.parent.mkdir(exist_ok=True)
    with open(CACHE.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = CACHE.with_suffix(".done")
        if not done.exists() or done.read_text() != " ".join(PACKAGES):
            shutil.rmtree(CACHE, ignore_errors=True)
            _make()
            done.write_text(" ".join(PACKAGES))
    return CACHE


def _make() -> None:
    wanted = f"--include={','.join(PACKAGES)}"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", wanted, "bookworm", str(CACHE), mirror()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]


@contextlib.contextmanager
def system(directory: Path) -> Iterator[Path]:
    """Provide a Debian for one test, under `directory`, to write into and to boot; removed at the end."""
    lower = rootfs()
    upper, work, root = (directory / name for name in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True)
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def make_install(root: Path, *words: str) -> None:
    """Put the tool into a system as an integrator does."""
    subprocess.run(
        ["make", "-s", "-C", str(REPO), "install", f"DESTDIR={root}", *words],
        stdin=subprocess.DEVNULL,
        check=True,
    )
