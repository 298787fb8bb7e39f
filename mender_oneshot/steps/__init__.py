"""The verbs, one file each. Every file has `run(context) -> Outcome`; none imports another.

`load` imports a step when it is asked for, so that one step does not pay for the libraries of the others.
"""

from importlib import import_module
from typing import Protocol

from ..context import Context, Outcome

FILES = {
    "bootstrap": "bootstrap",
    "auth": "authorize",
    "send-inventory": "inventory",
    "check-update": "check",
    "download": "download",
    "install": "install",
    "deliver": "deliver",
    "tidy": "tidy",
}
"""The name of each step, as the command line and the plan say it, and its file."""


class Step(Protocol):
    """The shape of a file in this folder."""

    def run(self, context: Context) -> Outcome:
        """Do the step; raises an `errors.Error`, or `errors.Needs` for a step that must come first."""


def load(name: str) -> Step:
    """Import one step."""
    step: Step = import_module(f"{__name__}.{FILES[name]}")
    return step
