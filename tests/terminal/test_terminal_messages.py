"""Encoding and decoding: every integer width is accepted, one is sent, and invalid bytes are rejected."""

import contextlib
import pickle
import struct
import subprocess
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from helpers.device import REPO
from helpers.terminal_fuzz import nested
from helpers.terminal_peer import need_the_extra
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot.terminal import messages
from mender_oneshot.terminal.fields import DecodeError, Fields
from mender_oneshot.terminal.messages import Message

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
numbers = st.integers(-(2**63), 2**63 - 1)
any_message = st.builds(
    Message,
    proto=st.integers(0, 0xFFFF),
    kind=texts,
    sid=texts,
    props=st.dictionaries(texts, numbers | texts | st.booleans() | st.none(), max_size=20),
    body=st.binary(max_size=100000),
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.binary(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(0, 9), inner, max_size=4),
    max_leaves=20,
)


@given(any_message)
def test_a_message_survives_encoding_and_decoding(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@given(any_message)
def test_msgpack_decodes_our_messages_without_empty_fields(message: Message) -> None:
    whole = msgpack.unpackb(messages.encode(message), raw=False)
    assert set(whole) <= {"hdr", "body"}
    header = whole["hdr"]
    assert header["proto"] == message.proto
    assert header.get("typ", "") == message.kind
    assert header.get("sid", "") == message.sid
    assert header.get("props", {}) == message.props
    # Empty fields are left out.
    assert "" not in (header.get("typ"), header.get("sid"), whole.get("body"))


@pytest.mark.parametrize("make", [lambda text: Message(1, text, "s"), lambda text: Message(1, "new", text)])
def test_identifiers_that_answers_repeat_are_limited(make: Callable[[str], Message]) -> None:
    longest = make("x" * 256)
    assert messages.decode(messages.encode(longest)) == longest
    with pytest.raises(DecodeError, match="longer than 256"):
        messages.decode(messages.encode(make("x" * 257)))


@given(numbers, st.integers(0, 0xFFFF))
def test_integers_are_encoded_as_int64_and_the_protocol_as_uint16(number: int, proto: int) -> None:
    data = messages.encode(Message(proto, "ack", "s", {"offset": number}))
    assert b"\xa6offset\xd3" + struct.pack(">q", number) in data
    assert b"\xa5proto\xcd" + struct.pack(">H", proto) in data


@pytest.mark.parametrize(
    "code",
    [
        b"\x05",
        b"\xcc\x05",
        b"\xcd\x00\x05",
        b"\xce\x00\x00\x00\x05",
        b"\xcf" + bytes(7) + b"\x05",
        b"\xd0\x05",
        b"\xd1\x00\x05",
        b"\xd2\x00\x00\x00\x05",
        b"\xd3" + bytes(7) + b"\x05",
    ],
)
def test_integers_of_every_width_are_accepted(code: bytes) -> None:
    data = b"\x81\xa3hdr\x83\xa5proto" + code + b"\xa3typ\xa1x\xa5props\x81\xa1n" + code
    message = messages.decode(data)
    assert (message.proto, message.fields.number("n")) == (5, 5)


@pytest.mark.parametrize("body", [b"\xc0", b"\xa0", b"\xa2hi", b"\xc4\x02hi", b"\xa2\xff\xfe"])
def test_a_body_may_be_text_bytes_or_nil(body: bytes) -> None:
    message = messages.decode(b"\x82\xa3hdr\x81\xa5proto\x01\xa4body" + body)
    assert message.body in (b"", b"hi", b"\xff\xfe")


def test_a_path_that_is_not_utf8_is_preserved() -> None:
    body = messages.unpack(b"\x81\xa4path\xa3/\xff\xfe")
    assert messages.pack({"path": body.text("path")}) == b"\x81\xa4path\xa3/\xff\xfe"


@given(st.binary(max_size=200))
@examples(max_examples=1000)
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        read(messages.decode(data))


@given(anything, anything, anything)
@examples(max_examples=500)
def test_any_value_is_a_message_or_a_decode_error(header: Any, props: Any, body: Any) -> None:
    if isinstance(header, dict):
        header = header | {"props": props, "proto": 1}
    with contextlib.suppress(DecodeError):
        read(messages.decode(msgpack.packb({"hdr": header, "body": body})))


def read(message: Message) -> None:
    """Read a message as the program does."""
    assert isinstance(message.kind + message.sid, str)
    assert isinstance(message.body, bytes)
    for name in message.props:
        read_all(message.fields, name)
    with contextlib.suppress(DecodeError):
        messages.unpack(message.body)


def read_all(fields: Fields, name: str) -> None:
    """Read a field as each of the types; a value that is returned must be of that type."""
    for method, kind in (
        (fields.number, int | None),
        (fields.numbers, list),
        (fields.text, str),
        (fields.flag, bool),
        (fields.content, bytes),
        (fields.members, dict),
    ):
        with contextlib.suppress(DecodeError):
            assert isinstance(method(name), kind)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x90",
        b"\x80",
        b"\x81\xa3hdr\x80",
        b"\x81\xa3hdr\xc0",
        b"\x81\xa3hdr\x81\xa5proto\xc3",
        b"\x81\xa3hdr\x81\xa5proto\xff",
        b"\x81\xa3hdr\x81\xa5proto\xce\x00\x01\x00\x00",
        b"\x81\xa3hdr\x82\xa5proto\x01\xa3typ\x01",
        b"\x81\xa3hdr\x82\xa5proto\x01\xa3sid\x90",
        b"\x81\xa3hdr\x82\xa5proto\x01\xa5props\x90",
        b"\x82\xa3hdr\x81\xa5proto\x01\xa4body\x80",
        b"\x81\xa3hdr\x81\xa5proto\x01\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100000,
        b"\x81\x90\x90",
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
)
def test_bytes_that_are_not_a_message_are_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        messages.decode(data)


HOSTILE = {
    "arrays that announce many elements": nested(480),
    "arrays that announce very many elements": b"\xdd\x7f\xff\xff\xff" * 400,
    "maps that announce many members": b"\xde\xff\xff\xa1a" * 300,
    "arrays that announce few elements, and end early": nested(480, 60),
    "a list of a million": b"\xdd\x00\x0f\x42\x40" + bytes(1000000),
    "lists in lists, all full": b"\x9f" * 3 + bytes(13) + (b"\x9f" + b"\x90" * 15) * 4000,
    "a map with a million members": b"\xdf\x00\x0f\x42\x40" + b"\xa1a\xc0" * 1000000,
    "names of maps that are lists": (b"\x81\x9f" + b"\xa1x" * 15) * 20000,
    "an extension of a megabyte": b"\xc9\x00\x10\x00\x00\x05" + bytes(1 << 20),
    "a timestamp without content": b"\xc7\x00\xff",
    "a string that ends early": b"\xdb\x7f\xff\xff\xff" + b"x" * 300000,
    "bytes that end early": b"\xc6\x7f\xff\xff\xff" + b"x" * 300000,
}


@pytest.mark.parametrize("place", ["whole", "header", "properties", "request"])
def test_hostile_bytes_are_a_decode_error_and_leak_no_memory(python: str, place: str) -> None:
    """With a limit of memory: the compiled reader of 1.0.3 leaks what it has read of invalid messages."""
    need_the_extra(python)
    before = {
        "whole": b"",
        "header": b"\x82\xa3hdr",
        "properties": b"\x82\xa3hdr\x82\xa5proto\x01\xa5props",
        "request": b"\x81\xa4path",
    }[place]
    code = f"""
import pickle, resource, sys
from mender_oneshot.terminal import messages
from mender_oneshot.terminal.fields import DecodeError
read = messages.unpack if {place == "request"} else messages.decode
hostile = pickle.load(sys.stdin.buffer)
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
for name, data in hostile.items():
    for attempt in range(30):
        try:
            read({before!r} + data)
        except DecodeError:
            pass
        else:
            raise SystemExit("accepted: " + name)
        if attempt == 9:
            before = size()
    if size() - before > 1 << 20:
        raise SystemExit(f"{{size() - before}} bytes leaked: {{name}}")
"""
    done = subprocess.run(
        [python, "-c", code],
        input=pickle.dumps(HOSTILE),
        capture_output=True,
        check=False,
        cwd=REPO,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
