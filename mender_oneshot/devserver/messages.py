"""Messages of deviceconnect, in which every property keeps the bytes it came with.

Programs in Go read a number's type off its width on the wire, and the real server keeps the width; so a value
decoded and packed again would not do (remote-terminal.md 0 and 2).
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
    """Bytes that are no message."""


@dataclass(frozen=True)
class Message:
    """One message; `raw` has the properties as they are on the wire, MessagePack and all."""

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
        """The message as the server writes it: `proto` in three bytes, the body always binary."""
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
    """A message of our own. Whole numbers take nine bytes, as from Go's int64; bytes are packed already."""
    return Message(proto, typ, "", {name: _value(value) for name, value in props.items()}, body)


def decode(data: bytes) -> Message:
    """A message off the wire; `DecodeError` where Go's decoder would give up."""
    try:
        return _decode(data)
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"not a message: {error}") from None


def pack(value: Any) -> bytes:
    """MessagePack, in the shortest form; a path that is no UTF-8 keeps its bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes) -> Any:
    """What MessagePack stands for; `ValueError` or `msgpack.UnpackException` where it stands for nothing."""
    return msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape", strict_map_key=False)


def unpack_map(data: bytes) -> dict[str, Any]:
    """The body of a message that is a map; `DecodeError` for any other."""
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
        unpack(value)  # what is no text or has odd keys shall not reach the other side
    return Message(proto or 0, typ or "", sid or "", raw, body or b"")


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of a map, their values as they are on the wire."""
    unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        start = unpacker.tell()
        unpacker.skip()
        if not isinstance(name, str):
            raise DecodeError("a member's name is not a text")
        yield name, data[start : unpacker.tell()]
