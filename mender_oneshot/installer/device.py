"""What an installation needs of the device: the artifact, what it provides, its health, its places."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import acceptance, device, disk, errors, paths, provides, provides_store, scripts
from ..artifact.verify import Header, Receive, ReceiveScript, Verified
from ..settings import Settings
from .installation import Begin, Places, Rejected
from .phases import Progress
from .record import Record
from .state_scripts import Limits

CHECK_SECONDS = 600.0
"""Time limit of one health check."""

RETRY_SECONDS = 15.0
"""Between two attempts to reach the server before the commit."""

INCONSISTENT = "_INCONSISTENT"

log = logging.getLogger(__name__)

AskServer = Callable[..., Mapping[str, Any]]
"""Runs a command of ours and returns its JSON object."""


def places(settings: Settings) -> Places:
    """Return the places of an installation on this device."""
    data = settings.places.data
    return Places(
        record=data(paths.INSTALLER),
        reserve=data(paths.INSTALLER_RESERVE),
        tree=data(paths.MODULE_TREE),
        scripts=data(paths.ARTIFACT_SCRIPTS),
        note=data(paths.MODULE_PROCESS),
        device_scripts=settings.places.state_scripts,
        checks=settings.places.health_checks,
    )


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of modules, scripts and checks: the same for everyone who calls us."""
    return scripts.environment(settings)


def limits(settings: Settings) -> Limits:
    """Return the limits of state scripts."""
    return Limits(
        settings.state_script_timeout,
        settings.state_script_retry_timeout,
        environment(settings),
        settings.places.data(paths.MODULE_PROCESS),
    )


def new_record(settings: Settings, artifact: str, verified: Verified, deployment: str = "") -> Record:
    """Return the record of an installation that begins."""
    return Record(
        deployment=deployment,
        artifact=artifact,
        artifact_name=verified.name,
        artifact_group=verified.group,
        payload_type=verified.payload_type or "",
        provides=dict(verified.provides),
        clears=verified.clears_provides,
        progress=Progress(by_hand=not deployment),
        stopped=True,
    )


class ByHand:
    """The surroundings of an installation without a server."""

    def __init__(self, settings: Settings, found: Record) -> None:
        self.settings = settings
        self.record = found

    def load(self, begin: Begin, give: Receive, script: ReceiveScript) -> None:
        """Read the artifact, verified on the way; raises `errors.ArtifactRejected` or `errors.DiskError`."""

        def start(verified: Verified, header: Header) -> None:
            begin(_values(self.settings, verified), header)

        path = self.record.artifact
        try:
            with open(path, "rb") as file:
                acceptance.verify(self.settings, file, give, script, start)
        except OSError as error:
            raise disk.failure(f"read {path}", error) from error

    def drop_artifact(self) -> None:
        """Remove an artifact that `install URL` has downloaded; a file of the user stays."""
        disk.remove(self.settings.places.data(paths.BY_HAND_ARTIFACT))

    def report(self, status: str) -> None:
        """Report nothing: there is no server."""

    def report_pause(self, status: str) -> None:
        """Report nothing: there is no server."""

    def confirm(self) -> None:
        """Confirm nothing: who runs `commit` does."""

    def save_provides(self, done: Record) -> None:
        """Store what the device provides now, and write `artifact_info` if the file system takes it."""
        installed = device.provides(self.settings)
        if done.progress.inconsistent:
            name = done.artifact_name.removesuffix(INCONSISTENT) + INCONSISTENT
            now = {**installed, "artifact_name": name}
            now |= {"artifact_group": done.artifact_group} if done.artifact_group else {}
        elif done.progress.failed:
            return
        else:
            now = provides.after(
                installed, done.artifact_name, done.artifact_group, done.provides, done.clears
            )
        provides_store.save(self.settings, now)
        try:
            provides_store.write_artifact_info(self.settings, provides.lines(now))
        except errors.Error as error:
            log.warning("%s The provides are stored; only artifact_info is old.", error)

    def finish(self, done: Record) -> None:
        """Remove the record, and the artifact if it was downloaded for `install URL` and is still there."""
        data = self.settings.places.data
        disk.remove(data(paths.BY_HAND_ARTIFACT), data(paths.INSTALLER_RESERVE), data(paths.INSTALLER))


class ForServer(ByHand):
    """The surroundings of an installation that a server has asked for."""

    def __init__(self, settings: Settings, found: Record, ask: AskServer) -> None:
        super().__init__(settings, found)
        self._ask = ask

    def drop_artifact(self) -> None:
        """Remove the artifact, so that its backup and the new files have room."""
        disk.remove(self.record.artifact)

    def report(self, status: str) -> None:
        """Report a status once; a server that cannot be reached does not hold up an installation."""
        try:
            answer = self._ask("announce", status)
        except errors.Error as error:
            log.warning("The status %s is not sent: %s", status, error)
            return
        if answer.get("outcome") == "aborted":
            raise Rejected(str(answer.get("message", "The server has aborted the deployment.")))

    def report_pause(self, status: str) -> None:
        """Report a pause; an abort is left to the next status, an error is only logged."""
        if status:
            with contextlib.suppress(Rejected):
                self.report(status)

    def confirm(self) -> None:
        """Log in again, report `installing` and run the health checks, all within `CommitTimeoutSeconds`."""
        end = time.monotonic() + self.settings.commit_timeout
        self._until(end, lambda: self._ask("auth", "--fresh"), "log in")
        answer = self._until(end, lambda: self._ask("announce", "installing"), "report installing")
        if answer.get("outcome") == "aborted":
            raise Rejected(str(answer.get("message", "The server has aborted the deployment.")))
        for check in _checks(places(self.settings).checks):
            _run_check(self.settings, check, min(CHECK_SECONDS, max(1.0, end - time.monotonic())))

    def _until(self, end: float, attempt: Callable[[], Mapping[str, Any]], what: str) -> Mapping[str, Any]:
        while True:
            try:
                return attempt()
            except errors.Error as error:
                log.warning("%s", error)
                if time.monotonic() + RETRY_SECONDS > end:
                    raise Rejected(
                        f"The new system could not {what} within {self.settings.commit_timeout} s ({error}); "
                        "going back to the old one."
                    ) from error
            time.sleep(RETRY_SECONDS)

    def finish(self, done: Record) -> None:
        """Queue the final status, then remove what is left of the update."""
        if done.progress.failed:
            log.error("The update to %s failed: %s", done.artifact_name, done.why or "no reason is known.")
        self._ask("report", "--failure" if done.progress.failed else "--success")
        super().finish(done)
        disk.remove(self.settings.places.data(paths.UPDATE_LOCK))


def _values(settings: Settings, verified: Verified) -> dict[str, str]:
    """Return the plain entries of the tree."""
    installed = device.provides(settings)
    group = installed.get("artifact_group", "")
    return {
        "version": "3\n",
        "current_artifact_name": f"{installed['artifact_name']}\n",
        "current_artifact_group": f"{group}\n" if group else "",
        "current_device_type": f"{device.device_type(settings)}\n",
        "header/artifact_name": verified.name,
        "header/artifact_group": verified.group,
        "header/payload_type": verified.payload_type or "",
    }


def _checks(directory: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise Rejected(f"The health checks in {directory} cannot be read: {error.strerror}.") from error
    for name in names:
        path = f"{directory}/{name}"
        # Not access(2), which would have a check skipped that cannot be run because of noexec.
        if not name.startswith(".") and os.path.isfile(path) and os.stat(path).st_mode & 0o111:
            yield path


def _run_check(settings: Settings, path: str, seconds: float) -> None:
    try:
        scripts.run(settings, path, seconds)
    except (errors.ScriptFailed, errors.TemporaryError) as error:
        raise Rejected(f"The health check {path} failed: {error}; going back to the old system.") from error
