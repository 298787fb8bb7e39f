"""Run one command: load the settings, set up logging, print the result, map errors to exit codes."""

import gc
import logging
import os
import sys
from collections.abc import Callable

from . import (
    console,
    errors,
    inherited,
    libraries,
    logs,
    paths,
    settings,
    state,
    state_store,
    syslog,
)
from .context import Done, Outcome
from .deadline import deadline, hard_end
from .options import Options
from .output import Output, progress_bar
from .settings import Settings

log = logging.getLogger(__name__)

Report = Callable[[Done], None]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as that of a shell."""


def execute(options: Options) -> int:
    """Run the command and return the exit code. Raises only what is a bug."""
    # A name that the locale cannot encode must not end the program.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a text file's
    console.begin()
    output = Output(options)
    inherited.set_right()
    if options.command == "terminal" or not options.max_runtime:
        gc.enable()  # it may run for hours
    # The terminal has a time limit of its own, and the shells that it starts get the umask of its unit.
    if options.command != "terminal":
        inherited.keep_files_private()
        hard_end(options.max_runtime)
    try:
        code = _execute(options, output)
        # Ends the terminal's last line, and flushes: the interpreter reports errors of its own flush in its
        # own way.
        output.write()
        return code or (os.EX_IOERR if output.failed else 0)
    except KeyboardInterrupt:
        console.clear()
        sentence = "Interrupted."
        if options.command in ("run", "download"):
            sentence = "Interrupted; what was downloaded is kept, and the next run will resume."
            log.warning("%s", sentence)
        if options.json:
            from . import json_object

            output.write_facts(json_object.failure(None, "interrupted", sentence, INTERRUPTED), ())
        return INTERRUPTED


def _execute(options: Options, output: Output) -> int:
    done: list[Done] = []
    logs.begin(options, output.warnings)

    def report(step: Done) -> None:
        done.append(step)
        output.write_outcome(step)
        if step.outcome.syslog and not options.syslog:
            failed = step.outcome.facts.get("status") == "failure"
            syslog.send(syslog.WARNING if failed else syslog.NOTICE, step.outcome.sentence)

    error: errors.Error | None = None
    try:
        code = _perform(options, output, report)
        if code is not None:
            return code
    except BaseException as problem:
        error = problem if isinstance(problem, errors.Error) else libraries.unusable(problem)
        if error is None:
            raise
        _log_error(error, options)
    code = error.exit_code if error else _exit_code(options, done)
    output.write_end(done, error, code)
    return code


def _perform(options: Options, output: Output, report: Report) -> int | None:
    """Perform the command; return the exit code of one that has printed its own result, else None."""
    if options.command == "doctor":
        from . import diagnosis  # imports every library

        return diagnosis.run(options, output)
    if options.command == "setup":
        from . import setup  # once in the life of a device

        return setup.run(options, output)
    chosen = _load(options)
    logs.configure(options, chosen)
    if options.dry_run:
        return _show_plan(options, chosen, output)
    if options.command != "status":  # it changes nothing
        _install_bootstrap_artifact(chosen)
    if options.command in ("status", "show-artifact", "show-provides"):
        return _show(options, chosen, output)
    if options.command in ("history", "log"):
        return _show_past(options, chosen, output)
    if options.command in ("verify", "extract"):
        _unpack(options, chosen, output, report)
    elif options.command in ("commit", "rollback", "resume") or options.file:
        report(Done(options.command, _by_hand(options, chosen)))
    elif options.command == "terminal":
        report(Done("terminal", _terminal(options, chosen)))
    else:
        from . import invocation  # the long-running terminal does not need it

        invocation.carry_out(options, chosen, progress_bar(), report)
    return None


def _log_error(error: errors.Error, options: Options) -> None:
    # A timer that meets a running invocation is normal; a person at a terminal wants to see it.
    expected = options.command == "run" and isinstance(error, errors.Busy) and not sys.stderr.isatty()
    log.log(logging.DEBUG if error.logged or expected else logging.ERROR, "%s", error)
    if error.syslog and not options.syslog:
        syslog.send(syslog.ERROR, str(error))


def _exit_code(options: Options, done: list[Done]) -> int:
    if any(step.outcome.word == "reboot-needed" for step in done):
        return errors.REBOOT_NEEDED
    if options.exit_code and any(step.outcome.word == "update" for step in done):
        return errors.UPDATE_AVAILABLE
    return 0


def _load(options: Options) -> Settings:
    """Load the configuration; commands that only show something also run without permission to read it."""
    places = paths.find_places(options.config, options.fallback_config, options.data)
    try:
        return settings.load(places)
    except errors.SettingsError as error:
        if os.geteuid() == 0 or options.command not in ("status", "show-artifact", "show-provides"):
            raise
        log.warning("%s", error)
        return Settings(places)


def _install_bootstrap_artifact(chosen: Settings) -> None:
    places = chosen.places
    if os.path.lexists(places.data(paths.BOOTSTRAP_ARTIFACT)) and os.access(places.datastore, os.W_OK):
        from . import bootstrap_artifact  # only once in the life of a device

        bootstrap_artifact.install(chosen)


def _terminal(options: Options, chosen: Settings) -> Outcome:
    try:
        from .terminal import service  # needs the libraries of an extra, which most devices lack
    except ModuleNotFoundError as error:
        raise errors.SettingsError(
            f"The terminal needs {error.name}; install python3-wsproto and python3-msgpack, or run "
            "pip install '.[terminal]' in a checkout of mender-oneshot."
        ) from error
    return service.serve(options, chosen)


def _unpack(options: Options, chosen: Settings, output: Output, report: Report) -> None:
    from . import unpack  # timers do not need it

    with deadline(options.max_runtime):
        if options.command == "extract":
            report(Done("extract", unpack.extract(chosen, options.file, options.directory)))
            return
        outcome = unpack.verify(chosen, options.file)
    report(Done("verify", outcome))
    output.write_text(unpack.lines(outcome.facts))


def _by_hand(options: Options, chosen: Settings) -> Outcome:
    from .installer import commands  # timers do not need it

    if options.command == "resume" and not options.syslog and _began_with_syslog(chosen):
        logs.copy_to_syslog()  # stderr is the log that is uploaded
        return commands.resume(chosen, options.stop_before)._replace(syslog=True)
    with deadline(options.max_runtime):
        if options.command == "install":
            return commands.install(chosen, options.file, options.stop_before, progress_bar())
        act = {"commit": commands.commit, "rollback": commands.rollback, "resume": commands.resume}
        return act[options.command](chosen, options.stop_before)


def _began_with_syslog(chosen: Settings) -> bool:
    """Return whether the run that handed the update off logged to the syslog, as under cron."""
    try:
        handoff = state_store.load(chosen.places.data(paths.STATE)).handoff
    except (errors.Error, state.Unreadable):
        return False
    return handoff is not None and handoff.syslog


def _show(options: Options, chosen: Settings, output: Output) -> int:
    from . import device, status  # timers do not need them

    if options.command == "show-artifact":
        name = device.provides(chosen)["artifact_name"]
        if options.json:
            output.write_facts({"artifact_name": name}, ())
        else:
            output.write(name)
    elif options.command == "show-provides":
        provides = device.provides(chosen)
        output.write_facts({"provides": provides}, [f"{key}={value}" for key, value in provides.items()])
    else:
        facts = status.describe(chosen)
        output.write_facts(facts, status.lines(facts))
    return 0


def _show_plan(options: Options, chosen: Settings, output: Output) -> int:
    from . import dry_run  # timers do not need it

    output.write_facts(*dry_run.describe(options, chosen))
    return 0


def _show_past(options: Options, chosen: Settings, output: Output) -> int:
    from . import past_deployments  # timers do not need it

    if options.command == "history":
        output.write_facts(*past_deployments.history_of(chosen))
    else:
        output.write_facts(*past_deployments.log_of(chosen, options.deployment))
    return 0
