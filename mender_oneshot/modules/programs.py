"""Programs that update modules start: where they are, and what they did."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from .. import errors

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


CAPTURE_SECONDS = 60.0
"""Time limit of a program whose output is needed; those of the boot loaders take a second."""


def extend_path() -> None:
    """Append the system's directories to PATH; a unit's or cron's may lack those of root's programs."""
    directories = [entry for entry in os.environ.get("PATH", "").split(":") if entry]
    os.environ["PATH"] = ":".join([*directories, *(entry for entry in _SYSTEM if entry not in directories)])


def find(name: str) -> str | None:
    """Return the path of a program, None if it is not installed."""
    for directory in os.environ["PATH"].split(":"):
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def require(name: str) -> str:
    """Return the path of a program; raises `errors.Error` if it is not installed."""
    if path := find(name):
        return path
    raise errors.Error(f"Cannot install the update: the program {name} is missing; install it.")


def run(words: Sequence[str]) -> None:
    """Run a program to its end, its output being ours; raises `errors.Error` if it fails."""
    try:
        code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        raise not_started(words[0], error) from error
    if code:
        raise failed(words[0], code)


class Captured(NamedTuple):
    """What a program did: its exit code, and what it printed to stdout and stderr."""

    code: int
    output: str
    messages: str


def capture(words: Sequence[str], given: str = "") -> Captured:
    """Run a program with a short text as its stdin and return what it printed.

    Raises `errors.Error` if it cannot be started, takes more than `CAPTURE_SECONDS`, or prints too much; then
    it is killed with all it has started.
    """
    from .. import scripts  # it brings logging along, which most calls do not need

    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise not_started(words[0], error) from error
    output, messages = bytearray(), bytearray()
    with process:
        try:
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):  # it need not read
                    process.stdin.write(given.encode())
                    process.stdin.close()
            scripts.read_output(process, output, messages, time.monotonic() + CAPTURE_SECONDS)
        except errors.ScriptFailed as error:
            raise errors.Error(
                f"Cannot use {words[0]}: {error}; check its configuration and its storage device."
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Captured(process.returncode, output.decode(errors="replace"), messages.decode(errors="replace"))


def failed(program: str, code: int, output: str = "") -> errors.Error:
    """Return the error for a program that ended with `code`; negative ones are signals."""
    how = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
    last = (output.strip().splitlines() or [""])[-1]
    why = f" ({last})" if last else "; its output above says why"
    return errors.Error(f"{os.path.basename(program)} {how}{why}.")


def not_started(program: str, error: OSError) -> errors.Error:
    """Return the error for a program that could not be started."""
    from .. import scripts  # it brings logging along, which only this needs

    return errors.Error(f"Cannot start {program}: {scripts.explain(program, error)}.")
