"""The development server relays messages between devices and users like the real one."""

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers.raw_socket import RawSocket
from helpers.relay_setup import NO_SUCH_ID, RelaySetup
from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from mender_oneshot.devserver import messages
from mender_oneshot.devserver.messages import CLIENT, SHELL, Message, message

MakeRelay = Callable[..., RelaySetup]


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


def test_the_encoding_of_properties_is_kept_in_both_directions(
    relay: RelaySetup, device: RawSocket, user: RawSocket
) -> None:
    user.say(Message(SHELL, "new", "made up", {**WIDTHS, "user_id": b"\xa5wrong"}))
    received = device.hear()
    assert received.raw == {**WIDTHS, "user_id": b"\xb3someone@example.com"}
    assert received.sid not in ("", "made up")
    device.reply(received, "new", b"Shell started", **WIDTHS)
    back = user.hear()
    assert (back.raw, back.sid, back.body) == (WIDTHS, received.sid, b"Shell started")


def test_messages_are_relayed_in_the_servers_own_encoding(device: RawSocket, user: RawSocket) -> None:
    # As the web UI sends it: another encoding of the protocol, a text as the body, unknown members.
    unusual = (
        b"\x83\xa3hdr\x83\xa5proto\xd3"
        + bytes(7)
        + b"\x01\xa3typ\xa5shell\xa5props\x80\xa4body\xa2ls\xa1x\xc0"
    )
    user.raw(unusual)
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


def test_a_message_may_arrive_as_text_or_in_fragments(device: RawSocket, user: RawSocket) -> None:
    data = message(SHELL, "new").encode()
    user.put(BytesMessage(data=data[:7], message_finished=False))
    user.put(BytesMessage(data=data[7:], message_finished=True))
    assert device.hear().typ == "new"
    ascii_only = b"\x81\xa3hdr\x82\xa5proto\x01\xa3typ\xa6resize".replace(b"\x81\xa3", b"\x81\xa3")
    assert messages.decode(ascii_only).typ == "resize"
    user.put(TextMessage(data=json.dumps({"hdr": 1})))
    assert user.end().code == 1011


def test_a_message_of_no_session_is_dropped(relay: RelaySetup, device: RawSocket, user: RawSocket) -> None:
    device.say(Message(SHELL, "shell", "", {}, b"no sid"))
    device.say(Message(SHELL, "shell", NO_SUCH_ID, {}, b"unknown sid"))
    user.say(message(SHELL, "new"))
    device.reply(device.hear(), "new", b"known")
    assert user.hear().body == b"known"
    assert relay.server.wait_for_dropped(lambda m: m.sid == NO_SUCH_ID).body == b"unknown sid"


def test_messages_of_two_sessions_arrive_in_order_and_unmixed(relay: RelaySetup, device: RawSocket) -> None:
    with relay.user_end() as one, relay.user_end() as two:
        for user in (one, two):
            user.say(message(SHELL, "new"))
        first, second = device.hear(), device.hear()
        assert first.sid != second.sid
        for number in range(500):
            for opened in (first, second):
                device.reply(opened, "shell", b"%d" % number)
        # A user who does not read blocks the others, so both have to read.
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
def test_a_device_that_sends_no_valid_message_is_closed_with_1011(
    relay: RelaySetup, device: RawSocket, garbage: bytes
) -> None:
    device.raw(garbage)
    if garbage == b"\x80":  # an empty header, as Go reads it: of no session
        device.put(CloseConnection(code=1000))
        assert device.end().code == 1000
    else:
        assert device.end().code == 1011
    assert relay.server.wait_disconnected() in (1000, 1011)


def test_a_message_above_8_mib_closes_the_connection_with_1009(
    relay: RelaySetup, device: RawSocket, user: RawSocket
) -> None:
    user.say(message(SHELL, "new"))
    opened = device.hear()
    large = bytes(8 * 1024 * 1024 - 200)
    device.reply(opened, "shell", large)
    assert user.hear().body == large
    with contextlib.suppress(ConnectionError):
        device.reply(opened, "shell", large + bytes(400))
    assert device.end().code == 1009
    assert relay.server.wait_disconnected() == 1009


@pytest.mark.parametrize("stopped", [True, False])
def test_a_user_who_disconnects_stops_the_shell(relay: RelaySetup, device: RawSocket, stopped: bool) -> None:
    with relay.user_end() as user:
        user.say(message(SHELL, "new"))
        sid = device.hear().sid
        if stopped:
            user.say(message(SHELL, "stop"))
            assert device.hear().typ == "stop"
            user.put(CloseConnection(code=1000))
            assert user.end().code == 1000
    if stopped:
        assert relay.request("POST", "/check-update").status == 202
        assert device.hear().proto == CLIENT
    else:
        received = device.hear()
        assert (received.proto, received.typ, received.sid, received.body) == (
            SHELL,
            "stop",
            sid,
            b"user disconnected",
        )
        assert received.raw == {"status": b"\x02", "user_id": b"\xb3someone@example.com"}


def test_a_user_notices_a_disconnected_device_at_the_next_key(relay: RelaySetup) -> None:
    with relay.device_end() as device:
        relay.server.wait_connected()
        with relay.user_end() as user:
            user.say(message(SHELL, "new"))
            device.hear()
            device.put(CloseConnection(code=1000))
            relay.server.wait_disconnected()
            user.put(Ping(payload=b"still there"))
            assert isinstance(user.event(), Pong)
            user.say(message(SHELL, "shell", b"x"))
            assert user.end().code == 1006


def test_a_newer_connection_of_a_device_cuts_the_older(relay: RelaySetup) -> None:
    with relay.device_end() as older:
        relay.server.wait_connected()
        with relay.device_end() as newer:
            assert older.end().code == 1006
            relay.server.wait_connected(times=2)
            assert relay.status == "connected"
            assert relay.request("POST", "/check-update").status == 202
            assert newer.hear().typ == "check-update"
    relay.server.wait_disconnected(times=2)
    assert (relay.server.connection_count(), relay.server.close_codes()) == (2, [1006, 1006])


COMMANDS = ("check-update", "send-inventory")


def has_type(typ: str) -> Callable[[Message], bool]:
    """Return whether a message has this type."""
    return lambda message: message.typ == typ


def test_commands_have_no_session_and_their_replies_are_dropped(relay: RelaySetup, device: RawSocket) -> None:
    for typ in COMMANDS:
        reply = relay.request("POST", f"/{typ}")
        assert (reply.status, reply.json) == (202, None)
        received = device.hear()
        assert received == Message(CLIENT, typ, "", {"user_id": b"\xb3someone@example.com"})
        device.reply(received, typ, b"exit status 1", status=2)
    assert [relay.server.wait_for_dropped(has_type(typ)).props for typ in COMMANDS] == [{"status": 2}] * 2


def test_a_device_that_answers_no_ping_is_closed_with_1011(make_relay: MakeRelay) -> None:
    relay = make_relay(ping_seconds=0.5)
    with relay.device_end() as device:
        relay.server.wait_connected()
        device.put(Ping(payload=b"hello"))
        pong = device.event()
        assert isinstance(pong, Pong)
        assert bytes(pong.payload) == b"hello"
        # The device does not answer the pings.
        ended = device.end()
        assert (ended.code, set(device.pings)) == (1011, {b"1"})
    assert relay.server.wait_disconnected() == 1011


def test_stopping_the_server_cuts_devices_and_users(make_relay: MakeRelay) -> None:
    relay = make_relay()
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(relay.device_end())
        relay.server.wait_connected()
        user = stack.enter_context(relay.user_end())
        user.say(message(SHELL, "new"))
        device.hear()
        relay.server.stop()
        assert (device.end().code, user.end().code) == (1006, 1006)


def test_a_user_who_does_not_read_blocks_the_device_and_loses_nothing(make_relay: MakeRelay) -> None:
    relay = make_relay(session_bytes=None)
    with relay.device_end() as device:
        relay.server.wait_connected()
        with relay.user_end() as user:
            user.say(message(SHELL, "new"))
            opened = device.hear()
            device.stream.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 200_000_000:
                    device.reply(opened, "shell", bytes(60_000))
                    sent += 60_000
            assert sent < 50_000_000
            # Except for the message that was cut off, all of it arrives once the user reads.
            assert sum(len(user.hear().body) for _ in range(sent // 60_000)) == sent
        assert relay.status == "connected"


def test_a_session_ends_with_1008_after_its_limit_of_output(make_relay: MakeRelay) -> None:
    relay = make_relay(session_bytes=10_000)
    with relay.device_end() as device:
        relay.server.wait_connected()
        with relay.user_end() as user:
            user.say(message(SHELL, "new"))
            opened = device.hear()
            device.reply(opened, "new", bytes(10_000))
            for _ in range(3):
                device.reply(opened, "shell", bytes(5_000))
            bodies = [user.hear().body for _ in range(3)]
            assert [len(body) for body in bodies] == [10_000, 5_000, 5_000]
            assert user.end().code == 1008
        stop = device.hear()
        assert (stop.typ, stop.raw["status"], stop.body) == ("stop", b"\x02", b"session byte limit exceeded")
        assert (device.hear().body, relay.status) == (b"user disconnected", "connected")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@given(
    st.integers(0, 0xFFFF), TEXTS, TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4), st.binary(max_size=100)
)
def test_an_encoded_message_decodes_to_itself(
    proto: int, typ: str, sid: str, props: dict[str, Any], body: bytes
) -> None:
    made = Message(proto, typ, sid, {name: messages.pack(value) for name, value in props.items()}, body)
    back = messages.decode(made.encode())
    assert back == made
    assert back.props == props


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(messages.DecodeError):
        assert isinstance(messages.decode(data), Message)


@given(st.data())
def test_a_corrupt_message_is_a_message_or_a_decode_error(data: st.DataObject) -> None:
    whole = bytearray(message(SHELL, "new", b"body", terminal_width=80, user_id="x").encode())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(messages.DecodeError):
        again = messages.decode(bytes(whole))
        assert messages.decode(again.encode()) == again
