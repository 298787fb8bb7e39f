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
    gate = context.store.state.gates.get(step)
    try:
        names = state_scripts.find(directory, state, action)
        if gate and gate.script in names:
            names = names[names.index(gate.script) :]
        state_scripts.run(directory, names, limits, to_the_end=action == "Error")
    except state_scripts.Paused as asked:
        raise _pause(context, step, str(asked)) from asked
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


def _pause(context: Context, step: str, script: str) -> errors.ScriptPause:
    """Note who asked for a pause, and for how long; raises `ScriptFailed` if that has been too long."""
    now, limit = context.now(), context.settings.state_script_retry_timeout
    gate = context.store.state.gates.get(step)
    if gate is None or gate.script != script:
        gate = Gate(script)
    elif gate.boot == now.boot:
        gate = gate._replace(waited=gate.waited + max(0.0, now.uptime - gate.uptime))
    if gate.waited > limit:
        _set_gate(context, step, None)
        raise ScriptFailed(
            f"The state script {script} has asked for a pause for over {limit} s; raise "
            "StateScriptRetryTimeoutSeconds if it needs longer."
        )
    _set_gate(context, step, gate._replace(at=now.time, boot=now.boot, uptime=now.uptime))
    return errors.ScriptPause(f"The state script {script} asks for a pause; a later run asks it again.")


def _set_gate(context: Context, step: str, gate: Gate | None) -> None:
    store = context.store
    gates = {name: known for name, known in store.state.gates.items() if name != step}
    if gate:
        gates[step] = gate
    if gates != dict(store.state.gates):
        store.state = store.state._replace(gates=gates)
