"""Coverage-guided fuzzing of the state loader; not run by pytest.

    python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    PYTHONPATH=. /tmp/fuzz/bin/python tests/fuzz/state.py -max_total_time=180 -max_len=4096 /tmp/fuzz/states

Finds any exception but `Unreadable`, and any state that does not survive being written and read again.
"""

import importlib
import sys
from typing import Any

# Not a plain import: atheris is not among the tools the other checks run with.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["mender_oneshot"]):
    from mender_oneshot import state


def one(content: bytes) -> None:
    """Read what may be a state; what is one has to come back as it was."""
    try:
        known = state.from_json(content)
    except state.Unreadable:
        return
    again = state.from_json(state.to_json(known))
    if again != known._replace(damaged=()):
        raise AssertionError(f"{again} is not {known}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
