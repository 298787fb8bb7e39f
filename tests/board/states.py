"""Which cuts leave the same board: what the next boot finds, compared as files and not as blocks.

Most writes change nothing that a boot can see: a block of the journal before its commit, a bitmap, one more
piece of a slot that is not going to be booted. So one cut is tried for all that leave the same.
"""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mender_oneshot.devserver.operations import Snapshot

from . import boot_loader, replay
from .build import NEW, OLD, Built
from .layout import DATA, LOADER, ROOT_A, ROOT_B, Partition
from .replay import Cut
from .write_log import Entry, WriteLog

_Piece = tuple[int, int]
"""The number of an entry, and how many bytes of it are on the disk."""


class Inconsistent(Exception):
    """A file system is not consistent after its journal was replayed."""


class _Recording(Protocol):
    @property
    def directory(self) -> Path: ...
    def server_at(self, entries: int, /) -> Snapshot: ...


class Group(NamedTuple):
    """The cuts that leave one state; the first of them is tried for all."""

    state: str
    cuts: tuple[Cut, ...]


def groups(built: Built, recording: _Recording, log: WriteLog, cuts: Sequence[Cut]) -> list[Group]:
    """Group cuts by what they leave, in order; raise `Inconsistent`.

    What was computed is kept with the recording.
    """
    kept = recording.directory / "states.json"
    known: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    with tempfile.TemporaryDirectory(dir=recording.directory) as scratch:
        states = States(built, log, Path(scratch))
        for number, cut in enumerate(cuts):
            if number and not number % 200:
                print(f"{number} of {len(cuts)} cuts compared ...", flush=True)
            if str(cut) not in known:
                known[str(cut)] = states.after(cut, recording.server_at(cut.point))
    kept.write_text(json.dumps(known))
    found: dict[str, list[Cut]] = {}
    for cut in cuts:
        found.setdefault(known[str(cut)], []).append(cut)
    return [Group(state, tuple(of_state)) for state, of_state in found.items()]


class States:
    """Computes what a cut leaves; `scratch` is a directory for files that are used for a moment only."""

    def __init__(self, built: Built, log: WriteLog, scratch: Path) -> None:
        self._built = built
        self._log = log
        self._scratch = scratch
        self._numbers = {entry: number for number, entry in enumerate(log.entries)}
        self._images = {release: built.root(release).read_bytes() for release in (OLD, NEW)}
        self._known: dict[tuple[int, tuple[_Piece, ...], bool], str] = {}

    def after(self, cut: Cut, server: Snapshot) -> str:
        """Return a digest of the board and the server after a cut; raise `Inconsistent`."""
        writes = replay.writes(self._log.entries, cut)
        environment = self._part(LOADER, writes)
        parts = [
            hashlib.sha256(pickle.dumps(server)).hexdigest(),
            environment,
            self._part(DATA, writes),
            *(self._part(slot, writes, self._boots(slot, writes)) for slot in (ROOT_A, ROOT_B)),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _boots(self, slot: Partition, writes: Sequence[tuple[Entry, int]]) -> bool:
        """Return whether the boot loader may start a slot before something else is written to it."""
        content = self._content(LOADER, writes)
        at = content.find(boot_loader.HEADER + b"mender_boot_part")
        found = boot_loader.parse(bytes(content[at : at + boot_loader.BLOCK])) if at >= 0 else None
        return found is None or found.upgrade_available or found.slot == slot.number

    def _part(self, part: Partition, writes: Sequence[tuple[Entry, int]], boots: bool = False) -> str:
        pieces = tuple((self._numbers[entry], length) for entry, length in writes if _within(part, entry))
        key = (part.number, pieces, boots)
        if key not in self._known:
            content = self._content(part, writes)
            self._known[key] = (
                self._slot(content, boots) if part in (ROOT_A, ROOT_B) else self._files(content)
            )
        return self._known[key]

    def _content(self, part: Partition, writes: Sequence[tuple[Entry, int]]) -> bytearray:
        with self._built.disk.open("rb") as file:
            file.seek(part.start)
            content = bytearray(file.read(part.size))
        content.extend(bytes(part.size - len(content)))
        with self._log.path.open("rb") as source:
            for entry, length in writes:
                if _within(part, entry):
                    source.seek(entry.data_at)
                    at = entry.start - part.start
                    content[at : at + length] = source.read(length)
        return content

    def _slot(self, content: bytearray, boots: bool) -> str:
        for release, image in self._images.items():
            if content == image:
                return release
        return hashlib.sha256(content).hexdigest() if boots else "not an image"

    def _files(self, content: bytearray) -> str:
        """Return a digest of the names, modes and contents of all files, after the journal was replayed."""
        image, tree = self._scratch / "part.img", self._scratch / "tree"
        image.write_bytes(content)
        _run("e2fsck", "-p", str(image), right=(0, 1))
        _run("e2fsck", "-f", "-n", str(image), right=(0,))
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        _run("debugfs", "-R", f"rdump / {tree}", str(image), right=(0,))
        found = hashlib.sha256()
        for path in sorted(tree.rglob("*")):
            of_file = path.lstat()
            kept = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found.update(f"{path.relative_to(tree)} {of_file.st_mode:o} {kept}\n".encode())
        return found.hexdigest()


def _within(part: Partition, entry: Entry) -> bool:
    return part.start <= entry.start < part.start + part.size


def _run(*words: str, right: Sequence[int]) -> None:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    if done.returncode not in right:
        raise Inconsistent(
            f"{words[0]} ends with {done.returncode}: {done.stdout.decode(errors='replace')[-600:]}"
        )
