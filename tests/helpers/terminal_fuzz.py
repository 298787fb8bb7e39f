"""Messages of every protocol whose fields have any type and size, made from a seed."""

import random
import struct
from typing import Any

import msgpack

from mender_oneshot.terminal.messages import CLIENT, CONTROL, FILES, FORWARD, SHELL

WRONG: tuple[Any, ...] = (
    True,
    False,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x\0y",
    "x" * 5000,
    "\udc80\udcff",
    b"",
    b"bytes",
    [],
    ["tcp"],
    [[[]]],
    {},
    {"a": {"b": []}},
    msgpack.Timestamp(1, 2),
    msgpack.ExtType(5, b"data"),
)
"""Values of each type that MessagePack has."""

KINDS: dict[int, tuple[str, ...]] = {
    SHELL: ("new", "shell", "resize", "stop", "ping", "pong", "delay"),
    FILES: ("stat", "get_file", "put_file", "file_chunk", "ack", "error", "file_info"),
    FORWARD: ("new", "forward", "ack", "stop", "error"),
    CLIENT: ("error",),  # the others start a program each time
    CONTROL: ("open", "accept", "ping", "pong", "close", "error"),
    9: ("what",),
}
PROPERTIES = ("user_id", "connection_id", "offset", "status", "terminal_width", "terminal_height", "timeout")


def pack(value: Any) -> bytes:
    """Write a value; whole numbers that MessagePack has no room for do not occur."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


class Maker:
    """Makes messages that mean something, but for a field or two; and some that mean nothing."""

    def __init__(self, seed: int, directory: str) -> None:
        self._random = random.Random(seed)
        self._directory = directory

    def message(self) -> bytes:
        """Make the bytes of one message."""
        dice = self._random.random()
        if dice < 0.05:
            return self._random.randbytes(self._random.randrange(60))
        proto = self._random.choice([*KINDS])
        header: dict[str, Any] = {
            "proto": proto,
            "typ": self._random.choice(KINDS[proto]),
            "sid": self._random.choice(("s1", "s2", "s3", "")),
            "props": self._bent(self._properties()),
        }
        if proto in (FILES, FORWARD, CONTROL) and header["typ"] not in ("file_chunk", "forward"):
            body: Any = pack(self._bent(self._request()))
        else:
            body = self._random.choice((b"", b"echo x\n", b"x" * 300))
        whole = {"hdr": self._bent(header, 0.02), "body": body}
        data = pack(self._bent(whole, 0.02))
        if dice < 0.1:
            data = data[: self._random.randrange(len(data))]
        elif dice < 0.15:
            place = self._random.randrange(len(data))
            data = data[:place] + self._random.randbytes(1) + data[place + 1 :]
        return data

    def _properties(self) -> dict[str, Any]:
        return {
            "user_id": self._random.choice(("u1", "u2")),
            "connection_id": self._random.choice(("c1", "c2")),
            "offset": self._random.choice((0, 7, 300, 32768)),
            "terminal_width": self._random.choice((0, 80, 70000)),
            "terminal_height": 24,
        }

    def _request(self) -> dict[str, Any]:
        return {
            "path": f"{self._directory}/{self._random.choice(('file', 'other', '', 'a/b', '../x'))}",
            "src_path": self._random.choice(("file", "", "..", "a/b")),
            "mode": self._random.choice((0o644, 0o4755, 1 << 23)),
            "remote_host": "127.0.0.1",
            "remote_port": self._random.choice((1, 9)),
            "protocol": self._random.choice(("tcp", "udp")),
            "versions": [1],
            "err": "an error",
            "close": False,
        }

    def _bent(self, members: dict[str, Any], likely: float = 0.15) -> dict[str, Any]:
        """Give some members another type or size, and leave some out."""
        bent = {}
        for name, value in members.items():
            dice = self._random.random()
            if dice < likely:
                bent[name] = self._random.choice(WRONG)
            elif dice < 1 - likely / 3:
                bent[name] = value
        return bent


def nested(depth: int, claimed: int = 2**16 - 1) -> bytes:
    """Make arrays in arrays that claim to be long, and end early."""
    return (b"\xdc" + struct.pack(">H", claimed)) * depth
