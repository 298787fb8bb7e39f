"""Shells as their users see them: start, input, output, limits and end."""

import os
import pwd
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.confinement import root_only
from helpers.terminal_peer import (
    Conversation,
    Served,
    children,
    descriptors,
    is_blocked,
    resident,
)
from helpers.waiting import until
from wsproto.events import BytesMessage

from mender_oneshot.terminal.messages import CONTROL, SHELL, Message, encode
from mender_oneshot.terminal.process import members


def make_raw(line: Conversation, sid: str = "s1") -> None:
    """Disable echo, prompt and conversions, so that only the output of programs arrives unchanged."""
    line.type("PS1= PS2=; stty raw -echo; echo re''ady\n", sid)
    line.see(b"ready\n", sid)


def pid_of(line: Conversation, sid: str = "s1") -> int:
    """Return the process id of a shell."""
    line.type("echo pid=$$=\n", sid)
    shown = b""
    while not (found := re.search(rb"pid=(\d+)=", shown)):
        shown += line.see(b"=", sid)
    return int(found[1])


def test_a_shell_starts_is_resized_exits_and_is_reaped(either: Served) -> None:
    with either.connect() as line:
        assert line.target == "/api/devices/v1/deviceconnect/connect"
        assert line.headers["authorization"] == "Bearer aaaa.bbbb.cccc"
        line.shell(width=100, height=30)
        line.type("stty size; echo $((6*7))\n")
        assert b"30 100\r\n" in line.see(b"42\r\n")
        line.send(SHELL, "resize", terminal_width=120, terminal_height=50)
        line.type("stty size\n")
        line.see(b"50 120\r\n")
        line.type("exit\n")
        *_, stop = line.until(lambda received: received.kind == "stop")
        assert (stop.sid, stop.props["status"]) == ("s1", 1)
        until(lambda: not children(either.process.pid), "the shell is reaped")
        # The web UI, mender-cli and the server all send another one.
        line.send(SHELL, "stop")
        line.expect(SHELL, "stop")
        either.process.terminate()
        assert line.end() == 1000
    code, out, err = either.finish()
    assert code == 0
    assert re.fullmatch(r"Served 1 session in \d+ s\.\n", out)
    assert "aaaa.bbbb" not in out + err


def test_numbers_are_encoded_as_int64(either: Served) -> None:
    with either.connect() as line:
        line.send(SHELL, "new")
        assert b"\xa6status\xd3\0\0\0\0\0\0\0\x01" in line.expect(SHELL, "new").data


def test_messages_right_after_new_reach_the_shell(terminal: Served) -> None:
    with terminal.connect() as line:
        line.send(SHELL, "new")
        line.send(SHELL, "resize", terminal_width=33, terminal_height=44)
        line.send(SHELL, "shell", body=b"stty size\n")
        line.expect(SHELL, "new")
        line.see(b"44 33\r\n")


def test_without_a_size_the_shell_gets_the_configured_one(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, Terminal={"Width": 91, "Height": 19})
    with terminal.connect() as line:
        line.send(SHELL, "new")
        line.expect(SHELL, "new")
        line.send(SHELL, "resize")
        line.send(SHELL, "resize", terminal_width=0, terminal_height=5)
        line.type("stty size\n")
        line.see(b"19 91\r\n")


JOB = """
import os, signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGCONT, lambda number, frame: os.write(1, b"continued\\n"))
os.write(1, b"started\\n")
while True:
    signal.pause()
"""


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash"])
def test_each_shell_is_a_login_shell_with_job_control(terminal: Served, tmp_path: Path, shell: str) -> None:
    """Including dash, which has no option `--login`."""
    if not os.path.exists(shell):
        pytest.skip(f"there is no {shell}")
    job = tmp_path / "job.py"
    job.write_text(JOB)
    terminal.configure(RemoteTerminal=True, ShellCommand=shell)
    with terminal.connect() as line:
        line.shell()
        line.type("echo name=$0=; sleep 1000 &\n")
        line.see(f"name=-{Path(shell).name}=".encode())
        line.type("jobs; kill %1; echo do''ne\n")
        assert b"Running" in line.see(b"done\r\n")
        # The keys are sent while the job reads: a shell that gets one would discard the line that follows.
        # The job starts no process: dash would wait for a child that is stopped before its exec.
        line.type(f"{sys.executable} {job}\n")
        line.see(b"started")
        line.type("\x1a")
        line.see(b"Stopped")
        line.type("jobs; echo do''ne\n")
        assert b"Stopped" in line.see(b"done\r\n")
        line.type("fg\n")
        line.see(b"continued")
        line.type("\x03")
        line.type("echo co''de=$?\n")
        line.see(b"code=130\r\n")


def test_ctrl_c_ends_a_sleep(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        # Printed by the process that gets the signal: before it exists, Ctrl-C would only reach the shell.
        line.type("sh -c 'echo slee''ping; exec sleep 1000'\n")
        line.see(b"sleeping")
        line.type("\x03")
        line.type("echo co''de=$?\n")
        line.see(b"code=130\r\n")


def test_the_environment_is_that_of_a_login(terminal: Served) -> None:
    terminal.device.environment |= {"HTTPS_PROXY": "http://user:secret@127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    with terminal.connect() as line:
        line.shell()
        line.type("echo be''gin; env; pwd; tty; echo e''nd\n")
        shown = line.see(b"end\r\n").decode().replace("\r", "").split("begin\n")[1].splitlines()
        variables = dict(text.split("=", 1) for text in shown if "=" in text)
        me = pwd.getpwuid(os.geteuid())
        assert (variables["HOME"], variables["USER"], variables["LOGNAME"]) == (
            me.pw_dir,
            me.pw_name,
            me.pw_name,
        )
        assert (variables["TERM"], variables["SHELL"]) == ("xterm-256color", "/bin/sh")
        assert "/bin" in variables["PATH"].split(":")
        assert not [name for name in variables if "PROXY" in name or "MENDER" in name or "PYTHON" in name]
        assert me.pw_dir in shown
        assert any(text.startswith("/dev/pts/") for text in shown)


@root_only
def test_a_shell_of_another_user_has_the_groups_and_the_terminal_of_that_user(
    terminal: Served, tmp_path: Path
) -> None:
    user = next(
        entry
        for entry in pwd.getpwall()
        if entry.pw_uid != 0 and len(os.getgrouplist(entry.pw_name, entry.pw_gid)) >= 1
    )
    terminal.configure(User=user.pw_name, ShellCommand="/bin/sh")
    with terminal.connect() as line:
        line.shell()
        line.type("id; exec 9<>$(tty) && echo o''pened; pwd; echo e''nd\n")
        shown = line.see(b"end\r\n").decode()
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        assert f"uid={user.pw_uid}({user.pw_name}) gid={user.pw_gid}(" in shown
        found = re.search(r"groups=(\S+)", shown)
        assert found
        assert {int(group.split("(")[0]) for group in found[1].split(",")} == set(groups)
        assert "\r\nopened\r\n" in shown


@pytest.mark.parametrize(("typed", "message"), [("exit 3", b"status 3"), ("kill -9 $$", b"signal 9")])
def test_the_exit_status_of_a_shell_is_shown(terminal: Served, typed: str, message: bytes) -> None:
    with terminal.connect() as line:
        line.shell()
        line.type(f"{typed}\n")
        *shown, stop = line.until(lambda received: received.kind == "stop")
        assert message in stop.body
        assert message in b"".join(received.body for received in shown)
        # The user may open another one at once.
        line.shell("s2")


def test_all_output_before_the_exit_of_a_shell_arrives(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        make_raw(line)
        line.type("head -c 1000000 /dev/zero; exec echo la''st\n")
        *shown, _ = line.until(lambda received: received.kind == "stop")
        assert b"".join(received.body for received in shown) == bytes(1000000) + b"last\n"


def test_a_session_ends_although_a_child_of_its_shell_keeps_the_terminal_open(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        pid = pid_of(line)
        line.type("trap '' HUP; (trap '' HUP; exec sleep 1000) & exit\n")
        line.until(lambda received: received.kind == "stop")
        until(lambda: not members(pid) and not children(terminal.process.pid), "all have ended")


def test_every_byte_arrives_unchanged_in_both_directions(either: Served) -> None:
    sent = bytes(range(256)) * 8 + "ä€😀".encode()
    with either.connect() as line:
        line.shell()
        make_raw(line)
        line.type(f"exec head -c {len(sent)}\n")
        for at in range(0, len(sent), 7):  # which splits characters of several bytes
            line.send(SHELL, "shell", body=sent[at : at + 7])
        *shown, _ = line.until(lambda received: received.kind == "stop")
        assert b"".join(received.body for received in shown) == sent


def test_two_users_see_only_their_own_shell(terminal: Served) -> None:
    with terminal.connect() as line:
        for name in ("a", "b"):
            line.send(SHELL, "new", name, user_id=name)
            assert line.expect(SHELL, "new", name).props["status"] == 1
            make_raw(line, name)
        for turn in range(20):
            line.type(f"echo a{turn}\n", "a")
            line.type(f"echo b{turn}\n", "b")
            received = {message.sid: message.body for message in (line.receive(), line.receive())}
            assert received == {"a": f"a{turn}\n".encode(), "b": f"b{turn}\n".encode()}
        line.send(SHELL, "stop", "a")
        line.expect(SHELL, "stop", "a")
        line.type("echo still\n", "b")
        line.see(b"still\n", "b")


def rejected(line: Conversation, sid: str, **props: Any) -> str:
    """Request a shell, which must be rejected; return the message."""
    line.send(SHELL, "new", sid, **props)
    answer = line.expect(SHELL, "new", sid)
    assert answer.props["status"] == 2
    assert b"\xa6status\xd3" in answer.data  # otherwise mender-cli 1.9.0 shows nothing
    return answer.body.decode()


def test_a_shell_over_max_per_user_is_rejected(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, Sessions={"MaxPerUser": 2})
    with terminal.connect() as line:
        line.shell("1")
        line.shell("2")
        assert "You have 2 session(s) open" in rejected(line, "3")
        line.shell("4", user_id="another")
        line.send(SHELL, "stop", "1")
        line.expect(SHELL, "stop", "1")
        line.shell("5")


def test_the_seventeenth_shell_is_rejected(terminal: Served) -> None:
    with terminal.connect() as line:
        for number in range(16):
            line.send(SHELL, "new", f"s{number}", user_id=f"u{number}")
        started = line.until(lambda received: (received.kind, received.sid) == ("new", "s15"))
        assert all(received.props["status"] == 1 for received in started)
        line.send(SHELL, "new", "more", user_id="v")
        *_, answer = line.until(lambda received: (received.kind, received.sid) == ("new", "more"))
        assert "at most 16 shells" in answer.body.decode()
        terminal.process.terminate()
        line.end()
    assert terminal.finish()[0] == 0


def test_a_second_shell_in_a_session_is_rejected_and_the_first_continues(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        make_raw(line)
        assert "already running" in rejected(line, "s1")
        line.type("echo on\n")
        line.see(b"on\n")


def test_input_without_a_shell_and_unknown_types_are_errors(terminal: Served) -> None:
    with terminal.connect() as line:
        line.send(SHELL, "shell", "nobody", b"x")
        answer = line.expect(SHELL, "shell", "nobody")
        assert (answer.props["status"], answer.body) == (2, b"session not found")
        line.send(SHELL, "delay")
        answer = line.expect(SHELL, "delay")
        assert (answer.props["status"], answer.body) == (2, b"unknown message protocol and type: 1/delay")


def test_shells_can_be_disabled(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, Terminal={"Disable": True})
    with terminal.connect() as line:
        line.send(SHELL, "new")
        answer = line.expect(SHELL, "new")
        assert (answer.props["status"], answer.body) == (2, b"unknown message protocol and type: 1/new")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x81\xa3hdr\x80", bytes(1000), b"\x93" * 1000])
def test_invalid_messages_are_ignored(terminal: Served, data: bytes) -> None:
    with terminal.connect() as line:
        line.shell()
        line.send_bytes(data)
        line.type("echo al''ive\n")
        line.see(b"alive\r\n")


def test_a_message_of_one_mebibyte_arrives_whole(either: Served) -> None:
    with either.connect() as line:
        line.shell()
        make_raw(line)
        # Wait until the shell has parsed its line: it would take the data as a part of it.
        line.type(f"printf rea; printf dy; exec head -c {1 << 20}\n")
        line.see(b"ready")
        sent = os.urandom(1 << 20)
        line.send(SHELL, "shell", body=sent)
        *shown, _ = line.until(lambda received: received.kind == "stop")
        assert b"".join(received.body for received in shown) == sent


def test_a_flood_of_output_does_not_fill_the_memory(either: Served) -> None:
    size = 100_000_000
    with either.connect() as line:
        line.shell()
        make_raw(line)
        before = resident(either.process.pid)
        line.type(f"head -c {size} /dev/zero; echo end\n")
        got = len(line.receive().body)
        # While the server reads nothing, the terminal reads nothing from the shell.
        readings = [resident(either.process.pid)]
        until(lambda: is_blocked(either.process.pid), "the terminal stops reading")
        last = b""
        while got < size + 4:
            last = line.receive().body
            got += len(last)
            if got % (1 << 20) < 32768:
                readings.append(resident(either.process.pid))
        assert max(readings) - before < 8192
        assert last.endswith(b"end\n")


def test_a_program_that_reads_nothing_loses_input_and_others_continue(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell("stuck", user_id="a")
        make_raw(line, "stuck")
        line.type("exec sleep 1000\n", "stuck")
        line.send(SHELL, "new", "free", user_id="b")
        line.until(lambda received: received.sid == "free" and received.kind == "new")
        before = resident(terminal.process.pid)
        for _ in range(100):
            line.send(SHELL, "shell", "stuck", bytes(100_000))
        line.type("echo al''ive\n", "free")
        shown = b""
        while b"alive\r\n" not in shown:
            received = line.receive()
            shown += received.body if received.sid == "free" else b""
        assert resident(terminal.process.pid) - before < 16384
        line.send(SHELL, "stop", "stuck")
        line.expect(SHELL, "stop", "stuck")


def test_a_program_that_reads_slowly_loses_input_and_others_continue(
    terminal: Served, tmp_path: Path
) -> None:
    """Reading all of its input would take a minute and a half."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, time\nos.write(1, b'ready')\nwhile True:\n    os.read(0, 4096)\n    time.sleep(0.25)\n"
    )
    with terminal.connect() as line:
        line.shell("slow", user_id="a")
        make_raw(line, "slow")
        line.type(f"exec {sys.executable} {slow}\n", "slow")
        line.see(b"ready", "slow")
        line.send(SHELL, "new", "free", user_id="b")
        line.expect(SHELL, "new", "free")
        for _ in range(15):
            line.send(SHELL, "shell", "slow", bytes(100_000))
        line.type("echo al''ive\n", "free")
        shown: dict[str, bytes] = {"slow": b"", "free": b""}
        while b"alive\r\n" not in shown["free"]:
            received = line.receive()
            shown[received.sid] += received.body
        assert re.search(rb"\d+ bytes of input were dropped", shown["slow"])


def test_very_many_small_inputs_take_little_memory(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        make_raw(line)
        line.type("echo re''ady; exec sleep 1000\n")
        line.see(b"ready\n")
        before = resident(terminal.process.pid)
        key = line.websocket.send(BytesMessage(data=encode(Message(SHELL, "shell", "s1", {}, b"x"))))
        line.stream.sendall(key * 60_000)
        line.round_trip()
        assert resident(terminal.process.pid) - before < 4096


def test_a_stop_ends_all_processes_of_the_session(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        pid = pid_of(line)
        line.type("nohup sleep 1000 & sh -c 'trap \"\" HUP TERM; sleep 1000; sleep 1000' & sleep 1000\n")
        until(lambda: len(members(pid)) == 5, "all processes run")
        line.send(SHELL, "stop")
        line.until(lambda received: received.kind == "stop")
        until(lambda: not members(pid) and not children(terminal.process.pid), "all have ended")


def test_a_process_started_with_setsid_outlives_the_session(terminal: Served, tmp_path: Path) -> None:
    with terminal.connect() as line:
        line.shell()
        note = tmp_path / "pid"
        line.type(f"setsid sh -c 'echo $$ > {note}.new && mv {note}.new {note} && exec sleep 1000' &\n")
        until(note.exists, "the other session runs")
        line.send(SHELL, "stop")
        line.until(lambda received: received.kind == "stop")
        until(lambda: not children(terminal.process.pid), "the shell is gone")
        os.kill(int(note.read_text()), signal.SIGKILL)


def test_a_stop_without_a_session_id_ends_all_shells_of_the_user(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, Sessions={"MaxPerUser": 3})
    with terminal.connect() as line:
        line.shell("1")
        line.shell("2")
        line.shell("3", user_id="another")
        make_raw(line, "3")
        line.send(SHELL, "stop", "")
        stops: list[str] = []
        while len(stops) < 2:
            received = line.receive()
            stops += [received.sid] if received.kind == "stop" else []
        assert sorted(stops) == ["1", "2"]
        line.type("echo on\n", "3")
        line.see(b"on\n", "3")


def test_sigterm_notifies_the_users_and_ends_all_their_processes(either: Served) -> None:
    with either.connect() as line:
        line.shell("1", user_id="a")
        line.shell("2", user_id="b")
        pids = [pid_of(line, "1"), pid_of(line, "2")]
        line.type("trap '' HUP; sleep 1000\n", "1")
        until(lambda: len(members(pids[0])) == 2, "sleep runs")
        either.process.terminate()
        received = line.until(lambda received: received.kind == "stop" and received.sid == "2")
        shown = b"".join(message.body for message in received if message.kind == "shell")
        assert b"ends its terminal service" in shown
        assert [message.sid for message in received if message.kind == "stop"] == ["1", "2"]
        assert line.end() == 1000
        code, _, err = either.finish()
        assert code == 0
        assert "could not be ended" not in err
        assert not any(map(members, pids))


@pytest.mark.parametrize("key", ["ExpireAfter", "ExpireAfterIdle"])
def test_an_expired_session_shows_the_reason(terminal: Served, key: str) -> None:
    terminal.configure(RemoteTerminal=True, Sessions={key: 1})
    with terminal.connect() as line:
        line.shell()
        *shown, stop = line.until(lambda received: received.kind == "stop")
        assert b"Session expired" in stop.body
        assert stop.body in b"".join(received.body for received in shown)


def test_stop_expired_false_disables_expiration(terminal: Served) -> None:
    terminal.configure(RemoteTerminal=True, Sessions={"ExpireAfter": 1, "StopExpired": False})
    with terminal.connect() as line:
        line.shell()
        line.type("sleep 2.5; echo al''ive\n")
        line.see(b"alive\r\n")


def use_many(terminal: Served, line: Conversation, count: int) -> None:
    """Open sessions, and end them in four ways."""
    for number in range(count):
        sid = f"s{number}"
        line.shell(sid)
        ways = ("exit\n", "kill -9 $$\n", "sleep 1000 & exit 1\n")
        if number % 4 < 3:
            line.type(ways[number % 4], sid)
        else:
            line.send(SHELL, "stop", sid)
        line.until(lambda received: received.kind == "stop")


def check_for_leaks(terminal: Served, count: int) -> None:
    with terminal.connect("--wait", "0") as line:
        pid = terminal.process.pid
        use_many(terminal, line, 40)
        until(lambda: not children(pid), "all shells are reaped")
        files, memory, terminals = descriptors(pid), resident(pid), set(os.listdir("/dev/pts"))
        use_many(terminal, line, count)
        until(lambda: not children(pid), "all shells are reaped")
        assert descriptors(pid) == files
        assert resident(pid) - memory < 1024
        assert not [name for name in set(os.listdir("/dev/pts")) - terminals if held_by(pid, name)]
        terminal.process.terminate()
        assert line.end() == 1000
    assert terminal.finish()[0] == 0


def held_by(pid: int, name: str) -> bool:
    places = Path(f"/proc/{pid}/fd")
    return any(os.readlink(place) == f"/dev/pts/{name}" for place in places.iterdir())


def test_a_hundred_sessions_leave_no_process_descriptor_or_memory(terminal: Served) -> None:
    check_for_leaks(terminal, 100)


@pytest.mark.long
def test_a_thousand_sessions_leave_no_process_descriptor_or_memory(terminal: Served) -> None:
    check_for_leaks(terminal, 1000)


def test_shells_end_with_the_connection_and_it_reconnects(terminal: Served) -> None:
    with terminal.connect() as line:
        line.shell()
        pid = pid_of(line)
    until(lambda: not members(pid), "the shell ends with its connection")
    with terminal.peer.accept() as line:
        line.shell()
        line.type("echo a''gain\n")
        line.see(b"again\r\n")
    _, _, err = terminal.stop()
    assert "Connection lost" in err


def test_a_ping_is_answered_and_a_pong_accepted(terminal: Served) -> None:
    with terminal.connect() as line:
        line.send(CONTROL, "ping")
        line.expect(CONTROL, "pong")
        line.shell()
        line.send(SHELL, "pong")
        line.type("echo al''ive\n")
        line.see(b"alive\r\n")


def test_the_process_has_one_thread(terminal: Served) -> None:
    """With more threads a fork would not be safe."""
    with terminal.connect() as line:
        line.shell()
        assert len(os.listdir(f"/proc/{terminal.process.pid}/task")) == 1
