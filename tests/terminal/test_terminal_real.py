"""A support engineer's work with Debian's mender-cli, through the development server."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.device import Device
from helpers.real_connect import Cli, Screen, free_port, is_bound
from helpers.real_daemon import need
from helpers.terminal_peer import children, descriptors, need_the_extra, resident
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.real
newest = pytest.mark.parametrize("python", [sys.executable])


class Site:
    """A device with a terminal, its server, and mender-cli."""

    def __init__(self, root: Path, server: DevServer, python: str) -> None:
        self.server = server
        self.root = root
        self.device = Device(root / "device", python)
        self.device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
        assert self.device.run("auth").code == 77
        server.accept()
        self.device.ok("auth")
        self.id = server.device().id
        self.log = (root / "terminal.log").open("w+")
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self, **settings: Any) -> None:
        """Start the terminal."""
        settings = {"RemoteTerminal": True} | settings
        (self.device.conf / "mender-connect.conf").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [self.device.python, "-m", "mender_oneshot", "-l", "info", "terminal", "--wait", "0"],
            env=self.device.env(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd="/",
        )
        self.starts += 1
        self.server.wait_connected(times=self.starts)

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def end(self) -> None:
        """Stop the terminal as a service manager does."""
        if self.process:
            self.process.terminate()
            assert self.process.wait(timeout=30) == 0
            self.process = None

    def clean_up(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        output = self.log.read()
        self.log.close()
        print(output)
        assert "Traceback" not in output

    def cli(self, user: str = "someone@example.com") -> Cli:
        return Cli(self.root / f"home-{user}", self.server, user)

    def idle(self) -> bool:
        """Return whether the terminal has no child process."""
        return not children(self.pid)


@pytest.fixture
def site(tmp_path: Path, python: str) -> Iterator[Site]:
    need("mender-cli")
    need_the_extra(python)
    with DevServer(tmp_path / "server", session_bytes=None) as server:
        made = Site(tmp_path, server, python)
        try:
            yield made
        finally:
            made.clean_up()


def test_a_shell_resizes_handles_ctrl_c_and_shows_its_exit_status(site: Site) -> None:
    site.start()
    with site.cli().terminal(site.id, 90, 30) as screen:
        screen.type(b"stty size; echo he''llo\n")
        assert b"30 90" in screen.until(b"hello")
        screen.resize(70, 20)
        screen.type(b"while [ \"$(stty size)\" != '20 70' ]; do :; done; echo resi''zed\n")
        screen.until(b"resized")
        screen.type(b"sh -c 'echo slee''ping; exec sleep 1000'\n")
        screen.until(b"sleeping")
        screen.type(b"\x03")
        screen.until(b"# ")
        screen.type(b"echo code=$?=\n")
        screen.until(b"code=130=")
        screen.type("printf '\\303\\244\\342\\202\\254'; echo ö\n".encode())
        screen.until("ä€".encode())
        screen.type(b"exit 3\n")
        screen.until(b"The shell has ended with status 3.")
        assert screen.end() == 0
    until(site.idle, "the shell is reaped")
    site.end()
    assert site.server.close_codes() == [1000]


def test_a_hundred_megabytes_of_output_arrive_in_constant_memory(site: Site, tmp_path: Path) -> None:
    site.start()
    before = resident(site.pid)
    output = tmp_path / "output"
    cli = site.cli()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*cli._command, "terminal", site.id], env=cli._environment, stdin=subprocess.PIPE, stdout=file
        )
        assert process.stdin
        process.stdin.write(b"stty -opost; head -c 100000000 /dev/zero; exit\n")
        process.stdin.flush()
        readings = []
        while process.poll() is None:
            readings.append(resident(site.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
        process.stdin.close()
    assert process.returncode == 0
    assert output.read_bytes().count(b"\0") == 100_000_000
    assert max(readings) - before < 8192


ODD = "ours é \"' -\n*"


def test_files_are_copied_unchanged_in_both_directions(site: Site, tmp_path: Path) -> None:
    site.start()
    cli = site.cli()
    for size in (0, 1, 50_000_000):
        content = os.urandom(size)
        ours, there, back = tmp_path / ODD, tmp_path / f"there {ODD}", tmp_path / f"back{size}"
        ours.write_bytes(content)
        cli.cp(str(ours), f"{site.id}:{there}")
        until(there.exists, "the file exists")  # mender-cli does not wait for an empty one
        assert there.read_bytes() == content
        cli.cp(f"{site.id}:{there}", str(back))
        assert back.read_bytes() == content
        there.unlink()


@newest
def test_mender_cli_shows_why_a_request_was_rejected(site: Site, tmp_path: Path) -> None:
    (tmp_path / "jail").mkdir()
    (tmp_path / "secret").write_text("secret")
    limits = {"Enabled": True, "FileTransfer": {"Chroot": str(tmp_path / "jail")}}
    site.start(Limits=limits, Sessions={"MaxPerUser": 1})
    cli = site.cli()
    done = cli.run("cp", f"{site.id}:{tmp_path}/jail/../secret", str(tmp_path / "x"))
    assert (done.returncode, "outside chroot" in done.stderr) == (1, True), done
    done = cli.run("cp", str(tmp_path / "secret"), f"{site.id}:{tmp_path}/jailbreak")
    assert (done.returncode, "outside chroot" in done.stderr) == (1, True), done
    done = cli.run("cp", f"{site.id}:{tmp_path}/jail/missing", str(tmp_path / "x"))
    assert (done.returncode, "No such file or directory" in done.stderr) == (1, True), done
    with cli.terminal(site.id) as first:
        first.type(b"echo he''re\n")
        first.until(b"here")
        with cli.terminal(site.id) as second:
            second.until(b"Unable to start the shell: You have 1 session(s) open")
            assert second.end() == 1


@newest
def test_two_users_at_once_see_only_their_own_shell(site: Site, tmp_path: Path) -> None:
    site.start()
    with (
        site.cli("ann@example.com").terminal(site.id) as ann,
        site.cli("bob@example.com").terminal(site.id) as bob,
    ):
        for number in range(10):
            for screen, name in ((ann, b"ann"), (bob, b"bob")):
                screen.type(b"echo %s''-%d=\n" % (name, number))
            for screen, name in ((ann, b"ann"), (bob, b"bob")):
                shown = screen.until(b"%s-%d=" % (name, number))
                assert (b"bob" if name == b"ann" else b"ann") not in shown
        ann.type(b"exit\n")
        assert ann.end() == 0
        bob.type(b"echo sti''ll\n")
        bob.until(b"still")


def serve(listener: socket.socket, answer: Callable[[bytes], bytes], count: int) -> threading.Thread:
    """Answer so many connections, each in a thread: all data is sent back through `answer`."""

    def talk(stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):
            while piece := stream.recv(65536):
                stream.sendall(answer(piece))

    def listen() -> None:
        threads = []
        for _ in range(count):
            threads.append(threading.Thread(target=talk, args=(listener.accept()[0],)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    thread = threading.Thread(target=listen)
    thread.start()
    return thread


@pytest.mark.parametrize("polite", [True, pytest.param(False, marks=pytest.mark.long)])
def test_forwarded_ports_lose_nothing_under_load(site: Site, polite: bool) -> None:
    """A user who disappears without closing is detected after a minute."""
    site.start()
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        mappings = [f"tcp/{tcp}:{target.getsockname()[1]}", f"udp/{udp}:{datagrams.getsockname()[1]}"]
        for waiting in (target, datagrams):
            waiting.settimeout(30)
        before = descriptors(site.pid)
        cli = site.cli()
        command = [*cli._command, "port-forward", site.id, *mappings]
        with contextlib.closing(Screen(command, cli._environment, 80, 40)) as screen:
            screen.until(b"->")
            screen.until(b"->")
            until(lambda: is_bound("tcp", tcp) and is_bound("udp", udp), "mender-cli listens")
            swap = bytes(range(255, -1, -1))
            echo = serve(target, lambda piece: piece.translate(swap), 5)
            results: dict[int, bool] = {}

            def question(asking: socket.socket, number: int) -> None:
                asking.sendto(b"question %d" % number, ("127.0.0.1", udp))
                question, sender = datagrams.recvfrom(100)
                datagrams.sendto(question[::-1], sender)
                assert asking.recv(100) == (b"question %d" % number)[::-1]

            def connect() -> socket.socket:
                stream = socket.create_connection(("127.0.0.1", tcp), timeout=60)
                stream.sendall(b"\0")
                assert stream.recv(1) == b"\xff"
                return stream

            def use(number: int, stream: socket.socket) -> None:
                sent = os.urandom(500_000)
                got = b""
                with stream:
                    writer = threading.Thread(target=stream.sendall, args=(sent,))
                    writer.start()
                    while len(got) < len(sent):
                        got += stream.recv(65536)
                    writer.join()
                results[number] = got == sent.translate(swap)

            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(30)
                # One connection after the other, and then the load: mender-cli has no lock for its table of
                # connections, and a Go program may crash if a map is read and written concurrently.
                question(asking, 0)
                streams = [connect() for _ in range(5)]
                users = [threading.Thread(target=use, args=pair) for pair in enumerate(streams)]
                for user in users:
                    user.start()
                for number in range(1, 50):
                    question(asking, number)
            for user in users:
                user.join()
            assert results == dict.fromkeys(range(5), True)
            echo.join()
            if polite:
                screen.process.terminate()
                screen.end()
        until(lambda: descriptors(site.pid) == before, "every connection is closed", 90)


@newest
def test_a_shell_ends_when_its_user_is_killed(site: Site) -> None:
    site.start()
    with site.cli().terminal(site.id) as screen:
        screen.type(b"sleep 1000 & echo run''ning\n")
        screen.until(b"running")
    until(site.idle, "the shell and its children are gone")
    with site.cli().terminal(site.id) as screen:
        screen.type(b"echo ag''ain\n")
        screen.until(b"again")


@newest
def test_a_flood_of_output_ends_when_its_user_is_killed(site: Site) -> None:
    site.start()
    with site.cli().terminal(site.id) as screen:
        screen.type(b"yes | tr -d '\\n'\n")
        screen.until(b"yyyyyyyyyyyyy")
    until(site.idle, "the flood has ended")


@newest
@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("side", ["user", "device"])
def test_an_interrupted_copy_keeps_the_old_file(site: Site, tmp_path: Path, upwards: bool, side: str) -> None:
    """The temporary file is removed, unless the device itself was killed."""
    site.start()
    ours, there = tmp_path / "ours", tmp_path / "directory" / "there"
    there.parent.mkdir()
    ours.write_bytes(bytes(200_000_000))
    there.write_bytes(b"as it was" if upwards else bytes(200_000_000))
    cli = site.cli()
    arguments = [str(ours), f"{site.id}:{there}"] if upwards else [f"{site.id}:{there}", str(ours)]
    process = subprocess.Popen(
        [*cli._command, "cp", *arguments],
        env=cli._environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    open_files = descriptors(site.pid)
    if upwards:
        until(
            lambda: [
                found
                for found in there.parent.iterdir()
                if found.name != "there" and found.stat().st_size > 1000
            ],
            "the copy has begun",
        )
    else:
        until(lambda: descriptors(site.pid) > open_files or process.poll() is not None, "the copy has begun")
        assert process.poll() is None
    if side == "user":
        process.kill()
        process.communicate()
        until(lambda: descriptors(site.pid) <= open_files, "the device has ended the transfer", 90)
        assert sorted(os.listdir(there.parent)) == ["there"]
    else:
        assert site.process
        site.process.kill()
        site.process.wait()
        _, err = process.communicate(timeout=90)
        assert process.returncode == 1, err
        site.start()
    assert there.stat().st_size == (9 if upwards else 200_000_000)
    done = site.cli().run("cp", f"{site.id}:{there}", str(tmp_path / "back"))
    assert done.returncode == 0, done


@newest
@pytest.mark.parametrize("how", ["kill", "terminate", "disconnect"])
def test_a_new_shell_opens_after_the_device_was_stopped_or_disconnected(site: Site, how: str) -> None:
    site.start()
    with site.cli().terminal(site.id) as screen:
        screen.type(b"echo $$=; echo rea''dy\n")
        screen.until(b"ready")
        assert site.process
        if how == "disconnect":
            site.server.disconnect(code=1011)
            until(site.idle, "its shells end with the connection")
            site.starts += 1
            site.server.wait_connected(times=site.starts)
        else:
            getattr(site.process, how)()
            site.process.wait(timeout=30)
            if how == "terminate":
                screen.until(b"This device ends its terminal service")
                assert screen.end() == 0
            site.start()
    with site.cli().terminal(site.id) as screen:
        screen.type(b"echo ag''ain\n")
        screen.until(b"again")
