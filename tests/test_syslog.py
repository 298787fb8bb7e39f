"""`--syslog`: everything to the system's log with its priority, and nothing that cron would mail."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Device, Run
from realdaemon import need

from mender_oneshot.devserver import DevServer

DAEMON = 3 << 3
"""The facility, as it stands in a message (syslog(3))."""


class Syslog:
    """A syslog daemon, and a /dev of our own where invocations find it."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))
        dev = f"mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3; ln -s {path} /dev/log"
        self.wrapper = ("unshare", "-m", "sh", "-euc", f'{dev}; exec "$@"', "sh")

    def said(self) -> list[tuple[int, str]]:
        """Priority and words of each message that came."""
        messages: list[tuple[int, str]] = []
        while True:
            try:
                message = self.socket.recv(65536).decode()
            except BlockingIOError:
                return messages
            number, _, rest = message.removeprefix("<").partition(">")
            assert int(number) & ~7 == DAEMON
            assert "mender-oneshot[" in rest
            messages.append((int(number) & 7, rest.partition("]: ")[2].rstrip("\0")))


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[Syslog]:
    need("unshare")
    if os.geteuid():
        pytest.skip("a /dev of one's own needs root")
    made = Syslog(tmp_path / "log")
    yield made
    made.socket.close()


def test_a_run_says_its_sentences_there_and_nothing_elsewhere(
    accepted: Device, server: DevServer, syslog: Syslog
) -> None:
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    said = syslog.said()
    assert [priority for priority, _ in said] == [5, 5]
    assert said[0][1] == "There is no update for this device."
    assert accepted.run("--syslog", "run", "--all", wrapper=syslog.wrapper) == Run(0, "", "")
    assert syslog.said() == []


def test_so_does_one_that_fails(device: Device, syslog: Syslog) -> None:
    done = device.run("--syslog", "run", "--all", wrapper=syslog.wrapper)
    assert done == Run(77, "", "")
    ((priority, sentence),) = syslog.said()[-1:]
    assert priority == 3
    assert "not accepted" in sentence


def test_without_a_syslog_only_problems_are_printed(accepted: Device, server: DevServer) -> None:
    need("unshare")
    if os.geteuid():
        pytest.skip("a /dev of one's own needs root")
    dev = "mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3"
    bare = ("unshare", "-m", "sh", "-euc", f'{dev}; exec "$@"', "sh")
    assert accepted.run("--syslog", "run", "--all", wrapper=bare) == Run(0, "", "")
    server.stop()
    accepted.alter_state(checked_at=None)
    done = accepted.run("--syslog", "run", "--all", wrapper=bare)
    assert (done.code, done.out) == (75, "")
    assert "Connection refused" in done.err


def test_json_is_an_answer_all_the_same(accepted: Device) -> None:
    assert accepted.run("--syslog", "send-inventory", "--json").json["outcome"] == "sent"


def test_no_secret_and_no_argument_goes_there(device: Device, syslog: Syslog) -> None:
    device.configure(TenantToken="s3cret-tenant")
    device.run("--syslog", "-l", "debug", "run", "--all", wrapper=syslog.wrapper)
    said = syslog.said()
    assert said
    assert not [words for _, words in said if "s3cret" in words]


def test_it_costs_no_import_of_sockets_and_pickles(device: Device, syslog: Syslog) -> None:
    """The standard library's handler for syslog would bring them."""
    code = "import sys; sys.argv[1:] = ['--syslog', 'run']; from mender_oneshot.__main__ import main; main()"
    probe = code + "; print([name for name in ('pickle', 'logging.handlers') if name in sys.modules])"
    command = [*syslog.wrapper, device.python, "-c", probe]
    done = subprocess.run(command, env=device.env(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert syslog.said()
