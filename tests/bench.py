"""`make bench`: what an invocation costs, as ratios to something measured in the same run.

CPU is user + system time of the process and its children, the median of many runs, taken in turns so that a
busy machine is busy for all alike.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from helpers.device import Device

from mender_oneshot.devserver import DevServer

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "40"))

BARE_REQUEST = """
import ssl, sys, urllib3
context = ssl.create_default_context()
context.load_verify_locations(sys.argv[2])
context.check_hostname = hasattr(urllib3, "BaseHTTPResponse")
pool = urllib3.PoolManager(ssl_context=context)
headers = {"Authorization": "Bearer " + sys.argv[3]}
sys.exit(pool.request("GET", sys.argv[1], headers=headers).status != 204)
"""


def cpu(command: list[str], environment: dict[str, str]) -> float:
    """Run a command to its end; seconds of CPU it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd="/")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(runs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Measure several things in turns; the median of each, in seconds."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            samples[name].append(run())
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    """Print a table for each world of libraries that is here."""
    for label, python in (("newest", sys.executable), ("debian", "/usr/bin/python3")):
        command = [python, "-c", "import click, urllib3, cryptography"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            print(f"{label}: libraries not installed, left out")
            continue
        with tempfile.TemporaryDirectory() as root, DevServer(Path(root) / "server") as server:
            measure(label, python, Path(root), server)


def measure(label: str, python: str, root: Path, server: DevServer) -> None:
    """Measure one world."""
    device = Device(root / "device", python)
    device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
    device.run("auth")
    server.accept()
    device.ok("auth")
    device.ok("run", "--all")
    environment = {name: value for name, value in device.env().items() if name != "PYTHONWARNINGS"}
    tool = [python, "-m", "mender_oneshot"]
    query = "artifact_name=release-1&device_type=board"
    url = f"{server.url}/api/devices/v1/deployments/device/deployments/next?{query}"
    times = compare(
        {
            "pass": lambda: cpu([python, "-c", "pass"], environment),
            "click": lambda: cpu([python, "-c", "import click"], environment),
            "run": lambda: cpu([*tool, "run"], environment),
            "bare": lambda: cpu([python, "-c", BARE_REQUEST, url, str(server.ca), device.token], environment),
            "check": lambda: cpu([*tool, "check-update"], environment),
        }
    )
    print(f"{label} libraries, {sys.version_info.major}.{sys.version_info.minor}, median of {ROUNDS} runs")
    for name, value in times.items():
        print(f"  {name:6} {value * 1000:7.1f} ms CPU")
    quiet, request = times["run"] / times["pass"], times["check"] / times["bare"]
    print(f"  run with nothing due : python3 -c pass      {quiet:5.2f}  (goal: at most 5)")
    print(f"  check-update : bare urllib3, same request   {request:5.2f}  (goal: at most 1.35)")


if __name__ == "__main__":
    main()
