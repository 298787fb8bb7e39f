"""Runs a command, stops its processes before each system call that changes something, and asks what to do.

A program of its own: `tracer.py ask|wait OUTPUT COMMAND...`; stdout and stderr of the command go to OUTPUT
and OUTPUT.err. With "ask" it prints one JSON object for each such call and reads the
answer: "go" on, "kill" that process, or "cut" the power, which kills all of them before the call is carried
out. After "kill" it does not ask again. It ends when every process has ended, however detached, with
`{"code": ...}`; or with `{"reboot": true}` when one of them starts `reboot`, which is never carried out.
"""

import ctypes
import json
import os
import platform
import signal
import struct
import sys
from typing import Any, NamedTuple, NoReturn

_BOTH = {  # x86_64, aarch64
    "openat": (257, 56), "write": (1, 64), "pwrite64": (18, 68), "writev": (20, 66),
    "sendfile": (40, 71), "copy_file_range": (326, 285), "truncate": (76, 45), "ftruncate": (77, 46),
    "fsync": (74, 82), "fdatasync": (75, 83), "sync": (162, 81), "syncfs": (306, 267),
    "renameat": (264, 38), "renameat2": (316, 276), "unlinkat": (263, 35), "mkdirat": (258, 34),
    "linkat": (265, 37), "symlinkat": (266, 36), "mknodat": (259, 33), "clone": (56, 220),
    "clone3": (435, 435), "execve": (59, 221), "connect": (42, 203), "sendto": (44, 206),
    "sendmsg": (46, 211),
}  # fmt: skip
_X86_64 = {
    "open": 2, "rename": 82, "unlink": 87, "rmdir": 84, "mkdir": 83, "link": 86, "symlink": 88, "mknod": 133,
    "fork": 57, "vfork": 58,
}  # fmt: skip
ARM = platform.machine() == "aarch64"
NUMBERS = {name: pair[ARM] for name, pair in _BOTH.items()} | ({} if ARM else _X86_64)
NAMES = {number: name for name, number in NUMBERS.items()}

_AT_NAMES = {"renameat": (0, 2), "renameat2": (0, 2), "linkat": (0, 2), "symlinkat": (1,)}
"""Where the directory of each path is among the arguments of the calls that do not begin with one."""
_OLD_NAMES = {"rename": (0, 1), "link": (0, 1), "symlink": (1,)}
_SENDS = ("sendto", "sendmsg", "connect")
_SPAWNS = ("fork", "vfork", "clone", "clone3")

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_WALL = 0x40000000
_CONT, _SEIZE, _EVENT_MESSAGE, _SYSCALL_INFO = 7, 0x4206, 0x4201, 0x420E
_NEW_PROCESS, _SECCOMP, _STOP = (1, 2, 3), 7, 128
_OPTIONS = 0x2 | 0x4 | 0x8 | 0x80 | 0x100000  # fork, vfork, clone, seccomp; all die with the tracer
_CLONE_THREAD = 0x10000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: Any = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class _Process(NamedTuple):
    name: str  # its place in the family: the numbers of its ancestors and its own
    words: tuple[str, ...]  # its command line
    is_thread: bool = False


class _Tracer:
    def __init__(self, command: list[str], output: str, *, asks: bool) -> None:
        self._processes: dict[int, _Process] = {}
        self._children: dict[str, int] = {}
        self._early: set[int] = set()  # stopped before its parent was seen to make it
        self._asks = asks
        self._first = self._start(command, output)

    def _start(self, command: list[str], output: str) -> int:
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(ready, 1)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            for number, path in ((1, output), (2, f"{output}.err")):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            os.setsid()
            os.chdir("/")
            _stop_at(sorted(NAMES) if self._asks else [NUMBERS["execve"]])
            os.execvp(command[0], command)  # noqa: S606  # it is the test that names it
        _ptrace(_SEIZE, pid, 0, _OPTIONS)
        os.close(ready)
        os.close(go)
        self._processes[pid] = _Process("0", tuple(command))
        return pid

    def run(self) -> dict[str, object]:
        """Trace until all processes have ended; return the last object to print."""
        code = None
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return {"code": code}
            if not os.WIFSTOPPED(status):
                if pid == self._first:
                    code = os.waitstatus_to_exitcode(status)
                continue
            try:
                if not self._stopped(pid, os.WSTOPSIG(status), status >> 16):
                    return {"reboot": True}
            except (ProcessLookupError, FileNotFoundError):
                continue  # killed in the meantime

    def _stopped(self, pid: int, number: int, event: int) -> bool:
        if pid not in self._processes:
            self._early.add(pid)
            return True
        if event == _SECCOMP:
            return self._called(pid)
        if event in _NEW_PROCESS:
            self._born(pid, event)
        _ptrace(_CONT, pid, 0, 0 if event else number)
        return True

    def _born(self, parent: int, event: int) -> None:
        message = ctypes.c_ulong()
        _ptrace(_EVENT_MESSAGE, parent, 0, ctypes.byref(message))
        pid, known = message.value, self._processes[parent]
        nth = self._children[known.name] = self._children.get(known.name, 0) + 1
        is_thread = not os.path.isdir(f"/proc/{pid}") or _leader(pid) != pid
        self._processes[pid] = _Process(f"{known.name}.{nth}", known.words, is_thread)
        if pid in self._early:
            self._early.remove(pid)
            _ptrace(_CONT, pid)

    def _called(self, pid: int) -> bool:
        info = ctypes.create_string_buffer(88)
        _ptrace(_SYSCALL_INFO, pid, 88, info)
        number, *arguments = struct.unpack_from("=7Q", info, 24)
        process, name = self._processes[pid], NAMES[number]
        if name == "execve":
            process = process._replace(words=_words(pid, arguments[1]))
            self._processes[pid] = process
        target = "" if process.is_thread else _target(pid, name, arguments)
        is_reboot = name == "execve" and os.path.basename(target) == "reboot"
        answer = "go"
        if target and self._asks:
            _tell({"process": process.name, "words": process.words, "call": name, "target": target})
            answer = sys.stdin.readline().strip()
        if answer == "cut" or is_reboot:
            self._kill_all()
            return not is_reboot or answer == "cut"
        if answer == "kill":
            self._asks = False
            os.kill(pid, signal.SIGKILL)
        else:
            _ptrace(_CONT, pid)
        return True

    def _kill_all(self) -> None:
        for pid in (*self._processes, *self._early):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):  # born while the others were killed
                os.kill(pid, signal.SIGKILL)


def _tell(members: dict[str, object]) -> None:
    print(json.dumps(members), flush=True)


def _leader(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))


def _stop_at(numbers: list[int]) -> None:
    """Have this process and its children stop at these system calls; without a tracer they fail (ENOSYS)."""
    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06
    # A file that is only read, as most are, needs no stop; the third argument of openat is at 32.
    program = [(load, 0, 0, 0), (equal, 0, 2, NUMBERS["openat"]), (load, 0, 0, 32)]
    program += [(any_bit, 0, len(numbers) + 1, _WRITES), (load, 0, 0, 0)]
    program += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    program += [(end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x7FF00000)]  # allow, trace
    content = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    whole = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(content))
    _libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    if _libc.prctl(22, 2, ctypes.create_string_buffer(whole), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "no seccomp filter")


def _target(pid: int, name: str, arguments: list[int]) -> str:
    """Return what a call acts upon, "" if it changes nothing."""
    if name in _SPAWNS:
        flags = arguments[0]
        if name == "clone3":
            flags = struct.unpack("=Q", _memory(pid, arguments[0], 8))[0]
        return "" if name.startswith("clone") and flags & _CLONE_THREAD else "a new process"
    if name in ("open", "execve"):
        return _text(pid, arguments[0]) if name == "execve" or _writes(arguments[1]) else ""
    if name == "openat":
        path = _path(pid, arguments[0], arguments[1])
        return path if _writes(arguments[2]) and not path.startswith(("/dev/", "/proc/")) else ""
    if name in _OLD_NAMES:
        return " to ".join(_path(pid, _HERE, arguments[i]) for i in _OLD_NAMES[name])
    if name in _AT_NAMES:
        return " to ".join(_path(pid, arguments[i], arguments[i + 1]) for i in _AT_NAMES[name])
    if name.endswith("at"):
        return _path(pid, arguments[0], arguments[1])
    if name in ("unlink", "rmdir", "mkdir", "mknod", "truncate"):
        return _path(pid, _HERE, arguments[0])
    if name == "sync":
        return "all"
    return _opened(pid, arguments[2 if name == "copy_file_range" else 0], name)


_HERE = (1 << 64) - 100  # AT_FDCWD


def _writes(flags: int) -> bool:
    return bool(flags & _WRITES)


def _opened(pid: int, descriptor: int, name: str) -> str:
    try:
        path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return ""
    if path.startswith("socket:") or name in _SENDS:
        return "the network" if _is_network(pid, descriptor) else ""
    return path if path.startswith("/") and not path.startswith("/dev/") else ""


def _is_network(pid: int, descriptor: int) -> bool:
    """Return whether a socket is TCP's; those of the machine itself, as of its log, change nothing here."""
    try:
        inode = os.readlink(f"/proc/{pid}/fd/{descriptor}").strip("socket:[]")
    except OSError:
        return False
    with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
        return not any(line.split()[6] == inode for line in file)


def _path(pid: int, directory: int, address: int) -> str:
    path = _text(pid, address)
    if path.startswith("/"):
        return path
    number = directory & 0xFFFFFFFF
    link = "cwd" if number == _HERE & 0xFFFFFFFF else f"fd/{number}"
    return os.path.join(os.readlink(f"/proc/{pid}/{link}"), path)


def _words(pid: int, address: int) -> tuple[str, ...]:
    found: list[str] = []
    while pointer := struct.unpack("=Q", _memory(pid, address + 8 * len(found), 8))[0]:
        found.append(_text(pid, pointer))
    return tuple(found)


def _text(pid: int, address: int) -> str:
    content = b""
    while b"\0" not in content:
        # Not across the end of a page, behind which there may be nothing.
        content += _memory(pid, address + len(content), 4096 - (address + len(content)) % 4096)
    return os.fsdecode(content.split(b"\0", 1)[0])


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), size, address)


def main(mode: str, output: str, *command: str) -> NoReturn:
    """Trace a command."""
    _tell(_Tracer(list(command), output, asks=mode == "ask").run())
    sys.exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
