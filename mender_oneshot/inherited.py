"""What a caller hands down with the process, signals and umask, made to change nothing of what we do."""

import os
import signal

# nohup, and a shell's `&`, ask for these to be ignored. The last two Python itself ignores, in us only.
_KEPT = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ}


def set_right() -> None:
    """Restore what a new login would have, before the first child is started.

    With SIGCHLD ignored, the kernel forgets the exit code of every child, and each counts as 0.
    """
    for number in signal.valid_signals() - _KEPT:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm outlives exec(2)


def keep_files_private() -> None:
    """Make new files ours alone, whatever the caller's umask."""
    os.umask(0o077)
