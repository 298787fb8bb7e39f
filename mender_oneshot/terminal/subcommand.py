"""Starting this program once more, for what is not the terminal's to do.

So an update goes on whatever becomes of the terminal, and this process, which may live long, never holds the
libraries of the rest in its memory.
"""

import json
import os
import subprocess
import sys
from typing import Any

from .. import __name__ as package
from .. import errors
from ..options import Options

AUTH_SECONDS = 120
"""How long an authorization may take: also the time it waits for another invocation to end."""

# Wherever we are: beside the libraries, in a directory of our own (make install), or in a checkout.
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = f"import sys; sys.path.append({_HOME!r}); from {package}.__main__ import main; sys.exit(main())"

_KINDS: dict[int, type[errors.Error]] = {
    kind.exit_code: kind
    for kind in (
        errors.ServerRejected,
        errors.NoSpace,
        errors.DiskError,
        errors.InvalidResponse,
        errors.NotAccepted,
        errors.SettingsError,
    )
}


def command(options: Options, *words: str) -> list[str]:
    """Put a command line together that works on the same device with the same configuration."""
    places = {
        "--config": options.config,
        "--fallback-config": options.fallback_config,
        "--data": options.data,
    }
    chosen = [word for option, value in places.items() if value for word in (option, value)]
    # -I would hide from it what we found in PYTHONPATH or in the user's own packages.
    isolated = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolated, "-c", _START, *chosen, *words]


def authorize(options: Options, seconds: float, *, fresh: bool) -> None:
    """Have a token put into the state within a time limit; raises what `mender-oneshot auth` ended with."""
    limit = max(1, int(min(AUTH_SECONDS, seconds)))
    words = ["auth", "--json", "--max-runtime", str(limit), *(["--fresh"] if fresh else [])]
    try:
        done = subprocess.run(
            command(options, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )
    except OSError as error:
        raise errors.TemporaryError(
            f"mender-oneshot auth cannot be started ({error.strerror}); the next attempt may do better."
        ) from error
    if done.returncode:
        kind = _KINDS.get(done.returncode, errors.TemporaryError)
        raise kind(
            _words(done.stdout) or f"mender-oneshot auth ended with {done.returncode}; run it by hand."
        )


def _words(output: bytes) -> str:
    try:
        answer: Any = json.loads(output)
        return str(answer["error"])
    except (ValueError, KeyError, TypeError):
        return ""
