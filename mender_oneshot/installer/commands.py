"""`install FILE|URL`, `commit`, `rollback`, `resume`, as in `mender-update`, and `resume` for the server."""

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from .. import acceptance, disk, errors, own_command
from ..context import Outcome, Progress
from ..paths import INSTALLER, INSTALLER_LOCK, INSTALLER_RESERVE, UNREADABLE, UPDATE_LOCK
from ..settings import Settings
from ..url import is_url
from . import device, modules, phases, record
from .installation import Installation
from .record import Record
from .state_scripts import Paused


class InstallFailed(errors.Error):
    """The installation failed; the message has the reason, and whether the old system is back."""

    exit_code = os.EX_SOFTWARE
    word = "installation_failed"


def install(settings: Settings, source: str, stop_before: str, progress: Progress) -> Outcome:
    """Install an artifact, a file or the one at a URL, which is downloaded first.

    Raises `errors.ArtifactRejected`, `InstallFailed`, `errors.NotYet`, or what prevented the download.
    """
    with _locked(settings):
        _require_nothing_under_way(settings)
        if not is_url(source):
            return _begin(settings, os.path.abspath(source), stop_before)
        from . import remote_file  # needs TLS, unlike an installation

        path = remote_file.download(settings, source, progress)
        try:
            return _begin(settings, path, stop_before)
        finally:
            if not os.path.lexists(settings.places.data(INSTALLER)):
                disk.remove(path)  # rejected, or installed to the end


def _begin(settings: Settings, path: str, stop_before: str) -> Outcome:
    """Verify an artifact file, then begin its installation."""
    try:
        with open(path, "rb") as file:
            verified = acceptance.verify(settings, file)
    except OSError as error:
        raise disk.failure(f"read {path}", error) from error
    if verified.payload_type and (why := modules.obstacle(settings, verified.payload_type)):
        raise errors.SettingsError(f"{verified.name} cannot be installed: {why}.")
    return _carry_on(settings, device.new_record(settings, path, verified), stop_before, resumed=False)


def commit(settings: Settings, stop_before: str = "") -> Outcome:
    """Commit what was installed by hand; raises `errors.NothingInProgress` if nothing waits for that."""
    return _decide(settings, phases.OK, stop_before)


def rollback(settings: Settings, stop_before: str = "") -> Outcome:
    """Roll back what was installed by hand; raises `errors.NothingInProgress` if nothing waits for that."""
    return _decide(settings, phases.ERROR, stop_before)


def resume(settings: Settings, stop_before: str = "") -> Outcome:
    """Begin or resume the installation that is noted; raises `errors.NothingInProgress` if there is none."""
    with _locked(settings):
        try:
            found = record.load(settings.places.data(INSTALLER))
        except record.Corrupt:
            _give_up(settings)
            raise
        if found is None:
            raise errors.NothingInProgress("No installation is under way.")
        return _carry_on(settings, found, stop_before, resumed=True)


def _give_up(settings: Settings) -> None:
    """End an installation whose record is corrupt, so that it does not prevent all later ones."""
    path = settings.places.data(INSTALLER)
    os.replace(path, path + UNREADABLE)
    disk.remove(settings.places.data(INSTALLER_RESERVE))
    if os.path.lexists(settings.places.data(UPDATE_LOCK)):
        _ask(settings, "report", "--failure")
        disk.remove(settings.places.data(UPDATE_LOCK))


def _decide(settings: Settings, outcome: str, stop_before: str) -> Outcome:
    with _locked(settings):
        found = _require_by_hand(settings)
        if found.payload_type and (why := modules.obstacle(settings, found.payload_type)):
            raise errors.SettingsError(
                f"{found.artifact_name} can be neither committed nor rolled back in this system: {why}, or "
                "reboot to return to the old system."
            )
        if found.progress.phase == "Waiting":
            found = found._replace(progress=phases.advance(found.progress, outcome))
        elif not found.stopped:
            raise errors.NothingInProgress(
                f"The installation of {found.artifact_name} was interrupted; run mender-oneshot resume first."
            )
        return _carry_on(settings, found, stop_before, resumed=False)


def _carry_on(settings: Settings, found: Record, stop_before: str, *, resumed: bool) -> Outcome:
    surroundings = (
        device.ByHand(settings, found)
        if found.by_hand
        else device.ForServer(settings, found, lambda *words: _ask(settings, *words))
    )
    under_way = installation(settings, found, surroundings)
    if resumed:
        under_way.resume()
    try:
        done = under_way.run(stop_before)
    except Paused as asked:
        raise errors.TemporaryError(
            f"The state script {asked} asks to wait; run mender-oneshot resume to ask it again."
        ) from asked
    return _outcome(done)


def _ask(settings: Settings, *words: str) -> dict[str, Any]:
    """Run one of our commands and return its JSON object; raises `errors.TemporaryError` if it fails."""
    command = own_command.command(settings, *words, "--json")
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, cwd="/")
        answer = json.loads(done.stdout)
    except (OSError, ValueError) as error:
        raise errors.TemporaryError(f"mender-oneshot {words[0]} cannot be run: {error}.") from error
    # Nothing in progress: the result was given before, or the update has timed out.
    if not isinstance(answer, dict) or done.returncode not in (0, errors.NOTHING_IN_PROGRESS):
        why = answer.get("error") if isinstance(answer, dict) else "no JSON object"
        raise errors.TemporaryError(f"mender-oneshot {words[0]} failed: {why}")
    return answer


def installation(settings: Settings, found: Record, surroundings: device.ByHand) -> Installation:
    """Return the installation of a record on this device."""
    command = modules.find(settings, found.payload_type) or ()
    return Installation(
        found,
        command,
        device.places(settings),
        surroundings,
        device.limits(settings),
        settings.module_timeout,
    )


def _outcome(done: Record) -> Outcome:
    facts = {"artifact_name": done.artifact_name, "phase": done.progress.phase}
    name = done.artifact_name
    if done.progress.phase == "Waiting":
        if done.progress.reboot in ("Yes", "Automatic"):
            return Outcome(
                "reboot-needed",
                f"Installed {name}; reboot, then run mender-oneshot commit, or rollback to go back.",
                facts,
            )
        return Outcome(
            "waiting",
            f"Installed {name}; run mender-oneshot commit to keep it, or rollback to go back.",
            facts,
        )
    if done.progress.phase != "Done":
        return Outcome("stopped", f"Stopped before {done.progress.phase}; run mender-oneshot resume.", facts)
    if done.progress.inconsistent:
        raise InstallFailed(
            f"The installation of {name} failed and was not undone; the device is inconsistent: {done.why}"
        )
    if done.progress.failed and done.why:
        raise InstallFailed(f"The installation of {name} failed and was undone: {done.why}")
    if done.progress.failed:
        return Outcome("rolled-back", f"Rolled back {name}.", facts)
    return Outcome("installed", f"Installed {name}.", facts)


def _require_by_hand(settings: Settings) -> Record:
    found = record.load(settings.places.data(INSTALLER))
    if found is None:
        raise errors.NothingInProgress("No installation is under way.")
    if not found.by_hand:
        raise errors.NotYet(
            f"Deployment {found.deployment} is being installed; mender-oneshot run carries it on by itself."
        )
    return found


def _require_nothing_under_way(settings: Settings) -> None:
    found = record.load(settings.places.data(INSTALLER))
    if found:
        raise errors.NotYet(
            f"The installation of {found.artifact_name} is under way; run mender-oneshot commit, rollback or "
            "resume first."
        )
    if os.path.lexists(settings.places.data(UPDATE_LOCK)):
        raise errors.NotYet("A deployment is being installed; wait for its result (mender-oneshot status).")


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Hold the lock of installations; raises `errors.Busy` if another process has it."""
    disk.ensure_directory(settings.places.datastore)
    path = settings.places.data(INSTALLER_LOCK)
    try:
        descriptor = disk.open_own(path, os.O_RDWR)
    except OSError as error:
        raise disk.failure(f"open {path}", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise errors.Busy("Another process is installing; wait for it to end.") from None
    finally:
        os.close(descriptor)
