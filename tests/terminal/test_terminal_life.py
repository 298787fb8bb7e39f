"""The terminal from start to exit: configuration, limits, authorization, retries, proxies, commands."""

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
from helpers.device import REPO, Device, patch_python
from helpers.proxy import Proxy
from helpers.screen import on_screen
from helpers.terminal_peer import (
    Served,
    is_blocked,
    need_the_extra,
    resident,
    silent_address,
)
from helpers.waiting import until
from wsproto.events import BytesMessage, Ping

from mender_oneshot.devserver import DevServer
from mender_oneshot.devserver.relay import DeviceDisconnected
from mender_oneshot.terminal.messages import CLIENT, CONTROL, SHELL, Message, encode, pack
from mender_oneshot.terminal.reconnect import backoff


@pytest.fixture
def ready(accepted: Device) -> Device:
    """A device that the development server has accepted, with its terminal enabled."""
    need_the_extra(accepted.python)
    (accepted.conf / "mender-connect.conf").write_text('{"RemoteTerminal": "True"}')
    return accepted


@contextlib.contextmanager
def reachable(device: Device, server: DevServer, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the terminal until the end of the block, and check that it exits with 0."""
    times = server.connection_count() + 1
    process = device.start("-l", "info", "terminal", *arguments)
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


def check_shell(server: DevServer) -> None:
    """Open a shell and wait for output of it."""
    with server.terminal() as user:
        assert user.new().props
        user.type(b"echo $((6*7))x\n")
        user.until(b"42x")


newest = pytest.mark.parametrize("python", [sys.executable])


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_a_terminal_that_cannot_start_prints_the_reason_in_one_sentence(
    terminal: Served, text: str | None, message: str
) -> None:
    place = terminal.device.conf / "mender-connect.conf"
    place.unlink()
    if text:
        place.write_text(text)
    done = terminal.device.run("terminal")
    assert done.code == 78
    assert done.out == ""
    assert message in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (2, 78, "No such file or directory); mount devpts on /dev/pts"),
        (5, 78, "mount devpts on /dev/pts"),
        (24, 75, "Too many open files); will retry on the next run"),
        (28, 75, "will retry on the next run"),
    ],
)
def test_without_a_pseudo_terminal_only_shells_are_impossible(
    either: Served, number: int, code: int, message: str
) -> None:
    patch_python(
        either.device,
        "import os\n"
        "def openpty():\n"
        f"    raise OSError({number}, os.strerror({number}))\n"
        "os.openpty = openpty\n",
    )
    done = either.device.run("terminal", "--wait", "1")
    assert (done.code, message in done.err) == (code, True), done
    either.configure(RemoteTerminal=True, Terminal={"Disable": True})
    with either.connect() as line:
        line.round_trip()


def test_without_a_server_it_exits_with_78(terminal: Served) -> None:
    terminal.device.settings = {}
    terminal.device.configure()
    done = terminal.device.run("terminal")
    assert (done.code, "No server is configured" in done.err) == (78, True)


@pytest.mark.parametrize("library", ["wsproto", "msgpack"])
def test_without_its_libraries_it_names_the_packages_to_install(terminal: Served, library: str) -> None:
    """For example on a device with only the libraries of the other commands."""
    bare = terminal.device.root / "bare"
    bare.mkdir()
    (bare / f"{library}.py").write_text(f"raise ModuleNotFoundError('no', name='{library}')\n")
    terminal.device.environment["PYTHONPATH"] = f"{bare}:{REPO}"
    done = terminal.device.run("terminal")
    assert done.code == 78
    assert f"needs {library}; install python3-wsproto and python3-msgpack" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_second_terminal_exits_and_other_commands_run(ready: Device, server: DevServer) -> None:
    with reachable(ready, server):
        done = ready.run("terminal")
        assert (done.code, len(done.err.splitlines())) == (75, 1)
        assert "already running for this device" in done.err
        ready.ok("check-update")
        ready.ok("send-inventory")
        check_shell(server)


@newest
def test_without_a_session_it_exits_after_the_waiting_time(ready: Device, server: DevServer) -> None:
    done = ready.ok("terminal", "--wait", "1", "--json")
    assert done.json["step"] == "terminal"
    assert (done.json["sessions"], done.json["connections"]) == (0, 1)
    assert server.close_codes() == [1000]


@newest
def test_a_person_sees_when_it_is_reachable_and_its_sessions(ready: Device, server: DevServer) -> None:
    with on_screen(ready, "terminal", "--wait", "2", "--max-sessions", "1") as screen:
        screen.until("; a terminal can be opened now.")
        until(server.connected, "the server has the connection as well")
        check_shell(server)
        screen.until("shell opened as ")
        screen.until("shell closed.")
        assert screen.end() == 0
    assert "Served 1 session in " in screen.shown


def test_it_stays_during_a_session_and_then_for_the_waiting_time(terminal: Served) -> None:
    with terminal.connect("--wait", "1") as line:
        line.shell()
        line.type("sleep 2.5; echo al''ive\n")
        line.see(b"alive\r\n")
        line.send(SHELL, "stop")
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def test_max_sessions_rejects_more_sessions_and_ends_the_terminal(terminal: Served) -> None:
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


def test_max_runtime_ends_the_terminal_during_a_session(terminal: Served) -> None:
    with terminal.connect("--max-runtime", "2") as line:
        line.shell()
        shown = line.until(lambda received: received.kind == "stop")
        assert b"its time limit is reached" in b"".join(received.body for received in shown)
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def test_max_runtime_ends_retrying_with_the_last_error(terminal: Served) -> None:
    terminal.start("--max-runtime", "2")
    with terminal.peer.reject(503):
        code, _, err = terminal.finish()
    assert code == 75
    assert "answered 503" in err


def test_max_runtime_ends_the_wait_for_a_server(terminal: Served) -> None:
    terminal.start("--max-runtime", "2")
    with terminal.peer.raw():
        code, _, err = terminal.finish()
    assert code == 75
    assert "Could not connect within the time limit" in err


def test_without_a_token_it_authorizes(ready: Device, server: DevServer) -> None:
    ready.forget_token()
    with reachable(ready, server):
        check_shell(server)
    assert ready.token


def test_a_rejected_token_is_replaced_once(ready: Device, server: DevServer) -> None:
    server.revoke_tokens()
    with reachable(ready, server):
        check_shell(server)
    paths = ("/deviceconnect/connect", "/auth_requests")
    answers = [seen.status for seen in server.requests if seen.path.endswith(paths)]
    # The first two are from the fixture: not accepted, accepted.
    assert answers == [401, 200, 401, 200, 101]


@newest
@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_rejected_twice_ends_the_terminal_with_77(
    ready: Device, server: DevServer, status: int
) -> None:
    server.faults.add("GET */deviceconnect/connect", count=None, status=status)
    done = ready.run("terminal")
    assert done.code == 77
    assert f"answered {status}" in done.err
    attempts = [seen for seen in server.requests if seen.path.endswith("/deviceconnect/connect")]
    assert len(attempts) == 2


@newest
def test_a_device_that_is_not_accepted_exits_with_77(ready: Device, server: DevServer) -> None:
    server.reject()
    done = ready.run("terminal")
    assert done.code == 77
    assert "has not accepted this device" in done.err
    assert len(done.err.splitlines()) == 1


def test_the_backoff_grows_to_a_limit_and_has_jitter() -> None:
    assert [backoff(attempt, 0) for attempt in range(10)] == [0, 1, 1, 2, 2, 2, 4, 4, 4, 8]
    assert backoff(1, 0.5) == 3.5
    assert backoff(10**6, 1) == 1805
    assert backoff(10**6, 1, 60) == 65


NO_JITTER = """
import os
draw = os.urandom
os.urandom = lambda size: bytes(size) if size == 4 else draw(size)
"""


def pauses_after(terminal: Served, connections: int, event: Ping | None) -> list[int]:
    """Break so many connections, and return how long the terminal waits each time, from its log."""
    patch_python(terminal.device, NO_JITTER)
    process = terminal.device.start("-l", "info", "terminal", "--wait", "0")
    terminal.processes.append(process)
    for _ in range(connections):
        with terminal.peer.accept() as line:
            if event:
                line.put(event)
                line.read()  # the pong
    with terminal.peer.accept():
        err = terminal.stop()[2]
    return [int(seconds) for seconds in re.findall(r"Reconnecting in (\d+) s", err)]


def test_a_connection_with_data_from_the_server_resets_the_backoff(terminal: Served) -> None:
    """However short the connections are, and however often they break."""
    assert pauses_after(terminal, 6, Ping()) == [1] * 6


def test_a_server_that_accepts_connections_and_sends_nothing_is_not_flooded(terminal: Served) -> None:
    assert pauses_after(terminal, 4, None) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("step", "honored"), [("inventory", False), ("check", False), ("terminal", True), ("auth", True)]
)
def test_the_terminal_honors_pauses_of_its_own_and_of_auth_only(
    terminal: Served, step: str, honored: bool
) -> None:
    """A pause of `auth` applies to everything that needs a token; those of other steps do not."""
    host = terminal.peer.url.partition("//")[2]
    pause = {"step": step, "host": host, "at": time.time(), "seconds": 3600}
    terminal.device.alter_state(pauses=[pause])
    terminal.start("--wait", "2" if honored else "0")
    if honored:
        code, _, err = terminal.finish()
        assert (code, "asked for a pause" in err) == (75, True), err
    else:
        with terminal.peer.accept() as line:
            line.shell()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(404, 69, "has no remote terminal"), (400, 69, "answered 400"), (302, 69, "answered 302")],
)
def test_a_status_that_ends_the_terminal(terminal: Served, status: int, code: int, message: str) -> None:
    process = terminal.start()
    with terminal.peer.reject(status):
        found, _, err = terminal.finish(process)
    assert found == code
    assert message in err


def test_an_answer_that_is_not_http_ends_the_terminal_with_76(terminal: Served) -> None:
    terminal.start()
    with terminal.peer.raw() as stream:
        stream.recv(65536)
        stream.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        code, _, err = terminal.finish()
    assert code == 76
    assert "does not speak WebSocket" in err


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_status_after_which_it_retries(terminal: Served, status: int) -> None:
    terminal.start()
    with terminal.peer.reject(status):
        pass
    with terminal.peer.accept() as line:
        line.shell()
    assert f"answered {status}" in terminal.stop()[2]


def test_after_a_first_connection_it_retries_even_after_a_404(terminal: Served) -> None:
    """A gateway answers like this while the server restarts."""
    with terminal.connect("--wait", "0") as line:
        line.round_trip()
    with terminal.peer.reject(404), terminal.peer.accept() as line:
        line.round_trip()
    assert "answered 404" in terminal.stop()[2]


def test_after_a_first_connection_it_retries_even_behind_a_portal(terminal: Served) -> None:
    with terminal.connect("--wait", "0") as line:
        line.round_trip()
    with terminal.peer.raw() as stream:
        stream.recv(65536)
        stream.sendall(b"<html>")
    with terminal.peer.accept() as line:
        line.round_trip()
    assert "does not speak WebSocket" in terminal.stop()[2]


def test_it_retries_if_the_process_of_auth_cannot_be_started(terminal: Served) -> None:
    """For example at the limit of processes."""
    patch_python(
        terminal.device,
        "import subprocess\n"
        "def run(*arguments, **options):\n"
        "    raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "subprocess.run = run\n",
    )
    terminal.start()
    with terminal.peer.reject(401), terminal.peer.accept() as line:
        line.round_trip()
    assert "cannot be started (Resource temporarily unavailable)" in terminal.stop()[2]


@pytest.mark.parametrize("asked", ["100000", "999999999"])
def test_a_retry_after_is_limited_to_a_day(terminal: Served, asked: str) -> None:
    terminal.start("--wait", "1")
    with terminal.peer.reject(503, **{"Retry-After": asked}):
        assert "in 86400 s" in terminal.finish()[2]


def test_a_retry_after_of_the_server_is_honored(terminal: Served) -> None:
    terminal.start("--wait", "2")
    with terminal.peer.reject(429, **{"Retry-After": "3600"}):
        code, _, err = terminal.finish()
    assert code == 75
    assert "in 3600 s" in err


def test_a_server_that_is_down_ends_the_terminal_with_75(terminal: Served) -> None:
    terminal.device.configure(ServerURL="http://127.0.0.1:1")
    terminal.authorize("http://127.0.0.1:1")
    terminal.start("--wait", "2")
    code, _, err = terminal.finish()
    assert code == 75
    assert "No answer from 127.0.0.1:1: Connection refused" in err


def test_an_address_that_does_not_respond_leaves_time_for_the_others(terminal: Served) -> None:
    with silent_address() as silent:
        peer = ("127.0.0.1", int(terminal.peer.url.rpartition(":")[2]))
        addresses = [(2, 1, 6, "", address) for address in (silent, *[peer] * 7)]
        patch_python(
            terminal.device,
            f"import socket\nsocket.getaddrinfo = lambda *arguments, **options: {addresses!r}\n",
        )
        terminal.device.configure(ServerURL="http://somewhere.invalid")
        terminal.authorize("http://somewhere.invalid")
        with terminal.connect() as line:
            line.round_trip()


def test_a_host_name_that_cannot_be_resolved_ends_the_terminal_with_75(terminal: Served) -> None:
    terminal.device.configure(ServerURL="http://no-such-host.invalid")
    terminal.authorize("http://no-such-host.invalid")
    terminal.start("--wait", "1")
    code, _, err = terminal.finish()
    assert code == 75
    assert "its name cannot be resolved" in err


@pytest.mark.parametrize("when", ["handshake", "pause", "connected"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_terminal_at_any_time(terminal: Served, when: str, number: signal.Signals) -> None:
    terminal.start()
    with contextlib.ExitStack() as stack:
        if when == "handshake":
            stack.enter_context(terminal.peer.raw()).recv(65536)
        elif when == "pause":
            stack.enter_context(terminal.peer.reject(429, **{"Retry-After": "3600"}))
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
def test_it_reconnects_after_the_server_closed_with_or_without_a_code(
    ready: Device, server: DevServer
) -> None:
    """The real server drops an older connection without a close frame; other ends have a code."""
    with reachable(ready, server):
        for times, (code, reset) in enumerate([(None, False), (1011, False)], start=2):
            with server.terminal() as user:
                user.new()
                server.disconnect(code=code, reset=reset)
                with contextlib.suppress(DeviceDisconnected):
                    while True:
                        user.receive()
            server.wait_connected(times=times)
        check_shell(server)


def test_a_message_that_is_too_long_ends_only_the_connection(terminal: Served) -> None:
    with terminal.connect() as line, contextlib.suppress(OSError):
        line.send(SHELL, "shell", body=bytes(3 << 20))
        assert line.end() == 1009
    with terminal.peer.accept() as line:
        line.shell()


def test_it_reconnects_after_an_invalid_frame(terminal: Served) -> None:
    with terminal.connect() as line:
        line.stream.sendall(b"\xff\xff\xff\xff")
        with contextlib.suppress(ConnectionError):
            line.receive()
    with terminal.peer.accept() as line:
        line.shell()


def test_a_flood_of_messages_does_not_delay_sigterm(terminal: Served) -> None:
    """Only a limited number of messages is handled in one turn of the loop."""
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


def test_a_flood_of_pings_is_answered_with_few_pongs(terminal: Served) -> None:
    """One pong answers all pings before it."""
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
def test_a_message_of_very_many_fragments_takes_little_memory(terminal: Served) -> None:
    with terminal.connect() as line:
        line.round_trip()
        before = resident(terminal.process.pid)
        # Frames without a mask, of two bytes each; together they are an invalid message, which is ignored.
        line.stream.sendall(b"\x02\x02xx" + b"\x00\x02xx" * 300_000 + b"\x80\x00")
        line.round_trip()
        assert resident(terminal.process.pid) - before < 8192
        line.shell()


def test_nothing_is_read_from_a_server_that_does_not_read(terminal: Served) -> None:
    count = 60_000
    with terminal.connect() as line:
        line.round_trip()
        before = resident(terminal.process.pid)
        ping = encode(Message(CONTROL, "ping", "s" * 200))
        frames = b"".join(line.websocket.send(BytesMessage(data=ping)) for _ in range(count // 60))

        def send() -> None:
            for _ in range(60):
                line.stream.sendall(frames)

        sending = threading.Thread(target=send)
        sending.start()
        until(lambda: is_blocked(terminal.process.pid), "it stops reading")
        assert sending.is_alive()
        assert resident(terminal.process.pid) - before < 16384
        # When the server reads again it gets every answer.
        for _ in range(count):
            line.expect(CONTROL, "pong", "s" * 200)
        sending.join()


@newest
@pytest.mark.parametrize("name", ["https_proxy", "all_proxy"])
def test_it_connects_through_a_proxy_with_a_login(ready: Device, server: DevServer, name: str) -> None:
    with Proxy() as proxy:
        ready.environment[name] = f"http://user:p%40ss@localhost:{proxy.port}"
        with reachable(ready, server):
            check_shell(server)
        login = base64.b64encode(b"user:p@ss").decode()
        assert proxy.heads
        assert all(head.startswith("CONNECT 127.0.0.1:") for head in proxy.heads)
        assert all(f"basic {login}".lower() in head.lower() for head in proxy.heads)
        assert not [head for head in proxy.heads if "Bearer" in head]


@newest
def test_no_proxy_bypasses_the_proxy(ready: Device, server: DevServer) -> None:
    with Proxy() as proxy:
        ready.environment |= {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": "127.0.0.1"}
        with reachable(ready, server):
            check_shell(server)
        assert not proxy.heads


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("http://127.0.0.1:1", 75, "Connection refused"),
        ("https://127.0.0.1:1", 78, "supports http:// proxies only"),
        ("socks5://127.0.0.1:1", 78, "neither http:// nor https://"),
        ("http://", 78, "is not a URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error(
    terminal: Served, address: str, code: int, message: str
) -> None:
    terminal.device.environment["http_proxy"] = address
    terminal.start("--wait", "1")
    found, _, err = terminal.finish()
    assert (found, message in err) == (code, True), err


def test_a_proxy_that_rejects_the_login_is_an_error_without_the_password(terminal: Served) -> None:
    with Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        terminal.device.environment["http_proxy"] = f"http://user:p%40ss@127.0.0.1:{proxy.port}"
        terminal.start("--wait", "1")
        code, _, err = terminal.finish()
    assert code == 75
    assert "the proxy rejected the connection (407)" in err
    assert "p@ss" not in err


@newest
def test_an_untrusted_certificate_ends_the_terminal_with_69(ready: Device, server: DevServer) -> None:
    ready.configure(ServerCertificate="")
    done = ready.run("terminal")
    assert done.code == 69
    assert "is not trusted" in done.err
    assert not server.connection_count()


def test_skip_verify_accepts_an_untrusted_certificate(ready: Device, server: DevServer) -> None:
    ready.configure(ServerCertificate="", SkipVerify=True)
    with reachable(ready, server):
        check_shell(server)


@newest
def test_the_client_certificate_is_sent(tmp_path: Path, python: str) -> None:
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


def test_open_is_answered_with_the_protocols_or_an_error(terminal: Served) -> None:
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
def test_the_requests_for_an_update_and_the_inventory_run_the_steps(ready: Device, server: DevServer) -> None:
    ready.script("inventory/mender-inventory-requested", "#!/bin/sh\necho requested=yes\n")
    with reachable(ready, server):
        for command in ("check-update", "send-inventory"):
            with server.terminal() as user:
                user.send(CLIENT, command)
                assert user.expect(CLIENT, command).body == b""
    inventory = server.devices[0].inventory
    assert inventory
    assert "requested" in inventory


def test_a_requested_step_that_fails_or_already_runs_is_an_error(terminal: Served) -> None:
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


def test_it_does_not_load_the_libraries_of_other_commands(terminal: Served) -> None:
    """They would stay in the memory of a process that may run for days."""
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
def test_the_token_is_in_no_output_log_or_environment(ready: Device, server: DevServer) -> None:
    token = ready.token
    process = ready.start("-l", "debug", "-L", str(ready.root / "log"), "terminal", "--wait", "2")
    server.wait_connected()
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    with server.terminal() as user:
        user.new()
        user.type(b"cat /proc/$PPID/environ; env; echo don''e\n")
        shown = user.until(b"done")
    out, err = process.communicate(timeout=30)
    for text in (
        out,
        err,
        (ready.root / "log").read_text(),
        arguments.decode(),
        shown.decode("utf-8", "replace"),
    ):
        assert token not in text
        assert token.split(".")[2] not in text


def test_the_installed_program_can_run_its_own_subcommands(tmp_path: Path, server: DevServer) -> None:
    """Only its launcher has the path of the package, and authorizing is a separate process."""
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
