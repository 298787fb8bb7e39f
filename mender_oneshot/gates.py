"""The device's own state scripts (`Idle`, `Sync`, `Download`), run by the steps; one may hold up its step.

A script that exits with 21 asks for a pause. No process waits for it: the step ends, and a later run asks the
script again (update-modules.md section 3).
"""

import logging
import os

from . import errors, scripts
from .context import Context
from .state import Gate

log = logging.getLogger(__name__)


class ScriptFailed(Exception):
    """A state script failed, or has asked for a pause for too long; the text is a sentence that names it."""


def run(context: Context, step: str, state: str, action: str) -> None:
    """Run the state scripts of a state and an action, from the one that asked for a pause on.

    Raises `errors.ScriptPause` if one asks for a pause, and `ScriptFailed` at the first that fails; all
    `Error` scripts are run.
    """
    directory = context.settings.places.state_scripts
    if not os.path.isdir(directory):
        return
    from .installer import state_scripts  # only devices that have scripts need it

    settings = context.settings
    limits = state_scripts.Limits(
        settings.state_script_timeout,
        settings.state_script_retry_timeout,
        scripts.environment(settings),
    )
    try:
        state_scripts.run(directory, state, action, limits, context.store.state.gates.get(step))
    except state_scripts.Paused as asked:
        _set_gate(context, step, asked.gate)
        raise errors.ScriptPause(
            f"The state script {asked} asks for a pause; a later run asks it again."
        ) from asked
    except state_scripts.ScriptFailed as error:
        _set_gate(context, step, None)
        raise ScriptFailed(str(error)) from error
    _set_gate(context, step, None)


def run_errors(context: Context, step: str, state: str) -> None:
    """Run the `Error` scripts of a state; what goes wrong in them changes nothing."""
    try:
        run(context, step, state, "Error")
    except (ScriptFailed, errors.ScriptPause) as error:
        log.warning("%s", error)


def _set_gate(context: Context, step: str, gate: Gate | None) -> None:
    store = context.store
    gates = {name: known for name, known in store.state.gates.items() if name != step}
    if gate:
        gates[step] = gate
    if gates != dict(store.state.gates):
        store.state = store.state._replace(gates=gates)
