"""An invocation on a terminal of its own, and all that the terminal shows."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from typing import Any

from helpers.device import Device
from helpers.readable import readable

LONGEST_WAIT = 60.0


class Screen:
    """The terminal of one process."""

    def __init__(self, process: "subprocess.Popen[Any]", upper: int) -> None:
        self.process = process
        self._upper = upper
        self._shown = b""

    @property
    def shown(self) -> str:
        """What was shown so far; a carriage return is kept, one that ends a line is not."""
        return self._shown.decode().replace("\r\n", "\n")

    def until(self, text: str) -> None:
        """Read until a text is shown."""
        while text not in self.shown:
            assert self._read(), f"{text!r} was not shown: {self.shown!r}"

    def press_ctrl_c(self) -> int:
        """Press Ctrl-C until the process ends, and return its exit code.

        Python misses a signal that comes just before a blocking call.
        """
        while self.process.poll() is None:
            os.write(self._upper, b"\x03")
            while readable(self._upper, 1) and self._read():
                pass
        return self.end()

    def end(self) -> int:
        """Read until the process ends; return its exit code."""
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> bytes:
        assert readable(self._upper, LONGEST_WAIT), f"nothing more is shown: {self.shown!r}"
        piece = b""
        with contextlib.suppress(OSError):  # the other end is closed
            piece = os.read(self._upper, 65536)
        self._shown += piece
        return piece


@contextlib.contextmanager
def on_screen(device: Device, *words: str, columns: int = 100) -> Iterator[Screen]:
    """Run the client with a terminal as its stdin, stdout and stderr."""
    upper, lower = pty.openpty()
    fcntl.ioctl(lower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [device.python, "-m", "mender_oneshot", *words],
        env=device.env(),
        stdin=lower,
        stdout=lower,
        stderr=lower,
        cwd="/",
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(lower)
    try:
        yield Screen(process, upper)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(upper)
