"""The tutorial: its commands, typed on a desk and on a board, print what the page shows."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import debian
from helpers.debian import need_root, rootfs
from helpers.device import REPO
from helpers.documents import Typed, shows, typed
from helpers.machine import Machine, write
from helpers.waiting import until

pytestmark = pytest.mark.real

PAGE = REPO / "docs" / "first-update.md"
BOARD = "var/lib/machines/board"

TIMER = "mender-oneshot-update.timer"
# It ticks once a minute.
SOON = "[Timer]\nOnBootSec=\nOnBootSec=1\nOnUnitInactiveSec=1\nRandomizedDelaySec=0\nAccuracySec=100ms\n"


@contextlib.contextmanager
def overlay(lower: Path, place: Path, root: Path) -> Iterator[None]:
    """Mount a view of a tree at `root`; what is written to it stays in `place`."""
    upper, work = place / "upper", place / "work"
    for path in (upper, work, root):
        path.mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", str(root)], check=True)


@pytest.fixture
def network() -> Iterator[tuple[str, ...]]:
    """A network of its own, in which the ports of the page are free; yields the command that enters it."""
    need_root("unshare", "nsenter", "ip")
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        there = Path(f"/proc/{holder.pid}/ns/net")
        try:
            until(lambda: there.readlink() != Path("/proc/self/ns/net").readlink(), "the network is there")
            enter = ("nsenter", f"--net={there}")
            subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
            subprocess.run([*enter, "ip", "address", "add", "192.0.2.10/32", "dev", "lo"], check=True)
            yield enter
        finally:
            holder.kill()


class Desk:
    """The machine of the tests, as a user's desk: what is written to it is gone after the test."""

    def __init__(self, root: Path, network: tuple[str, ...], place: Path) -> None:
        self.root = root
        self._enter = (*network, "chroot", str(root))
        self._log = place / "server"
        self.directory = "/root/mender-oneshot"
        self.serving: list[subprocess.Popen[bytes]] = []

    def type(self, command: str) -> str:
        """Run a command in a shell, and return what it printed."""
        words = [*self._enter, "sh", "-c", f"cd {self.directory} && {command}"]
        done = subprocess.run(
            words,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def serve(self, command: str) -> str:
        """Start a command that runs until the end of the test; return what it printed when it was ready."""
        words = [*self._enter, "sh", "-c", f"cd {self.directory} && exec {command}"]
        with self._log.open("wb") as log:
            self.serving.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            )
        until(lambda: '"ServerCertificate"' in self._log.read_text(), "the server listens")
        return self._log.read_text()


@pytest.fixture
def desk(tmp_path: Path, network: tuple[str, ...]) -> Iterator[Desk]:
    need_root("systemd-nspawn", "make", "mender-artifact")
    with overlay(Path("/"), tmp_path / "desk", tmp_path / "root"):
        root = tmp_path / "root"
        for name in ("proc", "sys", "dev"):
            subprocess.run(["mount", "--rbind", f"/{name}", str(root / name)], check=True)
            subprocess.run(["mount", "--make-rslave", str(root / name)], check=True)
        made = Desk(root, network, tmp_path)
        skip = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
        shutil.copytree(REPO, root / made.directory[1:], ignore=skip, symlinks=True)
        try:
            yield made
        finally:
            for process in made.serving:
                process.kill()
                process.wait()


class Tutorial:
    """What the reader of the page does; a few commands are replaced by their results."""

    def __init__(
        self, desk: Desk, network: tuple[str, ...], place: Path, stack: contextlib.ExitStack
    ) -> None:
        self._desk = desk
        self._network = network
        self._place = place
        self._stack = stack
        self._board: Machine | None = None

    def type(self, step: Typed) -> str:
        """Type one command, and return what it printed."""
        if step.prompt == "board#":
            return self._on_the_board(step.command)
        program, *words = step.command.split()
        if program == "apt-get":
            return self._have_packages(words)
        if program == "debootstrap":
            return self._make_board(words)
        if program == "systemd-nspawn":
            return self._boot(words)
        if "serve" in words:
            return self._desk.serve(step.command)
        if "--wait" in words:
            self._tick_often()
        return self._desk.type(step.command)

    def _on_the_board(self, command: str) -> str:
        assert self._board
        if command == "systemctl poweroff":
            self._stack.close()
            return ""
        done = self._board.run("sh", "-c", f"exec 2>&1; cd /root; {command}", check=False)
        return done.stdout

    def _have_packages(self, words: list[str]) -> str:
        """Skip the test if a package that the page installs is not there."""
        verb, *names = words
        assert verb == "install"
        done = subprocess.run(["dpkg", "--status", *names], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"not installed: {done.stderr}")
        return ""

    def _make_board(self, words: list[str]) -> str:
        """Provide what debootstrap made once for all tests, which has at least the packages of the page."""
        variant, packages, release, target = words
        assert (variant, release, target) == ("--variant=minbase", "bookworm", f"/{BOARD}")
        assert set(packages.removeprefix("--include=").split(",")) <= set(debian.PACKAGES)
        self._stack.enter_context(overlay(rootfs(), self._place / "board", self._desk.root / BOARD))
        return ""

    def _tick_often(self) -> None:
        """Let the timer, which `setup` has enabled, tick each second."""
        assert self._board
        write(self._desk.root / BOARD / f"etc/systemd/system/{TIMER}.d/soon.conf", SOON)
        self._board.run("systemctl", "is-enabled", TIMER)
        self._board.run("systemctl", "daemon-reload")
        self._board.run("systemctl", "restart", TIMER)

    def _boot(self, words: list[str]) -> str:
        assert words == ["-D", f"/{BOARD}", "--boot"]
        shadow = (self._desk.root / BOARD / "etc/shadow").read_text()
        assert re.search(r"^root::", shadow, re.MULTILINE), "root can log in without a password"
        machine = Machine(self._desk.root / BOARD, self._place / "console", self._network)
        self._board = self._stack.enter_context(machine)
        return ""


def test_each_command_of_the_tutorial_prints_what_the_page_shows(
    desk: Desk, network: tuple[str, ...], tmp_path: Path
) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        tutorial = Tutorial(desk, network, tmp_path, stack)
        for step in typed(PAGE, "desk#", "board#"):
            printed = tutorial.type(step)
            print(f"[{time.monotonic() - began:5.1f} s] {step.prompt} {step.command}\n{printed}")
            assert shows(step.output, printed), step.output
