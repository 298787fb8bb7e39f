"""Generate messages of every protocol, some fields with wrong types and sizes, from a seed."""

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
    CLIENT: ("error",),  # the others start a process
    CONTROL: ("open", "accept", "ping", "pong", "close", "error"),
    9: ("what",),
}
PROPERTIES = ("user_id", "connection_id", "offset", "status", "terminal_width", "terminal_height", "timeout")


def pack(value: Any) -> bytes:
    """Encode a value."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


class Maker:
    """Makes messages with a wrong field or two, and some that are not messages at all."""

    def __init__(self, seed: int, directory: str) -> None:
        self._random = random.Random(seed)
        self._directory = directory

    def message(self) -> bytes:
        """Return the bytes of one message."""
        dice = self._random.random()
        if dice < 0.05:
            return self._random.randbytes(self._random.randrange(60))
        proto = self._random.choice([*KINDS])
        header: dict[str, Any] = {
            "proto": proto,
            "typ": self._random.choice(KINDS[proto]),
            "sid": self._random.choice(("s1", "s2", "s3", "")),
            "props": self._with_errors(self._properties()),
        }
        if proto in (FILES, FORWARD, CONTROL) and header["typ"] not in ("file_chunk", "forward"):
            body: Any = pack(self._with_errors(self._request()))
        else:
            body = self._random.choice((b"", b"echo x\n", b"x" * 300))
        whole = {"hdr": self._with_errors(header, 0.02), "body": body}
        data = pack(self._with_errors(whole, 0.02))
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

    def _with_errors(self, members: dict[str, Any], likely: float = 0.15) -> dict[str, Any]:
        """Return the members, some with another type or size, some left out."""
        changed = {}
        for name, value in members.items():
            dice = self._random.random()
            if dice < likely:
                changed[name] = self._random.choice(WRONG)
            elif dice < 1 - likely / 3:
                changed[name] = value
        return changed


def nested(depth: int, announced: int = 2**16 - 1) -> bytes:
    """Return nested arrays that announce many elements, and end early."""
    return (b"\xdc" + struct.pack(">H", announced)) * depth
