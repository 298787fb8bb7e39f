"""One call of an update module: prints the answer or runs the action, and turns errors into a sentence."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from .. import errors

Action = Callable[[str], None]
"""Gets the path of the tree; raises `errors.Error` or `OSError`."""


def run(argv: Sequence[str], answers: Mapping[str, str], actions: Mapping[str, Action]) -> int:
    """Run the call that `argv` names in the tree that it names, and return the exit code.

    A call in neither table prints nothing and returns 0, as the protocol requires.
    """
    if len(argv) != 2:
        explain("Cannot run this update module: it needs two arguments, the name of a call and a directory.")
        return 1
    name, tree = argv
    try:
        if name in answers:
            sys.stdout.write(f"{answers[name]}\n")
            sys.stdout.flush()
        elif name in actions:
            actions[name](tree)
    except errors.Error as error:
        explain(str(error))
        return 1
    except OSError as error:
        explain(str(failure(f"run {name}", error)))
        return 1
    return 0


def explain(sentence: str) -> None:
    """Write one line to stderr, which becomes a line of the deployment log."""
    line = "".join(letter if letter.isprintable() else "?" for letter in sentence)
    os.write(2, f"{line}\n".encode(errors="replace"))


def failure(doing: str, error: OSError) -> errors.Error:
    """Return the error to raise for an `OSError`; `doing` names the act and the file ("write /opt/app")."""
    import errno  # only a failure needs it

    advice = {
        errno.ENOSPC: "free some space, then deploy again",
        errno.EDQUOT: "free some space, then deploy again",
        errno.EROFS: "mount its file system read-write, then deploy again",
        errno.EACCES: "run this as root",
        errno.EBUSY: "it is in use or mounted; unmount it, then deploy again",
        errno.EIO: "check the storage device (dmesg)",
        errno.ENAMETOOLONG: "choose a shorter path for the next artifact",
        errno.ENOTDIR: "part of its path is a file; correct the path in the next artifact",
        errno.EPERM: "it or its directory may be immutable; remove the attribute with chattr -i",
    }.get(error.errno or 0, "check the file system, then deploy again")
    where = ""
    if error.filename is not None and os.fsdecode(error.filename) not in doing:
        where = f" ({os.fsdecode(error.filename)})"
    return errors.Error(f"Cannot {doing}{where}: {os.strerror(error.errno or errno.EIO)}; {advice}.")
