"""How mender-oneshot and mender-connect 2.1.0 behave for a user, as one table; both columns are tested.

`PYTHONPATH=tests python tests/terminal/test_terminal_behaviours.py` prints the table in docs/terminal.md.
"""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from helpers.device import REPO
from helpers.real_connect import free_port
from helpers.terminal_stage import OURS, THEIRS, Stage, stage
from helpers.waiting import until

from mender_oneshot.devserver import messages
from mender_oneshot.devserver.messages import CLIENT, CONTROL, FILES, FORWARD, SHELL, Message
from mender_oneshot.devserver.relay import DeviceDisconnected
from mender_oneshot.devserver.user_session import UserSession

INT64 = b"\xd3"
CTRL_BRACKET = b"\x1d"


class Behaviour(NamedTuple):
    """One row of the table: what is done, what each device does, and the settings for it."""

    chapter: str
    what: str
    drive: Callable[[Stage], str]
    ours: str
    theirs: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the test."""
        return self.drive.__name__


TABLE: list[Behaviour] = []
Drive = Callable[[Stage], str]


def behaviour(
    chapter: str, what: str, ours: str, theirs: str = "", **settings: Any
) -> Callable[[Drive], Drive]:
    """Add a function to the table; it returns what it saw as text, expected for both programs."""

    def enter(drive: Drive) -> Drive:
        TABLE.append(Behaviour(chapter, what, drive, ours, theirs or ours, settings))
        return drive

    return enter


def quiet(user: UserSession, width: int | None = 80, height: int | None = 40) -> UserSession:
    """Open a shell without echo, prompt and conversions."""
    user.new(width, height)
    user.type(b"PS1= PS2=; stty raw -echo; echo re''ady\n")
    user.until(b"ready")
    return user


def output(user: UserSession, command: str) -> str:
    """Return what a command prints, in a quiet shell."""
    user.type(f"{command}\necho =do''ne=\n".encode())
    return user.until(b"=done=").decode(errors="replace").partition("=done=")[0].strip()


def status(message: Message) -> str:
    """Return status and text of a message."""
    text = message.body.decode(errors="replace")
    return f"{message.props.get('status')}" + (f", “{text}”" if text else "")


def error_text(message: Message) -> str:
    """Return the text of an error in MessagePack."""
    return str(messages.unpack_map(message.body).get("err"))


def running(mark: str) -> bool:
    """Return whether a `sleep` has this argument; `nohup sleep` has not ignored SIGHUP yet."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cmdline").read_bytes() == f"sleep\0{mark}\0".encode():
                return True
        except OSError:
            continue
    return False


@behaviour("Shell", "initial size: as requested; as configured if none is requested", "30 90; 40 80")
def size(on: Stage) -> str:
    with on.terminal() as user:
        asked = output(quiet(user, 90, 30), "stty size")
        user.stop()
    with on.terminal() as user:
        return f"{asked}; {output(quiet(user, None, None), 'stty size')}"


@behaviour("Shell", "`resize` and keys right after `new`, without waiting for its response", "nothing lost")
def right_after_new(on: Stage) -> str:
    with on.terminal() as user:
        user.send(SHELL, "new", terminal_width=80, terminal_height=40)
        user.resize(70, 20)
        user.type(b"echo $(stty size) re''ady\n")
        shown = user.until(b" ready")
        return "nothing lost" if b"20 70 ready" in shown else f"lost: {shown!r}"


@behaviour("Shell", "Ctrl-C while `sleep` runs", "`sleep` ends, the shell continues")
def ctrl_c(on: Stage) -> str:
    with on.terminal() as user:
        user.new()
        user.type(b"sh -c 'echo slee''ping; exec sleep 1000'\n")
        user.until(b"sleeping")
        user.type(b"\x03")
        user.until(b"# ")
        user.type(b"echo co''de=$?=\n")
        shown = user.until(b"code=130=")
        return "`sleep` ends, the shell continues" if b"code=130=" in shown else repr(shown)


@behaviour("Shell", "job control", "yes")
def job_control(on: Stage) -> str:
    with on.terminal() as user:
        return "yes" if "m" in output(quiet(user), "echo $-") else "no"


@behaviour("Shell", "environment of the shell", "HOME LANG LOGNAME PATH SHELL TERM USER", "HOME TERM")
def environment(on: Stage) -> str:
    with on.terminal() as user:
        return output(quiet(user), "tr '\\0' '\\n' </proc/$$/environ | cut -d= -f1 | sort | xargs")


@behaviour("Shell", "`User`", "nobody; cwd /", User="nobody")
def other_user(on: Stage) -> str:
    with on.terminal() as user:
        return output(quiet(user), 'echo "$(id -un); cwd $(pwd)"')


@behaviour("Shell", "bytes 0 to 255, in both directions", "unchanged")
def binary(on: Stage) -> str:
    with on.terminal() as user:
        quiet(user)
        user.type(b"echo g''o; head -c 256 | od -An -v -tu1 | tr -d ' \\n'; echo =in''put=\n")
        user.until(b"go\n")
        user.type(bytes(range(256)))
        came_in = user.until(b"=input=").partition(b"=input=")[0].strip()
        octal = "".join(f"\\{number:03o}" for number in range(256))
        user.type(f"printf '{octal}'; echo =out''put=\n".encode())
        went_out = user.until(b"=output=").partition(b"=output=")[0]
        good = came_in == "".join(map(str, range(256))).encode(), went_out.endswith(bytes(range(256)))
        return "unchanged" if all(good) else f"changed: {good}"


@behaviour("Shell", "a paste of 100 kB in one message", "arrives whole", "the connection breaks")
def large_input(on: Stage) -> str:
    with on.terminal() as user:
        quiet(user)
        user.type(b"echo g''o; head -c 100000 | tr -d x | wc -c; echo =do''ne=\n")
        user.until(b"go\n")
        try:
            user.type(b"x" * 100_000)
            return "arrives whole" if user.until(b"=done=").startswith(b"0") else "arrives changed"
        except DeviceDisconnected:
            return "the connection breaks"


@behaviour("Shell", "5 MB of output", "arrives whole")
def flood(on: Stage) -> str:
    with on.terminal() as user:
        quiet(user)
        user.type(b"head -c 5000000 /dev/zero | tr '\\0' x; echo =do''ne=\n")
        return "arrives whole" if user.until(b"=done=").count(b"x") == 5_000_000 else "arrives changed"


@behaviour(
    "Shell",
    "`exit 3`: message and status",
    "“The shell has ended with status 3.”; 1",
    "“read /dev/ptmx: input/output error”; 2",
)
def exit_noticed(on: Stage) -> str:
    with on.terminal() as user:
        quiet(user)
        user.type(b"exit 3\n")
        stop = user.expect(SHELL, "stop")
        return f"“{stop.body.decode()}”; {stop.props['status']}"


@behaviour(
    "Shell",
    "a new shell on the same session, right after the old one ended",
    "1, “Shell started”",
    "2, “failed to start shell: shell is already running”",
)
def new_after_exit(on: Stage) -> str:
    with on.terminal() as user:
        quiet(user)
        user.type(b"exit\n")
        user.expect(SHELL, "stop")
        return status(user.new())


@behaviour(
    "Shell",
    "a second `new` while the first shell runs",
    "2, “failed to start shell: shell is already running”",
)
def second_new(on: Stage) -> str:
    with on.terminal() as user:
        user.new()
        return status(user.new())


@behaviour(
    "Shell",
    "one session more than `Sessions.MaxPerUser`",
    "2, “You have 2 session(s) open on this device, the most a user may have (Sessions.MaxPerUser); "
    "close one and try again.”",
    "2, “user has too many open sessions”",
    Sessions={"MaxPerUser": 2},
)
def too_many(on: Stage) -> str:
    with on.terminal() as one, on.terminal() as two, on.terminal("other") as other, on.terminal() as three:
        for user in (one, two, other):
            assert user.new().props["status"] == 1
        return status(three.new())


@behaviour("Shell", "does mender-cli 1.9.0 show that error?", "yes, and exits 1", "no, it hangs")
def error_shown(on: Stage) -> str:
    with on.terminal() as user:
        user.new()
        with on.cli().terminal(on.id) as screen:
            try:
                screen.until(b"FAILURE: Unable to start the shell", seconds=3)
            except AssertionError:
                screen.type(CTRL_BRACKET)
                assert screen.end() == 0
                return "no, it hangs"
            return f"yes, and exits {screen.end()}"


@behaviour("Shell", "two users at once", "each sees their own shell")
def two_users(on: Stage) -> str:
    with on.terminal("one") as one, on.terminal("two") as two:
        for user in (one, two):
            quiet(user)
        one.type(b"echo =o''ne=\n")
        two.type(b"echo =t''wo=\n")
        seen = one.until(b"=one="), two.until(b"=two=")
        own = b"=two=" not in seen[0] and b"=one=" not in seen[1]
        return "each sees their own shell" if own else repr(seen)


@behaviour("Shell", "the user's connection is lost", "the shell ends")
def user_lost(on: Stage) -> str:
    mark = f"{os.getpid()}.75"
    with on.terminal() as user:
        quiet(user)
        user.type(f"sleep {mark}\n".encode())
        until(lambda: running(mark), "the program runs")
    until(lambda: not running(mark), "the shell has ended")
    return "the shell ends"


@behaviour("Shell", "keys for a shell that does not exist", "2, “session not found”")
def no_such_shell(on: Stage) -> str:
    with on.terminal() as user:
        user.type(b"x")
        return status(user.expect(SHELL, "shell"))


@behaviour(
    "Shell",
    "`nohup` program in the background when the session is stopped",
    "ends with the shell",
    "keeps running",
)
def background(on: Stage) -> str:
    mark = f"{os.getpid()}.5"
    with on.terminal() as user:
        output(quiet(user), f"nohup sleep {mark} >/dev/null 2>&1 &")
        until(lambda: running(mark), "the program runs")
        user.stop()
        try:
            until(lambda: not running(mark), "the program has ended", 3)
        except AssertionError:
            return "keeps running"
        return "ends with the shell"


@behaviour(
    "Shell",
    "`Terminal.Disable`",
    "2, “unknown message protocol and type: 1/new”; protocols 2 3 4",
    Terminal={"Disable": True},
)
def disabled(on: Stage) -> str:
    with on.terminal() as user:
        answer = status(user.new())
        return f"{answer}; protocols {' '.join(map(str, sorted(user.open()['protocols'])))}"


@behaviour("Messages", "width of `status` (mender-cli reads int64 only)", "int64", "fixint")
def width_of_status(on: Stage) -> str:
    with on.terminal() as user:
        return "int64" if user.new().raw["status"][:1] == INT64 else "fixint"


@behaviour("Messages", "control `open`", "`accept`, protocols 1 2 3 4")
def handshake(on: Stage) -> str:
    with on.terminal() as user:
        return f"`accept`, protocols {' '.join(map(str, sorted(user.open()['protocols'])))}"


@behaviour(
    "Messages", "control `open` for another version", "`error`, “handshake rejected: require version 1”"
)
def other_version(on: Stage) -> str:
    with on.terminal() as user:
        user.send(CONTROL, "open", messages.pack({"versions": [2]}))
        answer = user.receive()
        return f"`{answer.typ}`, “{error_text(answer)}”"


@behaviour("Messages", "control `ping`", "`pong`")
def pinged(on: Stage) -> str:
    with on.terminal() as user:
        user.send(CONTROL, "ping")
        return f"`{user.receive().typ}`"


@behaviour(
    "Messages",
    "an unknown protocol",
    "control `error`, “unknown message protocol and type: 9/what”",
    "control `error`, “no handler registered for protocol: 0x0009”",
)
def unknown_protocol(on: Stage) -> str:
    with on.terminal() as user:
        user.send(9, "what")
        answer = user.receive()
        kind = "control" if answer.proto == CONTROL else f"protocol {answer.proto}"
        return f"{kind} `{answer.typ}`, “{error_text(answer)}”"


@behaviour(
    "Messages",
    "an unknown message type of the shell protocol",
    "2, “unknown message protocol and type: 1/what”",
)
def unknown_type(on: Stage) -> str:
    with on.terminal() as user:
        user.send(SHELL, "what")
        return status(user.receive())


@behaviour(
    "Messages", "check for update", "done by a separate process: 1", "2, “exit status 1” (no systemd here)"
)
def check_update(on: Stage) -> str:
    assert on.ask("POST", "/check-update").status == 202
    answer = on.server.wait_for_dropped(lambda message: message.proto == CLIENT)
    shown = status(answer)
    return f"done by a separate process: {shown}" if shown == "1" else f"{shown} (no systemd here)"


@behaviour("Files", "`cp` of 1 byte and of 5 MB, with an unusual name, in both directions", "identical")
def copies(on: Stage) -> str:
    cli = on.cli()
    for length in (1, 5_000_000):
        ours, there, back = (on.place / f"{name} é \"'\n{length}" for name in ("ours", "there", "back"))
        ours.write_bytes(os.urandom(length))
        cli.cp(str(ours), f"{on.id}:{there}")
        until(there.exists, "the file is there")
        cli.cp(f"{on.id}:{there}", str(back))
        if not ours.read_bytes() == there.read_bytes() == back.read_bytes():
            return "not identical"
    return "identical"


@behaviour(
    "Files",
    "`cp` of an empty file to the device (the server hangs up early), ten times",
    "there",
    "sometimes lost",
)
def empty(on: Stage) -> str:
    paths = [on.place / str(number) for number in range(10)]
    for path in paths:
        assert on.put(str(path), b"").status == 201
    if on.ask("GET", "/download?path=/dev/null").status == 400 and all(path.exists() for path in paths):
        return "there"
    return "sometimes lost"


@behaviour("Files", "mode of an uploaded file: as requested; if none is requested", "640; 644")
def modes(on: Stage) -> str:
    on.put(str(on.place / "asked"), mode="640")
    on.put(str(on.place / "default"))
    return "; ".join(f"{(on.place / name).stat().st_mode & 0o7777:o}" for name in ("asked", "default"))


@behaviour("Files", "upload to a directory", "into it, under the name that was sent")
def into_directory(on: Stage) -> str:
    assert on.put(str(on.place)).status == 201
    return "into it, under the name that was sent" if (on.place / "sent").read_bytes() == b"new" else "lost"


@behaviour("Files", "upload to a symbolic link", "rejected", "rejected")
def onto_link(on: Stage) -> str:
    (on.place / "real").write_bytes(b"old")
    (on.place / "link").symlink_to("real")
    reply = on.put(str(on.place / "link"))
    kept = (on.place / "link").is_symlink() and (on.place / "real").read_bytes() == b"old"
    return "rejected" if reply.status == 400 and kept else f"{reply.status}, kept: {kept}"


@behaviour("Files", "an interrupted upload", "the old file is kept, no other file remains")
def atomic(on: Stage) -> str:
    target = on.place / "file"
    target.write_bytes(b"old")
    with on.terminal() as user:
        user.open()
        user.send(FILES, "put_file", messages.pack({"path": str(target)}))
        user.expect(FILES, "ack")
        user.send(FILES, "file_chunk", bytes(4096), offset=0)
        user.send(FILES, "file_chunk", bytes(4096), offset=4096)
        user.send(CONTROL, "close")
    until(lambda: os.listdir(on.place) == ["file"], "the temporary file is removed")
    return (
        "the old file is kept, no other file remains"
        if target.read_bytes() == b"old"
        else "the old file is gone"
    )


@behaviour(
    "Files",
    "when an upload is acknowledged",
    "after the file is in place",
    "before the file, its mode and its owner are in place",
)
def acknowledged(on: Stage) -> str:
    target = on.place / "file"
    (on.place / "file").mkdir()
    with on.terminal() as user:
        user.open()
        (on.place / "file").rmdir()
        user.send(FILES, "put_file", messages.pack({"path": str(target)}))
        user.expect(FILES, "ack")
        target.mkdir()  # now the rename must fail
        user.send(FILES, "file_chunk", b"x", offset=0)
        user.send(FILES, "file_chunk", offset=1)
        while (answer := user.receive()).typ == "ack" and answer.props["offset"] < 1:
            pass
        return (
            "after the file is in place"
            if answer.typ == "error"
            else "before the file, its mode and its owner are in place"
        )


@behaviour(
    "Files",
    "a second upload in the same session at the same time",
    "rejected: “another file transfer is in progress”",
)
def two_uploads(on: Stage) -> str:
    with on.terminal() as user:
        user.open()
        for name in ("one", "two"):
            user.send(FILES, "put_file", messages.pack({"path": str(on.place / name)}))
        return f"rejected: “{error_text(user.expect(FILES, 'error'))}”"


@behaviour("Files", "`get_file` of a named pipe without a writer", "rejected", "no response")
def named_pipe(on: Stage) -> str:
    os.mkfifo(on.place / "pipe")
    with on.server.terminal(timeout=3) as user:
        user.open()
        user.send(FILES, "get_file", messages.pack({"path": str(on.place / "pipe")}))
        try:
            user.expect(FILES, "error")
        except TimeoutError:
            return "no response"
        return "rejected"


@behaviour("Files", "download of /proc/version, whose size is shown as 0", "whole")
def no_size(on: Stage) -> str:
    reply = on.ask("GET", "/download?path=/proc/version")
    if reply.body == Path("/proc/version").read_bytes():
        return "whole"
    return "empty" if (reply.status, reply.body) == (200, b"") else f"{reply.status}, {reply.body!r}"


@behaviour("Files", "a file name that is not UTF-8, in both directions", "preserved")
def unusual_name(on: Stage) -> str:
    path = f"{on.place}/odd \udcff"
    assert on.put(path).status == 201
    reply = on.ask("GET", f"/download?path={quote(os.fsencode(path))}")
    return (
        "preserved" if reply.body == b"new" and Path(path).read_bytes() == b"new" else f"lost: {reply.status}"
    )


def chrooted(**more: Any) -> dict[str, Any]:
    """Return limits with the Chroot CHROOT, which the test replaces by its own directory."""
    return {"Limits": {"Enabled": True, "FileTransfer": {"Chroot": "CHROOT", **more}}}


def escapes(on: Stage) -> dict[str, str]:
    """Make paths that lead out of the Chroot, to a file named "secret"; return them by name."""
    root, outside = on.place / "root", on.place / "outside"
    for directory in (outside, on.place / "rootling"):
        directory.mkdir()
    for directory in (outside, on.place / "rootling"):
        (directory / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    return {
        "`..`": f"{root}/../outside/secret",
        "a sibling's name": f"{root}ling/secret",
        "a link to a directory": f"{root}/link/secret",
        "a link to a file": f"{root}/file",
    }


def ways_out(on: Stage, through: Callable[[str], bool]) -> str:
    """Return which of the paths lead out."""
    out = [name for name, path in escapes(on).items() if through(path)]
    return f"out by {', '.join(out)}" if out else "no way out"


@behaviour(
    "Files",
    "download from outside `Chroot`, `FollowSymLinks` on",
    "no way out",
    "out by `..`, a sibling's name, a link to a directory, a link to a file",
    **chrooted(FollowSymLinks=True),
)
def chroot_get(on: Stage) -> str:
    return ways_out(on, lambda path: on.ask("GET", f"/download?path={path}").body == b"secret")


@behaviour("Files", "the same, `FollowSymLinks` off", "no way out", "out by a sibling's name", **chrooted())
def chroot_get_strict(on: Stage) -> str:
    return ways_out(on, lambda path: on.ask("GET", f"/download?path={path}").body == b"secret")


@behaviour(
    "Files",
    "upload to outside `Chroot`, `FollowSymLinks` on",
    "no way out",
    "out by `..`, a sibling's name, a link to a directory",
    **chrooted(FollowSymLinks=True, AllowOverwrite=True),
)
def chroot_put(on: Stage) -> str:
    secrets = [on.place / name / "secret" for name in ("outside", "rootling")]

    def through(path: str) -> bool:
        on.put(path)
        changed = [secret for secret in secrets if secret.read_bytes() == b"new"]
        for secret in changed:
            secret.write_bytes(b"secret")
        return bool(changed)

    return ways_out(on, through)


@behaviour(
    "Files", "what is disclosed about files outside `Chroot`", "nothing", "size, owner, mode", **chrooted()
)
def chroot_stat(on: Stage) -> str:
    path = escapes(on)["`..`"]
    return "size, owner, mode" if on.ask("HEAD", f"/download?path={path}").status == 200 else "nothing"


@behaviour(
    "Files",
    "a file of exactly `MaxFileSize` bytes",
    "goes through",
    "“failed to write file chunk: transmitted bytes limit exhausted”",
    Limits={"Enabled": True, "FileTransfer": {"MaxFileSize": 5000}},
)
def largest_size(on: Stage) -> str:
    reply = on.put(str(on.place / "file"), bytes(5000))
    return (
        "goes through" if reply.status == 201 else f"“{reply.json['error'].removeprefix('access denied: ')}”"
    )


@behaviour("Port forward", "tcp through mender-cli: 1 MB there and back", "identical")
def tcp(on: Stage) -> str:
    content = os.urandom(1_000_000)
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(20)
        port = free_port(socket.SOCK_STREAM)
        with (
            on.cli().port_forward(on.id, f"tcp/{port}:{target.getsockname()[1]}"),
            socket.create_connection(("127.0.0.1", port), timeout=20) as ours,
        ):
            theirs, _ = target.accept()
            with theirs:
                theirs.settimeout(20)
                got = _across(ours, theirs, content)
                back = _across(theirs, ours, got)
    return "identical" if content == got == back else "not identical"


def _across(sender: socket.socket, receiver: socket.socket, content: bytes) -> bytes:
    got = b""
    for at in range(0, len(content), 50_000):
        piece = content[at : at + 50_000]
        sender.sendall(piece)
        got += _exactly(receiver, len(piece))
    return got


def _exactly(stream: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = stream.recv(size - len(got))
        assert piece, "the connection has ended"
        got += piece
    return got


@behaviour("Port forward", "udp through mender-cli: 200 requests, 200 responses", "all arrive")
def udp(on: Stage) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(20)
        port = free_port(socket.SOCK_DGRAM)
        with (
            on.cli().port_forward(on.id, f"udp/{port}:{target.getsockname()[1]}"),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(20)
            for number in range(200):
                client.sendto(b"%d" % number, ("127.0.0.1", port))
                question, sender = target.recvfrom(100)
                target.sendto(question * 2, sender)
                assert client.recv(100) == b"%d" % number * 2
    return "all arrive"


def dial(user: UserSession, port: int, connection: str = "c1") -> None:
    """Request a connection to a port of the device."""
    body = messages.pack({"remote_host": "127.0.0.1", "remote_port": port, "protocol": "tcp"})
    user.send(FORWARD, "new", body, connection_id=connection)


@behaviour("Port forward", "data right after `new`", "arrives")
def forward_right_after_new(on: Stage) -> str:
    with socket.create_server(("127.0.0.1", 0)) as target, on.terminal() as user:
        target.settimeout(20)
        user.open()
        dial(user, target.getsockname()[1])
        user.send(FORWARD, "forward", b"at once", connection_id="c1")
        theirs, _ = target.accept()
        with theirs:
            theirs.settimeout(20)
            return "arrives" if _exactly(theirs, 7) == b"at once" else "changed"


@behaviour(
    "Port forward",
    "nothing listens on the port",
    "`error` without its connection, then `stop`",
    "`error` without its connection",
)
def no_listener(on: Stage) -> str:
    with on.terminal() as user:
        user.open()
        dial(user, free_port(socket.SOCK_STREAM))
        answer = user.receive()
        whose = "with" if answer.props.get("connection_id") == "c1" else "without"
        user.send(CONTROL, "ping")
        then = user.receive()
        return f"`{answer.typ}` {whose} its connection" + (
            f", then `{then.typ}`" if then.typ != "pong" else ""
        )


@behaviour("Port forward", "data for an unknown connection", "`error`, “unknown connection”")
def no_such_connection(on: Stage) -> str:
    with on.terminal() as user:
        user.open()
        user.send(FORWARD, "forward", b"x", connection_id="c1")
        answer = user.receive()
        return f"`{answer.typ}`, “{error_text(answer)}”"


@behaviour("Port forward", "the target closes", "`stop`")
def target_closes(on: Stage) -> str:
    with socket.create_server(("127.0.0.1", 0)) as target, on.terminal() as user:
        target.settimeout(20)
        user.open()
        dial(user, target.getsockname()[1])
        assert user.receive().typ == "new"
        target.accept()[0].close()
        return f"`{user.receive().typ}`"


@behaviour(
    "Ends",
    "the connection breaks while a shell runs",
    "the shell ends",
    "the shell keeps running, unreachable",
)
def connection_broken(on: Stage) -> str:
    mark = f"{os.getpid()}.25"
    with on.terminal() as user:
        quiet(user)
        user.type(f"sleep {mark}\n".encode())
        until(lambda: running(mark), "the program runs")
        on.server.disconnect()
        try:
            until(lambda: not running(mark), "the program has ended", 3)
        except AssertionError:
            return "the shell keeps running, unreachable"
        return "the shell ends"


@behaviour("Ends", "reconnects after the connection broke", "yes")
def reconnects(on: Stage) -> str:
    on.server.disconnect()
    on.server.wait_connected(times=2, timeout=40)
    return "yes"


@behaviour("Ends", "SIGTERM with a shell open", "`stop`, close 1000, shell gone", "close 1006, shell gone")
def terminated(on: Stage) -> str:
    mark = f"{os.getpid()}.125"
    with on.terminal() as user:
        quiet(user)
        user.type(f"sleep {mark}\n".encode())
        until(lambda: running(mark), "the program runs")
        on.terminate()
        seen = []
        try:
            while True:
                seen += [f"`{user.receive().typ}`"]
        except DeviceDisconnected:
            pass
        code = on.server.wait_disconnected()
        until(lambda: not running(mark), "the program has ended", 10)
    stops = ["`stop`"] if "`stop`" in seen else []
    return ", ".join([*stops, f"close {code}", "shell gone"])


def with_chroot(value: Any, root: Path) -> Any:
    """Return settings with CHROOT replaced by the directory of the test."""
    if isinstance(value, dict):
        return {name: with_chroot(inner, root) for name, inner in value.items()}
    return str(root) if value == "CHROOT" else value


def observe(name: str, row: Behaviour, root: Path) -> str:
    """Run one row of the table with one device."""
    settings = with_chroot(row.settings, root / "place" / "root")
    with stage(name, root, **settings) as on:
        return row.drive(on)


@pytest.mark.real
@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_mender_oneshot_behaves_as_in_the_table(row: Behaviour, tmp_path: Path) -> None:
    assert observe(OURS, row, tmp_path) == row.ours


@pytest.mark.real
@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_mender_connect_behaves_as_in_the_table(row: Behaviour, tmp_path: Path) -> None:
    assert observe(THEIRS, row, tmp_path) == row.theirs


def table() -> str:
    """Return the table in Markdown."""
    rows = ["| | mender-oneshot | mender-connect 2.1.0 |", "|---|---|---|"]
    chapter = ""
    for row in TABLE:
        if row.chapter != chapter:
            chapter = row.chapter
            rows.append(f"| **{chapter}** | | |")
        theirs = "the same" if row.ours == row.theirs else row.theirs
        rows.append(f"| {row.what} | {row.ours} | {theirs} |")
    return "\n".join(rows) + "\n"


def test_the_documentation_contains_this_table() -> None:
    assert table() in (REPO / "docs" / "terminal.md").read_text()


if __name__ == "__main__":
    sys.stdout.write(table())
