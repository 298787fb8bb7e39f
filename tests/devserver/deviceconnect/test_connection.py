"""Connections to the development server's deviceconnect: the handshake, their end, their faults."""

import base64
import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.device import REPO
from helpers.raw_device import fetch
from helpers.raw_socket import DEVICE, USERS, ConnectionClosed, HandshakeRejected, RawSocket
from helpers.relay_setup import NO_SUCH_ID, ROUTE, RelaySetup
from wsproto.events import CloseConnection, Ping, Pong

from mender_oneshot.devserver.messages import SHELL, Message, message

MakeRelay = Callable[..., RelaySetup]


def test_the_gateway_rejects_an_invalid_token(relay: RelaySetup) -> None:
    def status(*headers: tuple[str, str]) -> int:
        with pytest.raises(HandshakeRejected) as rejected:
            RawSocket(relay.server, DEVICE, *headers)
        return rejected.value.status

    good = ("Authorization", f"Bearer {relay.device.token}")
    assert status() == 401
    assert status(("Authorization", "Bearer x.y.z")) == 401
    assert status(("Authorization", f"Bearer {relay.user.token}")) == 401
    relay.clock.now += 604801
    assert status(good) == 403
    relay.clock.now -= 604801
    relay.server.reject()
    assert status(good) == 401


def test_the_token_may_be_a_cookie_and_an_offered_subprotocol_is_accepted(relay: RelaySetup) -> None:
    with contextlib.closing(
        RawSocket(relay.server, DEVICE, ("Cookie", f"a=b; JWT={relay.device.token}"))
    ) as raw:
        assert raw.answer.subprotocol is None
        relay.server.wait_connected()
    relay.server.wait_disconnected()
    path = USERS.format(relay.id)
    with relay.device_end():
        relay.server.wait_connected(times=2)
        headers = {
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "WebSocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Sec-WebSocket-Protocol": "other, protomsg/msgpack",
            "Authorization": f"Bearer {relay.user.token}",
        }
        reply = fetch(relay.server, "GET", relay.server.url + path, None, headers)
        assert (reply.status, reply.headers["Sec-WebSocket-Protocol"]) == (101, "protomsg/msgpack")


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": None},
    ],
)
def test_a_request_that_is_no_upgrade_is_rejected(
    relay: RelaySetup, device: RawSocket, changed: dict[str, str | None]
) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }
    sent = {name: value for name, value in (headers | changed).items() if value is not None}
    assert relay.request("GET", "/connect", None, **sent).status == 400
    assert relay.device.call("GET", DEVICE, **sent).status == 400


def test_the_api_shows_whether_the_device_is_connected(relay: RelaySetup) -> None:
    assert fetch(relay.server, "GET", relay.server.url + ROUTE.format(relay.id)).status == 401
    assert relay.status == "disconnected"
    with relay.device_end() as device:
        relay.server.wait_connected()
        relay.clock.now += 10
        assert relay.status == "connected"
        device.put(CloseConnection(code=1000))
        assert device.end().code == 1000
    assert relay.server.wait_disconnected() == 1000
    shown = relay.request("GET").json
    assert (shown["status"], shown["device_id"]) == ("disconnected", relay.id)
    assert shown["updated_ts"] > shown["created_ts"]
    relay.id = NO_SUCH_ID
    assert relay.request("GET").status == 404


def test_requests_for_a_disconnected_device_are_rejected(relay: RelaySetup) -> None:
    with pytest.raises(HandshakeRejected) as rejected, relay.user_end():
        pass
    assert rejected.value.status == 404
    form = b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\n/x\r\n'
    form += b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--B--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    for exists, statuses in ((True, (404, 404, 409, 409)), (False, (404, 404, 404, 404))):
        relay.id = relay.id if exists else NO_SUCH_ID
        replies = [
            relay.request("POST", "/check-update"),
            relay.request("POST", "/send-inventory"),
            relay.request("GET", "/download?path=/etc/hostname"),
            relay.request("PUT", "/upload", form, **kind),
        ]
        assert tuple(reply.status for reply in replies) == statuses
    with pytest.raises(LookupError):
        relay.server.terminal(relay.server.device().id)


def test_without_the_libraries_only_the_terminal_is_unavailable(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["wsproto"] = sys.modules["msgpack"] = None
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from helpers.raw_device import RawDevice
from mender_oneshot.devserver import DevServer
with DevServer(Path(sys.argv[1]), tls=False) as server:
    device = RawDevice(server).accepted()
    reply = device.call("GET", "/api/devices/v1/deviceconnect/connect")
    print(device.next().status, reply.status, reply.json["error"])
"""
    words = [sys.executable, "-c", program, str(tmp_path), str(REPO / "tests")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=REPO)
    assert done.stdout.startswith("204 501 the remote terminal needs wsproto and msgpack")


@pytest.mark.real
def test_a_session_works_with_debians_libraries(tmp_path: Path) -> None:
    python = "/usr/bin/python3"
    libraries = "import cryptography, msgpack, wsproto"
    if subprocess.run([python, "-c", libraries], capture_output=True, check=False).returncode:
        pytest.skip("python3-cryptography, python3-msgpack and python3-wsproto are not all installed")
    program = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from helpers.raw_device import RawDevice
from helpers.raw_socket import device_socket
from mender_oneshot.devserver import DevServer
with DevServer(Path(sys.argv[1])) as server:
    token = RawDevice(server).accepted().token
    with device_socket(server, token) as device:
        server.wait_connected()
        with server.terminal() as user:
            user.send(1, "new", terminal_width=80)
            asked = device.hear()
            device.reply(asked, "new", b"Shell started", status=1)
            print(asked.raw["terminal_width"].hex(), user.receive().body.decode())
        print(device.hear().body.decode())
"""
    words = [python, "-W", "error", "-c", program, str(tmp_path), str(REPO / "tests")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPO, check=False, timeout=60)
    assert done.stdout == "d30000000000000050 Shell started\nuser disconnected\n", done.stderr


def test_faults_apply_to_the_handshake(relay: RelaySetup) -> None:
    relay.server.faults.add(f"GET {DEVICE}", status=503)
    relay.server.faults.add(f"GET {DEVICE}", retry_after=7)
    relay.server.faults.add(f"GET {DEVICE}", drop_after=True)
    statuses: list[int] = []
    for _ in range(2):
        with pytest.raises(HandshakeRejected) as rejected, relay.device_end():
            pass
        statuses.append(rejected.value.status)
    assert statuses == [503, 429]
    with pytest.raises(ConnectionClosed), relay.device_end():
        pass
    with relay.device_end():
        relay.server.wait_connected()
    assert [seen.status for seen in relay.server.requests if seen.path == DEVICE] == [503, 429, 0, 101]


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("after", [0, 1, 200])
@pytest.mark.parametrize("what", [{}, {"reset": True}, {"close_code": 1012}])
def test_a_cut_comes_with_reset_or_close_code_if_so_configured(
    make_relay: MakeRelay, tls: bool, after: int, what: dict[str, Any]
) -> None:
    relay = make_relay(tls=tls)
    relay.server.faults.add(f"GET {DEVICE}", cut_after=after, **what)
    with relay.device_end() as device:
        with contextlib.suppress(OSError):
            for _ in range(10):
                device.say(Message(SHELL, "shell", NO_SUCH_ID, {}, b"x"))
        assert device.end().code == what.get("close_code", 1006)
    assert relay.server.wait_disconnected() == what.get("close_code", 1006)
    with relay.device_end():
        relay.server.wait_connected(times=2)


def test_a_stalled_connection_neither_sends_nor_receives_until_released(relay: RelaySetup) -> None:
    relay.server.faults.add(f"GET {DEVICE}", stall_after=10)
    with relay.device_end() as device:
        device.put(Ping(payload=b"1234567890"))
        relay.server.faults.wait_for_stall()
        device.put(Ping(payload=b"more"))
        device.stream.settimeout(0.3)
        with pytest.raises(TimeoutError):
            device.event()
        device.stream.settimeout(20)
        relay.server.faults.release()
        pongs = [device.event(), device.event()]
        assert [bytes(pong.payload) for pong in pongs if isinstance(pong, Pong)][-1] == b"more"


def test_a_client_may_disconnect_during_a_stall(relay: RelaySetup) -> None:
    relay.server.faults.add(f"GET {DEVICE}", stall_after=0)
    with relay.device_end():
        relay.server.faults.wait_for_stall()
    assert relay.server.wait_disconnected() == 1006


def test_a_slow_connection_loses_no_byte(relay: RelaySetup) -> None:
    relay.server.faults.add(f"GET {DEVICE}", slow=200_000)
    with relay.device_end() as device:
        relay.server.wait_connected()
        with relay.user_end() as user:
            user.say(message(SHELL, "new"))
            asked = device.hear()
            for number in range(20):
                device.reply(asked, "shell", b"%d" % number * 500)
            assert [user.hear().body for _ in range(20)] == [b"%d" % number * 500 for number in range(20)]


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(("how", "code"), [({"code": 1001}, 1001), ({}, 1006), ({"reset": True}, 1006)])
def test_disconnect_closes_with_a_code_or_cuts(
    make_relay: MakeRelay, tls: bool, how: dict[str, Any], code: int
) -> None:
    relay = make_relay(tls=tls)
    with relay.device_end() as device:
        relay.server.wait_connected()
        relay.server.disconnect(**how)
        ended = device.end()
        assert (ended.code, relay.server.wait_disconnected()) == (code, code)
        if not tls:
            assert (ended.reason == "reset") == ("reset" in how)
    with pytest.raises(LookupError):
        relay.server.disconnect()
