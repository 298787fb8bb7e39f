"""Messages of deviceconnect; every property keeps its encoding.

Programs in Go derive a number's type from its encoded width, and the real server keeps that width, so
decoding and encoding a value again would change the message (remote-terminal.md 0 and 2).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

SHELL = 1
FILES = 2
FORWARD = 3
CLIENT = 4
CONTROL = 0xFFFF

NORMAL = 1
ERROR = 2


class DecodeError(Exception):
    """The bytes are not a message."""


@dataclass(frozen=True)
class Message:
    """One message; `raw` has the properties as encoded in MessagePack."""

    proto: int
    typ: str
    sid: str = ""
    raw: Mapping[str, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def props(self) -> dict[str, Any]:
        """The properties, decoded."""
        return {name: unpack(value) for name, value in self.raw.items()}

    def encode(self) -> bytes:
        """Return the message as the server encodes it: `proto` in three bytes, the body always binary."""
        header = [pack("proto"), b"\xcd", struct.pack(">H", self.proto)]
        members = 1
        for name, text in (("typ", self.typ), ("sid", self.sid)):
            if text:
                header += [pack(name), pack(text)]
                members += 1
        if self.raw:
            header += [pack("props"), _map(len(self.raw))]
            for name, value in self.raw.items():
                header += [pack(name), value]
            members += 1
        parts = [_map(2 if self.body else 1), pack("hdr"), _map(members), *header]
        return b"".join([*parts, pack("body"), pack(self.body)] if self.body else parts)


def message(proto: int, typ: str, body: bytes = b"", **props: Any) -> Message:
    """Return a new message without a session.

    Integers are encoded in nine bytes, like Go's int64; bytes have to be MessagePack already.
    """
    return Message(proto, typ, "", {name: _value(value) for name, value in props.items()}, body)


def decode(data: bytes) -> Message:
    """Return the message that the bytes encode; raise `DecodeError` if Go's decoder would reject them."""
    try:
        return _decode(data)
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"not a message: {error}") from None


def pack(value: Any) -> bytes:
    """Return MessagePack in the shortest form; a path that is not UTF-8 keeps its bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes) -> Any:
    """Return the value that MessagePack encodes; raise ValueError or `msgpack.UnpackException`."""
    return msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape", strict_map_key=False)


def unpack_map(data: bytes) -> dict[str, Any]:
    """Return the map in the body of a message; raise `DecodeError` for any other body."""
    try:
        value = unpack(data)
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"not MessagePack: {error}") from None
    if not isinstance(value, dict):
        raise DecodeError("not a map")
    return value


def _value(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return b"\xd3" + struct.pack(">q", value)
    return pack(value)


def _map(size: int) -> bytes:
    packed: bytes = msgpack.Packer().pack_map_header(size)
    return packed


def _decode(data: bytes) -> Message:
    members = dict(_members(data))
    header = dict(_members(members.get("hdr", b"\x80")))
    proto, typ, sid = (unpack(header.get(name, b"\xc0")) for name in ("proto", "typ", "sid"))
    body = unpack(members.get("body", b"\xc0"))
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogateescape")
    if not isinstance(proto, int | None) or not 0 <= (proto or 0) <= 0xFFFF:
        raise DecodeError("proto is not a number of 16 bits")
    if not isinstance(typ, str | None) or not isinstance(sid, str | None):
        raise DecodeError("typ or sid is not a text")
    if not isinstance(body, bytes | None):
        raise DecodeError("body is not binary")
    props = header.get("props", b"\xc0")
    raw = {} if props == b"\xc0" else dict(_members(props))
    for value in raw.values():
        unpack(value)  # invalid text or keys must not be relayed
    return Message(proto or 0, typ or "", sid or "", raw, body or b"")


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a map, their values still encoded."""
    unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        start = unpacker.tell()
        unpacker.skip()
        if not isinstance(name, str):
            raise DecodeError("a member's name is not a text")
        yield name, data[start : unpacker.tell()]
