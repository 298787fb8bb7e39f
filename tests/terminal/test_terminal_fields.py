"""Fields of any type are rejected with an error, and a bug ends one session, not the process."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.device import patch_python
from helpers.terminal_fuzz import WRONG, Maker, pack
from helpers.terminal_peer import Conversation, Received, Served

from mender_oneshot.terminal import messages
from mender_oneshot.terminal.confined_path import hold
from mender_oneshot.terminal.control import Control
from mender_oneshot.terminal.fields import DecodeError
from mender_oneshot.terminal.files import Transfers
from mender_oneshot.terminal.forward import Forwards
from mender_oneshot.terminal.loop import Loop
from mender_oneshot.terminal.messages import CLIENT, CONTROL, FILES, FORWARD, SHELL, Message
from mender_oneshot.terminal.outbox import Outbox
from mender_oneshot.terminal.settings import TerminalSettings
from mender_oneshot.terminal.shell import Shells

NUMBER = [value for value in WRONG if not isinstance(value, int) or isinstance(value, bool)]
TEXT = [value for value in WRONG if not isinstance(value, str) or "\0" in value]
LIST = [value for value in WRONG if not isinstance(value, list)] + [["1"], [True], [1.0], [[1]], [{}]]
FLAG = [value for value in WRONG if not isinstance(value, bool)]

REQUEST = {"path": "/etc/hostname", "remote_host": "127.0.0.1", "remote_port": 9, "protocol": "tcp"}

TABLE: dict[str, tuple[int, str, str, str, list[Any]]] = {
    # name: protocol, type, "props" or "body", field, invalid values
    "the width of a new shell": (SHELL, "new", "props", "terminal_width", NUMBER),
    "the height of a new shell": (SHELL, "new", "props", "terminal_height", NUMBER),
    "the user of a new shell": (SHELL, "new", "props", "user_id", TEXT),
    "the width of a shell": (SHELL, "resize", "props", "terminal_width", NUMBER),
    "the user whose shells to stop": (SHELL, "stop", "props", "user_id", TEXT),
    "the path of stat": (FILES, "stat", "body", "path", TEXT),
    "the path of a download": (FILES, "get_file", "body", "path", TEXT),
    "the user of a download": (FILES, "get_file", "props", "user_id", TEXT),
    "the path of an upload": (FILES, "put_file", "body", "path", TEXT),
    "the name of an upload": (FILES, "put_file", "body", "src_path", TEXT),
    "the mode": (FILES, "put_file", "body", "mode", [*NUMBER, -1, 2**32]),
    "the owner": (FILES, "put_file", "body", "uid", [*NUMBER, -1, 2**32 - 1]),
    "the group": (FILES, "put_file", "body", "gid", [*NUMBER, -1, 2**32 - 1]),
    "the target's host": (FORWARD, "new", "body", "remote_host", TEXT),
    "the target's port": (FORWARD, "new", "body", "remote_port", [*NUMBER, 0, -1, 65536, 2**64 - 1]),
    "the target's protocol": (FORWARD, "new", "body", "protocol", [*TEXT, "sctp", ""]),
    "the id of a new connection": (FORWARD, "new", "props", "connection_id", [*TEXT, "x" * 257]),
    "the id of a connection with data": (FORWARD, "forward", "props", "connection_id", TEXT),
    "the id of a connection with an ack": (FORWARD, "ack", "props", "connection_id", TEXT),
    "the id of a connection to stop": (FORWARD, "stop", "props", "connection_id", TEXT),
    "the user of a connection": (FORWARD, "new", "props", "user_id", TEXT),
    "the user of a command": (CLIENT, "check-update", "props", "user_id", TEXT),
    "the versions": (CONTROL, "open", "body", "versions", LIST),
}


def is_error(received: Received, kind: str) -> bool:
    if received.proto in (SHELL, CLIENT):
        return received.kind == kind and received.props["status"] == 2
    return received.kind == "error"


def try_row(conversation: Conversation, name: str) -> None:
    """Send each of the values; each must be answered with one error."""
    proto, kind, place, field, values = TABLE[name]
    for value in values:
        props, body = {"connection_id": "c1"}, dict(REQUEST)
        (props if place == "props" else body)[field] = value
        header = {"proto": proto, "typ": kind, "sid": "s2", "props": {"user_id": "u2"} | props}
        if place == "body" and field == "path":
            header["sid"] = f"s{values.index(value)}-path"
        conversation.send_bytes(pack({"hdr": header, "body": pack(body)}))
        received = conversation.receive()
        assert received.sid == header["sid"]
        assert is_error(received, kind), (value, received)


@pytest.mark.parametrize("name", TABLE)
def test_a_field_of_the_wrong_type_gets_an_error(terminal: Served, name: str) -> None:
    with terminal.connect() as conversation:
        try_row(conversation, name)
        conversation.shell("s9")
        _, _, err = terminal.stop()
    assert "bug" not in err


@pytest.mark.parametrize("value", FLAG)
def test_an_error_with_a_bad_field_gets_no_answer(line: Conversation, value: object) -> None:
    header = {"proto": CONTROL, "typ": "error", "sid": "s2"}
    line.send_bytes(pack({"hdr": header, "body": pack({"err": "x", "close": value})}))
    line.send(CONTROL, "ping", "s3")
    line.expect(CONTROL, "pong", "s3")


@pytest.mark.parametrize("value", NUMBER)
@pytest.mark.parametrize("kind", ["file_chunk", "ack"])
def test_an_offset_of_the_wrong_type_ends_the_transfer(
    terminal: Served, tmp_path: Path, kind: str, value: object
) -> None:
    with terminal.connect() as conversation:
        path = tmp_path / "file"
        path.write_bytes(b"x" * 10)
        request = "put_file" if kind == "file_chunk" else "get_file"
        conversation.send(FILES, request, body=pack({"path": str(path)}))
        conversation.expect(FILES, "ack" if kind == "file_chunk" else "file_chunk")
        if kind == "ack":
            conversation.expect(FILES, "file_chunk")
        props = {"user_id": "u1", "offset": value}
        header = {"proto": FILES, "typ": kind, "sid": "s1", "props": props}
        conversation.send_bytes(pack({"hdr": header, "body": b"data"}))
        assert b"offset" in conversation.expect(FILES, "error").body
        conversation.send(FILES, request, body=pack({"path": str(path)}))
        conversation.expect(FILES, "ack" if kind == "file_chunk" else "file_chunk")


def drive(served: Served, seed: int, count: int) -> None:
    """Send messages to the real process; the shell of another user must still work afterwards."""
    served.device.root.joinpath("file").write_bytes(b"content")
    maker = Maker(seed, str(served.device.root))
    with served.connect() as conversation:
        conversation.shell("other", user_id="other")
        for sent in range(count):
            conversation.send_bytes(maker.message())
            if sent % 50 == 49:
                conversation.round_trip()
        conversation.type("echo al''ive\n", "other")
        conversation.until(lambda received: received.sid == "other" and b"alive" in received.body)
        code, _, err = served.stop()
    assert code == 0
    assert "bug" not in err, err


def test_messages_of_any_type_do_not_end_the_terminal(either: Served) -> None:
    drive(either, 1, 300)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 42))
def test_many_messages_of_any_type_do_not_end_the_terminal(either: Served, seed: int) -> None:
    drive(either, seed, 3000)


def feed(seed: int, count: int, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Call the handlers directly; no shell is started."""
    loop = Loop()
    outbox = Outbox(loop, TerminalSettings(on=True, shell="/nonexistent"))
    root = hold("/")
    files, forwards, shells = Transfers(outbox, root), Forwards(outbox), Shells(outbox)

    def close(sid: str) -> None:
        files.close(sid)
        forwards.close(sid)

    control = Control(outbox, close)
    handlers: dict[int, Callable[[Message], None]] = {
        SHELL: shells.handle,
        FILES: files.handle,
        FORWARD: forwards.handle,
        CONTROL: control.handle,
    }
    maker = Maker(seed, str(directory))
    with caplog.at_level(logging.ERROR):
        for _ in range(count):
            try:
                message = messages.decode(maker.message())
            except DecodeError:
                continue
            with outbox.answering(message):
                if message.proto in handlers:
                    handlers[message.proto](message)
            loop.later(0, lambda: None)
            loop.turn()
            control.tick(files.sids | forwards.sids)
    files.drop_all()
    forwards.drop_all()
    loop.close()
    os.close(root.descriptor)
    assert not caplog.records, caplog.text


def test_the_handlers_have_no_bug_for_messages_of_any_type(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    feed(1, 3000, tmp_path, caplog)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
def test_the_handlers_have_no_bug_for_many_messages_of_any_type(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    feed(seed, 100000, tmp_path, caplog)


FAILING = """
import fcntl, os, socket
class Surprise(Exception):
    pass
before = {name}
def after(*arguments, **options):
    if {when}:
        raise Surprise("unexpected" + "!" * 1000)
    return before(*arguments, **options)
{name} = after
"""
"""Code for `patch_python`: a function of the standard library raises an unexpected exception, like a bug."""


def provoke_new_shell(conversation: Conversation) -> Received:
    conversation.send(SHELL, "new", "s2", terminal_width=66, terminal_height=66)
    return conversation.expect(SHELL, "new", "s2")


def provoke_resize(conversation: Conversation) -> Received:
    conversation.shell("s2", user_id="u2")
    conversation.send(SHELL, "resize", "s2", terminal_width=66, terminal_height=66)
    return conversation.expect(SHELL, "resize", "s2")


def provoke_download(conversation: Conversation) -> Received:
    conversation.send(FILES, "get_file", "s2", pack({"path": "/etc/passwd"}))
    return conversation.expect(FILES, "error", "s2")


def provoke_upload(conversation: Conversation) -> Received:
    conversation.send(FILES, "put_file", "s2", pack({"path": "/tmp/never-there"}))
    conversation.expect(FILES, "ack", "s2")
    conversation.send(FILES, "file_chunk", "s2", offset=0)
    return conversation.expect(FILES, "error", "s2")


def provoke_forward(conversation: Conversation) -> Received:
    body = {"remote_host": "127.0.0.1", "remote_port": 9, "protocol": "udp"}
    conversation.send(FORWARD, "new", "s2", pack(body), connection_id="c1")
    return conversation.expect(FORWARD, "error", "s2")


def provoke_callback(conversation: Conversation) -> Received:
    """The exception is raised in a callback of the loop, when connecting to the target fails."""
    body = {"remote_host": "127.0.0.1", "remote_port": 9, "protocol": "udp"}
    conversation.send(FORWARD, "new", "s2", pack(body), connection_id="c1")
    return conversation.expect(FORWARD, "error", "s2")


SIZE = "isinstance(arguments[2], bytes) and arguments[2][0] == 66"
BUGS = {
    "in the start of a shell": ("fcntl.ioctl", SIZE, provoke_new_shell),
    "in a resize": ("fcntl.ioctl", SIZE, provoke_resize),
    "in a download": ("os.pread", "True", provoke_download),
    "at the end of an upload": ("os.fchmod", "True", provoke_upload),
    "in a port forward": (
        "socket.socket.setblocking",
        "arguments[0].type & socket.SOCK_DGRAM",
        provoke_forward,
    ),
    "in a callback": ("socket.socket.getsockopt", "arguments[0].type & socket.SOCK_DGRAM", provoke_callback),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_ends_one_session_with_an_error(either: Served, name: str) -> None:
    function, when, provoke = BUGS[name]
    patch_python(either.device, FAILING.format(name=function, when=when))
    with either.connect() as conversation:
        conversation.shell("other", user_id="other")
        assert b"internal error" in provoke(conversation).body
        conversation.type("echo al''ive\n", "other")
        conversation.until(lambda received: received.sid == "other" and b"alive" in received.body)
        code, _, err = either.stop()
    assert code == 0
    logged = [text for text in err.splitlines() if "Surprise" in text]
    assert logged
    assert len(logged[0]) < 400
    assert "report it" in logged[0]
