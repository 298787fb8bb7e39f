"""Write the configuration of a new device, try it, and report what `doctor` finds."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import (
    config_file,
    configuration_checks,
    disk,
    doctor,
    errors,
    findings,
    invocation,
    logs,
    network,
    new_files,
    paths,
    questions,
)
from . import schedule as schedules
from . import settings as settings_file
from .deadline import deadline
from .findings import Finding
from .new_files import NewFile
from .options import Options
from .output import Output
from .paths import Places
from .schedule import Schedule
from .settings import Settings
from .setup_values import (
    FIRST_RELEASE,
    Present,
    Values,
    as_file,
    complete,
    configuration,
    device_type_in,
    from_options,
)

SECONDS = 900
"""Time limit of the connection to the server and of `doctor`; the questions have none."""

_OWN_SCRIPTS = f"{os.path.dirname(os.path.abspath(__file__))}/device_scripts"
_IDENTITY = "mender-device-identity"


class _Plan(NamedTuple):
    """What is about to happen."""

    files: list[NewFile]
    kept: list[str]  # files that are there already, with the content that is wanted
    schedule: Schedule | None


def run(options: Options, output: Output) -> int:
    """Perform `setup` and return its exit code; raises `errors.Error` if the files were not written."""
    asks = not options.json and sys.stdin.isatty() and sys.stdout.isatty()
    quiet = bool(options.setup["quiet"])
    places = paths.find_places(options.config, options.fallback_config, options.data)
    values = from_options(options.setup)
    present = _present(places)
    if asks:
        output.write_text(() if quiet else questions.INTRODUCTION)
        values = _ask(values, present, places)
    values = complete(values, present)
    plan = _plan(values, present, places)
    _check(plan, values, places)
    if not _allowed(plan, asks=asks, force=options.force):
        raise errors.UsageError("Nothing was written, because the answer was no; run it again.")
    new_files.write(plan.files, private=(places.datastore,))
    if not quiet:
        output.write_text(_written(plan))
    found: list[Finding] = []
    refusal = None if options.setup["offline"] else _authorize(options, places)
    for one in _findings(options, places, plan, refusal):
        found.append(one)
        if one.level in (findings.FAILED, findings.WARNING) or not quiet:
            output.write_finding(one)
    return _finish(options, output, plan, refusal, found)


def _present(places: Places) -> Present:
    """Return what the device has; a configuration that cannot be used counts as none."""
    content = disk.read(places.config)
    members: dict[str, Any] = {}
    if content is not None:
        with contextlib.suppress(errors.SettingsError):
            members = config_file.parse_object(places.config, content)[1]
    found = Present(members)
    return found._replace(device_type=device_type_in(disk.read(_device_type_file(found, places))))


def _device_type_file(present: Present, places: Places) -> str:
    configured = present.member("DeviceTypeFile")
    return configured if isinstance(configured, str) and configured else places.data(paths.DEVICE_TYPE)


def _ask(values: Values, present: Present, places: Places) -> Values:
    values = questions.fill(
        values, present, host_name=socket.gethostname().partition(".")[0], has_artifact=_has_artifact(places)
    )
    if values.server_certificate:
        values = values._replace(server_certificate=os.path.abspath(values.server_certificate))
    missing = [] if not values.scripts else _scripts(places)
    if missing and not questions.yes("Install the scripts for the identity and the inventory?", default=True):
        values = values._replace(scripts=False)
    found = None if values.schedule else schedules.find()
    if found and not found.enabled and questions.yes(f"Run it regularly ({found.name})?", default=True):
        values = values._replace(schedule=True)
    return values


def _has_artifact(places: Places) -> bool:
    names = (places.artifact_info, places.data(paths.STORED_PROVIDES), places.data(paths.BOOTSTRAP_ARTIFACT))
    return any(os.path.lexists(name) for name in names)


def _scripts(places: Places) -> list[NewFile]:
    """Return the scripts to install: the identity script, and inventory scripts, if the device has none."""
    files = []
    if not os.path.lexists(places.identity_script):
        files.append(_script(_IDENTITY, os.path.dirname(places.identity_script)))
    try:
        present = os.listdir(places.inventory_scripts)
    except OSError:
        present = []
    if not present:
        names = sorted(name for name in os.listdir(_OWN_SCRIPTS) if name.startswith("mender-inventory-"))
        files += [_script(name, places.inventory_scripts) for name in names]
    return files


def _script(name: str, directory: str) -> NewFile:
    content = disk.read(f"{_OWN_SCRIPTS}/{name}") or b""
    return NewFile(f"{directory}/{name}", content, 0o755)


def _plan(values: Values, present: Present, places: Places) -> _Plan:
    members = configuration(values, present)
    device_type = f"device_type={values.device_type}\n".encode()
    files = _scripts(places) if values.scripts else []
    kept = []
    if not _has_artifact(places) or values.artifact_name:
        name = values.artifact_name or FIRST_RELEASE
        files.append(NewFile(places.artifact_info, f"artifact_name={name}\n".encode()))
    if values.device_type != present.device_type:
        files.append(NewFile(_device_type_file(present, places), device_type))
    else:
        kept.append(_device_type_file(present, places))
    # Last, so that a timer that is active already finds all of the rest.
    if members != present.configuration:
        mode = 0o600 if any(key.lower() == "tenanttoken" for key in members) else 0o644
        files.append(NewFile(places.config, as_file(members), mode))
    else:
        kept.append(places.config)
    files = [new_files.replacing(file) if os.path.lexists(file.path) else file for file in files]
    found = schedules.find() if values.schedule else None
    if values.schedule and found is None:
        raise errors.SettingsError(
            "Neither mender-oneshot's timers nor a crontab was found; install them, or omit --schedule."
        )
    return _Plan(files, kept, None if found and found.enabled else found)


def _check(plan: _Plan, values: Values, places: Places) -> None:
    """Raise `errors.Error` if the configuration would be invalid or a file cannot be written."""
    for file in plan.files:
        if os.path.realpath(file.path) == os.path.realpath(places.config):
            settings_file.parse(file.path, file.content, [])
    network.check(Settings(places, server_certificate=values.server_certificate))
    new_files.check(plan.files)


def _allowed(plan: _Plan, *, asks: bool, force: bool) -> bool:
    """Return whether to write the files; raise `errors.NoSpace` if one exists and may not be replaced."""
    replaced = [file for file in plan.files if file.copy]
    if force or not plan.files:
        return True
    if asks:
        return questions.confirm(plan.files)
    if replaced:
        raise new_files.refuse(replaced)
    return True


def _written(plan: _Plan) -> Iterator[str]:
    for file in plan.files:
        if file.copy:
            yield f"Replaced {file.path}; the old file is {file.copy}."
        else:
            yield f"Wrote {file.path}."
    for path in plan.kept:
        yield f"Kept {path}, which is up to date."
    if undo := _undo(plan):
        yield "To undo this:"
        yield from (f"  {command}" for command in undo)


def _undo(plan: _Plan) -> list[str]:
    """Return the shell commands that bring back the state before; the device key and the state stay."""
    return ([plan.schedule.undo] if plan.schedule else []) + new_files.undo(plan.files)


def _authorize(options: Options, places: Places) -> errors.Error | None:
    """Authorize with the server; return the error, which is `errors.NotAccepted` for a new device."""
    try:
        chosen = settings_file.load(places)
        logs.configure(options, chosen)
        auth = options._replace(command="auth", max_runtime=options.max_runtime or SECONDS)
        invocation.carry_out(auth, chosen, lambda done, size: None, lambda done: None)
    except errors.Error as error:
        return error
    return None


def _findings(
    options: Options, places: Places, plan: _Plan, refusal: errors.Error | None
) -> Iterator[Finding]:
    """Enable the schedule, then examine the device; yield what each of them finds."""
    if plan.schedule:
        try:
            schedules.enable(plan.schedule)
            yield Finding("schedule", f"Enabled {plan.schedule.name}.")
        except errors.Error as error:
            yield Finding("schedule", str(error), error)
    if not options.setup["offline"]:
        yield from _examine(options, places, refusal)


def _examine(options: Options, places: Places, refusal: errors.Error | None) -> Iterator[Finding]:
    """Yield the findings of `doctor`, without the one for which the device only waits."""
    with deadline(options.max_runtime or SECONDS):
        for found in doctor.examine(configuration_checks.load(places)):
            if isinstance(refusal, errors.NotAccepted) and found.name in ("authorization", "steps"):
                continue
            if found.name == "schedule" and not options.setup["schedule"]:
                found = found._replace(error=None, kind=findings.WARNING if found.error else found.kind)
            yield found


def _finish(
    options: Options, output: Output, plan: _Plan, refusal: errors.Error | None, found: list[Finding]
) -> int:
    """Print the end and return the exit code; a device that only has to be accepted is a success."""
    pending = isinstance(refusal, errors.NotAccepted)
    faults = [one.error for one in found if one.error]
    fault = faults[0] if faults else None if pending else refusal
    code = fault.exit_code if fault else 0
    word, sentence = "authorized", "The device is set up, and the server has accepted it."
    if options.setup["offline"]:
        word, sentence = "written", "The device is configured; the server was not contacted."
    elif pending and not fault:
        word, sentence = "pending", str(refusal)
    if fault:
        word, sentence = "failed", f"The files are written, but there is a problem: {fault}"
    facts = {
        "exit_code": code,
        "outcome": word,
        "message": sentence,
        "files": [{"path": file.path, "replaced": bool(file.copy), "copy": file.copy} for file in plan.files],
        "kept": plan.kept,
        "schedule": plan.schedule.kind if plan.schedule else "",
        "undo": _undo(plan),
        "checks": [one.facts() for one in found],
    }
    output.write_facts(facts, [sentence, str(refusal)] if pending and fault else [sentence])
    return code
