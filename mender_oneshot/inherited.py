"""Undo what a process inherits from its caller and must not depend on: signals, timers and umask."""

import os
import signal

# nohup, and a shell's `&`, ignore the first three on purpose. Python itself ignores the last two.
_KEPT = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ}


def set_right() -> None:
    """Restore the signals and timers of a new login; call this before the first child is started.

    If SIGCHLD is ignored, the kernel drops the exit code of every child, and each counts as 0.
    """
    for number in signal.valid_signals() - _KEPT:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm outlives exec(2)


def keep_files_private() -> None:
    """Make new files accessible to this user only, whatever the umask of the caller."""
    os.umask(0o077)
