"""The development server's deviceconnect: as remote-terminal.md says of the real one; and real programs."""

import base64
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helpers.device import REPO
from helpers.raw_device import RawDevice, Reply, fetch
from helpers.raw_socket import (
    DEVICE,
    USERS,
    ConnectionClosed,
    HandshakeRejected,
    RawSocket,
    device_socket,
    user_socket,
)
from helpers.real_connect import Cli, free_port, mender_connect
from helpers.real_daemon import until
from hypothesis import given
from hypothesis import strategies as st
from test_openapi import OPENAPI, resolved
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from mender_oneshot.devserver import DevServer, messages
from mender_oneshot.devserver.messages import CLIENT, CONTROL, FILES, SHELL, Message, message

ROUTE = "/api/management/v1/deviceconnect/devices/{}"
NOBODY = "6f9c3a0c-6a0c-4c5b-8a3e-0d3c5d2b1a00"


class Clock:
    """A time that moves when told to."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """A server with one accepted device and one user who is logged in."""

    def __init__(self, server: DevServer, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self.device = RawDevice(server).accepted()
        self.id = server.device().id
        basic = {"Authorization": "Basic " + base64.b64encode(b"someone@example.com:secret").decode()}
        url = f"{server.url}/api/management/v1/useradm/auth/login"
        self.token = fetch(server, "POST", url, None, basic).body.decode()

    def ask(self, method: str, more: str = "", body: bytes | None = None, **headers: str) -> Reply:
        """A request of the user's about the device."""
        url = self.server.url + ROUTE.format(self.id) + more
        return fetch(self.server, method, url, body, {"Authorization": f"Bearer {self.token}", **headers})

    @property
    def status(self) -> str:
        """What the server says of the device's connection."""
        said: str = self.ask("GET").json["status"]
        return said

    def on_device(self) -> contextlib.AbstractContextManager[RawSocket]:
        """The device's connection."""
        return device_socket(self.server, self.device.token)

    def on_user(self) -> contextlib.AbstractContextManager[RawSocket]:
        """The user's connection."""
        return user_socket(self.server, self.id, self.token)


Make = Callable[..., Model]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:

        def make_world(**options: Any) -> Model:
            clock = Clock()
            options = {"tls": False} | options
            return Model(stack.enter_context(DevServer(tmp_path / "server", clock=clock, **options)), clock)

        yield make_world
    assert threading.active_count() == before


@pytest.fixture
def world(make: Make) -> Model:
    return make()


@pytest.fixture
def device(world: Model) -> Iterator[RawSocket]:
    with world.on_device() as connected:
        world.server.wait_connected()
        yield connected


@pytest.fixture
def user(world: Model, device: RawSocket) -> Iterator[RawSocket]:
    with world.on_user() as connected:
        yield connected


# --- Getting in --------------------------------------------------------------------------------------------


def test_the_gateway_looks_at_the_token(world: Model) -> None:
    def status(*headers: tuple[str, str]) -> int:
        with pytest.raises(HandshakeRejected) as refused:
            RawSocket(world.server, DEVICE, *headers)
        return refused.value.status

    good = ("Authorization", f"Bearer {world.device.token}")
    assert status() == 401
    assert status(("Authorization", "Bearer x.y.z")) == 401
    assert status(("Authorization", f"Bearer {world.token}")) == 401
    world.clock.now += 604801
    assert status(good) == 403
    world.clock.now -= 604801
    world.server.reject()
    assert status(good) == 401


def test_a_cookie_will_do_and_the_subprotocol_is_taken_when_offered(world: Model) -> None:
    with contextlib.closing(
        RawSocket(world.server, DEVICE, ("Cookie", f"a=b; JWT={world.device.token}"))
    ) as raw:
        assert raw.answer.subprotocol is None
        world.server.wait_connected()
    world.server.wait_disconnected()
    path = USERS.format(world.id)
    with world.on_device():
        world.server.wait_connected(times=2)
        headers = {
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "WebSocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Sec-WebSocket-Protocol": "other, protomsg/msgpack",
            "Authorization": f"Bearer {world.token}",
        }
        reply = fetch(world.server, "GET", world.server.url + path, None, headers)
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
def test_what_is_no_upgrade_is_refused(
    world: Model, device: RawSocket, changed: dict[str, str | None]
) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }
    sent = {name: value for name, value in (headers | changed).items() if value is not None}
    assert world.ask("GET", "/connect", None, **sent).status == 400
    assert world.device.call("GET", DEVICE, **sent).status == 400


def test_the_state_of_the_connection(world: Model) -> None:
    assert fetch(world.server, "GET", world.server.url + ROUTE.format(world.id)).status == 401
    assert world.status == "disconnected"
    with world.on_device() as device:
        world.server.wait_connected()
        world.clock.now += 10
        assert world.status == "connected"
        device.put(CloseConnection(code=1000))
        assert device.end().code == 1000
    assert world.server.wait_disconnected() == 1000
    said = world.ask("GET").json
    assert (said["status"], said["device_id"]) == ("disconnected", world.id)
    assert said["updated_ts"] > said["created_ts"]
    world.id = NOBODY
    assert world.ask("GET").status == 404


def test_nothing_to_talk_with(world: Model) -> None:
    with pytest.raises(HandshakeRejected) as refused, world.on_user():
        pass
    assert refused.value.status == 404
    form = b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\n/x\r\n'
    form += b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--B--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    for known, statuses in ((True, (404, 404, 409, 409)), (False, (404, 404, 404, 404))):
        world.id = world.id if known else NOBODY
        replies = [
            world.ask("POST", "/check-update"),
            world.ask("POST", "/send-inventory"),
            world.ask("GET", "/download?path=/etc/hostname"),
            world.ask("PUT", "/upload", form, **kind),
        ]
        assert tuple(reply.status for reply in replies) == statuses
    with pytest.raises(LookupError):
        world.server.terminal(world.server.device().id)


def test_without_the_libraries_the_rest_works(tmp_path: Path) -> None:
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


def test_the_answers_are_as_described(world: Model) -> None:
    described = OPENAPI / "deviceconnect/management_v1.yaml"
    paths = resolved(yaml.safe_load(described.read_text()), described)["paths"]
    asked: list[tuple[str, str, Reply]] = []

    def ask(method: str, more: str = "", query: str = "", body: bytes | None = None, **headers: str) -> None:
        asked.append((method, more, world.ask(method, more + query, body, **headers)))

    known = world.id
    world.id = NOBODY
    ask("GET")
    world.id = known
    with world.on_device() as device:
        world.server.wait_connected()
        ask("GET")
        ask("POST", "/check-update")
        device.hear()
        ask("GET", "/connect")
        ask("GET", "/download", "?path=relative")
        with Script(device, accepting(device, 2), error(device, err="no", code=404), nothing):
            ask("GET", "/download", "?path=/a")
        with Script(device, accepting(device, 2), Upload(device), nothing):
            ask("PUT", "/upload", "", form(("path", b"/x")), **FORM)
        device.put(CloseConnection(code=1000))
        world.server.wait_disconnected()
    for method, more in (("POST", "/send-inventory"), ("GET", "/connect")):
        ask(method, more)
    ask("GET", "/download", "?path=/a")
    ask("PUT", "/upload", "", form(("path", b"/x")), **FORM)
    for method, more, reply in asked:
        responses = paths[f"{ROUTE.format('{id}')}{more}"][method.lower()]["responses"]
        answer = {str(status): answer for status, answer in responses.items()}[str(reply.status)]
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if schema:
            jsonschema.validate(reply.json, schema, format_checker=jsonschema.FormatChecker())
    assert [reply.status for _, _, reply in asked] == [404, 200, 202, 400, 400, 404, 201, 404, 404, 409, 409]


@pytest.mark.real
def test_with_debians_libraries(tmp_path: Path) -> None:
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


# --- The relay ---------------------------------------------------------------------------------------------

WIDTHS = {
    "fix": b"\x05",
    "u8": b"\xcc\x05",
    "u16": b"\xcd\x00\x05",
    "u32": b"\xce\x00\x00\x00\x05",
    "u64": b"\xcf" + bytes(7) + b"\x05",
    "i8": b"\xd0\x05",
    "i64": b"\xd3" + bytes(7) + b"\x05",
    "text": b"\xa1x",
    "list": b"\x92\x01\xcd\x00\x01",
    "nil": b"\xc0",
}


def test_both_ways_every_width_is_kept(world: Model, device: RawSocket, user: RawSocket) -> None:
    user.say(Message(SHELL, "new", "made up", {**WIDTHS, "user_id": b"\xa5wrong"}))
    heard = device.hear()
    assert heard.raw == {**WIDTHS, "user_id": b"\xb3someone@example.com"}
    assert heard.sid not in ("", "made up")
    device.reply(heard, "new", b"Shell started", **WIDTHS)
    back = user.hear()
    assert (back.raw, back.sid, back.body) == (WIDTHS, heard.sid, b"Shell started")


def test_the_form_of_what_is_relayed(device: RawSocket, user: RawSocket) -> None:
    # Any code for the protocol, a text for the body, members nobody knows: what the web page sends.
    odd = (
        b"\x83\xa3hdr\x83\xa5proto\xd3"
        + bytes(7)
        + b"\x01\xa3typ\xa5shell\xa5props\x80\xa4body\xa2ls\xa1x\xc0"
    )
    user.raw(odd)
    event = device.event()
    assert isinstance(event, BytesMessage)
    sent = bytes(event.data)
    assert b"\xa5proto\xcd\x00\x01" in sent
    assert b"\xa4body\xc4\x02ls" in sent
    sid = messages.decode(sent).sid
    device.raw(
        b"\x82\xa3hdr\x83\xa5proto\x01\xa3typ\xa5shell\xa3sid" + messages.pack(sid) + b"\xa4body\xa2ok"
    )
    event = user.event()
    assert isinstance(event, BytesMessage)
    assert bytes(event.data) == Message(SHELL, "shell", sid, {}, b"ok").encode()


def test_a_message_may_come_as_text_or_in_fragments(device: RawSocket, user: RawSocket) -> None:
    data = message(SHELL, "new").encode()
    user.put(BytesMessage(data=data[:7], message_finished=False))
    user.put(BytesMessage(data=data[7:], message_finished=True))
    assert device.hear().typ == "new"
    ascii_only = b"\x81\xa3hdr\x82\xa5proto\x01\xa3typ\xa6resize".replace(b"\x81\xa3", b"\x81\xa3")
    assert messages.decode(ascii_only).typ == "resize"
    user.put(TextMessage(data=json.dumps({"hdr": 1})))
    assert user.end().code == 1011


def test_what_belongs_to_no_session_is_dropped(world: Model, device: RawSocket, user: RawSocket) -> None:
    device.say(Message(SHELL, "shell", "", {}, b"no sid"))
    device.say(Message(SHELL, "shell", NOBODY, {}, b"unknown sid"))
    user.say(message(SHELL, "new"))
    device.reply(device.hear(), "new", b"known")
    assert user.hear().body == b"known"
    assert world.server.wait_for_dropped(lambda m: m.sid == NOBODY).body == b"unknown sid"


def test_sessions_are_kept_apart_and_in_order(world: Model, device: RawSocket) -> None:
    with world.on_user() as one, world.on_user() as two:
        for user in (one, two):
            user.say(message(SHELL, "new"))
        first, second = device.hear(), device.hear()
        assert first.sid != second.sid
        for number in range(500):
            for asked in (first, second):
                device.reply(asked, "shell", b"%d" % number)
        # A user who does not read holds up the others: so both read.
        seen: dict[RawSocket, list[bytes]] = {one: [], two: []}
        threads = [
            threading.Thread(target=lambda u=user: seen[u].extend(u.hear().body for _ in range(500)))
            for user in seen
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = sorted([b"%d" % number for number in range(500)], key=int)
        assert sorted(seen.values()) == [expected, expected]


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"\x80", b"\x81\xa3hdr\x01", b"\x81\xa3hdr\x81\xa5proto\xa1x"]
)
def test_a_device_that_talks_nonsense_is_cut_off(world: Model, device: RawSocket, garbage: bytes) -> None:
    device.raw(garbage)
    if garbage == b"\x80":  # an empty header, as Go reads it: of no session
        device.put(CloseConnection(code=1000))
        assert device.end().code == 1000
    else:
        assert device.end().code == 1011
    assert world.server.wait_disconnected() in (1000, 1011)


def test_sizes(world: Model, device: RawSocket, user: RawSocket) -> None:
    user.say(message(SHELL, "new"))
    asked = device.hear()
    large = bytes(8 * 1024 * 1024 - 200)
    device.reply(asked, "shell", large)
    assert user.hear().body == large
    with contextlib.suppress(ConnectionError):
        device.reply(asked, "shell", large + bytes(400))
    assert device.end().code == 1009
    assert world.server.wait_disconnected() == 1009


@pytest.mark.parametrize("talked", [True, False])
def test_a_user_who_goes_stops_the_shell(world: Model, device: RawSocket, talked: bool) -> None:
    with world.on_user() as user:
        user.say(message(SHELL, "new"))
        sid = device.hear().sid
        if talked:
            user.say(message(SHELL, "stop"))
            assert device.hear().typ == "stop"
            user.put(CloseConnection(code=1000))
            assert user.end().code == 1000
    if talked:
        assert world.ask("POST", "/check-update").status == 202
        assert device.hear().proto == CLIENT
    else:
        heard = device.hear()
        assert (heard.proto, heard.typ, heard.sid, heard.body) == (SHELL, "stop", sid, b"user disconnected")
        assert heard.raw == {"status": b"\x02", "user_id": b"\xb3someone@example.com"}


def test_a_device_that_goes_is_noticed_at_the_next_key(world: Model) -> None:
    with world.on_device() as device:
        world.server.wait_connected()
        with world.on_user() as user:
            user.say(message(SHELL, "new"))
            device.hear()
            device.put(CloseConnection(code=1000))
            world.server.wait_disconnected()
            user.put(Ping(payload=b"still there"))
            assert isinstance(user.event(), Pong)
            user.say(message(SHELL, "shell", b"x"))
            assert user.end().code == 1006


def test_a_newer_connection_cuts_the_older(world: Model) -> None:
    with world.on_device() as older:
        world.server.wait_connected()
        with world.on_device() as newer:
            assert older.end().code == 1006
            world.server.wait_connected(times=2)
            assert world.status == "connected"
            assert world.ask("POST", "/check-update").status == 202
            assert newer.hear().typ == "check-update"
    world.server.wait_disconnected(times=2)
    assert (world.server.connection_count(), world.server.close_codes()) == (2, [1006, 1006])


COMMANDS = ("check-update", "send-inventory")


def typed(word: str) -> Callable[[Message], bool]:
    """A message of this type."""
    return lambda heard: heard.typ == word


def test_commands_have_no_session(world: Model, device: RawSocket) -> None:
    for word in COMMANDS:
        reply = world.ask("POST", f"/{word}")
        assert (reply.status, reply.json) == (202, None)
        heard = device.hear()
        assert heard == Message(CLIENT, word, "", {"user_id": b"\xb3someone@example.com"})
        device.reply(heard, word, b"exit status 1", status=2)
    assert [world.server.wait_for_dropped(typed(word)).props for word in COMMANDS] == [{"status": 2}] * 2


def test_pings(make: Make) -> None:
    world = make(ping_seconds=0.5)
    with world.on_device() as device:
        world.server.wait_connected()
        device.put(Ping(payload=b"hello"))
        pong = device.event()
        assert isinstance(pong, Pong)
        assert bytes(pong.payload) == b"hello"
        # Pings nobody answers: the server gives up.
        ended = device.end()
        assert (ended.code, set(device.pings)) == (1011, {b"1"})
    assert world.server.wait_disconnected() == 1011


def test_the_server_stops_with_everybody_connected(make: Make) -> None:
    world = make()
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(world.on_device())
        world.server.wait_connected()
        user = stack.enter_context(world.on_user())
        user.say(message(SHELL, "new"))
        device.hear()
        world.server.stop()
        assert (device.end().code, user.end().code) == (1006, 1006)


# --- Nobody's memory grows ---------------------------------------------------------------------------------


def test_a_user_who_does_not_read_holds_up_the_device(make: Make) -> None:
    world = make(session_bytes=None)
    with world.on_device() as device:
        world.server.wait_connected()
        with world.on_user() as user:
            user.say(message(SHELL, "new"))
            asked = device.hear()
            device.stream.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 200_000_000:
                    device.reply(asked, "shell", bytes(60_000))
                    sent += 60_000
            assert sent < 50_000_000
            # The message that was cut off apart, all of it arrives once the user reads.
            assert sum(len(user.hear().body) for _ in range(sent // 60_000)) == sent
        assert world.status == "connected"


def test_the_output_that_is_recorded_is_limited(make: Make) -> None:
    world = make(session_bytes=10_000)
    with world.on_device() as device:
        world.server.wait_connected()
        with world.on_user() as user:
            user.say(message(SHELL, "new"))
            asked = device.hear()
            device.reply(asked, "new", bytes(10_000))
            for _ in range(3):
                device.reply(asked, "shell", bytes(5_000))
            bodies = [user.hear().body for _ in range(3)]
            assert [len(body) for body in bodies] == [10_000, 5_000, 5_000]
            assert user.end().code == 1008
        stop = device.hear()
        assert (stop.typ, stop.raw["status"], stop.body) == ("stop", b"\x02", b"session byte limit exceeded")
        assert (device.hear().body, world.status) == (b"user disconnected", "connected")


# --- Files -------------------------------------------------------------------------------------------------


class Script:
    """A device that answers the requests of one transfer as it is told to, in a thread of its own."""

    def __init__(self, device: RawSocket, *answers: Callable[[Message], None]) -> None:
        self.heard: list[Message] = []
        self._device = device
        self._answers = answers
        self._thread = threading.Thread(target=self._play)

    def __enter__(self) -> "Script":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _play(self) -> None:
        for answer in self._answers:
            self.heard.append(self._device.hear())
            answer(self.heard[-1])


def accepting(device: RawSocket, *protocols: int) -> Callable[[Message], None]:
    """Accept a handshake for some protocols."""
    body = messages.pack({"version": 1, "protocols": list(protocols)})
    return lambda asked: device.reply(asked, "accept", body)


def error(device: RawSocket, **said: Any) -> Callable[[Message], None]:
    """Answer with an error."""
    return lambda asked: device.reply(asked, "error", messages.pack(said))


def info(device: RawSocket, **more: Any) -> Callable[[Message], None]:
    """Answer `stat` for a regular file."""
    said = {"path": "/a/b c", "size": 6, "uid": 3, "gid": 4, "mode": 0o640} | more
    return lambda asked: device.reply(asked, "file_info", messages.pack(said))


def nothing(asked: Message) -> None:
    """Say nothing."""


def test_download(world: Model, device: RawSocket) -> None:
    def chunks(asked: Message) -> None:
        for offset in range(0, 24, 2):
            device.reply(asked, "file_chunk", b"%02d" % (offset // 2), offset=offset)
        device.reply(asked, "file_chunk", offset=24)

    steps = [accepting(device, 1, 2), info(device), chunks, nothing, nothing, nothing]
    with Script(device, *steps) as script:
        reply = world.ask("GET", "/download?path=%2Fa%2Fb+c")
    assert (reply.status, reply.body) == (200, b"000102030405060708091011")
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert [reply.headers[f"X-MEN-File-{n}"] for n in ("Path", "UID", "GID", "Mode", "Size")] == [
        "/a/b c",
        "3",
        "4",
        "640",
        "6",
    ]
    opened, stat, get, first, last, close = script.heard
    assert (opened.proto, opened.typ, opened.raw) == (CONTROL, "open", {})
    assert messages.unpack_map(opened.body) == {"versions": [1]}
    assert (stat.proto, stat.typ, messages.unpack_map(stat.body)) == (FILES, "stat", {"path": "/a/b c"})
    assert (get.typ, get.props) == ("get_file", {"user_id": "someone@example.com"})
    # After every ten chunks, and at the end; nine bytes wide.
    assert [(ack.typ, ack.raw["offset"]) for ack in (first, last)] == [
        ("ack", b"\xd3" + (20).to_bytes(8)),
        ("ack", b"\xd3" + (24).to_bytes(8)),
    ]
    assert (close.proto, close.typ) == (CONTROL, "close")
    assert len({heard.sid for heard in script.heard}) == 1


def test_head_asks_only_what_it_is(world: Model, device: RawSocket) -> None:
    with Script(device, accepting(device, 2), info(device), nothing) as script:
        reply = world.ask("HEAD", "/download?path=/a")
    assert (reply.status, reply.headers["X-MEN-File-Size"], reply.body) == (200, "6", b"")
    assert [heard.typ for heard in script.heard] == ["open", "stat", "close"]


DIRECTORY = 0o755 | 1 << 31
REFUSALS: dict[str, tuple[Callable[[RawSocket], list[Callable[[Message], None]]], int, str]] = {
    "not enabled": (lambda d: [accepting(d, 1, 3), nothing], 502, "file transfer disabled on device"),
    "not known": (
        lambda d: [lambda asked: d.reply(asked, "open", asked.body)],
        502,
        "file transfer not implemented on device",
    ),
    "no handshake": (
        lambda d: [error(d, err="no", close=True)],
        500,
        "handshake error from client: handshake error from client: ",
    ),
    "an error": (
        lambda d: [accepting(d, 2), error(d, err="no such file", msgtype="stat"), nothing],
        400,
        "failed to retrieve file info: error received from device: no such file",
    ),
    "a code": (
        lambda d: [accepting(d, 2), error(d, err="not yours", code=403), nothing],
        403,
        "failed to retrieve file info: error received from device: not yours",
    ),
    "a directory": (
        lambda d: [accepting(d, 2), info(d, mode=DIRECTORY), nothing],
        400,
        "path is not a regular file",
    ),
    "no answer": (lambda d: [nothing], 408, "file transfer timed out"),
    "no stat": (lambda d: [accepting(d, 2), nothing, nothing], 408, "file transfer timed out"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_downloads_refused(make: Make, name: str) -> None:
    steps, status, text = REFUSALS[name]
    world = make(transfer_seconds=0.3)
    with world.on_device() as device:
        world.server.wait_connected()
        with Script(device, *steps(device)):
            reply = world.ask("GET", "/download?path=/a")
    assert (reply.status, reply.json["error"]) == (status, text)


@pytest.mark.parametrize("query", ["", "?path=", "?path=relative"])
def test_paths_are_absolute(world: Model, device: RawSocket, query: str) -> None:
    assert world.ask("GET", f"/download{query}").status == 400


@pytest.mark.parametrize("offset", [b"\x02", b"\xd3" + bytes(8)])
def test_an_offset_that_is_no_int64_or_wrong_cuts_the_download_short(
    world: Model, device: RawSocket, offset: bytes
) -> None:
    def chunks(asked: Message) -> None:
        device.reply(asked, "file_chunk", b"ab", offset=0)
        device.reply(asked, "file_chunk", b"cd", offset=offset)

    with Script(device, accepting(device, 2), info(device), chunks, nothing) as script:
        reply = world.ask("GET", "/download?path=/a")
    assert (reply.status, reply.body) == (200, b"ab")
    assert script.heard[-1].typ == "close"


class Upload:
    """A device that takes one file in."""

    def __init__(self, device: RawSocket) -> None:
        self.content = b""
        self.request: dict[str, Any] = {}
        self.ahead = 0
        self._device = device

    def __call__(self, asked: Message) -> None:
        self.request = messages.unpack_map(asked.body)
        self._device.reply(asked, "ack", offset=0)
        acked = 0
        while chunk := self._device.hear():
            assert (chunk.typ, chunk.props["offset"]) == ("file_chunk", len(self.content))
            if not chunk.body:
                break
            self.content += chunk.body
            self.ahead = max(self.ahead, len(self.content) - acked)
            if len(self.content) - acked > 20 * 4096:
                acked = len(self.content)
                self._device.reply(asked, "ack", offset=acked)
        self._device.reply(asked, "ack", offset=len(self.content))


def form(*fields: tuple[str, bytes], name: bytes = b"some name", content: bytes = b"x") -> bytes:
    """A form as mender-cli writes it: the mode comes last, where nobody looks."""
    head = b"--B\r\nContent-Disposition: form-data; name="
    parts = [head + b'"%b"\r\n\r\n%b\r\n' % (key.encode(), value) for key, value in fields]
    file = head + b'"file"; filename="%b"\r\nContent-Type: x/y\r\n\r\n%b\r\n' % (name, content)
    return b"".join([*parts, file, head + b'"mode"\r\n\r\n777\r\n--B--\r\n'])


FORM = {"Content-Type": "multipart/form-data; boundary=B"}


def test_upload(world: Model, device: RawSocket) -> None:
    content = bytes(range(256)) * 2000
    upload = Upload(device)
    body = form(
        ("path", "/tmp/grün ".encode() + b"\xff"),
        ("uid", b"7"),
        ("mode", b"640"),
        name=b'dir/odd \\"\xc3\xbc',
        content=content,
    )
    with Script(device, accepting(device, 2), upload, nothing) as script:
        reply = world.ask("PUT", "/upload", body, **FORM)
    assert (reply.status, upload.content == content) == (201, True)
    path = "/tmp/grün " + b"\xff".decode("utf-8", "surrogateescape")
    assert upload.request == {"src_path": 'odd "ü', "path": path, "uid": 7, "mode": 0o640}
    # One chunk more than the window, as on the real server.
    assert upload.ahead == 21 * 4096
    assert [heard.typ for heard in script.heard] == ["open", "put_file", "close"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(("path", b"relative")), 400),
        (form(), 400),
        (form(("path", b"/x"), ("uid", b"me")), 400),
        (b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\n/x\r\n--B--\r\n', 400),
        (b"--B", 400),
    ],
)
def test_forms_refused(world: Model, device: RawSocket, body: bytes, status: int) -> None:
    assert world.ask("PUT", "/upload", body, **FORM).status == status


def test_uploads_refused(make: Make) -> None:
    world = make(transfer_seconds=0.3)
    with world.on_device() as device:
        world.server.wait_connected()
        body = form(("path", b"/x"))

        def late(asked: Message) -> None:
            device.reply(asked, "ack", offset=0)
            device.reply(device.hear(), "error", messages.pack({"err": "disk full", "code": 507}))

        for answers, status, text in (
            ([error(device, err="no room")], 400, "no room"),
            ([late, nothing], 507, "disk full"),
            ([nothing], 408, "file transfer timed out"),
        ):
            with Script(device, accepting(device, 2), *answers, nothing):
                reply = world.ask("PUT", "/upload", body, **FORM)
            assert (reply.status, reply.json["error"]) == (status, text)


def test_a_device_that_goes_in_the_middle_of_a_transfer(world: Model) -> None:
    with world.on_device() as device:
        world.server.wait_connected()
        with Script(device, accepting(device, 2), lambda asked: device.close()):
            assert world.ask("PUT", "/upload", form(("path", b"/x")), **FORM).status == 408


# --- Faults ------------------------------------------------------------------------------------------------


def test_faults_of_the_handshake(world: Model) -> None:
    world.server.faults.add(f"GET {DEVICE}", status=503)
    world.server.faults.add(f"GET {DEVICE}", retry_after=7)
    world.server.faults.add(f"GET {DEVICE}", drop_after=True)
    statuses: list[int] = []
    for _ in range(2):
        with pytest.raises(HandshakeRejected) as refused, world.on_device():
            pass
        statuses.append(refused.value.status)
    assert statuses == [503, 429]
    with pytest.raises(ConnectionClosed), world.on_device():
        pass
    with world.on_device():
        world.server.wait_connected()
    assert [seen.status for seen in world.server.requests if seen.path == DEVICE] == [503, 429, 0, 101]


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("after", [0, 1, 200])
@pytest.mark.parametrize("what", [{}, {"reset": True}, {"close_code": 1012}])
def test_faults_of_the_connection(make: Make, tls: bool, after: int, what: dict[str, Any]) -> None:
    world = make(tls=tls)
    world.server.faults.add(f"GET {DEVICE}", cut_after=after, **what)
    with world.on_device() as device:
        with contextlib.suppress(OSError):
            for _ in range(10):
                device.say(Message(SHELL, "shell", NOBODY, {}, b"x"))
        assert device.end().code == what.get("close_code", 1006)
    assert world.server.wait_disconnected() == what.get("close_code", 1006)
    with world.on_device():
        world.server.wait_connected(times=2)


def test_a_stall_is_deaf_and_dumb_until_released(world: Model) -> None:
    world.server.faults.add(f"GET {DEVICE}", stall_after=10)
    with world.on_device() as device:
        device.put(Ping(payload=b"1234567890"))
        world.server.faults.wait_for_stall()
        device.put(Ping(payload=b"more"))
        device.stream.settimeout(0.3)
        with pytest.raises(TimeoutError):
            device.event()
        device.stream.settimeout(20)
        world.server.faults.release()
        pongs = [device.event(), device.event()]
        assert [bytes(pong.payload) for pong in pongs if isinstance(pong, Pong)][-1] == b"more"


def test_a_stalled_client_may_go(world: Model) -> None:
    world.server.faults.add(f"GET {DEVICE}", stall_after=0)
    with world.on_device():
        world.server.faults.wait_for_stall()
    assert world.server.wait_disconnected() == 1006


def test_a_slow_connection_loses_nothing(world: Model) -> None:
    world.server.faults.add(f"GET {DEVICE}", slow=200_000)
    with world.on_device() as device:
        world.server.wait_connected()
        with world.on_user() as user:
            user.say(message(SHELL, "new"))
            asked = device.hear()
            for number in range(20):
                device.reply(asked, "shell", b"%d" % number * 500)
            assert [user.hear().body for _ in range(20)] == [b"%d" % number * 500 for number in range(20)]


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(("how", "code"), [({"code": 1001}, 1001), ({}, 1006), ({"reset": True}, 1006)])
def test_the_server_ends_a_connection(make: Make, tls: bool, how: dict[str, Any], code: int) -> None:
    world = make(tls=tls)
    with world.on_device() as device:
        world.server.wait_connected()
        world.server.disconnect(**how)
        ended = device.end()
        assert (ended.code, world.server.wait_disconnected()) == (code, code)
        if not tls:
            assert (ended.reason == "reset") == ("reset" in how)
    with pytest.raises(LookupError):
        world.server.disconnect()


# --- Messages ----------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@given(
    st.integers(0, 0xFFFF), TEXTS, TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4), st.binary(max_size=100)
)
def test_what_is_encoded_comes_back(
    proto: int, typ: str, sid: str, props: dict[str, Any], body: bytes
) -> None:
    made = Message(proto, typ, sid, {name: messages.pack(value) for name, value in props.items()}, body)
    back = messages.decode(made.encode())
    assert back == made
    assert back.props == props


@given(st.binary(max_size=200))
def test_nonsense_is_garbled_or_a_message(data: bytes) -> None:
    with contextlib.suppress(messages.DecodeError):
        assert isinstance(messages.decode(data), Message)


@given(st.data())
def test_a_damaged_message_is_garbled_or_a_message(data: st.DataObject) -> None:
    whole = bytearray(message(SHELL, "new", b"body", terminal_width=80, user_id="x").encode())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(messages.DecodeError):
        again = messages.decode(bytes(whole))
        assert messages.decode(again.encode()) == again


# --- The programs of the field -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevServer, Cli, str]]:
    """Debian's mender-connect, connected over TLS, and Debian's mender-cli, logged in."""
    place = tmp_path_factory.mktemp("field")
    with DevServer(place / "server") as server:
        token = RawDevice(server).accepted().token
        with mender_connect(place / "device", server, token):
            yield server, Cli(place / "home", server), server.device().id


Field = tuple[DevServer, Cli, str]
real = pytest.mark.real


@real
def test_mender_cli_has_a_shell_of_mender_connect(field: Field) -> None:
    _, cli, device = field
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
def test_mender_cli_copies_files_to_and_from_mender_connect(field: Field, tmp_path: Path, size: int) -> None:
    _, cli, device = field
    content = bytes(range(251)) * (size // 251) + bytes(size % 251)
    ours, there, back = tmp_path / "ours é \"'", tmp_path / "there é \"'", tmp_path / "back"
    ours.write_bytes(content)
    if size:
        cli.cp(str(ours), f"{device}:{there}")
        # It acknowledges what it has not put in its place yet.
        until(there.exists, "the file is there")
        assert there.read_bytes() == content
    else:
        # Nothing of it has to be acknowledged, so the server closes early, and mender-connect loses it then.
        there.touch()
    cli.cp(f"{device}:{there}", str(back))
    assert back.read_bytes() == content


@real
def test_mender_cli_is_told_what_mender_connect_refuses(field: Field, tmp_path: Path) -> None:
    _, cli, device = field
    done = cli.run("cp", f"{device}:{tmp_path}/missing", str(tmp_path / "x"))
    assert (done.returncode, "no such file or directory" in done.stderr) == (1, True)
    (tmp_path / "x").write_bytes(b"x")
    done = cli.run("cp", str(tmp_path / "x"), f"{device}:{tmp_path}/no/such/place")
    assert (done.returncode, "no such file or directory" in done.stderr) == (1, True)


@real
def test_mender_cli_forwards_ports_through_mender_connect(field: Field) -> None:
    _, cli, device = field
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
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(20)
                asking.sendto(b"question", ("127.0.0.1", udp))
                question, sender = datagrams.recvfrom(100)
                datagrams.sendto(question + b" answer", sender)
                assert asking.recv(100) == b"question answer"


@real
def test_mender_connect_is_asked_to_check_for_updates(field: Field) -> None:
    server, _, device = field
    basic = {"Authorization": "Basic " + base64.b64encode(b"a@example.com:b").decode()}
    token = fetch(
        server, "POST", f"{server.url}/api/management/v1/useradm/auth/login", None, basic
    ).body.decode()
    url = f"{server.url}{ROUTE.format(device)}/check-update"
    assert fetch(server, "POST", url, None, {"Authorization": f"Bearer {token}"}).status == 202
    # No daemon is there that could be told.
    said = server.wait_for_dropped(lambda m: m.proto == CLIENT)
    assert (said.typ, said.props["status"]) == ("check-update", 2)
