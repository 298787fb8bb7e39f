"""Debian's `mender-connect` as a device of a development server, and `mender-cli` as its user."""

import contextlib
import fcntl
import json
import os
import pty
import shlex
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from helpers.readable import readable
from helpers.real_daemon import BUS, need
from helpers.waiting import until
from mender_oneshot.devserver import DevServer

# Replaces mender-client, which mender-connect needs only for a token and the server's address.
AUTHENTICATION_MANAGER = """\
import os, subprocess, sys
import dbus, dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

INTERFACE = "io.mender.Authentication1"
ANSWER = os.environ.pop("DEVICE_TOKEN"), os.environ.pop("SERVER_URL")

class Manager(dbus.service.Object):
    @dbus.service.method(INTERFACE, out_signature="ss")
    def GetJwtToken(self):
        # After the call mender-connect waits for this signal, at most ten seconds.
        GLib.timeout_add(50, lambda: self.JwtTokenStateChange(*ANSWER))
        return ANSWER

    @dbus.service.method(INTERFACE, out_signature="b")
    def FetchJwtToken(self):
        return True

    @dbus.service.signal(INTERFACE, signature="ss")
    def JwtTokenStateChange(self, token, url):
        pass

DBusGMainLoop(set_as_default=True)
name = dbus.service.BusName("io.mender.AuthenticationManager", dbus.SystemBus())
manager = Manager(name, "/io/mender/AuthenticationManager")
subprocess.Popen(sys.argv[1:])
GLib.MainLoop().run()
"""
SHELL = {
    "ShellCommand": "/bin/bash",
    "ShellArguments": ["--norc", "--noprofile", "--noediting"],
    "User": "root",
}


@contextlib.contextmanager
def mender_connect(
    root: Path, server: DevServer, token: str, **settings: Any
) -> Iterator[Callable[[], None]]:
    """Run the real program as a device with this token, until the end of the block.

    Yields a function that sends it SIGTERM. It runs in its own process namespace, which ends with all its
    processes.
    """
    need("mender-connect", "dbus-run-session", "unshare")
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import dbus, gi"], capture_output=True, check=False).returncode:
        need("python3-dbus and python3-gi")
    root.mkdir(exist_ok=True)
    (root / "bus.conf").write_text(BUS)
    (root / "manager.py").write_text(AUTHENTICATION_MANAGER)
    (root / "connect.conf").write_text(json.dumps(SHELL | settings))
    connect = ["mender-connect", "--config", str(root / "connect.conf"), "--fallback-config", "/nonexistent"]
    manager = shlex.join([python, str(root / "manager.py"), *connect, "--debug", "daemon"])
    on_bus = f"DBUS_SYSTEM_BUS_ADDRESS=$DBUS_SESSION_BUS_ADDRESS exec {manager}"
    session = ["dbus-run-session", "--config-file", str(root / "bus.conf"), "--", "sh", "-c", on_bus]
    life = f"mount -t tmpfs bus /run && exec {shlex.join(session)}"
    world = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", life]
    environment = {"DEVICE_TOKEN": token, "SERVER_URL": server.url, "SSL_CERT_FILE": str(server.ca)}
    # With several processors a shell of 2.1.0 sometimes shows nothing: `MenderShell.Start` sets `running`
    # only after it has started the goroutine that returns if it is not set.
    environment["GOMAXPROCS"] = "1"
    log = root / "mender-connect.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            world, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | environment
        )
    try:
        server.wait_connected()
        yield lambda: os.kill(_below(process.pid, "mender-connect"), signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        print(log.read_text(errors="replace")[-5000:])  # pytest shows it if the test fails


def _below(pid: int, name: str) -> int:
    """Return the process of this name among the descendants of another."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        if Path(f"/proc/{child}/comm").read_text().strip() == name[:15]:
            return child
        with contextlib.suppress(LookupError):
            return _below(child, name)
    raise LookupError(f"no process called {name}")


class Screen:
    """A program on a pseudo-terminal: its input, output and size."""

    def __init__(self, command: list[str], environment: dict[str, str], width: int, height: int) -> None:
        self._ours, theirs = pty.openpty()
        self._seen = b""
        self._set(width, height)
        try:
            self.process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
            )
        finally:
            os.close(theirs)

    def type(self, text: bytes) -> None:
        """Send input to the program."""
        os.write(self._ours, text)

    def until(self, mark: bytes, seconds: float = 20) -> bytes:
        """Return the output up to and including some bytes; the rest is kept for the next call."""
        end = time.monotonic() + seconds
        while mark not in self._seen:
            assert readable(self._ours, max(0.0, end - time.monotonic())), (
                f"not within {seconds} s: {mark!r} in {self._seen!r}"
            )
            try:
                self._seen += os.read(self._ours, 65536)
            except OSError:
                raise AssertionError(f"the program ended without {mark!r}: {self._seen!r}") from None
        found, _, self._seen = self._seen.partition(mark)
        return found + mark

    def resize(self, width: int, height: int) -> None:
        """Change the size, and send SIGWINCH."""
        self._set(width, height)
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """Wait until the program ends, and return its exit code."""
        return self.process.wait(timeout=20)

    def close(self) -> None:
        """Kill the program and close its terminal."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _set(self, width: int, height: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


class Cli:
    """`mender-cli` of one user, logged in."""

    def __init__(self, home: Path, server: DevServer, user: str = "someone@example.com") -> None:
        need("mender-cli")
        home.mkdir(exist_ok=True)
        self._environment = os.environ | {"HOME": str(home), "SSL_CERT_FILE": str(server.ca)}
        self._environment.pop("XDG_CACHE_HOME", None)
        self._command = ["mender-cli", "--server", server.url]
        logged_in = self.run("login", "--username", user, "--password", "secret")
        assert logged_in.returncode == 0, logged_in

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=90,
            check=False,
        )

    def cp(self, source: str, destination: str) -> None:
        """Copy a file; one of the two is `DEVICE:/path`."""
        done = self.run("cp", source, destination)
        assert done.returncode == 0, done

    @contextlib.contextmanager
    def terminal(self, device_id: str, width: int = 80, height: int = 40) -> Iterator[Screen]:
        """Provide a terminal on a device."""
        screen = Screen([*self._command, "terminal", device_id], self._environment, width, height)
        with contextlib.closing(screen):
            yield screen

    @contextlib.contextmanager
    def port_forward(self, device_id: str, *mappings: str) -> Iterator[None]:
        """Forward ports ("tcp/LOCAL:REMOTE") until the end of the block."""
        command = [*self._command, "port-forward", device_id, *mappings]
        with contextlib.closing(Screen(command, self._environment, 80, 40)) as screen:
            for mapping in mappings:
                screen.until(b"->")
                kind, _, ports = mapping.partition("/")
                until(partial(is_bound, kind, int(ports.partition(":")[0])), f"{mapping} is forwarded")
            yield


def is_bound(kind: str, port: int) -> bool:
    """Return whether a port of 127.0.0.1 is in use."""
    lines = [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    state = {"tcp": "0A", "udp": "07"}[kind]
    return any(line[1] == f"0100007F:{port:04X}" and line[3] == state for line in lines)


def free_port(kind: socket.SocketKind) -> int:
    """Return a port that is not in use at this moment."""
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
