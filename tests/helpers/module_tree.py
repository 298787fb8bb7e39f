"""An update module called as a host calls it: a process in a tree, with streams, and with power cuts."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers.device import REPO, Run
from helpers.real_daemon import need
from helpers.waiting import is_running

DEBIAN_MODULES = Path("/usr/share/mender/modules/v3")
"""The modules of Debian's package mender-client, which ours are compared with."""

_CHANGES = (
    "write pwrite64 fsync fdatasync sync rename renameat renameat2 unlink unlinkat rmdir mkdir mkdirat link "
    "symlink symlinkat chown fchown lchown fchownat chmod fchmod fchmodat utimensat setxattr ftruncate fork "
    "vfork clone clone3"
)


class Cut(NamedTuple):
    """A power cut on the way into a system call: the `nth` of its name."""

    call: str
    nth: int


def ours(name: str, python: str = sys.executable, arguments: str = "") -> tuple[str, ...]:
    """Return the command line of one of our modules; `arguments` are further ones of `main`, in Python."""
    code = (
        f"import stat, sys; sys.path.append({str(REPO)!r}); from mender_oneshot.modules.{name} import main; "
    )
    code += f"from mender_oneshot.modules.slots import Board; sys.exit(main(sys.argv[1:]{arguments}))"
    return python, "-P", "-c", code


def debian_module(name: str) -> tuple[str, ...]:
    """Return the command line of Debian's module; skips the test if it is not installed."""
    need(str(DEBIAN_MODULES / name))
    return (str(DEBIAN_MODULES / name),)


class Tree:
    """The tree of one update, and the module that works in it."""

    def __init__(self, path: Path, module: Sequence[str], files: Mapping[str, bytes] | None = None) -> None:
        self.path = path
        self.module = tuple(module)
        self.environment: dict[str, str] = {}
        for name in ("header", "tmp"):
            (path / name).mkdir(parents=True)
        (path / "version").write_text("3\n")
        if files is not None:
            (path / "files").mkdir()
            for name, content in files.items():
                (path / "files" / name).write_bytes(content)
                (path / "files" / name).chmod(0o644)

    def start(self, call: str, wrapper: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start a call in a process group of its own."""
        return subprocess.Popen(
            [*wrapper, *self.module, call, str(self.path)],
            cwd=self.path,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"} | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def call(self, call: str, wrapper: Sequence[str] = ()) -> Run:
        """Make a call and wait for it; a traceback fails the test."""
        return self.wait(self.start(call, wrapper))

    def wait(self, process: "subprocess.Popen[str]") -> Run:
        """Wait for a call, and end what it has left in its process group."""
        with process:
            try:
                out, err = process.communicate(timeout=60)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        assert "Traceback" not in err, err
        return Run(process.returncode, out, err)

    def ok(self, call: str) -> Run:
        """Make a call that has to succeed."""
        done = self.call(call)
        assert done.code == 0, (call, done)
        return done

    def rejects(self, call: str) -> str:
        """Make a call that has to fail with one sentence, and return the sentence."""
        done = self.call(call)
        assert (done.code, done.out) == (1, ""), done
        assert done.err.endswith(".\n"), done
        return done.err

    def cuts(self, call: str, log: Path) -> list[Cut]:
        """Make a call and list the system calls of its main process that a power cut could fall before."""
        need("strace")
        self.call(call, ("strace", "-o", str(log), "-e", f"trace={','.join(_CHANGES.split())}"))
        counts: dict[str, int] = {}
        found = []
        for line in log.read_text().splitlines():
            if name := re.match(r"(\w+)\(", line):
                counts[name[1]] = counts.get(name[1], 0) + 1
                found.append(Cut(name[1], counts[name[1]]))
        return found

    def cut(self, call: str, cut: Cut) -> bool:
        """Make a call that is killed there; return False if it ended before it came to that."""
        need("strace")
        inject = f"inject={cut.call}:signal=SIGKILL:when={cut.nth}"
        done = self.call(call, ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={cut.call}", "-e", inject))
        return done.code in (-signal.SIGKILL, 128 + signal.SIGKILL)

    def feed(
        self,
        images: Sequence[tuple[str, bytes]],
        call: str = "DownloadWithFileSizes",
        sizes: Sequence[int] = (),
        wrapper: Sequence[str] = (),
    ) -> Run:
        """Call `DownloadWithFileSizes` and stream the files; `sizes` are announced if there are any."""
        streams = self.path / "streams"
        shutil.rmtree(streams, ignore_errors=True)
        streams.mkdir()
        fifo = self.path / "stream-next"
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o600)
        process = self.start(call, wrapper)
        feeder = threading.Thread(target=self._feed, args=(process, fifo, images, sizes))
        feeder.start()
        done = self.wait(process)
        feeder.join()
        shutil.rmtree(streams)
        fifo.unlink()
        return done

    def _feed(
        self,
        process: "subprocess.Popen[str]",
        fifo: Path,
        images: Sequence[tuple[str, bytes]],
        sizes: Sequence[int],
    ) -> None:
        for index, (name, content) in enumerate(images):
            size = sizes[index] if sizes else len(content)
            os.mkfifo(self.path / "streams" / name, 0o600)
            if not _write(process, fifo, f"streams/{name} {size}\n".encode()):
                return
            if not _write(process, self.path / "streams" / name, content):
                return
        _write(process, fifo, b"")


def _write(process: "subprocess.Popen[str]", fifo: Path, content: bytes) -> bool:
    """Write to a FIFO; return False if the module has ended, or ended reading, before."""
    for _ in _while_running(process):
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        os.set_blocking(descriptor, True)
        with open(descriptor, "wb", buffering=0) as file:
            try:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
            except BrokenPipeError:
                return False
        return True
    return False


def _while_running(process: "subprocess.Popen[str]") -> Iterator[None]:
    while is_running(process.pid):  # not poll(): the main thread waits for the process
        yield
        threading.Event().wait(0.002)


def listing(directory: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is in a directory: kind, mode, owner and content of each entry, by its path."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([directory, *directory.rglob("*")]) if os.path.lexists(directory) else []:
        info = path.lstat()
        content: object = None
        if stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (oct(info.st_mode), info.st_uid, info.st_gid, content)
    return found
