"""Debian's mender-connect and mender-cli talk to each other through the development server."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.raw_device import RawDevice
from helpers.raw_user import RawUser
from helpers.real_connect import Cli, free_port, mender_connect
from helpers.relay_setup import ROUTE
from helpers.waiting import until

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.messages import CLIENT


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevServer, Cli, str]]:
    """Debian's mender-connect, connected over TLS, and Debian's mender-cli, logged in."""
    directory = tmp_path_factory.mktemp("programs")
    with DevServer(directory / "server") as server:
        token = RawDevice(server).accepted().token
        with mender_connect(directory / "device", server, token):
            yield server, Cli(directory / "home", server), server.device().id


Programs = tuple[DevServer, Cli, str]
real = pytest.mark.real


@real
def test_mender_cli_opens_a_shell_on_mender_connect(programs: Programs) -> None:
    _, cli, device = programs
    with cli.terminal(device, 90, 30) as screen:
        screen.until(b"# ")
        screen.type(b"stty size; echo he''llo\n")
        assert b"30 90" in screen.until(b"hello")
        screen.resize(70, 20)
        screen.type(b"while [ \"$(stty size)\" != '20 70' ]; do :; done; echo resi''zed\n")
        screen.until(b"resized")
        screen.type(b"sh -c 'echo slee''ping; exec sleep 1000'\n")
        screen.until(b"sleeping")
        screen.type(b"\x03")
        screen.until(b"# ")
        screen.type(b"echo awa''ke; exit\n")
        screen.until(b"awake")
        assert screen.end() == 0


@real
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_mender_cli_copies_files_to_and_from_mender_connect(
    programs: Programs, tmp_path: Path, size: int
) -> None:
    _, cli, device = programs
    content = bytes(range(251)) * (size // 251) + bytes(size % 251)
    ours, there, back = tmp_path / "ours é \"'", tmp_path / "there é \"'", tmp_path / "back"
    ours.write_bytes(content)
    if size:
        cli.cp(str(ours), f"{device}:{there}")
        # It acknowledges the file before renaming it.
        until(there.exists, "the file is there")
        assert there.read_bytes() == content
    else:
        # No byte has to be acknowledged, so the server closes early, and mender-connect then loses the file.
        there.touch()
    cli.cp(f"{device}:{there}", str(back))
    assert back.read_bytes() == content


@real
def test_mender_cli_shows_the_errors_of_mender_connect(programs: Programs, tmp_path: Path) -> None:
    _, cli, device = programs
    done = cli.run("cp", f"{device}:{tmp_path}/missing", str(tmp_path / "x"))
    assert (done.returncode, "no such file or directory" in done.stderr) == (1, True)
    (tmp_path / "x").write_bytes(b"x")
    done = cli.run("cp", str(tmp_path / "x"), f"{device}:{tmp_path}/no/such/directory")
    assert (done.returncode, "no such file or directory" in done.stderr) == (1, True)


@real
def test_mender_cli_forwards_ports_through_mender_connect(programs: Programs) -> None:
    _, cli, device = programs
    with (
        socket.create_server(("127.0.0.1", 0)) as target,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        mappings = [f"tcp/{tcp}:{target.getsockname()[1]}", f"udp/{udp}:{datagrams.getsockname()[1]}"]
        for waiting in (target, datagrams):
            waiting.settimeout(20)
        with cli.port_forward(device, *mappings):
            with socket.create_connection(("127.0.0.1", tcp), timeout=20) as ours:
                ours.sendall(bytes(range(256)) * 40)
                theirs, _ = target.accept()
                with theirs:
                    theirs.settimeout(20)
                    got = b""
                    while len(got) < 10240:
                        got += theirs.recv(65536)
                    theirs.sendall(got[::-1])
                    back = b""
                    while len(back) < 10240:
                        back += ours.recv(65536)
            assert (got, back) == (bytes(range(256)) * 40, got[::-1])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(20)
                client.sendto(b"question", ("127.0.0.1", udp))
                question, sender = datagrams.recvfrom(100)
                datagrams.sendto(question + b" answer", sender)
                assert client.recv(100) == b"question answer"


@real
def test_mender_connect_replies_to_check_update(programs: Programs) -> None:
    server, _, device = programs
    assert RawUser(server)("POST", f"{ROUTE.format(device)}/check-update").status == 202
    # No update daemon is running there, hence the error.
    reply = server.wait_for_dropped(lambda m: m.proto == CLIENT)
    assert (reply.typ, reply.props["status"]) == ("check-update", 2)
