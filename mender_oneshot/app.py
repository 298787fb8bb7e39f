"""From a request to output and an exit code: settings, logging, one sentence on stdout, the one `except`."""

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from . import errors, inherited, libraries, logs, settings, streams, syslog
from .context import Done, Outcome, Progress
from .deadline import deadline, hard_end
from .options import Options
from .settings import Settings
from .syslog import visible

SCHEMA = 1

log = logging.getLogger(__name__)


def execute(options: Options) -> int:
    """Do what is asked and return the exit code; only a bug raises."""
    # A name that this locale cannot spell is no reason to end half-way.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a text file's
    results = _Results()
    inherited.set_right()
    # The terminal, which stays, ends by its own clock, and what it starts has the umask of its unit.
    if options.command != "terminal":
        inherited.keep_files_private()
        hard_end(options.max_runtime)
    try:
        code = _execute(options, results)
        # Here, not at the interpreter's end, where nobody could catch what goes wrong.
        results.say()
        return code or (os.EX_IOERR if results.lost else 0)
    except KeyboardInterrupt:
        return 130


class _Results:
    """Stdout: where it takes nothing, no step is left undone for that, and it is told once."""

    lost = False

    def say(self, *lines: str) -> None:
        """Print lines, now."""
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except BrokenPipeError:
            streams.discard(1)  # nobody reads; that is no error
        except OSError as error:
            self.lost = True
            streams.discard(1)
            log.error("Cannot write to stdout: %s; the work goes on without it.", error.strerror or error)


def _execute(options: Options, results: _Results) -> int:
    done: list[Done] = []
    logs.begin(options)

    def tell(step: Done) -> None:
        done.append(step)
        if not options.json:
            _say(step.outcome.sentence, options, results)
        if step.outcome.syslog and not options.syslog:
            failed = step.outcome.facts.get("status") == "failure"
            syslog.send(syslog.WARNING if failed else syslog.NOTICE, step.outcome.sentence)

    error: errors.Error | None = None
    try:
        if options.command == "doctor":
            return _examine(options, results)
        chosen = _load(options)
        logs.configure(options, chosen)
        if options.command in ("status", "show-artifact"):
            return _show(options, chosen, results)
        if options.command in ("verify", "extract"):
            _unpack(options, chosen, results, tell)
        elif options.command == "terminal":
            tell(Done("terminal", _terminal(options, chosen)))
        else:
            from . import invocation  # with all that steps need; the terminal, which stays, does not

            invocation.carry_out(options, chosen, progress_bar(), tell)
    except BaseException as problem:
        error = problem if isinstance(problem, errors.Error) else libraries.unusable(problem)
        if error is None:
            raise
        # A timer that gives way to another run is nothing to report; a person is told.
        gives_way = options.command == "run" and isinstance(error, errors.Busy) and not sys.stderr.isatty()
        log.log(logging.DEBUG if error.logged or gives_way else logging.ERROR, "%s", error)
        if error.syslog and not options.syslog:
            syslog.send(syslog.ERROR, str(error))
    code = error.exit_code if error else _exit_code(options, done)
    if options.json:
        results.say(json.dumps(_as_json(options, done, error, code)))
    elif not done and error is None and sys.stdout.isatty() and not options.syslog:
        results.say("Nothing is due; see mender-oneshot status.")
    return code


def _load(options: Options) -> Settings:
    """Read the configuration; a user who may not read it can still look at what everybody may see."""
    places = settings.find_places(options.config, options.fallback_config, options.data)
    try:
        return settings.load(places)
    except errors.SettingsError as error:
        if os.geteuid() == 0 or options.command not in ("status", "show-artifact"):
            raise
        log.warning("%s", error)
        return Settings(places)


def _terminal(options: Options, chosen: Settings) -> Outcome:
    try:
        from .terminal import service  # of an extra: most devices have not its libraries
    except ModuleNotFoundError as error:
        raise errors.SettingsError(
            f"The terminal needs {error.name}; install python3-wsproto and python3-msgpack, or run "
            "pip install '.[terminal]' in a checkout of mender-oneshot."
        ) from error
    return service.serve(options, chosen)


def _unpack(options: Options, chosen: Settings, results: _Results, tell: Callable[[Done], None]) -> None:
    from . import unpack  # of no use to the timers

    with deadline(options.max_runtime):
        if options.command == "extract":
            tell(Done("extract", unpack.extract(chosen, options.file, options.directory)))
            return
        outcome = unpack.verify(chosen, options.file)
    tell(Done("verify", outcome))
    if not options.json:
        results.say(*(visible(line) for line in unpack.lines(outcome.facts)))


def _say(sentence: str, options: Options, results: _Results) -> None:
    """Tell of a step that went well: worth a notice where a log takes it."""
    if options.syslog:
        syslog.send(syslog.NOTICE, sentence)
    else:
        results.say(f"<{syslog.NOTICE}>{visible(sentence)}" if logs.is_journal(1) else visible(sentence))


def _exit_code(options: Options, done: list[Done]) -> int:
    if options.exit_code and any(step.outcome.word == "update" for step in done):
        return errors.UPDATE_AVAILABLE
    return 0


def _as_json(options: Options, done: list[Done], error: errors.Error | None, code: int) -> dict[str, Any]:
    """Say it all in one object; the keys are a promise."""
    said = [
        {"step": step, "outcome": outcome.word, "message": outcome.sentence, **outcome.facts}
        for step, outcome in done
    ]
    whole: dict[str, Any] = {"schema": SCHEMA, "exit_code": code}
    if options.command == "run":
        whole["steps"] = said
    elif said:
        whole |= said[0]
    if error:
        whole["error"] = str(error)
    return whole


def _show(options: Options, chosen: Settings, results: _Results) -> int:
    from . import device, status  # which look at what steps left

    if options.command == "show-artifact":
        facts = {"artifact_name": device.provides(chosen)["artifact_name"]}
    else:
        facts = status.describe(chosen)
    if options.json:
        results.say(json.dumps({"schema": SCHEMA, **facts}))
    elif options.command == "show-artifact":
        results.say(facts["artifact_name"])
    else:
        results.say(*(visible(line) for line in status.lines(facts)))
    return 0


def _examine(options: Options, results: _Results) -> int:
    """Show what `doctor` finds, as it finds it; the exit code is that of the first thing wrong."""
    from . import doctor  # it needs every library there is

    places = settings.find_places(options.config, options.fallback_config, options.data)
    trouble: errors.Error | None = None
    try:
        chosen = settings.load(places)
    except errors.Error as error:
        chosen, trouble = Settings(places), error
    logs.configure(options, chosen)
    findings = []
    with deadline(options.max_runtime):
        for found in doctor.examine(chosen, trouble):
            findings.append(found)
            if not options.json:
                results.say(
                    f"{'WRONG' if found.error else 'ok':<6} {found.name:<15} {visible(found.sentence)}"
                )
    code = next((found.error.exit_code for found in findings if found.error), 0)
    if options.json:
        checks = [
            {"name": found.name, "ok": found.error is None, "message": found.sentence} for found in findings
        ]
        results.say(json.dumps({"schema": SCHEMA, "exit_code": code, "checks": checks}))
    return code


def progress_bar() -> Progress:
    """Return a function that shows (bytes done, bytes in all) on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done, size: None
    from click import progressbar  # only a person at a terminal pays for it

    bar: Any = None

    def show(done: int, size: int) -> None:
        nonlocal bar
        if size <= 0:
            return
        if bar is None:
            bar = progressbar(length=size, file=sys.stderr, label="Downloading")
        bar.update(done - bar.pos)
        if done >= size:
            bar.render_finish()

    return show
