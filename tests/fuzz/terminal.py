"""Coverage-guided fuzzing of the terminal's messages; not run by pytest.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgpack
    export PYTHONPATH=.
    /tmp/fuzz/bin/python tests/fuzz/terminal.py -max_total_time=180 -max_len=512 /tmp/fuzz/wire

Finds any exception of the reader and of the handlers but `DecodeError`, and any message that does not survive
being written and read again. The forms that pytest runs are in tests/terminal/test_terminal_fields.py.
"""

import contextlib
import importlib
import sys
from typing import Any

# Not a plain import: atheris is not among the tools the other checks run with.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mender_oneshot", "msgpack"]):
    from mender_oneshot.terminal import messages
    from mender_oneshot.terminal.confined_path import hold
    from mender_oneshot.terminal.control import Control
    from mender_oneshot.terminal.fields import DecodeError
    from mender_oneshot.terminal.files import Transfers
    from mender_oneshot.terminal.forward import Forwards
    from mender_oneshot.terminal.loop import Loop
    from mender_oneshot.terminal.outbox import Outbox
    from mender_oneshot.terminal.settings import FileLimits, TerminalSettings
    from mender_oneshot.terminal.shell import Shells

# Nothing is fetched or put, no shell is started, no target is looked up: the limits and the list forbid it.
LIMITS = FileLimits(enabled=True, chroot="/nonexistent", regular_only=True, max_file_size=1)


def one(data: bytes) -> None:
    """Read what may be a message, and have it dealt with as the program does."""
    try:
        message = messages.decode(data)
    except DecodeError:
        return
    plain = message._replace(props={})
    if messages.decode(messages.encode(plain)) != plain:
        raise AssertionError(plain)
    loop = Loop()
    outbox = Outbox(loop, TerminalSettings(on=True, shell="/nonexistent", limits=LIMITS), max_sessions=1)
    outbox.count_session("another session")
    for part in (
        Transfers(outbox, hold("/")),
        Forwards(outbox),
        Shells(outbox),
        Control(outbox, lambda sid: None),
    ):
        with contextlib.suppress(DecodeError):
            part.handle(message)
    loop.close()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
