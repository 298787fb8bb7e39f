"""One whole update with every write of the board recorded, and what the server knew at each of them."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mender_oneshot.devserver import Seen
from mender_oneshot.devserver.operations import Snapshot

from . import boot_loader, disk, write_log
from .boot_loader import BLOCK, Environment
from .build import NEW, Built
from .layout import LOADER
from .machine import Machine
from .server import BoardServer
from .update import update


@dataclass(frozen=True)
class Moment:
    """The server after a request, and the number of entries that the record of writes had then."""

    entries: int
    request: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Recording:
    """What a recorded update leaves; the record of writes is in the same directory."""

    directory: Path
    deployment: str
    key: bytes
    secret: bytes
    moments: tuple[Moment, ...]
    idle: int
    """The number of entries when the device had come to rest."""

    @property
    def log(self) -> Path:
        """The record of writes."""
        return self.directory / "writes.log"

    def server_at(self, entries: int) -> Snapshot:
        """Return the devices and deployments of the server after a number of entries.

        A request is counted to the entries that the record had when its response was sent: those after it
        were written later, because the board writes nothing in advance.
        """
        return next(m for m in reversed(self.moments) if m.entries <= entries).snapshot

    def reported(self, status: str) -> int | None:
        """Return the number of entries when the server first had a status of the deployment."""
        for moment in self.moments:
            deployment = moment.snapshot.deployments.get(self.deployment)
            if deployment and any(status in entry.history for entry in deployment.devices.values()):
                return moment.entries
        return None

    @property
    def offered(self) -> int:
        """The number of entries when the update was offered to the device."""
        for moment in self.moments:
            deployment = moment.snapshot.deployments.get(self.deployment)
            if deployment and deployment.devices:
                return moment.entries
        raise LookupError("the update was never offered")

    def give_keys(self, server: BoardServer) -> None:
        """Let a server of another process accept the tokens and the links of this one."""
        key = serialization.load_pem_private_key(self.key, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        server.model.signer._key, server.model.signer._secret = key, self.secret


def record(built: Built, *, bad: Path | None = None, show: bool = False) -> Recording:
    """Run the update to `NEW`, recorded, or return the recording that exists; raise TimedOut.

    `bad` is the artifact of a release that must fail, to be installed instead; the server is beside it.
    """
    directory = bad.with_suffix(".recording") if bad else built.directory / "recording"
    kept = directory / "recording.pickle"
    if kept.exists():
        found: Recording = pickle.loads(kept.read_bytes())
        return found
    print("Recording an update; the numbers are those of the writes and flushes.", flush=True)
    directory.mkdir(exist_ok=True)
    log, board = directory / "writes.log", directory / "disk.img"
    log.write_bytes(b"")
    disk.copy(built.disk, board)
    moments: list[Moment] = []

    def note(seen: Seen) -> None:
        request = f"{seen.method} {seen.path} {seen.status}"
        moments.append(Moment(write_log.count(log), request, server.snapshot()))
        print(f"{moments[-1].entries:6} {request}", flush=True)

    with BoardServer(bad.parent / "server" if bad else built.server, note) as server:
        with Machine(board, server.ports, log=log, show=show) as machine:
            deployment = update(server, machine, bad or built.artifact(NEW))
            idle = write_log.count(log)
        signer = server.model.signer
        key = signer._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        moments.append(Moment(idle, "idle", server.snapshot()))
    board.unlink()
    recording = Recording(directory, deployment, key, signer._secret, tuple(moments), idle)
    kept.with_suffix(".new").write_bytes(pickle.dumps(recording))
    kept.with_suffix(".new").replace(kept)
    return recording


def environments(base: Path, log: write_log.WriteLog) -> list[tuple[int, Environment]]:
    """Return each change of the boot loader's environment, with the number of its entry."""
    with base.open("rb") as file:
        file.seek(LOADER.start)
        at = file.read(LOADER.size).index(boot_loader.HEADER + b"mender_boot_part=") + LOADER.start
    found: list[tuple[int, Environment]] = []
    for number, entry in enumerate(log.entries):
        if entry.is_write and entry.start <= at and at + BLOCK <= entry.start + entry.length:
            environment = boot_loader.parse(log.data(entry)[at - entry.start :][:BLOCK])
            if environment and (not found or environment != found[-1][1]):
                found.append((number, environment))
    return found


def requests(moments: Sequence[Moment]) -> str:
    """Return the requests, one a line, with the number of entries at each."""
    return "".join(f"{moment.entries:6} {moment.request}\n" for moment in moments)
