"""The messages of deviceconnect as bytes; the only file that knows `msgpack`.

Facts: remote-terminal.md sections 0 and 2. Knows nothing of what the messages mean.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack

SHELL = 1
FILES = 2
FORWARD = 3
CLIENT = 4
CONTROL = 0xFFFF

NORMAL = 1
ERROR = 2
KEEPALIVE = 3

LONGEST_NAME = 256
"""Letters in a type or a session: the server's are UUIDs, and answers repeat them."""


class Garbled(Exception):
    """The bytes are no message; the text says why."""


class Message(NamedTuple):
    """One message; `kind` is `typ` on the wire, `sid` the server's name for a session, to be echoed."""

    proto: int
    kind: str
    sid: str = ""
    props: Mapping[str, Any] = {}
    body: bytes = b""

    def number(self, name: str) -> int | None:
        """Return a whole number among the properties, of whatever width; None where there is none."""
        value = self.props.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, name: str) -> str:
        """Return a text among the properties, "" where there is none."""
        value = self.props.get(name)
        return value if isinstance(value, str) else ""


_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")


def encode(message: Message) -> bytes:
    """Write a message; what is empty is left out.

    Whole numbers among the properties always take nine bytes: programs in Go ask for int64 and get what the
    width on the wire says, and msgpack for Python has no way to ask for it.
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
    """Read a message; raises `Garbled` for anything else. Unknown members are ignored."""
    whole = unpack(data)
    header = whole.get("hdr")
    if not isinstance(header, dict):
        raise Garbled("there is no header")
    proto, body = header.get("proto"), whole.get("body")
    if not isinstance(proto, int) or isinstance(proto, bool) or not 0 <= proto <= 0xFFFF:
        raise Garbled("there is no protocol number")
    texts = [header.get("typ"), header.get("sid")]
    if not all(text is None or (isinstance(text, str) and len(text) <= LONGEST_NAME) for text in texts):
        raise Garbled("the type or the session is not a text, or too long a one")
    props = header.get("props")
    if props is not None and not isinstance(props, dict):
        raise Garbled("the properties are not a map")
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogateescape")
    if body is not None and not isinstance(body, bytes):
        raise Garbled("the body is not bytes")
    return Message(proto, texts[0] or "", texts[1] or "", props or {}, body or b"")


def unpack(data: bytes) -> dict[str, Any]:
    """Read a map, such as the body of a request; raises `Garbled`. Bytes that are no UTF-8 survive."""
    try:
        value = msgpack.unpackb(data, raw=False, unicode_errors="surrogateescape")
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise Garbled("it is not MessagePack") from error
    if not isinstance(value, dict):
        raise Garbled("it is not a map")
    return value


def pack(value: Mapping[str, Any]) -> bytes:
    """Write the body of an answer."""
    packed: bytes = _packer.pack(dict(value))
    return packed


def timestamp(nanoseconds: int) -> msgpack.Timestamp:
    """Make a moment, in nanoseconds since 1970, into what programs in Go read as a time."""
    return msgpack.Timestamp.from_unix_nano(nanoseconds)
