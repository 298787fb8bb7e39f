"""A person at a terminal who answers the questions of a command."""

import os
import pty
import signal
from typing import NamedTuple

from helpers.device import Device
from helpers.readable import readable


class Conversation(NamedTuple):
    """The exit code, and all that the terminal showed."""

    code: int
    screen: str


def converse(device: Device, words: list[str], answers: list[tuple[str, str]]) -> Conversation:
    """Run a command on a terminal of its own; type each answer when its question is on the screen.

    An answer gets a line end, unless it is a control character.
    """
    child, ours = pty.fork()
    if child == 0:
        os.chdir("/")
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it
        os.execve(device.python, [device.python, "-m", "mender_oneshot", *words], device.env())
    shown, seen = b"", 0
    try:
        for question, answer in answers:
            while question.encode() not in shown[seen:]:
                shown += _piece(ours, shown)
            seen = len(shown)
            os.write(ours, answer.encode() if answer in ("\x03", "\x04") else f"{answer}\n".encode())
        # Python misses a signal that comes just before it blocks in read(2), so press Ctrl-C again.
        piece = b"?"
        while piece:
            while answers[-1][1] == "\x03" and not readable(ours, 2):
                os.write(ours, b"\x03")
            piece = _piece(ours, shown, last=True)
            shown += piece
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = 0
    finally:
        os.close(ours)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return Conversation(code, shown.decode().replace("\r\n", "\n"))


def _piece(terminal: int, shown: bytes, *, last: bool = False) -> bytes:
    """Return what the terminal shows next, b"" if the command has ended and `last` is set."""
    assert readable(terminal, 60), shown
    try:
        piece = os.read(terminal, 4096)
    except OSError:  # the command has ended
        piece = b""
    assert piece or last, shown
    return piece
