"""Transfer files with a device as the server does it."""

import os
from typing import Any

import msgpack

from helpers.terminal_peer import Conversation, Received, Served
from mender_oneshot.terminal.messages import FILES, pack


class TransferFailed(Exception):
    """The device answered with an error; the text is its message."""


def body(**members: Any) -> bytes:
    """Encode a request; the path may be bytes or a Path."""
    return pack({name: os.fsdecode(value) if name == "path" else value for name, value in members.items()})


def answer(line: Conversation, kind: str, sid: str) -> Received:
    """Return the next message of a session, of the kind expected; raise `TransferFailed` for an error."""
    received = line.receive()
    while received.sid != sid:  # answers to chunks that were sent before another upload was rejected
        assert b"no file transfer in progress" in received.body, received
        received = line.receive()
    assert (received.proto, received.sid) == (FILES, sid), received
    if received.kind == "error":
        raise TransferFailed(msgpack.unpackb(received.body)["err"])
    assert received.kind == kind, received
    return received


def look(line: Conversation, path: Any, sid: str = "f1") -> dict[str, Any]:
    """Return the device's `file_info` of a path."""
    line.send(FILES, "stat", sid, body(path=path))
    info = msgpack.unpackb(answer(line, "file_info", sid).body, unicode_errors="surrogateescape")
    assert isinstance(info, dict)
    return info


def fetch(line: Conversation, path: Any, sid: str = "f1") -> bytes:
    """Download a file as the server does: an ack after every ten chunks, and one for the end."""
    line.send(FILES, "get_file", sid, body(path=path))
    content = b""
    chunks = 0
    while True:
        chunk = answer(line, "file_chunk", sid)
        assert chunk.props == {"offset": len(content)}
        assert b"\xa6offset\xd3" in chunk.data
        assert len(chunk.data) < 65536
        content += chunk.body
        chunks += 1
        if not chunk.body or chunks % 10 == 0:
            line.send(FILES, "ack", sid, offset=len(content))
        if not chunk.body:
            return content


def begin(line: Conversation, path: Any, sid: str = "p1", **members: Any) -> None:
    """Begin an upload."""
    line.send(FILES, "put_file", sid, body(path=path, **members))
    assert answer(line, "ack", sid).props == {"offset": 0}


def put(line: Conversation, path: Any, data: bytes, sid: str = "p1", **members: Any) -> None:
    """Upload a file as the server does: chunks of 4 KiB, at most 80 KiB after the last ack."""
    begin(line, path, sid, **members)
    sent = acknowledged = 0
    while sent < len(data):
        while sent > acknowledged + 4096 * 20:
            acknowledged = answer(line, "ack", sid).props["offset"]
        line.send(FILES, "file_chunk", sid, data[sent : sent + 4096], offset=sent)
        sent += len(data[sent : sent + 4096])
    line.send(FILES, "file_chunk", sid, offset=sent)
    while True:
        ack = answer(line, "ack", sid)
        assert b"\xa6offset\xd3" in ack.data
        if ack.props["offset"] >= sent:
            return


def limited(terminal: Served, **limits: Any) -> Conversation:
    """Connect a device with these limits for files."""
    terminal.configure(RemoteTerminal=True, Limits={"Enabled": True, "FileTransfer": limits})
    return terminal.connect()
