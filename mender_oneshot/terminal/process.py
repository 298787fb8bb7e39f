"""Run a shell on a pseudo-terminal, and terminate everything that it started."""

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
"""Lets the terminal erase whole UTF-8 characters (termios(3)); Python's `termios` has no name for it."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Account(NamedTuple):
    """The user that a shell runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account(name: str) -> Account:
    """Return the account of a user, "" for that of this process; raises `KeyError` if there is none.

    If this process is not root it cannot change its user: then it is always its own account.
    """
    found = pwd.getpwnam(name) if name else None
    if found is None or os.geteuid() != 0:
        found = pwd.getpwuid(os.geteuid())
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups), found.pw_dir)


def shell_problem(shell: str) -> str:
    """Return why a program must not be started as a shell, "" if it may."""
    if not os.path.isabs(shell):
        return f"the shell {shell} is not an absolute path"
    if not os.access(shell, os.X_OK) or os.path.isdir(shell):
        return f"the shell {shell} is missing or not executable"
    try:
        with open("/etc/shells", encoding="utf-8", errors="replace") as file:
            shells = [_resolved(line.strip()) for line in file if line.startswith("/")]
    except OSError:
        shells = [_resolved("/bin/sh")]
    return "" if _resolved(shell) in shells else f"the shell {shell} is not listed in /etc/shells"


def _resolved(path: str) -> str:
    """Resolve links in the directory only: /bin may be /usr/bin, and every program a link to busybox."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


class Process:
    """A shell, and the master side of its pseudo-terminal."""

    def __init__(
        self, owner: Account, shell: str, arguments: tuple[str, ...], width: int, height: int
    ) -> None:
        """Start the shell on a terminal of so many columns and rows; raises `OSError`."""
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
                # Every shell supports this; dash has no such option.
                argv = [f"-{name}"]
            else:
                argv = [name, *arguments]
            self._popen = subprocess.Popen(
                argv,
                executable=shell,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd="/",
                env=_environment(owner, shell, chosen),
                start_new_session=True,
                umask=0o022,
                # Safe, because this process has one thread: no lock can be held by another one at the fork.
                preexec_fn=lambda: _prepare(owner.home),
                **_become(owner),
            )
        except BaseException:
            os.close(self.master)
            raise
        finally:
            # As long as it is open here, the master does not report the end of the shell.
            os.close(slave)
        self.pid = self._popen.pid

    def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal; the program in the foreground gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def ended(self) -> str | None:
        """Return how the shell ended, as text, or None while it runs; it stays a zombie until `terminate`."""
        if self._popen.returncode is None:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            if found.si_code == os.CLD_EXITED:
                return f"ended with status {found.si_status}"
            return f"ended by signal {found.si_status}"
        return f"ended with status {self._popen.returncode}"

    def terminate(self, loop: Loop, done: Action) -> None:
        """Close the terminal and end all processes of its session; call `done` when none is left.

        They get SIGHUP, and after `GRACE` seconds SIGKILL. As long as the shell is a zombie, no other process
        can get its id, which is also that of the session.
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
    """Return the running processes of a session; an empty list if /proc is not readable."""
    found: list[int] = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program, in brackets, may contain any character (proc(5)).
                state, _, _, session_id = file.read().rpartition(b")")[2].split()[:4]
                if int(session_id) == session and state not in (b"Z", b"X"):
                    found.append(int(name))
    return found


def _environment(owner: Account, shell: str, chosen: dict[str, str]) -> dict[str, str]:
    """Return the environment of a login, with nothing inherited that may contain a secret."""
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
    """Take over the terminal, for Ctrl-C and job control, and change to the home; called before exec.

    At that time this process already runs as the user: root could enter directories that the user must not.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    with contextlib.suppress(OSError):
        os.chdir(home)
