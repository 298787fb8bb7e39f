"""Run the scripts of the device, and explain why a script or program cannot be started."""

import errno
import logging
import os
import select
import signal
import stat
import subprocess
import time

from . import errors
from .settings import Settings

SECONDS = 60.0
"""Time limit of a script."""
OUTPUT_LIMIT = 1 << 20
"""Bytes that a script may print."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

log = logging.getLogger(__name__)

PERMANENT = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.ELIBBAD,
    }
)
"""Permanent causes. Any other errno is temporary, such as that of a file being written, or of no memory."""

_NESTED = 4  # an interpreter may be a script as well; the kernel stops after five


def environment(settings: Settings) -> dict[str, str]:
    """Return the whole environment of a script.

    It must not depend on the caller: with the PATH of cron or the language of a login shell, a script may
    print something else, and the server would take the device for another one.
    """
    places = settings.places
    return {
        "PATH": _PATH,
        "LANG": "C",
        "LC_ALL": "C",
        "MENDER_CONF_DIR": places.conf_dir,
        "MENDER_DATA_DIR": places.scripts_dir,
        "MENDER_DATASTORE_DIR": places.datastore,
    }


def run(settings: Settings, path: str, seconds: float = SECONDS) -> bytes:
    """Run a script and return its stdout, at most 1 MiB.

    It gets a fixed environment, the working directory / and an empty stdin. Returns when the script exits,
    even if its children keep the pipes open; after `seconds` its whole process group is killed. Raises
    `errors.ScriptFailed`, with the end of its stderr (of its stdout if that is empty), or
    `errors.TemporaryError` if it cannot be started now.
    """
    try:
        process = subprocess.Popen(
            [path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=environment(settings),
        )
    except OSError as error:
        why = explain(path, error)
        if is_temporary(error):
            raise errors.TemporaryError(
                f"The script {path} cannot be started just now ({why}); the next run will retry."
            ) from error
        raise errors.ScriptFailed(f"it cannot be started: {why}") from error
    with process:
        output, messages = bytearray(), bytearray()
        try:
            read_output(process, output, messages, time.monotonic() + seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    log.debug("%s printed on stderr: %s", path, _end_of(messages))
    if process.returncode:
        words = _end_of(messages) or _end_of(output)
        status = f"it exited with status {process.returncode}"
        if process.returncode < 0:
            status = f"it was killed by signal {-process.returncode}"
        raise errors.ScriptFailed(f"{status} ({words})" if words else status)
    return bytes(output)


def _end_of(output: bytearray) -> str:
    """Return the end of what a script has printed, on one line."""
    return " ".join(output[-4096:].decode("utf-8", "replace").split())[-200:]


def read_output(process: subprocess.Popen[bytes], output: bytearray, messages: bytearray, end: float) -> None:
    """Collect stdout, and the end of stderr, until the process exits; `end` is a monotonic time.

    Raises `errors.ScriptFailed`, with the end of a sentence, if it takes too long or prints too much.
    """
    collected = {
        pipe.fileno(): kept for pipe, kept in ((process.stdout, output), (process.stderr, messages)) if pipe
    }
    poll = select.poll()  # select(2) takes no descriptor above 1023, and the caller may have left many open
    for pipe in collected:
        poll.register(pipe, select.POLLIN)
    pause = 0.001
    while True:
        exited = process.poll() is not None
        readable = [pipe for pipe, _ in poll.poll(0 if exited else pause * 1000)]
        if exited and not readable:
            return
        # poll does not report that a process has exited, so check for it, at first often.
        pause = min(pause * 2, 0.1)
        for pipe in readable:
            piece = os.read(pipe, 65536)
            collected[pipe] += piece
            if not piece:
                poll.unregister(pipe)
        del messages[:-4096]
        if len(output) > OUTPUT_LIMIT:
            raise errors.ScriptFailed(f"it printed more than {OUTPUT_LIMIT} bytes")
        if time.monotonic() > end:
            raise errors.ScriptFailed("it timed out")


def is_temporary(error: OSError) -> bool:
    """Return whether a later attempt to start the program may succeed."""
    return error.errno not in PERMANENT


def explain(path: str, error: OSError) -> str:
    """Return why a program could not be started, as the end of a sentence that names it."""
    if error.errno == errno.ETXTBSY:
        return "another program has it open for writing"
    found = obstacle(path) if error.errno in PERMANENT else ""
    return found or os.strerror(error.errno or errno.EIO)


def obstacle(path: str) -> str:
    """Return why a program cannot be started, as the end of a sentence, or "" if its file is fine.

    The kernel reports a missing interpreter as "No such file or directory", as if the script were missing.
    """
    return _obstacle(path, _NESTED)


def _obstacle(path: str, depth: int) -> str:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return "it is a directory"
        if not os.access(path, os.X_OK):
            return _not_executable(path, is_interpreter=depth < _NESTED)
        with open(path, "rb") as file:
            head = file.read(256)  # the number of bytes that the kernel reads
    except OSError as error:
        return _unreadable(path, error)
    if head.startswith(b"#!"):
        return _interpreter_obstacle(path, head, depth)
    if head.startswith(b"\x7fELF") or b"\0" in head:
        return ""  # a program, or another format that only the kernel can check
    if not head:
        return "it is empty"
    if head.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark, so its first line is ignored; save it without that"
    return "its first line does not begin with #!; add the interpreter, such as #!/bin/sh"


def _interpreter_obstacle(path: str, head: bytes, depth: int) -> str:
    line = head[2:].split(b"\n", 1)[0]
    fields = line.strip(b" \t").replace(b"\t", b" ").split(b" ", 1)
    interpreter = os.fsdecode(fields[0])
    if line.endswith(b"\r"):
        return f"it has Windows line endings; convert them: sed -i 's/\\r$//' {path}"
    if not interpreter:
        return "its first line names no interpreter after #!"
    found = _obstacle(interpreter, depth - 1) if depth else ""
    if not found:
        return ""
    # The name is untrusted, so it is shown without control characters.
    shown = interpreter.encode("unicode_escape").decode()
    return f"its first line names the interpreter {shown}, which cannot be used: {found}"


def _not_executable(path: str, *, is_interpreter: bool) -> str:
    if os.stat(path).st_mode & 0o111 and os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec; remount it without that option"
    if is_interpreter:
        return "it is not executable"
    return f"it is not executable; change that: chmod +x {path}"


def _unreadable(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT and os.path.islink(path):
        return f"it is a link to {os.readlink(path)}, which does not exist"
    if error.errno == errno.ENOENT:
        return "it does not exist"
    # A program that cannot be read may still be executable.
    return "" if error.errno == errno.EACCES and os.access(path, os.X_OK) else os.strerror(error.errno or 0)
