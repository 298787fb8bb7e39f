"""The steps, one file each. Every file has `run`, as in `Step`; none imports another.

`load` imports a step when it is needed, so that no step pays for the libraries of the others. A step that
needs another one calls `Context.perform`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

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
    "resume": "resume",
}
"""The name of each step on the command line and in the plan, and its file."""


class Step(Protocol):
    """The shape of a file in this folder. `report` and `announce` have `status` instead."""

    def run(self, context: Context, *, paced: bool) -> Outcome:
        """Perform the step; raises an `errors.Error`.

        `paced` is true for `run`, which may leave work for a later run; a step that the user named has it
        false and acts immediately.
        """


def load(name: str) -> Step:
    """Import one step."""
    step: Step = import_module(f"{__name__}.{FILES[name]}")
    return step


if TYPE_CHECKING:
    # `import_module` returns a module of any shape; this makes mypy compare each file with `Step`.
    from . import authorize, bootstrap, check, deliver, download, install, inventory, resume, tidy

    _: tuple[Step, ...] = (authorize, bootstrap, check, deliver, download, install, inventory, resume, tidy)
