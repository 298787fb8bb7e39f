"""From the first attempt to connect to the last child: when the terminal comes, stays, and goes."""

import base64
import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from helpers.device import REPO, Device, spoil
from helpers.proxy import Proxy
from helpers.terminal_peer import (
    Served,
    eventually,
    need_the_extra,
    resident,
    serving,
    silent_address,
    stands_still,
)
from wsproto.events import BytesMessage, Ping

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.relay import DeviceDisconnected
from mender_oneshot.terminal.messages import CLIENT, CONTROL, SHELL, Message, encode, pack
from mender_oneshot.terminal.reconnect import backoff


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Served]:
    with serving(Device(tmp_path / "device", sys.executable)) as served:
        yield served


@pytest.fixture
def ready(accepted: Device) -> Device:
    """A device that the development server has accepted, its terminal switched on."""
    need_the_extra(accepted.python)
    (accepted.conf / "mender-connect.conf").write_text('{"RemoteTerminal": "True"}')
    return accepted


@contextlib.contextmanager
def reachable(device: Device, server: DevServer, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Have the terminal run until the end of the block, and end well."""
    times = server.connection_count() + 1
    process = device.start("-l", "info", "terminal", *words)
    try:
        server.wait_connected(times=times)
        yield process
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def works(server: DevServer) -> None:
    """A shell can be opened and answers."""
    with server.terminal() as user:
        assert user.new().props
        user.type(b"echo $((6*7))x\n")
        user.until(b"42x")


newest = pytest.mark.parametrize("python", [sys.executable])

# On or off, and what it needs.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, 'is disabled; set {"RemoteTerminal": true} in /'),
        ('{"RemoteTerminal": "False", "User": "root"}', "is disabled"),
        ('{"RemoteTerminal": true, "ShellCommand": "bash"}', "not an absolute path"),
        ('{"RemoteTerminal": true, "ShellCommand": "/bin/nothing"}', "missing or not executable"),
        ('{"RemoteTerminal": true, "ShellCommand": "/bin/true"}', "not listed in /etc/shells"),
        ('{"RemoteTerminal": true, "User": "nobody-of-this-name"}', "no user nobody-of-this-name"),
        ('{"Terminal": {}, "Sessions": {"MaxPerUser": 1}}', "does not name the user"),
        ("{", "is not JSON"),
    ],
)
def test_one_sentence_says_why_there_is_none(terminal: Served, text: str | None, words: str) -> None:
    place = terminal.device.conf / "mender-connect.conf"
    place.unlink()
    if text:
        place.write_text(text)
    done = terminal.device.run("terminal")
    assert done.code == 78
    assert done.out == ""
    assert words in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (2, 78, "No such file or directory); mount devpts on /dev/pts"),
        (5, 78, "mount devpts on /dev/pts"),
        (24, 75, "Too many open files); will retry on the next run"),
        (28, 75, "will retry on the next run"),
    ],
)
def test_without_a_pseudo_terminal(either: Served, number: int, code: int, words: str) -> None:
    spoil(
        either.device,
        "import os\n"
        "def openpty():\n"
        f"    raise OSError({number}, os.strerror({number}))\n"
        "os.openpty = openpty\n",
    )
    done = either.device.run("terminal", "--wait", "1")
    assert (done.code, words in done.err) == (code, True), done
    either.configure(RemoteTerminal=True, Terminal={"Disable": True})
    with either.connect() as line:
        line.round_trip()


def test_without_a_server(terminal: Served) -> None:
    terminal.device.settings = {}
    terminal.device.configure()
    done = terminal.device.run("terminal")
    assert (done.code, "No server is configured" in done.err) == (78, True)


@pytest.mark.parametrize("library", ["wsproto", "msgpack"])
def test_without_the_extra(terminal: Served, library: str) -> None:
    """As on a device where only what the core needs is installed."""
    bare = terminal.device.root / "bare"
    bare.mkdir()
    (bare / f"{library}.py").write_text(f"raise ModuleNotFoundError('no', name='{library}')\n")
    terminal.device.environment["PYTHONPATH"] = f"{bare}:{REPO}"
    done = terminal.device.run("terminal")
    assert done.code == 78
    assert f"needs {library}; install python3-wsproto and python3-msgpack" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_second_one_gives_way_and_other_commands_do_not(ready: Device, server: DevServer) -> None:
    with reachable(ready, server):
        done = ready.run("terminal")
        assert (done.code, len(done.err.splitlines())) == (75, 1)
        assert "already running for this device" in done.err
        ready.ok("check-update")
        ready.ok("send-inventory")
        works(server)


# How long it stays.


@newest
def test_nobody_comes(ready: Device, server: DevServer) -> None:
    done = ready.ok("terminal", "--wait", "1", "--json")
    assert done.json["step"] == "terminal"
    assert (done.json["sessions"], done.json["connections"]) == (0, 1)
    assert server.close_codes() == [1000]


def test_it_stays_while_somebody_is_there_and_then_as_long_as_told(terminal: Served) -> None:
    with terminal.connect("--wait", "1") as line:
        line.shell()
        line.type("sleep 2.5; echo al''ive\n")
        line.see(b"alive\r\n")
        line.send(SHELL, "stop")
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def test_so_many_sessions_and_no_more(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, Sessions={"MaxPerUser": 5})
    with terminal.connect("--max-sessions", "2") as line:
        line.shell("1")
        line.shell("2")
        line.send(SHELL, "new", "3")
        answer = line.expect(SHELL, "new", "3")
        assert (answer.props["status"], b"--max-sessions" in answer.body) == (2, True)
        for sid in ("1", "2"):
            line.send(SHELL, "stop", sid)
        assert line.end() == 1000
    code, out, _ = terminal.finish()
    assert (code, "Served 2 sessions" in out) == (0, True)


def test_so_many_seconds_and_no_more(terminal: Served) -> None:
    with terminal.connect("--max-runtime", "2") as line:
        line.shell()
        shown = line.until(lambda heard: heard.kind == "stop")
        assert b"its time limit is reached" in b"".join(heard.body for heard in shown)
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def test_the_time_is_over_before_there_was_a_connection(terminal: Served) -> None:
    terminal.start("--max-runtime", "2")
    with terminal.peer.refuse(503):
        code, _, err = terminal.finish()
    assert code == 75
    assert "answered 503" in err


def test_the_time_is_over_while_a_server_says_nothing(terminal: Served) -> None:
    terminal.start("--max-runtime", "2")
    with terminal.peer.raw():
        code, _, err = terminal.finish()
    assert code == 75
    assert "Could not connect within the time limit" in err


# Who it is for the server.


def test_without_a_token_it_gets_one(ready: Device, server: DevServer) -> None:
    ready.forget_token()
    with reachable(ready, server):
        works(server)
    assert ready.token


def test_a_refused_token_is_replaced_once(ready: Device, server: DevServer) -> None:
    server.revoke_tokens()
    with reachable(ready, server):
        works(server)
    paths = ("/deviceconnect/connect", "/auth_requests")
    answers = [seen.status for seen in server.requests if seen.path.endswith(paths)]
    # To begin with: not accepted, accepted.
    assert answers == [401, 200, 401, 200, 101]


@newest
@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused_twice_is_the_end(ready: Device, server: DevServer, status: int) -> None:
    server.faults.add("GET */deviceconnect/connect", count=None, status=status)
    done = ready.run("terminal")
    assert done.code == 77
    assert f"answered {status}" in done.err
    attempts = [seen for seen in server.requests if seen.path.endswith("/deviceconnect/connect")]
    assert len(attempts) == 2


@newest
def test_a_device_that_is_not_accepted(ready: Device, server: DevServer) -> None:
    server.reject()
    done = ready.run("terminal")
    assert done.code == 77
    assert "has not accepted this device" in done.err
    assert len(done.err.splitlines()) == 1


# Attempts.


def test_the_pauses_grow_and_are_spread() -> None:
    assert [backoff(attempt, 0) for attempt in range(10)] == [0, 1, 1, 2, 2, 2, 4, 4, 4, 8]
    assert backoff(1, 0.5) == 3.5
    assert backoff(10**6, 1) == 1805
    assert backoff(10**6, 1, 60) == 65


NO_SPREAD = """
import os
draw = os.urandom
os.urandom = lambda size: bytes(size) if size == 4 else draw(size)
"""


def pauses_after(terminal: Served, connections: int, word: Ping | None) -> list[int]:
    """Cut connections one after the other, and read in the log how long the terminal waits each time."""
    spoil(terminal.device, NO_SPREAD)
    process = terminal.device.start("-l", "info", "terminal", "--wait", "0")
    terminal.processes.append(process)
    for _ in range(connections):
        with terminal.peer.accept() as line:
            if word:
                line.put(word)
                line.read()  # its answer
    with terminal.peer.accept():
        err = terminal.stop()[2]
    return [int(words) for words in re.findall(r"Reconnecting in (\d+) s", err)]


def test_a_connection_that_heard_its_server_is_a_success(terminal: Served) -> None:
    """However soon it is cut, and however often."""
    assert pauses_after(terminal, 6, Ping()) == [1] * 6


def test_a_server_that_takes_connections_and_says_nothing_is_spared(terminal: Served) -> None:
    assert pauses_after(terminal, 4, None) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("step", "held"), [("inventory", False), ("check", False), ("terminal", True), ("auth", True)]
)
def test_whose_pauses_the_terminal_keeps(terminal: Served, step: str, held: bool) -> None:
    """A refused authorization holds back all that needs a token; what other steps were told is theirs."""
    host = terminal.peer.url.partition("//")[2]
    pause = {"step": step, "host": host, "at": time.time(), "seconds": 3600}
    terminal.device.alter_state(pauses=[pause])
    terminal.start("--wait", "2" if held else "0")
    if held:
        code, _, err = terminal.finish()
        assert (code, "asked for a pause" in err) == (75, True), err
    else:
        with terminal.peer.accept() as line:
            line.shell()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(404, 69, "has no remote terminal"), (400, 69, "answered 400"), (302, 69, "answered 302")],
)
def test_answers_that_end_it(terminal: Served, status: int, code: int, words: str) -> None:
    process = terminal.start()
    with terminal.peer.refuse(status):
        found, _, err = terminal.finish(process)
    assert found == code
    assert words in err


def test_a_web_page_instead_of_a_websocket(terminal: Served) -> None:
    terminal.start()
    with terminal.peer.raw() as stream:
        stream.recv(65536)
        stream.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        code, _, err = terminal.finish()
    assert code == 76
    assert "does not speak WebSocket" in err


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_answers_after_which_it_tries_again(terminal: Served, status: int) -> None:
    terminal.start()
    with terminal.peer.refuse(status):
        pass
    with terminal.peer.accept() as line:
        line.shell()
    assert f"answered {status}" in terminal.stop()[2]


def test_a_server_that_had_a_terminal_will_have_it_again(terminal: Served) -> None:
    """A gateway answers so while what stands behind it restarts."""
    with terminal.connect("--wait", "0") as line:
        line.round_trip()
    with terminal.peer.refuse(404), terminal.peer.accept() as line:
        line.round_trip()
    assert "answered 404" in terminal.stop()[2]


def test_a_portal_stands_in_the_way_for_a_while(terminal: Served) -> None:
    with terminal.connect("--wait", "0") as line:
        line.round_trip()
    with terminal.peer.raw() as stream:
        stream.recv(65536)
        stream.sendall(b"<html>")
    with terminal.peer.accept() as line:
        line.round_trip()
    assert "does not speak WebSocket" in terminal.stop()[2]


def test_authorizing_that_cannot_be_started_is_tried_again(terminal: Served) -> None:
    """Where there is no room for one more process."""
    spoil(
        terminal.device,
        "import subprocess\n"
        "def run(*words, **options):\n"
        "    raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "subprocess.run = run\n",
    )
    terminal.start()
    with terminal.peer.refuse(401), terminal.peer.accept() as line:
        line.round_trip()
    assert "cannot be started (Resource temporarily unavailable)" in terminal.stop()[2]


@pytest.mark.parametrize("asked", ["100000", "999999999"])
def test_no_pause_is_longer_than_a_day(terminal: Served, asked: str) -> None:
    terminal.start("--wait", "1")
    with terminal.peer.refuse(503, **{"Retry-After": asked}):
        assert "in 86400 s" in terminal.finish()[2]


def test_a_pause_that_the_server_asks_for_is_kept(terminal: Served) -> None:
    terminal.start("--wait", "2")
    with terminal.peer.refuse(429, **{"Retry-After": "3600"}):
        code, _, err = terminal.finish()
    assert code == 75
    assert "in 3600 s" in err


def test_nobody_listens(terminal: Served) -> None:
    terminal.device.configure(ServerURL="http://127.0.0.1:1")
    terminal.authorize("http://127.0.0.1:1")
    terminal.start("--wait", "2")
    code, _, err = terminal.finish()
    assert code == 75
    assert "No answer from 127.0.0.1:1: Connection refused" in err


def test_an_address_that_is_silent_leaves_time_for_the_others(terminal: Served) -> None:
    with silent_address() as silent:
        peer = ("127.0.0.1", int(terminal.peer.url.rpartition(":")[2]))
        addresses = [(2, 1, 6, "", address) for address in (silent, *[peer] * 7)]
        spoil(
            terminal.device, f"import socket\nsocket.getaddrinfo = lambda *words, **options: {addresses!r}\n"
        )
        terminal.device.configure(ServerURL="http://somewhere.invalid")
        terminal.authorize("http://somewhere.invalid")
        with terminal.connect() as line:
            line.round_trip()


def test_a_server_whose_name_is_unknown(terminal: Served) -> None:
    terminal.device.configure(ServerURL="http://no-such-host.invalid")
    terminal.authorize("http://no-such-host.invalid")
    terminal.start("--wait", "1")
    code, _, err = terminal.finish()
    assert code == 75
    assert "its name cannot be resolved" in err


@pytest.mark.parametrize("when", ["handshake", "pause", "connected"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_at_any_time_it_ends(terminal: Served, when: str, number: signal.Signals) -> None:
    terminal.start()
    with contextlib.ExitStack() as stack:
        if when == "handshake":
            stack.enter_context(terminal.peer.raw()).recv(65536)
        elif when == "pause":
            stack.enter_context(terminal.peer.refuse(429, **{"Retry-After": "3600"}))
            assert terminal.process.stderr
            assert "in 3600 s" in terminal.process.stderr.readline()
        else:
            line = stack.enter_context(terminal.peer.accept())
            line.round_trip()
        terminal.process.send_signal(number)
        if when == "connected":
            assert line.end() == 1000
        assert terminal.finish()[0] == 0


@newest
def test_other_ends_of_a_connection(ready: Device, server: DevServer) -> None:
    """An older connection is dropped without a word by the real server; others come with a code."""
    with reachable(ready, server):
        for times, (code, reset) in enumerate([(None, False), (1011, False)], start=2):
            with server.terminal() as user:
                user.new()
                server.disconnect(code=code, reset=reset)
                with contextlib.suppress(DeviceDisconnected):
                    while True:
                        user.receive()
            server.wait_connected(times=times)
        works(server)


def test_a_message_that_is_too_long_ends_the_connection_only(terminal: Served) -> None:
    with terminal.connect() as line, contextlib.suppress(OSError):
        line.send(SHELL, "shell", body=bytes(3 << 20))
        assert line.end() == 1009
    with terminal.peer.accept() as line:
        line.shell()


def test_text_frames_and_what_is_no_frame(terminal: Served) -> None:
    with terminal.connect() as line:
        line.stream.sendall(b"\xff\xff\xff\xff")
        with contextlib.suppress(ConnectionError):
            line.receive()
    with terminal.peer.accept() as line:
        line.shell()


def test_a_flood_of_messages_holds_up_nobody(terminal: Served) -> None:
    """Least of all SIGTERM: between two handfuls of messages everybody else has his turn."""
    with terminal.connect() as line:
        line.round_trip()
        ping = line.websocket.send(BytesMessage(data=encode(Message(CONTROL, "pong", "x")))) * 2000

        def flood() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line.stream.sendall(ping)

        flooding = threading.Thread(target=flood)
        flooding.start()
        terminal.process.terminate()
        assert terminal.process.wait(20) == 0
        flooding.join()


def test_a_flood_of_pings_is_answered_now_and_then(terminal: Served) -> None:
    """The newest ping stands for all before it, and only so many are dealt with at a time."""
    with terminal.connect() as line:
        line.round_trip()
        before = resident(terminal.process.pid)
        line.stream.sendall(line.websocket.send(Ping()) * 99_999 + line.websocket.send(Ping(payload=b"last")))
        while b"last" not in line.pongs:
            line.read()
        assert len(line.pongs) < 5000
        line.shell()
        assert resident(terminal.process.pid) - before < 8192


@pytest.mark.long
def test_a_message_of_very_many_fragments(terminal: Served) -> None:
    with terminal.connect() as line:
        line.round_trip()
        before = resident(terminal.process.pid)
        # Frames without a mask, of two bytes each; they make a message that is none, which is ignored.
        line.stream.sendall(b"\x02\x02xx" + b"\x00\x02xx" * 300_000 + b"\x80\x00")
        line.round_trip()
        assert resident(terminal.process.pid) - before < 8192
        line.shell()


def test_who_asks_and_does_not_listen_is_not_listened_to(terminal: Served) -> None:
    count = 60_000
    with terminal.connect() as line:
        line.round_trip()
        before = resident(terminal.process.pid)
        ping = encode(Message(CONTROL, "ping", "s" * 200))
        frames = b"".join(line.websocket.send(BytesMessage(data=ping)) for _ in range(count // 60))

        def ask() -> None:
            for _ in range(60):
                line.stream.sendall(frames)

        asking = threading.Thread(target=ask)
        asking.start()
        eventually(lambda: stands_still(terminal.process.pid), "it reads no more")
        assert asking.is_alive()
        assert resident(terminal.process.pid) - before < 16384
        # Who listens again gets every answer.
        for _ in range(count):
            line.expect(CONTROL, "pong", "s" * 200)
        asking.join()


# The way there.


@newest
@pytest.mark.parametrize("name", ["https_proxy", "all_proxy"])
def test_through_a_proxy_with_a_login(ready: Device, server: DevServer, name: str) -> None:
    with Proxy() as proxy:
        ready.environment[name] = f"http://user:p%40ss@localhost:{proxy.port}"
        with reachable(ready, server):
            works(server)
        login = base64.b64encode(b"user:p@ss").decode()
        assert proxy.heads
        assert all(head.startswith("CONNECT 127.0.0.1:") for head in proxy.heads)
        assert all(f"basic {login}".lower() in head.lower() for head in proxy.heads)
        assert not [head for head in proxy.heads if "Bearer" in head]


@newest
def test_past_a_proxy(ready: Device, server: DevServer) -> None:
    with Proxy() as proxy:
        ready.environment |= {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": "127.0.0.1"}
        with reachable(ready, server):
            works(server)
        assert not proxy.heads


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("http://127.0.0.1:1", 75, "Connection refused"),
        ("https://127.0.0.1:1", 78, "supports http:// proxies only"),
        ("socks5://127.0.0.1:1", 78, "neither http:// nor https://"),
        ("http://", 78, "is not a URL"),
    ],
)
def test_proxies_that_do_not_work(terminal: Served, address: str, code: int, words: str) -> None:
    terminal.device.environment["http_proxy"] = address
    terminal.start("--wait", "1")
    found, _, err = terminal.finish()
    assert (found, words in err) == (code, True), err


def test_a_proxy_that_says_no(terminal: Served) -> None:
    with Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        terminal.device.environment["http_proxy"] = f"http://user:p%40ss@127.0.0.1:{proxy.port}"
        terminal.start("--wait", "1")
        code, _, err = terminal.finish()
    assert code == 75
    assert "the proxy rejected the connection (407)" in err
    assert "p@ss" not in err


@newest
def test_a_server_that_is_not_to_be_trusted(ready: Device, server: DevServer) -> None:
    ready.configure(ServerCertificate="")
    done = ready.run("terminal")
    assert done.code == 69
    assert "is not trusted" in done.err
    assert not server.connection_count()


def test_skip_verify(ready: Device, server: DevServer) -> None:
    ready.configure(ServerCertificate="", SkipVerify=True)
    with reachable(ready, server):
        works(server)


@newest
def test_the_client_certificate_is_shown(tmp_path: Path, python: str) -> None:
    need_the_extra(python)
    device = Device(tmp_path / "device", python)
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-keyout", key, "-out", certificate, "-subj", "/CN=me", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        device.configure(
            ServerURL=url,
            ServerCertificate=str(certificate),
            HttpsClient={"Certificate": str(certificate), "Key": str(key)},
        )
        token = {"jwt": "a.b.c", "server": url, "at": time.time()}
        (device.data / "mender-oneshot.json").write_text(
            json.dumps({"schema": 1, "spread": 0.5, "identity_format": "string", "token": token})
        )
        (device.conf / "mender-connect.conf").write_text('{"RemoteTerminal": 1}')
        process = device.start("terminal")
        with context.wrap_socket(listener.accept()[0], server_side=True) as stream:
            shown = stream.getpeercert()
            assert b"GET /api/devices/v1/deviceconnect/connect" in stream.recv(65536)
        process.terminate()
        process.communicate(timeout=30)
    assert shown
    assert shown["subject"] == ((("commonName", "me"),),)


# Control, and the buttons.


def test_the_handshake_of_the_protocols(terminal: Served) -> None:
    with terminal.connect() as line:
        line.send(CONTROL, "open", "x", pack({"versions": [7, 1]}))
        accept = line.expect(CONTROL, "accept", "x")
        assert msgpack.unpackb(accept.body) == {"version": 1, "protocols": [1, 2, 3, 4]}
        for body in (pack({"versions": [2]}), pack({"versions": 1}), pack({}), b"", b"\xc1"):
            line.send(CONTROL, "open", "x", body)
            error = msgpack.unpackb(line.expect(CONTROL, "error", "x").body)
            assert error == {"err": "handshake rejected: require version 1", "close": True}
        line.send(9, "hello", "x")
        error = msgpack.unpackb(line.expect(CONTROL, "error", "x").body)
        assert error == {
            "err": "unknown message protocol and type: 9/hello",
            "close": False,
            "msgproto": 9,
            "msgtype": "hello",
        }
        for kind in ("accept", "error", "close", "pong"):
            line.send(CONTROL, kind, "x")
        line.round_trip()


@newest
def test_the_buttons_start_the_steps(ready: Device, server: DevServer) -> None:
    ready.script("inventory/mender-inventory-pressed", "#!/bin/sh\necho pressed=yes\n")
    with reachable(ready, server):
        for command in ("check-update", "send-inventory"):
            with server.terminal() as user:
                user.send(CLIENT, command)
                assert user.expect(CLIENT, command).body == b""
    inventory = server.devices[0].inventory
    assert inventory
    assert "pressed" in inventory


def test_a_button_whose_step_fails(terminal: Served) -> None:
    with terminal.connect() as line:
        terminal.device.configure(ServerURL="http://127.0.0.1:1")
        line.send(CLIENT, "check-update", "")
        line.send(CLIENT, "check-update", "")
        second, first = line.receive(), line.receive()
        assert b"already running" in second.body
        assert b"check-update exited with status" in first.body
        assert (second.props["status"], first.props["status"]) == (2, 2)
        line.send(CLIENT, "reboot", "")
        assert b"4/reboot" in line.expect(CONTROL, "error", "").body


def test_it_is_never_heavy(terminal: Served) -> None:
    """What the rest of the program needs is not in this process, which may live long."""
    probe = (
        "import atexit, os, sys\n"
        "heavy = ('urllib3', 'cryptography', 'click', 'asyncio', 'http.client', 'email')\n"
        "atexit.register(lambda: os.write(2, repr([n for n in heavy if n in sys.modules]).encode()))\n"
        "sys.argv = ['mender-oneshot', *sys.argv[1:]]\n"
        "from mender_oneshot.__main__ import main\n"
        "sys.exit(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", probe, "terminal", "--wait", "300"],
        env=terminal.device.env(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    terminal.processes.append(process)
    with terminal.peer.accept() as line:
        line.shell()
        process.terminate()
        line.end()
    _, err = process.communicate(timeout=30)
    assert err.endswith("[]")


@newest
def test_no_secret_is_told(ready: Device, server: DevServer) -> None:
    token = ready.token
    process = ready.start("-l", "debug", "-L", str(ready.root / "log"), "terminal", "--wait", "2")
    server.wait_connected()
    words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    with server.terminal() as user:
        user.new()
        user.type(b"cat /proc/$PPID/environ; env; echo don''e\n")
        shown = user.until(b"done")
    out, err = process.communicate(timeout=30)
    for said in (
        out,
        err,
        (ready.root / "log").read_text(),
        words.decode(),
        shown.decode("utf-8", "replace"),
    ):
        assert token not in said
        assert token.split(".")[2] not in said


def test_the_installed_program_can_start_itself(tmp_path: Path, server: DevServer) -> None:
    """Where only its launcher knows where the package lies: authorizing is a process of its own."""
    need_the_extra("/usr/bin/python3")
    root = tmp_path / "root"
    subprocess.run(
        ["make", "install", f"DESTDIR={root}", "COMPILE=no"], cwd=REPO, check=True, capture_output=True
    )
    launcher = root / "usr/local/bin/mender-oneshot"
    share = next(root.rglob("mender_oneshot")).parent
    launcher.write_text(launcher.read_text().replace('"/usr/local/share', f'"{root}/usr/local/share'))
    assert share.is_dir()
    device = Device(tmp_path / "device", "/usr/bin/python3")
    device.configure(ServerURL=server.url, ServerCertificate=str(server.ca))
    (device.conf / "mender-connect.conf").write_text('{"RemoteTerminal": true}')
    environment = {name: value for name, value in device.env().items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [launcher, "terminal"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 77, done
    assert "has not accepted this device yet" in done.stderr
