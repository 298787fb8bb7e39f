"""The file in a server's directory by which the commands find the running server."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILE = "server.json"
ANY_USER = ("developer@example.com", "any")
"""The login of the commands at a server that accepts every user."""

_LOCK_SECONDS = 1.0


class DirectoryInUse(Exception):
    """Another server runs in this directory."""


class NotRunning(Exception):
    """No server runs in this directory."""


class Endpoint(NamedTuple):
    """What a program needs to talk to a server: its URL, its CA (empty without TLS) and a login."""

    url: str
    ca: str
    user: str
    password: str


class Claim:
    """A directory that no other server can use until the claim is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def publish(self, endpoint: Endpoint) -> None:
        """Write the file, which only the user of the server can read."""
        os.pwrite(self._descriptor, json.dumps(endpoint._asdict(), indent=1).encode() + b"\n", 0)


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[Claim]:
    """Create a directory and lock it for one server.

    Raise DirectoryInUse if another server has the lock, and OSError. The file is valid only while it is
    locked, so the one that a killed server left behind misleads no command.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A command holds the lock for an instant, to test it.
        end = time.monotonic() + _LOCK_SECONDS
        while not _locked(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise DirectoryInUse
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        yield Claim(descriptor)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def find(directory: Path) -> Endpoint:
    """Return the endpoint of the server that runs in a directory; raise NotRunning, and OSError."""
    try:
        descriptor = os.open(directory / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotRunning from None
    with open(descriptor, "rb") as file:
        content = file.read()
        # An empty file is that of a server that is starting.
        if not content or _locked(file.fileno(), fcntl.LOCK_SH):
            raise NotRunning
    return Endpoint(**json.loads(content))


def _locked(descriptor: int, kind: int) -> bool:
    """Lock a file and return True, or return False if another process has locked it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
