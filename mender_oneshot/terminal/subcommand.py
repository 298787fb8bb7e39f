"""Run mender-oneshot commands in a child process.

So they do not depend on the terminal, and this process, which may run for days, loads no libraries for them.
"""

import json
import subprocess
from typing import Any

from .. import errors, own_command
from ..options import Options

AUTH_SECONDS = 120
"""How long an authorization may take, including the wait for another invocation to end."""

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


def command(options: Options, *arguments: str) -> list[str]:
    """Return a command line for the same device and configuration."""
    places = {
        "--config": options.config,
        "--fallback-config": options.fallback_config,
        "--data": options.data,
    }
    chosen = [text for pair in places.items() if pair[1] for text in pair]
    return own_command.client(*chosen, *arguments)


def authorize(options: Options, seconds: float, *, fresh: bool) -> None:
    """Run `mender-oneshot auth` for so many seconds at most; raises the error that it ended with."""
    limit = max(1, int(min(AUTH_SECONDS, seconds)))
    arguments = ["auth", "--json", "--max-runtime", str(limit), *(["--fresh"] if fresh else [])]
    try:
        done = subprocess.run(
            command(options, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )
    except OSError as error:
        raise errors.TemporaryError(
            f"mender-oneshot auth cannot be started ({error.strerror}); will retry."
        ) from error
    if done.returncode:
        raise _error_in(done.stdout, done.returncode)


def _error_in(output: bytes, code: int) -> errors.Error:
    """Return the error that a command ended with, from its exit code and its output of `--json`."""
    kind = _KINDS.get(code, errors.TemporaryError)
    try:
        answer: Any = json.loads(output)
        error = kind(str(answer["error"]))
        error.word = str(answer["reason"])
    except (ValueError, KeyError, TypeError):
        return kind(f"mender-oneshot auth exited with {code}; run it manually.")
    return error
