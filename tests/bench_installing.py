"""What an installation costs, side by side with Debian's Mender client: one file of 10 MiB.

Time and memory are measured in different runs, because reading the memory of processes takes time.
"""

import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from helpers.device import SYSTEM_PYTHON, Device
from helpers.memory import proportional
from helpers.real_artifact import write_artifact
from helpers.real_daemon import mender, world

MODULE = Path("/usr/share/mender/modules/v3/single-file")
PAYLOAD = int(os.environ.get("BENCH_MEBIBYTES", "10")) << 20
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
SAMPLE_SECONDS = 0.002


class Client:
    """A client on a device of its own."""

    def __init__(self, place: Path) -> None:
        self.device = Device(place, SYSTEM_PYTHON)
        self.device.configure(ServerURL="https://localhost:9")
        self.program = [SYSTEM_PYTHON, "-m", "mender_oneshot"]

    def with_module(self, module: Path) -> "Client":
        modules = self.device.scripts / "modules" / "v3"
        modules.mkdir(parents=True)
        (modules / module.name).symlink_to(module)
        return self

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command in the environment of the device; each client is started in the same way."""
        environment = {name: value for name, value in self.device.env().items() if name != "PYTHONWARNINGS"}
        return subprocess.Popen(
            [*world(self.device), *self.program, *words],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def main() -> None:
    """Print a table."""
    if not MODULE.exists() or not shutil.which("mender") or os.geteuid():
        print("installation: mender-client is not installed, or this is not root; left out")
        return
    with tempfile.TemporaryDirectory() as place:
        compare(Path(place))


def compare(place: Path) -> None:
    """Measure the clients in turns, and print the medians."""
    files = {"dest_dir": f"{place}/target", "filename": "app", "permissions": "755"}
    artifact = write_artifact(
        place / "release-2.mender", "single-file", {**files, "app": os.urandom(PAYLOAD)}
    )
    theirs = Client(place / "theirs")
    theirs.program = mender(theirs.device)
    clients = {
        "mender 3.4": theirs,
        "ours, Debian's module": Client(place / "same").with_module(MODULE),
        "ours, our module": Client(place / "ours"),
    }
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, client in clients.items():
            samples[name].append((*seconds(client, artifact), memory(client, artifact)))
    print(f"install and commit of a file of {PAYLOAD >> 20} MiB, median of {ROUNDS} runs")
    for name, found in samples.items():
        wall, cpu, most = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"  {name:22} {wall:6.2f} s  {cpu:6.2f} s CPU  {most / 1024:6.1f} MiB in all processes")


def seconds(client: Client, artifact: Path) -> tuple[float, float]:
    """Install and commit; seconds by the clock, and of CPU in all processes."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in (("install", str(artifact)), ("commit",)):
        assert client.start(*words).wait() == 0, words
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(client: Client, artifact: Path) -> float:
    """Install and commit; the most memory that all processes had together (PSS), in KiB."""
    most = 0
    for words in (("install", str(artifact)), ("commit",)):
        process = client.start(*words)
        while process.poll() is None:
            most = max(most, sum(map(proportional, descendants(process.pid))))
            time.sleep(SAMPLE_SECONDS)
        assert process.returncode == 0, words
    return most


def descendants(pid: int) -> Iterator[int]:
    """Return a process and all that it has started."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from descendants(int(child))


if __name__ == "__main__":
    main()
