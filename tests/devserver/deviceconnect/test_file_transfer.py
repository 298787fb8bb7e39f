"""The development server transfers files from and to devices like the real one (remote-terminal.md 4)."""

from collections.abc import Callable

import jsonschema
import pytest
from helpers import openapi
from helpers.raw_device import Reply
from helpers.raw_socket import RawSocket
from helpers.relay_setup import NO_SUCH_ID, ROUTE, RelaySetup
from helpers.scripted_device import FORM, ScriptedDevice, Upload, accepting, error, form, ignore, info
from wsproto.events import CloseConnection

from mender_oneshot.devserver import messages
from mender_oneshot.devserver.messages import CONTROL, FILES, Message

MakeRelay = Callable[..., RelaySetup]


def test_a_download_acknowledges_every_ten_chunks_and_shows_the_attributes(
    relay: RelaySetup, device: RawSocket
) -> None:
    def chunks(message: Message) -> None:
        for offset in range(0, 24, 2):
            device.reply(message, "file_chunk", b"%02d" % (offset // 2), offset=offset)
        device.reply(message, "file_chunk", offset=24)

    steps = [accepting(device, 1, 2), info(device), chunks, ignore, ignore, ignore]
    with ScriptedDevice(device, *steps) as script:
        reply = relay.request("GET", "/download?path=%2Fa%2Fb+c")
    assert (reply.status, reply.body) == (200, b"000102030405060708091011")
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert [reply.headers[f"X-MEN-File-{n}"] for n in ("Path", "UID", "GID", "Mode", "Size")] == [
        "/a/b c",
        "3",
        "4",
        "640",
        "6",
    ]
    opened, stat, get, first, last, close = script.received
    assert (opened.proto, opened.typ, opened.raw) == (CONTROL, "open", {})
    assert messages.unpack_map(opened.body) == {"versions": [1]}
    assert (stat.proto, stat.typ, messages.unpack_map(stat.body)) == (FILES, "stat", {"path": "/a/b c"})
    assert (get.typ, get.props) == ("get_file", {"user_id": "someone@example.com"})
    # Every ten chunks and at the end; encoded in nine bytes.
    assert [(ack.typ, ack.raw["offset"]) for ack in (first, last)] == [
        ("ack", b"\xd3" + (20).to_bytes(8)),
        ("ack", b"\xd3" + (24).to_bytes(8)),
    ]
    assert (close.proto, close.typ) == (CONTROL, "close")
    assert len({received.sid for received in script.received}) == 1


def test_head_requests_only_the_attributes(relay: RelaySetup, device: RawSocket) -> None:
    with ScriptedDevice(device, accepting(device, 2), info(device), ignore) as script:
        reply = relay.request("HEAD", "/download?path=/a")
    assert (reply.status, reply.headers["X-MEN-File-Size"], reply.body) == (200, "6", b"")
    assert [received.typ for received in script.received] == ["open", "stat", "close"]


DIRECTORY = 0o755 | 1 << 31
REJECTIONS: dict[str, tuple[Callable[[RawSocket], list[Callable[[Message], None]]], int, str]] = {
    "not enabled": (lambda d: [accepting(d, 1, 3), ignore], 502, "file transfer disabled on device"),
    "not known": (
        lambda d: [lambda message: d.reply(message, "open", message.body)],
        502,
        "file transfer not implemented on device",
    ),
    "no handshake": (
        lambda d: [error(d, err="no", close=True)],
        500,
        "handshake error from client: handshake error from client: ",
    ),
    "an error": (
        lambda d: [accepting(d, 2), error(d, err="no such file", msgtype="stat"), ignore],
        400,
        "failed to retrieve file info: error received from device: no such file",
    ),
    "a code": (
        lambda d: [accepting(d, 2), error(d, err="not yours", code=403), ignore],
        403,
        "failed to retrieve file info: error received from device: not yours",
    ),
    "a directory": (
        lambda d: [accepting(d, 2), info(d, mode=DIRECTORY), ignore],
        400,
        "path is not a regular file",
    ),
    "no answer": (lambda d: [ignore], 408, "file transfer timed out"),
    "no stat": (lambda d: [accepting(d, 2), ignore, ignore], 408, "file transfer timed out"),
}


@pytest.mark.parametrize("name", REJECTIONS)
def test_a_failed_download_is_answered_like_by_the_real_server(make_relay: MakeRelay, name: str) -> None:
    steps, status, text = REJECTIONS[name]
    relay = make_relay(transfer_seconds=0.3)
    with relay.device_end() as device:
        relay.server.wait_connected()
        with ScriptedDevice(device, *steps(device)):
            reply = relay.request("GET", "/download?path=/a")
    assert (reply.status, reply.json["error"]) == (status, text)


@pytest.mark.parametrize("query", ["", "?path=", "?path=relative"])
def test_a_path_that_is_not_absolute_is_rejected(relay: RelaySetup, device: RawSocket, query: str) -> None:
    assert relay.request("GET", f"/download{query}").status == 400


@pytest.mark.parametrize("offset", [b"\x02", b"\xd3" + bytes(8)])
def test_an_offset_that_is_wrong_or_no_int64_truncates_the_download(
    relay: RelaySetup, device: RawSocket, offset: bytes
) -> None:
    def chunks(message: Message) -> None:
        device.reply(message, "file_chunk", b"ab", offset=0)
        device.reply(message, "file_chunk", b"cd", offset=offset)

    with ScriptedDevice(device, accepting(device, 2), info(device), chunks, ignore) as script:
        reply = relay.request("GET", "/download?path=/a")
    assert (reply.status, reply.body) == (200, b"ab")
    assert script.received[-1].typ == "close"


def test_an_upload_sends_the_attributes_and_waits_for_acknowledgements(
    relay: RelaySetup, device: RawSocket
) -> None:
    content = bytes(range(256)) * 2000
    upload = Upload(device)
    body = form(
        ("path", "/tmp/grün ".encode() + b"\xff"),
        ("uid", b"7"),
        ("mode", b"640"),
        name=b'dir/odd \\"\xc3\xbc',
        content=content,
    )
    with ScriptedDevice(device, accepting(device, 2), upload, ignore) as script:
        reply = relay.request("PUT", "/upload", body, **FORM)
    assert (reply.status, upload.content == content) == (201, True)
    path = "/tmp/grün " + b"\xff".decode("utf-8", "surrogateescape")
    assert upload.attributes == {"src_path": 'odd "ü', "path": path, "uid": 7, "mode": 0o640}
    # One chunk more than the window, as on the real server.
    assert upload.ahead == 21 * 4096
    assert [received.typ for received in script.received] == ["open", "put_file", "close"]


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
def test_an_invalid_form_is_rejected(relay: RelaySetup, device: RawSocket, body: bytes, status: int) -> None:
    assert relay.request("PUT", "/upload", body, **FORM).status == status


def test_a_failed_upload_is_answered_with_the_devices_error(make_relay: MakeRelay) -> None:
    relay = make_relay(transfer_seconds=0.3)
    with relay.device_end() as device:
        relay.server.wait_connected()
        body = form(("path", b"/x"))

        def late(message: Message) -> None:
            device.reply(message, "ack", offset=0)
            device.reply(device.hear(), "error", messages.pack({"err": "disk full", "code": 507}))

        for steps, status, text in (
            ([error(device, err="no room")], 400, "no room"),
            ([late, ignore], 507, "disk full"),
            ([ignore], 408, "file transfer timed out"),
        ):
            with ScriptedDevice(device, accepting(device, 2), *steps, ignore):
                reply = relay.request("PUT", "/upload", body, **FORM)
            assert (reply.status, reply.json["error"]) == (status, text)


def test_a_device_that_disconnects_during_an_upload_is_answered_with_408(relay: RelaySetup) -> None:
    with relay.device_end() as device:
        relay.server.wait_connected()
        with ScriptedDevice(device, accepting(device, 2), lambda message: device.close()):
            assert relay.request("PUT", "/upload", form(("path", b"/x")), **FORM).status == 408


def test_the_responses_are_as_described_by_openapi(relay: RelaySetup) -> None:
    paths = openapi.load("deviceconnect/management_v1.yaml")["paths"]
    exchanges: list[tuple[str, str, Reply]] = []

    def send(method: str, more: str = "", query: str = "", body: bytes | None = None, **headers: str) -> None:
        exchanges.append((method, more, relay.request(method, more + query, body, **headers)))

    device_id = relay.id
    relay.id = NO_SUCH_ID
    send("GET")
    relay.id = device_id
    with relay.device_end() as device:
        relay.server.wait_connected()
        send("GET")
        send("POST", "/check-update")
        device.hear()
        send("GET", "/connect")
        send("GET", "/download", "?path=relative")
        with ScriptedDevice(device, accepting(device, 2), error(device, err="no", code=404), ignore):
            send("GET", "/download", "?path=/a")
        with ScriptedDevice(device, accepting(device, 2), Upload(device), ignore):
            send("PUT", "/upload", "", form(("path", b"/x")), **FORM)
        device.put(CloseConnection(code=1000))
        relay.server.wait_disconnected()
    for method, more in (("POST", "/send-inventory"), ("GET", "/connect")):
        send(method, more)
    send("GET", "/download", "?path=/a")
    send("PUT", "/upload", "", form(("path", b"/x")), **FORM)
    for method, more, reply in exchanges:
        responses = paths[f"{ROUTE.format('{id}')}{more}"][method.lower()]["responses"]
        described = {str(status): found for status, found in responses.items()}[str(reply.status)]
        schema = described.get("content", {}).get("application/json", {}).get("schema")
        if schema:
            jsonschema.validate(reply.json, schema, format_checker=jsonschema.FormatChecker())
    assert [reply.status for _, _, reply in exchanges] == [
        404,
        200,
        202,
        400,
        400,
        404,
        201,
        404,
        404,
        409,
        409,
    ]
