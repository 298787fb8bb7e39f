"""What the terminal inherits from its parent changes nothing: descriptors, signals, limits."""

import sys

import pytest
from helpers.terminal_peer import Served

from mender_oneshot.terminal.messages import SHELL

START = """
import os, resource, signal, sys
{before}
os.execv(sys.argv[1], sys.argv[1:])
"""

INHERITED = {
    "1100 open files": (
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))\n"
        "for _ in range(1100):\n"
        "    os.set_inheritable(os.open('/dev/null', os.O_RDONLY), True)\n"
    ),
    "SIGCHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "all signals ignored": (
        "for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
    ),
    "all signals blocked": "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())",
    "a pending alarm": "signal.setitimer(signal.ITIMER_REAL, 1)",
    "no stdin": "os.close(0)",
    "a umask": "os.umask(0o777)",
}


@pytest.mark.parametrize("name", INHERITED)
def test_the_terminal_works_with_any_inherited_descriptors_signals_and_limits(
    either: Served, name: str
) -> None:
    start = START.format(before=INHERITED[name])
    process = either.device.start("terminal", "--wait", "0", wrapper=(sys.executable, "-c", start))
    either.processes.append(process)
    with either.peer.accept() as line:
        line.shell()
        line.type("sh -c 'kill $$'; echo co''de=$?; umask; exit 3\n")
        shown = line.until(lambda received: received.kind == "stop")
        screen = b"".join(received.body for received in shown)
        assert b"code=143" in screen
        assert b"0022" in screen
        assert b"status 3" in screen
        line.shell("s2")
        process.terminate()
        line.until(lambda received: (received.proto, received.kind) == (SHELL, "stop"))
        assert line.end() == 1000
    assert either.finish()[0] == 0
