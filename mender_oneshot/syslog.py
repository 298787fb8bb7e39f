"""Send lines to the syslog, one datagram to /dev/log each, without blocking.

The C library's syslog(3) blocks while the log daemon does not read, and does not report a lost line.
"""

import contextlib
import errno
import os
import sys
import time

PATH = "/dev/log"
IDENT = "mender-oneshot"
DAEMON = 3 << 3
CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = range(2, 8)
LONGEST = 1024  # bytes of a message, as in RFC 3164
PATIENCE = 0.5  # seconds to wait for a slow daemon, once per process

_patience = PATIENCE


def send(priority: int, text: str) -> bool:
    """Send one line; return whether it was sent."""
    global _patience
    import socket

    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):  # a few old daemons use a stream socket
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as connection:
            connection.settimeout(_patience)
            try:
                connection.connect(PATH)
                message = _message(priority, text)
                if kind == socket.SOCK_DGRAM:
                    connection.send(message)
                else:
                    connection.sendall(message + b"\0")
                return True
            except OSError as error:
                if isinstance(error, (TimeoutError, BlockingIOError)):
                    _patience = 0.0
                if error.errno != errno.EPROTOTYPE:
                    return False
    return False


def _message(priority: int, text: str) -> bytes:
    """Format a line as syslog(3) does, without control characters, and no longer than RFC 3164 allows."""
    stamp = time.strftime("%b %e %H:%M:%S")
    head = f"<{DAEMON | priority}>{stamp} {IDENT}[{os.getpid()}]: ".encode()
    body = visible(text).encode("utf-8", "replace")
    if len(head) + len(body) > LONGEST:
        body = body[: LONGEST - len(head) - 3].decode("utf-8", "ignore").encode() + b"..."
    return head + body


def wanted(arguments: list[str]) -> bool:
    """Return whether a command line, which may be invalid, has the option `--syslog`."""
    return "--syslog" in arguments


def complain(lines: list[str], arguments: list[str]) -> None:
    """Write an error to the syslog if the command line has `--syslog` and that works, else to stderr."""
    if wanted(arguments) and all(send(ERROR, line) for line in lines):
        return
    with contextlib.suppress(OSError):
        sys.stderr.write("".join(f"{line}\n" for line in lines))


def visible(text: str) -> str:
    """Replace the control characters in a text from a script or a server, for a terminal or a log."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)
