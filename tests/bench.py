"""`make bench`: what an invocation costs, beside something measured in the same run.

ONLY=download measures one row; ROWS has the names.
The program is installed as on a device and runs in a device's environment, once with Debian's libraries and
once with the newest. CPU is user and system time of a process and its children. Each figure is the median of
runs that are taken in turns with those of its baseline.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from helpers.device import REPO, SYSTEM_PYTHON
from helpers.installed_device import Cost, InstalledDevice, Starter, medians
from helpers.real_artifact import write_artifact

from mender_oneshot.devserver import DevServer

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "9"))
ONLY = os.environ.get("ONLY", "")

BARE_REQUEST = """
import ssl, sys, urllib3
context = ssl.create_default_context()
context.load_verify_locations(sys.argv[2])
context.check_hostname = hasattr(urllib3, "BaseHTTPResponse")
pool = urllib3.PoolManager(ssl_context=context)
headers = {"Authorization": "Bearer " + sys.argv[3]}
sys.exit(pool.request("GET", sys.argv[1], headers=headers).status != 204)
"""

MINIMAL_REQUEST = """
import socket, ssl, sys
host, port, path = sys.argv[1:4]
context = ssl.create_default_context(cafile=sys.argv[4])
with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as tls:
    lines = f"GET {path} HTTP/1.1", f"Host: {host}:{port}", f"Authorization: Bearer {sys.argv[5]}"
    tls.sendall("\\r\\n".join([*lines, "Connection: close", "", ""]).encode())
    while tls.recv(65536):
        pass
"""


class World:
    """One set of libraries: an interpreter, a server, and a device that is accepted there."""

    def __init__(self, name: str, python: str, place: Path, server: DevServer, starter: Starter) -> None:
        self.name = name
        self.python = python
        self.place = place
        self.server = server
        self.starter = starter
        self.device = InstalledDevice(place / "device", python, server)

    def ours(self, *words: str, before: Callable[[], None] = lambda: None) -> Callable[[], Cost]:
        """Return a run of the client; `before` is not measured."""

        def run() -> Cost:
            before()
            return self.run([self.device.program, *words])

        return run

    def run(self, words: list[str]) -> Cost:
        """Run a command in the environment of the device."""
        return self.starter.cost(words, self.device.env())

    def next_url(self) -> str:
        """Return the address of the request for an update."""
        query = "artifact_name=release-1&device_type=board"
        return f"{self.server.url}/api/devices/v1/deployments/device/deployments/next?{query}"

    def bare(self) -> list[str]:
        """Return the same request as a script of a few lines."""
        return [self.python, "-c", BARE_REQUEST, self.next_url(), str(self.server.ca), self.device.token]


def show(what: str, value: str, goal: str) -> None:
    """Print a row of the table."""
    print(f"  {what:48} {value:>24}   goal {goal}", flush=True)


def ratio(what: str, ours: float, theirs: float, goal: str, unit: str = "ms", scale: float = 1000) -> None:
    """Print a row that compares two figures."""
    show(what, f"{ours * scale:.1f} : {theirs * scale:.1f} {unit} = {ours / theirs:.2f}", goal)


def idle(world: World) -> None:
    """A run with nothing due, in three ways."""
    device = world.device
    device.make_idle()
    found = medians(
        {
            "pass": lambda: world.run([world.python, "-c", "pass"]),
            "tick": lambda: world.run(device.tick()),
            "run": world.ours("run"),
        },
        2 * ROUNDS,
    )
    ratio("tick, nothing due : python3 -c pass, CPU", found["tick"].cpu, found["pass"].cpu, "0.1")
    ratio("run, nothing due : python3 -c pass, CPU", found["run"].cpu, found["pass"].cpu, "0.9")


def check(world: World) -> None:
    """A check for an update, beside the same request as a bare script."""
    found = medians(
        {
            "bare": lambda: world.run(world.bare()),
            "run": world.ours("run", before=world.device.make_check_due),
            "check": world.ours("check-update"),
        },
        ROUNDS,
    )
    bare = found["bare"]
    ratio("run, check due : bare urllib3, CPU", found["run"].cpu, bare.cpu, "0.70")
    ratio("check-update : bare urllib3, CPU", found["check"].cpu, bare.cpu, "0.80")
    ratio("check-update : bare urllib3, peak memory", found["check"].peak, bare.peak, "1.0", "MiB", 1 / 1024)


def authorities(world: World) -> None:
    """A check with one CA of the system's and with 150 more, in a file and in a directory as Debian has them.

    In the directory each CA has a link named after its hash. A system without it has to read the whole file.
    """
    key = world.place / "key.pem"
    generate = ["openssl", "genpkey", "-algorithm", "rsa", "-out", str(key)]
    subprocess.run(generate, check=True, capture_output=True)
    one, many = (_authorities(world.place / f"authorities-{count}", key, count) for count in (1, 151))

    def with_cas(directory: str, bundle: Path, words: list[str]) -> Callable[[], Cost]:
        places = {"SSL_CERT_DIR": directory, "SSL_CERT_FILE": str(bundle)}
        return lambda: world.starter.cost(words, world.device.env() | places)

    ours = [world.device.program, "check-update"]
    found = medians(
        {
            "one": with_cas(str(one), one / "bundle", ours),
            "many": with_cas(str(many), many / "bundle", ours),
            "file": with_cas("/nonexistent", many / "bundle", ours),
            "bare": with_cas(str(many), many / "bundle", world.bare()),
        },
        2 * ROUNDS,
    )
    many_cas = "check-update, 150 more system CAs"
    ratio(f"{many_cas} : one, CPU", found["many"].cpu, found["one"].cpu, "1.0")
    ratio("the same without a directory of CAs : one, CPU", found["file"].cpu, found["one"].cpu, "-")
    ratio(f"{many_cas} : bare urllib3, CPU", found["many"].cpu, found["bare"].cpu, "-")


def _authorities(directory: Path, key: Path, count: int) -> Path:
    """Make CA certificates in a directory, with links named after their hashes and a file of them all."""
    directory.mkdir()
    paths = [directory / f"ca-{number}.pem" for number in range(count)]
    for number, path in enumerate(paths):
        new = ["openssl", "req", "-x509", "-key", str(key), "-subj", f"/CN=ca {number}", "-out", str(path)]
        subprocess.run(new, check=True, capture_output=True)
    subprocess.run(["openssl", "rehash", str(directory)], check=True, capture_output=True)
    (directory / "bundle").write_text("".join(path.read_text() for path in paths))
    return directory


def others(world: World) -> None:
    """The other requests of a day, beside a check."""
    device, server = world.device, world.server
    server.upload(write_artifact(world.place / "release-2.mender", "single-file", {"app": "new"}))
    device.script("install", "#!/bin/sh\n")

    def report() -> Cost:
        server.deploy("release-2")
        for step in ("check-update", "download", "install"):
            device.call(step)
        cost = world.run([device.program, "report", "--success"])
        (device.data / "update.lock").unlink()
        return cost

    found = medians(
        {
            "check": world.ours("check-update"),
            "auth": world.ours("auth"),
            "inventory": world.ours("send-inventory"),
            "report": report,
        },
        ROUNDS,
    )
    for name in ("auth", "inventory", "report"):
        ratio(f"{name} : check-update, CPU", found[name].cpu, found["check"].cpu, "-")


def download(world: World) -> None:
    """A download beside curl's of the same file to the same file system."""
    device, server = world.device, world.server
    for mebibytes, rounds in ((64, 7), (512, 3)):
        path = world.place / f"release-{mebibytes}.mender"
        write_artifact(path, "single-file", {"app": os.urandom(mebibytes << 20)}, "--compression", "none")
        shutil.rmtree(path.with_suffix(".source"))
        server.upload(path)
        path.unlink()
        before = device.snapshot()
        deployment = server.deploy(path.stem)
        device.call("check-update")
        ready = device.snapshot()
        url = device.state["deployment"]["uri"]
        target = world.place / "downloaded"
        curl = ["/usr/bin/curl", "-sSf", "--cacert", str(server.ca), "-o", str(target), url]

        def afresh(ready: Path = ready) -> None:
            (device.data / "artifact.mender").unlink(missing_ok=True)
            device.restore(ready)

        def theirs(curl: list[str] = curl, target: Path = target) -> Cost:
            target.unlink(missing_ok=True)
            return world.run(curl)

        found = medians({"curl": theirs, "ours": world.ours("download", before=afresh)}, rounds)
        target.unlink()
        what = f"download of {mebibytes} MiB : curl -o"
        ratio(f"{what}, wall", found["ours"].wall, found["curl"].wall, "1.3")
        ratio(f"{what}, CPU", found["ours"].cpu, found["curl"].cpu, "1.3")
        server.abort(deployment)
        device.restore(before)


def verify(world: World) -> None:
    """Verify an artifact, beside the tool that reads the same bytes."""
    half = b"".join(os.urandom(2048) + bytes(2048) for _ in range(64 << 8))
    for kind, tool in (("none", "openssl dgst"), ("gzip", "gzip -dc"), ("lzma", "xz -dc")):
        path = world.place / f"{kind}.mender"
        write_artifact(path, "single-file", {"app": half}, "--compression", kind)
        payload = world.place / f"payload-{kind}"
        suffix = {"none": "", "gzip": ".gz", "lzma": ".xz"}[kind]
        with payload.open("wb") as file:
            member = f"data/0000.tar{suffix}"
            subprocess.run(["tar", "-xOf", str(path), member], check=True, stdout=file)
        program, *options = tool.split()
        theirs = [f"/usr/bin/{program}", *options, str(payload)]
        found = medians(
            {
                "tool": lambda theirs=theirs: world.run(theirs),  # type: ignore[misc]
                "ours": world.ours("verify", str(path)),
            },
            5,
        )
        ratio(f"verify, {kind}, 64 MiB : {tool}, CPU", found["ours"].cpu, found["tool"].cpu, "1.1")


@contextlib.contextmanager
def counted(url: str, idle: float | None = None) -> Iterator[tuple[int, list[int]]]:
    """Forward connections to a server; the port, and a list of the sizes of what was forwarded.

    A connection ends when nothing was sent for `idle` seconds.
    """
    host, port = urlsplit(url).hostname, urlsplit(url).port
    sizes: list[int] = []

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sizes.append(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, port)) as upstream:
            client.settimeout(idle)
            upstream.settimeout(idle)
            back = threading.Thread(target=forward, args=(upstream, client), daemon=True)
            back.start()
            forward(client, upstream)
            back.join()

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield listener.getsockname()[1], sizes
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def poll_bytes(world: World) -> tuple[int, int]:
    """Return the bytes on the wire, both ways, of a poll and of a TLS handshake with a minimal request."""
    device, server = world.device, world.server
    with counted(server.url) as (port, sizes):
        device.configure(ServerURL=f"https://127.0.0.1:{port}")
        device.call("auth")
        device.call("check-update")  # the first one after an authorization asks for both forms of the answer
        device.make_check_due()
        sizes.clear()
        device.call("run")
        ours = sum(sizes)
        sizes.clear()
        path = world.next_url().removeprefix(server.url)
        script = [world.python, "-c", MINIMAL_REQUEST, "127.0.0.1", str(port), path]
        world.run([*script, str(server.ca), device.token])
        theirs = sum(sizes)
    device.use_server(server)
    device.call("auth")
    return ours, theirs


def wire(world: World) -> None:
    """Bytes of an idle poll."""
    ratio("poll without news : TLS + minimal request", *poll_bytes(world), "1.1", "bytes", 1)


def flash(world: World) -> None:
    """What is written to flash; the notes of a run with nothing due lie in /run."""
    device = world.device
    device.make_idle()
    for what, words in (("idle tick", device.tick()), ("poll without news", [device.program, "run"])):
        if what != "idle tick":
            device.call("check-update")  # whatever else is to be saved
            device.make_check_due()
        files, size = device.written(words)
        show(f"written to flash: {what}", f"{files} files, {size} bytes", "0")


def size(world: World) -> None:
    """The size of the installed package."""
    package = world.device.prefix / "share/mender-oneshot/mender_oneshot"
    files = [path for path in package.rglob("*") if path.is_file()]
    rest = [path for path in files if "terminal" not in path.relative_to(package).as_posix()]
    everything, without = (sum(path.stat().st_size for path in group) / (1 << 20) for group in (files, rest))
    show("installed, without the terminal (and with it)", f"{without:.2f} MiB ({everything:.2f})", "0.5")


ROWS: dict[str, Callable[[World], None]] = {
    "idle": idle,
    "check": check,
    "authorities": authorities,
    "others": others,
    "download": download,
    "verify": verify,
    "wire": wire,
    "flash": flash,
    "size": size,
}


def newest_libraries(place: Path) -> str:
    """Return an interpreter like the system's, with the newest libraries of a device and no others."""
    wanted = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", str(place)], check=True)
    python = f"{place}/bin/python3"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", "--no-compile", *wanted], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([python, "-m", "compileall", "-q", str(place)], check=False, stdout=subprocess.DEVNULL)
    return python


def versions(python: str) -> str:
    """Return the versions of an interpreter and its libraries; "" if one of them is missing."""
    script = (
        "import platform, ssl, click, cryptography, urllib3; from importlib.metadata import version;"
        "print('Python', platform.python_version(), *(name + ' ' + version(name) for name in"
        " ('click', 'urllib3', 'cryptography')), ssl.OPENSSL_VERSION, sep=', ')"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip().replace(",", "", 1)


@contextlib.contextmanager
def worlds() -> Iterator[Iterator[World]]:
    """Provide a device for Debian's libraries and one for the newest, where they are installed."""
    with tempfile.TemporaryDirectory() as place, Starter() as starter:

        def each() -> Iterator[World]:
            for name in ("debian", "newest"):
                python = SYSTEM_PYTHON if name == "debian" else newest_libraries(Path(place) / "libraries")
                if not versions(python):
                    print(f"{name}: libraries not installed, left out")
                    continue
                root = Path(place) / name
                with DevServer(root / "server") as server:
                    yield World(name, python, root, server, starter)

        yield each()


def main() -> None:
    """Print a table for each set of libraries."""
    wanted = {name: row for name, row in ROWS.items() if ONLY in ("", name)}
    if not wanted:
        return
    with worlds() as each:
        for world in each:
            print(f"{world.name} libraries; program and baseline: {versions(world.python)}")
            for row in wanted.values():
                row(world)


if __name__ == "__main__":
    main()
