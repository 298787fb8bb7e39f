"""Encode and decode the messages of deviceconnect; the only user of msgpack.

The facts are in remote-terminal.md sections 0 and 2.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack
from msgpack.fallback import unpackb

from .fields import DecodeError, Fields

SHELL = 1
FILES = 2
FORWARD = 3
CLIENT = 4
CONTROL = 0xFFFF

NORMAL = 1
ERROR = 2
KEEPALIVE = 3

REQUEST_LIMIT = 65536
"""Bytes in the body of a request; the longest has two paths."""
MOST_MEMBERS = 64
MOST_MAPS = 64
"""Members of one map or list, and maps and lists in one message; real messages have at most a dozen."""


class Message(NamedTuple):
    """One message; `kind` is `typ` on the wire, `sid` the id of a session, which answers repeat."""

    proto: int
    kind: str
    sid: str = ""
    props: Mapping[str, Any] = {}
    body: bytes = b""

    @property
    def fields(self) -> Fields:
        """The properties, with checks of their types."""
        return Fields(self.props)


# Shared, because it is not used by two callers at once: this process has one thread.
_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")


def encode(message: Message) -> bytes:
    """Encode a message; empty fields are left out.

    Integer properties are always encoded as int64: programs in Go accept only that type, and msgpack for
    Python always chooses the shortest one.
    """
    header = [_packer.pack("proto"), b"\xcd", struct.pack(">H", message.proto)]
    members = 1
    for name, text in (("typ", message.kind), ("sid", message.sid)):
        if text:
            header += [_packer.pack(name), _packer.pack(text)]
            members += 1
    if message.props:
        header += [_packer.pack("props"), _packer.pack_map_header(len(message.props))]
        for name, value in message.props.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            packed = b"\xd3" + struct.pack(">q", value) if whole else _packer.pack(value)
            header += [_packer.pack(name), packed]
        members += 1
    head = [
        _packer.pack_map_header(1 + bool(message.body)),
        _packer.pack("hdr"),
        _packer.pack_map_header(members),
    ]
    tail = [_packer.pack("body"), _packer.pack(message.body)] if message.body else []
    return b"".join(head + header + tail)


def decode(data: bytes) -> Message:
    """Decode a message; raises `DecodeError`. Unknown members are ignored."""
    whole = _unpack(data)
    header = Fields(whole.members("hdr"))
    proto = header.number("proto", 0, 0xFFFF)
    if proto is None:
        raise DecodeError("there is no protocol number")
    props = header.members("props")
    return Message(proto, header.text("typ"), header.text("sid"), props, whole.content("body"))


def unpack(body: bytes) -> Fields:
    """Decode the body of a request, a map; raises `DecodeError`. Invalid UTF-8 is preserved."""
    if len(body) > REQUEST_LIMIT:
        raise DecodeError(f"the request is larger than {REQUEST_LIMIT} bytes")
    return _unpack(body)


def _unpack(data: bytes) -> Fields:
    left = MOST_MAPS

    def count(value: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise DecodeError("there are too many maps and lists")
        return value

    try:
        # Not the compiled reader: in 1.0.3 it leaks what it has read of an invalid message.
        value = unpackb(
            data,
            raw=False,
            unicode_errors="surrogateescape",
            list_hook=count,
            object_hook=count,
            max_array_len=MOST_MEMBERS,
            max_map_len=MOST_MEMBERS,
            max_ext_len=MOST_MEMBERS,
        )
    except DecodeError:
        raise
    except Exception as error:  # MemoryError and RecursionError too: the bytes cause them
        raise DecodeError("not MessagePack") from error
    if not isinstance(value, dict):
        raise DecodeError("not a map")
    return Fields(value)


def pack(value: Mapping[str, Any]) -> bytes:
    """Encode the body of an answer."""
    packed: bytes = _packer.pack(dict(value))
    return packed


def timestamp(nanoseconds: int) -> msgpack.Timestamp:
    """Return a time, in nanoseconds since 1970, as the type that programs in Go decode as a time."""
    return msgpack.Timestamp.from_unix_nano(nanoseconds)
