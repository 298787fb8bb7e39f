"""Why a script or program cannot be started, from the errno and from the file itself."""

import errno
import os
import stat

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
"""What will not change by itself. Any other errno is temporary: a file being written, no memory left."""

_NESTED = 4  # an interpreter may itself be a script; the kernel gives up after five


def is_temporary(error: OSError) -> bool:
    """Return whether the same start may succeed later."""
    return error.errno not in PERMANENT


def explain(path: str, error: OSError) -> str:
    """Return why a program could not be started, as the end of a sentence that has named it."""
    if error.errno == errno.ETXTBSY:
        return "another program has it open for writing"
    found = obstacle(path) if error.errno in PERMANENT else ""
    return found or os.strerror(error.errno or errno.EIO)


def obstacle(path: str) -> str:
    """Return what will keep a program from starting, or "" if nothing is in its way.

    Looks at the file only: the kernel reports a missing interpreter as "No such file or directory", which
    reads as if the script itself were missing.
    """
    return _obstacle(path, _NESTED)


def _obstacle(path: str, depth: int) -> str:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return "it is a directory"
        if not os.access(path, os.X_OK):
            return _not_executable(path)
        with open(path, "rb") as file:
            head = file.read(256)  # as much as the kernel looks at
    except OSError as error:
        return _unreadable(path, error)
    if head.startswith(b"#!"):
        return _interpreter_obstacle(head, depth)
    if head.startswith(b"\x7fELF") or b"\0" in head:
        return ""  # a program, or another format of which only the kernel can tell whether it takes it
    if not head:
        return "it is empty"
    if head.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark, so its first line does not count; save it without one"
    return "its first line does not begin with #!; put the interpreter there, such as #!/bin/sh"


def _interpreter_obstacle(head: bytes, depth: int) -> str:
    line = head[2:].split(b"\n", 1)[0]
    words = line.strip(b" \t").replace(b"\t", b" ").split(b" ", 1)
    interpreter = os.fsdecode(words[0])
    if line.endswith(b"\r"):
        return "it has Windows line endings; convert it: sed -i 's/\\r$//' on the file"
    if not interpreter:
        return "its first line names no interpreter after #!"
    found = _obstacle(interpreter, depth - 1) if depth else ""
    if not found:
        return ""
    # What others wrote is shown without its control characters.
    shown = interpreter.encode("unicode_escape").decode()
    return f"its first line names the interpreter {shown}, which cannot be used: {found}"


def _not_executable(path: str) -> str:
    if os.stat(path).st_mode & 0o111 and os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    return "it is not executable; make it so: chmod +x"


def _unreadable(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT and os.path.islink(path):
        return f"it is a link to {os.readlink(path)}, which does not exist"
    if error.errno == errno.ENOENT:
        return "there is no such file"
    # Whoever may not read a program may still be allowed to run it.
    return "" if error.errno == errno.EACCES and os.access(path, os.X_OK) else os.strerror(error.errno or 0)
