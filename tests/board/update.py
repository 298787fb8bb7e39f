"""One update of the board, from the deployment to the rest after it."""

import time
from pathlib import Path

from .machine import Machine, TimedOut
from .server import BoardServer

FINAL = ("success", "failure")
UPDATE_SECONDS = 1800.0


def update(server: BoardServer, machine: Machine, artifact: Path) -> str:
    """Let a board install an artifact, and return the id of the deployment; raise TimedOut.

    The name of the file, without its suffix, is that of the release.
    """
    add_artifact(server, artifact)
    deployment = deploy(server, artifact.stem)
    wait_final(server, deployment, machine, UPDATE_SECONDS)
    wait_idle(machine)
    return deployment


def add_artifact(server: BoardServer, path: Path) -> None:
    """Upload an artifact, unless the server's directory has it from an earlier time."""
    if path.stem not in [artifact.name for artifact in server.artifacts]:
        server.upload(path)


def deploy(server: BoardServer, release: str, seconds: float = 600.0) -> str:
    """Deploy a release as soon as the device is there; return the id of the deployment."""
    end = time.monotonic() + seconds
    while not any(device.status == "accepted" for device in server.devices):
        if time.monotonic() > end:
            raise TimedOut(f"the device has not asked for authorization in {seconds:.0f} s")
        time.sleep(0.1)
    return server.deploy(release)


def wait_final(server: BoardServer, deployment: str, machine: Machine, seconds: float) -> str:
    """Return the final status of a deployment; raise TimedOut."""

    def final(console: str) -> str | None:
        entries = server.snapshot().deployments[deployment].devices.values()
        return next((entry.status for entry in entries if entry.status in FINAL), None)

    return machine.wait_until(final, f"final status of {deployment}", seconds)


def checks_for_updates(server: BoardServer, since: int) -> list[int]:
    """Return the status of each response to a check for updates, except the first `since` requests."""
    return [seen.status for seen in server.requests[since:] if seen.path.endswith("/deployments/next")]


def wait_idle(machine: Machine, seconds: float = 600.0) -> None:
    """Wait until an invocation that began after now has ended with 0; raise TimedOut."""
    at = len(machine.console)
    machine.wait(r"board: run ended with \d+(?s:.*)board: run ended with 0$", seconds, after=at)
