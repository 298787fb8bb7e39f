"""Coverage-guided fuzzing of the terminal's messages; not run by pytest.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris msgpack
    export PYTHONPATH=. MSGPACK_PUREPYTHON=1
    /tmp/fuzz/bin/python tests/fuzz/terminal.py -max_total_time=180 -max_len=512 /tmp/fuzz/wire

Finds any exception but `Garbled`, and any message that does not survive being written and read again. In pure
Python the fuzzer sees into msgpack as well; without the variable it is the compiled code that is tried.
"""

import contextlib
import importlib
import sys
from typing import Any

# Not a plain import: atheris is not among the tools the other checks run with.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mender_oneshot", "msgpack"]):
    from mender_oneshot.terminal import wire


def one(data: bytes) -> None:
    """Read what may be a message, and look at it as the program does."""
    try:
        message = wire.decode(data)
    except wire.Garbled:
        return
    for name in ("offset", "terminal_width", "status"):
        message.number(name)
    message.text("connection_id")
    with contextlib.suppress(wire.Garbled):
        wire.pack({"path": wire.unpack(message.body).get("path")})
    plain = message._replace(props={name: message.text(name) for name in ("user_id", "connection_id")})
    if wire.decode(wire.encode(plain)) != plain:
        raise AssertionError(plain)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
