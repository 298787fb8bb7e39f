"""File transfers: atomic, within the limits, with numbers encoded as Go expects them."""

import contextlib
import errno
import os
import resource
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import pytest
from helpers.confinement import ESCAPES, root_only
from helpers.device import patched_python
from helpers.no_sync import NO_SYNC
from helpers.terminal_files import (
    TransferFailed,
    answer,
    begin,
    body,
    fetch,
    limited,
    look,
    put,
)
from helpers.terminal_peer import Conversation, Served, descriptors, resident
from helpers.waiting import until

from mender_oneshot.terminal.messages import CONTROL, FILES, SHELL, pack


def left_over(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith(".mender-oneshot")]


SIZES = [0, 1, 32768, 32769, 40960, 81920, 1_000_003]
NAMES: list[str | bytes] = [
    "plain",
    "with blank",
    "new\nline",
    "ümläut €",
    b"no-utf8-\xff\xfe",
    "-rf",
    "a" * 255,
]


def test_an_uploaded_file_is_downloaded_unchanged(either: Served, tmp_path: Path) -> None:
    with either.connect() as line:
        for size in SIZES:
            upload_and_download(line, tmp_path / f"file{size}", os.urandom(size))
        assert not left_over(tmp_path)


def upload_and_download(line: Conversation, path: Path, data: bytes) -> None:
    put(line, path, data)
    # The last ack follows the rename.
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    info = look(line, path)
    assert (info["path"], info["size"], info["mode"]) == (str(path), len(data), 0o644)
    assert (info["uid"], info["gid"]) == (os.geteuid(), os.getegid())
    assert info["modtime"].to_unix() == pytest.approx(path.stat().st_mtime)
    assert fetch(line, path) == data


def test_unusual_names_are_preserved(line: Conversation, tmp_path: Path) -> None:
    for name in NAMES:
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
        put(line, path, b"content")
        with open(path, "rb") as file:
            assert file.read() == b"content"
        assert os.fsencode(look(line, path)["path"]) == path
        assert fetch(line, path) == b"content"


def test_a_name_that_is_too_long_is_an_error(line: Conversation, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="File name too long"):
        put(line, tmp_path / ("a" * 256), b"content")


MODES: list[tuple[dict[str, Any], int]] = [
    ({}, 0o644),
    ({"mode": 0o755}, 0o755),
    ({"mode": 0o100600}, 0o600),
    ({"mode": 0o4755}, 0o755),
    ({"mode": (1 << 23) | 0o755}, 0o755),
]


def test_an_upload_gets_only_permission_bits(line: Conversation, tmp_path: Path) -> None:
    for members, mode in MODES:
        put(line, tmp_path / "file", b"x", **members)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode, members


@root_only
def test_an_upload_gets_the_requested_owner(line: Conversation, tmp_path: Path) -> None:
    put(line, tmp_path / "file", b"x", uid=1234, gid=4321)
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_modes_are_sent_as_go_file_modes(line: Conversation, tmp_path: Path) -> None:
    """By these bits the server rejects files that are not regular (os.FileMode, not st_mode)."""
    (tmp_path / "directory").mkdir(0o755)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        os.chmod(tmp_path / "socket", 0o600)
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to("file")
        os.chmod(tmp_path / "file", 0o7754)
        os.chmod(tmp_path / "directory", 0o1755)
        modes = {
            name: look(line, tmp_path / name)["mode"] for name in os.listdir(tmp_path) if name != "device"
        }
    assert modes == {
        "directory": 1 << 31 | 1 << 20 | 0o755,
        "pipe": 1 << 25 | 0o600,
        "socket": 1 << 24 | 0o600,
        "file": 1 << 23 | 1 << 22 | 1 << 20 | 0o754,
        "link": 1 << 23 | 1 << 22 | 1 << 20 | 0o754,
    }
    assert look(line, "/dev/null")["mode"] & ~0o777 == 1 << 26 | 1 << 21


def test_only_regular_files_are_downloaded(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in ["pipe", "directory", "/dev/zero", "/dev/null", "nothing", "pipe/x", "dangling"]:
        with pytest.raises(TransferFailed):
            fetch(line, tmp_path / path)


def test_only_regular_files_are_replaced(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("as it was")
    (tmp_path / "link").symlink_to("file")
    for target in ["pipe", "directory", "directory/", "link", "nothing/", "nothing/x", "file/x"]:
        with pytest.raises(TransferFailed):
            begin(line, f"{tmp_path}/{target}")
        assert (tmp_path / "file").read_text() == "as it was"


def test_a_link_followed_by_a_slash_is_the_directory(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    put(line, f"{tmp_path}/link/", b"content", src_path="file")
    assert (tmp_path / "directory" / "file").read_text() == "content"


def test_a_rejected_request_does_not_count_as_a_session(terminal: Served, tmp_path: Path) -> None:
    with terminal.connect("--max-sessions", "1") as line:
        with pytest.raises(TransferFailed):
            begin(line, tmp_path / "nothing" / "file", "a")
        line.shell("b")
        line.send(SHELL, "stop", "b")
        assert line.end() == 1000
    assert "Served 1 session" in terminal.finish()[1]


@pytest.mark.parametrize("target", ["directory", "directory/", "to-directory"])
def test_an_upload_to_a_directory_keeps_its_name(line: Conversation, tmp_path: Path, target: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "to-directory").symlink_to("directory")
    for source in ("name", "/some/where/name", "../../name"):
        with contextlib.suppress(TransferFailed):
            put(line, f"{tmp_path}/{target}", source.encode(), src_path=source)
            assert (tmp_path / "directory" / "name").read_text() == source
    assert sorted(os.listdir(tmp_path)) == ["device", "directory", "to-directory"]
    for source in ("..", ".", "", "/", "a/..", "\0"):
        with pytest.raises(TransferFailed):
            begin(line, f"{tmp_path}/{target}", src_path=source)


INVALID_REQUESTS = [
    b"",
    b"\xc1",
    b"\x90",
    b"\x80",
    pack({"path": "relative"}),
    pack({"path": 5}),
    pack({"path": "/a\0b"}),
]


@pytest.mark.parametrize("kind", ["stat", "get_file", "put_file"])
def test_invalid_requests_are_rejected(line: Conversation, kind: str) -> None:
    for data in INVALID_REQUESTS:
        line.send(FILES, kind, "f1", data)
        with pytest.raises(TransferFailed, match="request parameters"):
            answer(line, kind, "f1")


def test_an_error_names_the_type_of_the_request(line: Conversation) -> None:
    line.send(FILES, "stat", "f1", body(path="/nothing"))
    error = line.expect(FILES, "error", "f1")
    assert msgpack.unpackb(error.body) == {"err": "/nothing: No such file or directory", "msgtype": "stat"}


@pytest.mark.parametrize("kind", ["ack", "file_chunk"])
def test_a_chunk_or_an_ack_without_a_transfer_is_an_error(line: Conversation, kind: str) -> None:
    line.send(FILES, kind, "f1", offset=0)
    with pytest.raises(TransferFailed, match="no file transfer in progress"):
        answer(line, kind, "f1")


def test_an_unknown_type_is_rejected(line: Conversation) -> None:
    line.send(FILES, "rename", "f1")
    error = msgpack.unpackb(line.expect(CONTROL, "error", "f1").body)
    assert error == {
        "err": "unknown message protocol and type: 2/rename",
        "close": False,
        "msgproto": 2,
        "msgtype": "rename",
    }


def test_no_more_than_the_window_is_sent_without_an_ack(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    line.send(FILES, "get_file", "f1", body(path=tmp_path / "file"))
    window = 20 * 32768
    got = sum(len(answer(line, "file_chunk", "f1").body) for _ in range(20))
    assert got == window
    line.send(CONTROL, "ping", "f1")
    line.expect(CONTROL, "pong", "f1")  # no chunk was sent before it
    line.send(FILES, "ack", "f1", offset=32768)
    assert answer(line, "file_chunk", "f1").props == {"offset": window}
    line.send(FILES, "error", "f1", body(err="enough"))
    line.round_trip()


def test_offsets_of_every_width_are_accepted(line: Conversation, tmp_path: Path) -> None:
    for width in (b"\x00", b"\xcc\x00", b"\xcd\x00\x00", b"\xd3" + bytes(8)):
        begin(line, tmp_path / "file")
        header = b"\x84\xa5proto\xcd\x00\x02\xa3typ\xaafile_chunk\xa3sid\xa2p1\xa5props\x81\xa6offset" + width
        line.send_bytes(b"\x82\xa3hdr" + header + b"\xa4body\xc4\x03abc")
        line.send(FILES, "file_chunk", "p1", offset=3)
        assert answer(line, "ack", "p1").props == {"offset": 3}
        assert (tmp_path / "file").read_text() == "abc"


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        ("file_chunk", {"offset": 5}),
        ("file_chunk", {"offset": -1}),
        ("file_chunk", {"offset": "3"}),
        ("file_chunk", {}),
        ("ack", {"offset": 3}),
        ("error", {}),
    ],
)
def test_a_failed_upload_keeps_the_old_file(
    line: Conversation, tmp_path: Path, kind: str, props: dict[str, Any]
) -> None:
    (tmp_path / "file").write_text("as it was")
    begin(line, tmp_path / "file")
    line.send(FILES, "file_chunk", "p1", b"abc", offset=0)
    line.send(FILES, kind, "p1", b"def", **props)
    if kind != "error":
        with pytest.raises(TransferFailed):
            answer(line, "ack", "p1")
    line.round_trip()
    assert (tmp_path / "file").read_text() == "as it was"
    assert not left_over(tmp_path)
    put(line, tmp_path / "file", b"the next upload works")


def test_a_session_has_one_transfer_at_a_time(line: Conversation, tmp_path: Path) -> None:
    begin(line, tmp_path / "file")
    for kind in ("put_file", "get_file"):
        line.send(FILES, kind, "p1", body(path=tmp_path / "other"))
        with pytest.raises(TransferFailed, match="another file transfer is in progress"):
            answer(line, "ack", "p1")
    put(line, tmp_path / "other", b"b", sid="p2")
    line.send(FILES, "file_chunk", "p1", b"a", offset=0)
    line.send(FILES, "file_chunk", "p1", offset=1)
    assert answer(line, "ack", "p1").props == {"offset": 1}
    assert ((tmp_path / "file").read_text(), (tmp_path / "other").read_text()) == ("a", "b")


def test_an_upload_to_a_full_disk_fails_and_leaves_no_file(
    terminal: Served, line: Conversation, tmp_path: Path
) -> None:
    resource.prlimit(terminal.process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    with pytest.raises(TransferFailed, match="File too large"):
        put(line, tmp_path / "file", bytes(200_000))
    assert not (tmp_path / "file").exists()
    assert not left_over(tmp_path)


@pytest.mark.parametrize("path", ["/proc/version", "/proc/uptime", "/sys/devices/system/cpu/online"])
def test_a_generated_file_is_downloaded_as_announced(line: Conversation, path: str) -> None:
    """stat(2) returns 0 or 4096 as its size, and the content may differ at each read."""
    announced = look(line, path)["size"]
    got = fetch(line, path)
    assert len(got) == announced > 0
    if path != "/proc/uptime":
        assert got == Path(path).read_bytes()
    # The announced content belongs to that path only.
    look(line, path)
    assert fetch(line, "/etc/passwd") == Path("/etc/passwd").read_bytes()


def test_a_growing_file_is_downloaded_as_announced(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a" * 1000)
    assert look(line, tmp_path / "log")["size"] == 1000
    with (tmp_path / "log").open("ab") as file:
        file.write(b"b" * 1000)
    assert fetch(line, tmp_path / "log") == b"a" * 1000
    # Without an announcement the current content is sent.
    assert len(fetch(line, tmp_path / "log")) == 2000


def test_a_file_that_has_shrunk_is_an_error(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a" * 1000)
    look(line, tmp_path / "log")
    (tmp_path / "log").write_bytes(b"a" * 10)
    with pytest.raises(TransferFailed, match="shorter"):
        fetch(line, tmp_path / "log")


@pytest.mark.parametrize("end", ["closed", "lost", "stopped", "killed"])
def test_an_interrupted_upload_keeps_the_old_file(terminal: Served, tmp_path: Path, end: str) -> None:
    (tmp_path / "file").write_text("as it was")
    with terminal.connect() as line:
        begin(line, tmp_path / "file")
        for number in range(20):
            line.send(FILES, "file_chunk", "p1", bytes(4096), offset=number * 4096)
        answer(line, "ack", "p1")
        assert len(left_over(tmp_path)) == 1
        if end == "closed":
            line.send(CONTROL, "close", "p1")
            line.round_trip()
        elif end == "stopped":
            terminal.process.terminate()
            received = line.until(lambda received: received.kind == "error")
            assert "ends its terminal service" in msgpack.unpackb(received[-1].body)["err"]
            assert line.end() == 1000
        elif end == "killed":
            terminal.process.kill()
            terminal.process.wait()
    assert (tmp_path / "file").read_text() == "as it was"
    if end != "killed":  # otherwise no process is left to remove it
        until(lambda: not left_over(tmp_path), "the temporary file is removed")


def test_transfers_leave_no_descriptor_open(terminal: Served, line: Conversation, tmp_path: Path) -> None:
    put(line, tmp_path / "file", bytes(100_000))
    line.round_trip()
    files, memory = descriptors(terminal.process.pid), resident(terminal.process.pid)
    for number in range(20):
        put(line, tmp_path / "file", bytes(100_000), sid=f"p{number}")
        assert len(fetch(line, tmp_path / "file", sid=f"f{number}")) == 100_000
        begin(line, tmp_path / "other", sid=f"x{number}")
        line.send(CONTROL, "close", f"x{number}")
        with pytest.raises(TransferFailed):
            fetch(line, tmp_path / "nothing", sid=f"y{number}")
    line.round_trip()
    assert descriptors(terminal.process.pid) == files
    assert resident(terminal.process.pid) - memory < 2048


@pytest.mark.parametrize("follow", [False, True])
def test_no_path_leaves_the_chroot(terminal: Served, tree: Path, follow: bool) -> None:
    outside = {
        path: path.read_bytes() for path in (tree.parent / "secret", tree.parent / "jailbreak" / "file")
    }
    limits = {"Chroot": str(tree), "FollowSymLinks": follow, "AllowOverwrite": True}
    with limited(terminal, **limits) as line:
        for path in ESCAPES:
            path = path.format(jail=tree, parent=tree.parent)
            for attempt in (look, fetch):
                with pytest.raises(TransferFailed):
                    attempt(line, path)
            for target in (path, f"{path}/new"):
                with pytest.raises(TransferFailed):
                    put(line, target, b"written", src_path="../../secret")
        assert fetch(line, tree / "file") == b"inside"
        put(line, tree / "a" / "new", b"written")
        put(line, tree / "a", b"written", src_path="../../secret")
    assert (tree / "a" / "secret").read_text() == (tree / "a" / "new").read_text() == "written"
    assert {path: path.read_bytes() for path in outside} == outside
    assert not (tree.parent / "new").exists()


def test_links_are_followed_only_if_allowed(terminal: Served, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("content")
    (tmp_path / "link").symlink_to("directory")
    with limited(terminal) as line:
        for attempt in (look, fetch):
            with pytest.raises(TransferFailed, match="forbidden to follow the link"):
                attempt(line, tmp_path / "link" / "file")
        with pytest.raises(TransferFailed, match="forbidden to follow the link"):
            put(line, tmp_path / "link" / "new", b"")
        assert fetch(line, tmp_path / "directory" / "file") == b"content"


def test_limits_that_are_not_enabled_have_no_effect(terminal: Served, tmp_path: Path) -> None:
    limits = {"Chroot": "/nowhere", "MaxFileSize": 1}
    terminal.configure(RemoteTerminal=True, Limits={"Enabled": False, "FileTransfer": limits})
    with terminal.connect() as line:
        put(line, tmp_path / "file", b"content")
        put(line, tmp_path / "file", b"again")
        assert fetch(line, tmp_path / "file") == b"again"


def test_a_file_is_overwritten_only_if_allowed(terminal: Served, tmp_path: Path) -> None:
    with limited(terminal) as line:
        put(line, tmp_path / "file", b"first")
        with pytest.raises(TransferFailed, match="access denied: forbidden to overwrite the file"):
            put(line, tmp_path / "file", b"second")
    assert (tmp_path / "file").read_text() == "first"


def test_a_file_created_during_an_upload_is_not_overwritten(terminal: Served, tmp_path: Path) -> None:
    with limited(terminal) as line:
        begin(line, tmp_path / "file", "a")
        put(line, tmp_path / "file", b"first", "b")
        line.send(FILES, "file_chunk", "a", b"second", offset=0)
        line.send(FILES, "file_chunk", "a", offset=6)
        with pytest.raises(TransferFailed, match="forbidden to overwrite"):
            answer(line, "ack", "a")
    assert (tmp_path / "file").read_text() == "first"
    assert not left_over(tmp_path)


def test_a_file_over_the_size_limit_is_rejected(terminal: Served, tmp_path: Path) -> None:
    with limited(terminal, MaxFileSize=1000, AllowOverwrite=True) as line:
        put(line, tmp_path / "file", bytes(1000))
        assert len(fetch(line, tmp_path / "file")) == 1000
        with pytest.raises(TransferFailed, match="limit exhausted"):
            put(line, tmp_path / "file", bytes(1001))
        (tmp_path / "large").write_bytes(bytes(1001))
        for attempt in (look, fetch):
            with pytest.raises(TransferFailed, match="access denied: the file size is over the limit"):
                attempt(line, tmp_path / "large")
        # Its size in stat(2) is 0.
        with pytest.raises(TransferFailed, match="access denied: the file size is over the limit"):
            look(line, f"/proc/{terminal.process.pid}/smaps")
    assert (tmp_path / "file").stat().st_size == 1000


def test_transfers_over_the_bytes_per_minute_are_rejected(terminal: Served, tmp_path: Path) -> None:
    counters = {"MaxBytesTxPerMinute": 100_000, "MaxBytesRxPerMinute": 50_000}
    with limited(terminal, Counters=counters, AllowOverwrite=True) as line:
        put(line, tmp_path / "file", bytes(40_000))
        with pytest.raises(TransferFailed, match="limit exhausted"):
            put(line, tmp_path / "other", bytes(40_000))
        assert not (tmp_path / "other").exists()
        fetch(line, tmp_path / "file")
        fetch(line, tmp_path / "file")
        with pytest.raises(TransferFailed, match="limit exhausted"):
            fetch(line, tmp_path / "file")


def test_the_umask_is_applied_and_the_set_uid_bit_rejected(terminal: Served, tmp_path: Path) -> None:
    with limited(terminal, Umask="027") as line:
        put(line, tmp_path / "a", b"", mode=0o777)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750
        for mode in (0o4755, 1 << 23 | 0o755):
            with pytest.raises(TransferFailed, match="access denied: the set uid mode is forbidden"):
                begin(line, tmp_path / "b", mode=mode)


def test_the_set_uid_bit_is_set_if_allowed(terminal: Served, tmp_path: Path) -> None:
    with limited(terminal, AllowSuid=True) as line:
        put(line, tmp_path / "a", b"", mode=1 << 23 | 0o755)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o4755


def test_other_files_are_hidden_if_only_regular_files_are_allowed(terminal: Served, tmp_path: Path) -> None:
    with limited(terminal, RegularFilesOnly=True) as line:
        with pytest.raises(TransferFailed, match="access denied: only regular files are allowed"):
            look(line, tmp_path)
        (tmp_path / "file").write_text("")
        look(line, tmp_path / "file")


@root_only
def test_only_files_of_the_configured_owners_and_groups_are_transferred(
    terminal: Served, tmp_path: Path
) -> None:
    (tmp_path / "theirs").write_text("theirs")
    os.chown(tmp_path / "theirs", 1, 1)
    (tmp_path / "ours").write_text("ours")
    limits: dict[str, Any] = {"OwnerGet": ["daemon", "nobody-of-this-name"], "GroupGet": ["daemon"]}
    limits |= {"OwnerPut": "daemon", "GroupPut": "daemon", "AllowOverwrite": True}
    with limited(terminal, **limits) as line:
        assert fetch(line, tmp_path / "theirs") == b"theirs"
        for attempt in (look, fetch):
            with pytest.raises(TransferFailed, match="access denied: the file owner does not match"):
                attempt(line, tmp_path / "ours")
        with pytest.raises(TransferFailed, match="access denied: the file owner does not match"):
            put(line, tmp_path / "ours", b"")
        os.chown(tmp_path / "ours", 1, 0)
        for attempt in (look, fetch):
            with pytest.raises(TransferFailed, match="access denied: the file group does not match"):
                attempt(line, tmp_path / "ours")
        with pytest.raises(TransferFailed, match="access denied: the file group does not match"):
            put(line, tmp_path / "ours", b"")
        put(line, tmp_path / "theirs", b"new")
        put(line, tmp_path / "another", b"new", uid=0, gid=0)
        for name in ("theirs", "another"):
            found = (tmp_path / name).stat()
            assert (found.st_uid, found.st_gid, found.st_size) == (1, 1, 3)


@root_only
def test_an_upload_for_an_owner_that_does_not_exist_is_an_error(terminal: Served, tmp_path: Path) -> None:
    with (
        limited(terminal, OwnerPut="nobody-of-this-name") as line,
        pytest.raises(TransferFailed, match="owner"),
    ):
        put(line, tmp_path / "file", b"")


def test_file_transfers_can_be_disabled(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, FileTransfer={"Disable": True})
    with terminal.connect() as line:
        line.send(CONTROL, "open", "f1", pack({"versions": [1]}))
        accept = msgpack.unpackb(line.expect(CONTROL, "accept", "f1").body)
        assert accept == {"version": 1, "protocols": [1, 3, 4]}
        line.send(FILES, "stat", "f1", body(path="/"))
        assert msgpack.unpackb(line.expect(CONTROL, "error", "f1").body)["msgproto"] == 2


@pytest.mark.parametrize("seconds", [-(2**31), 0, 2**34, 2**63 - 1])
def test_modification_times_of_any_age_are_sent(line: Conversation, seconds: int) -> None:
    """tmpfs has no limit for times."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        os.utime(file.name, (0, seconds))
        kept = os.stat(file.name).st_mtime_ns // 10**9
        assert look(line, file.name)["modtime"] == msgpack.Timestamp(kept)


def test_names_do_not_depend_on_the_locale(terminal: Served, tmp_path: Path) -> None:
    terminal.device.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with terminal.connect() as line:
        put(line, tmp_path / "ümläut €", b"content")
        assert fetch(line, tmp_path / "ümläut €") == b"content"
    assert (tmp_path / "ümläut €").read_bytes() == b"content"


def test_a_path_that_is_too_long_is_an_error(line: Conversation) -> None:
    with pytest.raises(TransferFailed, match="File name too long"):
        look(line, "/" + "./" * 2048 + "etc/passwd")


def test_times_are_sent_as_msgpack_timestamps(line: Conversation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.utime(tmp_path / "file", (0, 1_700_000_000))
    line.send(FILES, "stat", "f1", body(path=tmp_path / "file"))
    data = line.expect(FILES, "file_info", "f1").body
    assert b"\xa7modtime\xd6\xff" + struct.pack(">I", 1_700_000_000) in data


def test_an_upload_succeeds_in_a_directory_that_cannot_be_synced(terminal: Served) -> None:
    """For example on a VirtualBox share, which returns EINVAL."""
    place = terminal.device.root / "put"
    with patched_python(terminal.device, NO_SYNC.format(error=errno.EINVAL)), terminal.connect() as line:
        put(line, place, b"content")
    assert place.read_bytes() == b"content"
