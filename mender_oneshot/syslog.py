"""The system's log: one datagram to /dev/log per line, which waits for nobody.

The C library's syslog(3) waits as long as the log daemon does not read, and reports no line that it lost.
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
LONGEST = 1024  # bytes of a message, as RFC 3164 has it
PATIENCE = 0.5  # seconds for a daemon that is only slow, once per process

_patience = PATIENCE


def send(priority: int, text: str) -> bool:
    """Send one line; return whether the log took it."""
    global _patience
    import socket

    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):  # a few old daemons listen on a stream
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
    """Compose a line as syslog(3) does, without control characters and not longer than RFC 3164 allows."""
    stamp = time.strftime("%b %e %H:%M:%S")
    head = f"<{DAEMON | priority}>{stamp} {IDENT}[{os.getpid()}]: ".encode()
    body = visible(text).encode("utf-8", "replace")
    if len(head) + len(body) > LONGEST:
        body = body[: LONGEST - len(head) - 3].decode("utf-8", "ignore").encode() + b"..."
    return head + body


def wanted(words: list[str]) -> bool:
    """Return whether a command line that may not have been understood asks for the syslog."""
    return "--syslog" in words


def complain(lines: list[str], words: list[str]) -> None:
    """Write an error where the command line wants it: to the syslog if it takes it, or else to stderr."""
    if wanted(words) and all(send(ERROR, line) for line in lines):
        return
    with contextlib.suppress(OSError):
        sys.stderr.write("".join(f"{line}\n" for line in lines))


def visible(text: str) -> str:
    """Make the text of a stranger (a script, a server) harmless for a terminal and a log of lines."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)
