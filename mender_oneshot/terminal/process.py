"""A shell on a terminal of its own, and the end of everything it started. Knows nothing of messages."""

import contextlib
import fcntl
import os
import pwd
import signal
import struct
import subprocess
import termios
from typing import Any, NamedTuple

from .language import is_utf8, language
from .loop import Action, Loop

GRACE = 2.0
"""Seconds between SIGHUP and SIGKILL."""

IUTF8 = 0x4000
"""Has the terminal erase a character of UTF-8 whole (termios(3)); Python's `termios` has no name for it."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Account(NamedTuple):
    """Whose shell it is."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account(name: str) -> Account:
    """Look a user up, "" for whoever we are; raises `KeyError` where there is no such user.

    Without root there is no becoming somebody else: then it is always whoever we are.
    """
    found = pwd.getpwnam(name) if name else None
    if found is None or os.geteuid() != 0:
        found = pwd.getpwuid(os.geteuid())
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups), found.pw_dir)


def refusal(shell: str) -> str:
    """Say what is wrong with a program as a shell; "" where nothing is."""
    if not os.path.isabs(shell):
        return f"the shell {shell} is not an absolute path"
    if not os.access(shell, os.X_OK) or os.path.isdir(shell):
        return f"the shell {shell} is missing or not executable"
    try:
        with open("/etc/shells", encoding="utf-8", errors="replace") as file:
            shells = [_located(line.strip()) for line in file if line.startswith("/")]
    except OSError:
        shells = [_located("/bin/sh")]
    return "" if _located(shell) in shells else f"the shell {shell} is not listed in /etc/shells"


def _located(path: str) -> str:
    """Resolve the links of the directory only: /bin may be /usr/bin, and every program a link to busybox."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


class Process:
    """A shell, the master side of its terminal, and its size in columns and rows."""

    def __init__(
        self, owner: Account, shell: str, arguments: tuple[str, ...], width: int, height: int
    ) -> None:
        """Start it; raises `OSError`."""
        self.master, slave = os.openpty()
        try:
            chosen = language(os.environ)
            if is_utf8(chosen):
                attributes = termios.tcgetattr(slave)
                attributes[0] |= IUTF8
                termios.tcsetattr(slave, termios.TCSANOW, attributes)
            self.resize(width, height)
            os.set_blocking(self.master, False)
            if os.geteuid() == 0:
                os.fchown(slave, owner.uid, -1)
            name = os.path.basename(shell)
            if arguments == ("--login",):
                # The way that every shell knows; dash does not know the option.
                words = [f"-{name}"]
            else:
                words = [name, *arguments]
            self._popen = subprocess.Popen(
                words,
                executable=shell,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd="/",
                env=_environment(owner, shell, chosen),
                start_new_session=True,
                umask=0o022,
                # This process has one thread, so what is called between fork and exec cannot be held up.
                preexec_fn=lambda: _prepare(owner.home),
                **_become(owner),
            )
        except BaseException:
            os.close(self.master)
            raise
        finally:
            # Held open here as well, the master would never hear that the shell has ended.
            os.close(slave)
        self.pid = self._popen.pid

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size; who runs in it gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def ended(self) -> str | None:
        """Say how the shell ended, in words; None while it runs. It stays a zombie until `bury`."""
        if self._popen.returncode is None:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            if found.si_code == os.CLD_EXITED:
                return f"ended with status {found.si_status}"
            return f"ended by signal {found.si_status}"
        return f"ended with status {self._popen.returncode}"

    def bury(self, loop: Loop, done: Action) -> None:
        """Close the terminal and end whatever still belongs to its session; `done` when nothing is left.

        SIGHUP first, which may be ignored, then SIGKILL. As long as the shell is a zombie, its number, which
        is that of the session, belongs to nobody else.
        """
        os.close(self.master)
        self._signal(signal.SIGHUP)
        self._signal(signal.SIGCONT)
        self._wait(loop, done, loop.now() + GRACE, 0.01)

    def _wait(self, loop: Loop, done: Action, end: float, pause: float) -> None:
        left = members(self.pid)
        if left and loop.now() >= end:
            self._signal(signal.SIGKILL)
        if left or self.ended() is None:
            loop.later(pause, lambda: self._wait(loop, done, end, min(pause * 2, 0.2)))
            return
        self._popen.wait()
        done()

    def _signal(self, number: signal.Signals) -> None:
        for pid in {*members(self.pid), *(() if self.ended() else (self.pid,))}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def members(session: int) -> list[int]:
    """List the processes of a session that have not ended; none where nobody can say."""
    found: list[int] = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program, in brackets, may hold anything (proc(5)).
                state, _, _, its_session = file.read().rpartition(b")")[2].split()[:4]
                if int(its_session) == session and state not in (b"Z", b"X"):
                    found.append(int(name))
    return found


def _environment(owner: Account, shell: str, chosen: dict[str, str]) -> dict[str, str]:
    """Make an environment of what a login gives: nothing of ours, for it may hold a proxy's password."""
    zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    return {**chosen, **zone} | {
        "HOME": owner.home,
        "LOGNAME": owner.name,
        "PATH": _PATH,
        "SHELL": shell,
        "TERM": "xterm-256color",
        "USER": owner.name,
    }


def _become(owner: Account) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": owner.uid, "group": owner.gid, "extra_groups": owner.groups}


def _prepare(home: str) -> None:
    """Own the terminal, for Ctrl-C and job control, and go home; called between fork and exec.

    Not before this process has become the user: root can go where the user must not.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    with contextlib.suppress(OSError):
        os.chdir(home)
