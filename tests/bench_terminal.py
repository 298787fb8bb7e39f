"""What the remote terminal costs, side by side with Debian's mender-connect on the same relay."""

import contextlib
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from helpers.device import REPO, Device
from helpers.raw_device import RawDevice
from helpers.real_connect import SHELL, mender_connect

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.user_session import UserSession

KEYS = 300
MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", "100"))


@contextlib.contextmanager
def ours(root: Path, server: DevServer, python: str) -> Iterator[int]:
    """Have our terminal run; its process id."""
    device = Device(root, python)
    device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
    (device.conf / "mender-connect.conf").write_text('{"RemoteTerminal": true, "ShellCommand": "/bin/bash"}')
    device.run("auth")
    server.accept()
    device.ok("auth")
    process = device.start("terminal", "--wait", "0")
    try:
        server.wait_connected()
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextlib.contextmanager
def theirs(root: Path, server: DevServer) -> Iterator[int]:
    """Have mender-connect run; its process id."""
    # Not with `--debug`, as in the tests: it would be busy writing a line for each message.
    root.mkdir(parents=True)
    (root / "mender-connect").write_text(
        '#!/bin/sh\nshift 4; [ "$1" = --debug ] && shift\n'
        f"exec {shutil.which('mender-connect')} --config {root}/connect.conf "
        '--fallback-config /nonexistent "$@"\n'
    )
    (root / "mender-connect").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{root}:{path}"
    stack = contextlib.ExitStack()
    try:
        stack.enter_context(mender_connect(root, server, RawDevice(server).accepted().token, **SHELL))
        found = subprocess.run(["pidof", "mender-connect"], capture_output=True, text=True, check=True)
        yield int(found.stdout.split()[0])
    finally:
        os.environ["PATH"] = path
        with contextlib.redirect_stdout(io.StringIO()):  # its log, which is for tests that fail
            stack.close()


def memory(pid: int) -> dict[str, int]:
    """The memory of a process: resident, its share of it (PSS), and what is its alone; in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    known = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "RSS": known["Rss"],
        "PSS": known["Pss"],
        "private": known["Private_Clean"] + known["Private_Dirty"],
    }


def latency(user: UserSession) -> float:
    """The median time from a key to its echo, in milliseconds."""
    # What echoes is the terminal itself, not a shell with ways of its own. One key more, and it ends.
    user.type(f"stty -icanon; echo rea''dy; head -c {KEYS + 1} > /dev/null; echo en''d\n".encode())
    user.until(b"ready\r\n")
    samples = []
    for turn in range(KEYS):
        key = b"ABCDEFGH"[turn % 8 : turn % 8 + 1]
        begun = time.perf_counter()
        user.type(key)
        user.until(key)
        samples.append(time.perf_counter() - begun)
    user.type(b"x")
    user.until(b"end\r\n")
    return statistics.median(samples) * 1000


def throughput(user: UserSession, file: Path) -> tuple[float, float]:
    """How fast `cat` of a file arrives, in MB/s, and bytes per message."""
    size = file.stat().st_size
    user.type(b"stty -echo -opost; echo rea''dy\n")
    user.until(b"ready")
    user.received.clear()
    begun = time.perf_counter()
    user.type(f"cat {file}\n".encode())
    got = messages = 0
    while got < size:
        got += len(user.receive(60).body)
        messages += 1
        user.received.clear()
    return got / (time.perf_counter() - begun) / 1e6, got / messages


def newest_libraries(place: Path) -> str:
    """An interpreter with what a device has, and no more: ours has what an editable installation adds."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["terminal"]]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = f"{place}/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", *wanted], check=True)
    return python


def measure(name: str, pid: int, server: DevServer, file: Path) -> dict[str, float]:
    """Measure one device and print a line."""
    time.sleep(1)  # so that what the start needs is over: the measure is of rest
    found: dict[str, float] = dict(memory(pid))
    with server.terminal() as user:
        user.new()
        user.type(b"PS1=\necho rea''dy\n")
        user.until(b"ready\r\n")
        found["latency"] = latency(user)
        found["MB/s"], found["bytes"] = throughput(user, file)
    found["RSS after"] = memory(pid)["RSS"]
    print(
        f"  {name:24} {found['RSS']:6.0f} {found['PSS']:6.0f} {found['private']:6.0f}"
        f" {found['RSS after']:6.0f} {found['latency']:8.2f} {found['MB/s']:8.1f} {found['bytes']:8.0f}"
    )
    return found


def main() -> None:
    """Print the table, and the ratios that are goals."""
    results = {}
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(name, None)  # on a device OpenSSL looks where it always does
    print("terminal: KiB when idle (RSS, PSS, private) and RSS after, ms from a key to its echo,")
    print(f"MB/s of a `cat` of {MEGABYTES} MB, and bytes in a message of it")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "file"
        file.write_bytes(os.urandom(1_000_000).translate(bytes(32) + bytes(range(32, 256))) * MEGABYTES)
        for name, python in (
            ("newest libraries", newest_libraries(Path(place) / "libraries")),
            ("Debian's libraries", "/usr/bin/python3"),
        ):
            command = [python, "-c", "import urllib3, cryptography, wsproto, msgpack"]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                print(f"  {name}: not installed, left out")
                continue
            root = Path(place) / name.split()[0]
            with (
                DevServer(root / "server", session_bytes=None) as server,
                ours(root / "d", server, python) as pid,
            ):
                results[name] = measure(name, pid, server, file)
        if shutil.which("mender-connect"):
            root = Path(place) / "theirs"
            with DevServer(root / "server", session_bytes=None) as server, theirs(root / "d", server) as pid:
                reference = measure("mender-connect 2.1.0", pid, server, file)
            for name, found in results.items():
                print(
                    f"  {name}: memory {found['RSS'] / reference['RSS']:.2f} (goal: at most 1.3), "
                    f"throughput {found['MB/s'] / reference['MB/s']:.1f} (goal: at least 1), "
                    f"latency {found['latency'] / reference['latency']:.2f} of mender-connect's"
                )


if __name__ == "__main__":
    main()
