"""Carrying out an installation: note the phase, do its work, take the next.

One process does as many phases as it can: until the end, a reboot, a pause or its own end. Whatever ends it,
the next one resumes at the phase that is noted.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from .. import disk, errors
from ..artifact.verify import Header, Receive, ReceiveScript
from ..pidfile import boot_id
from . import phases, process, reboot, record, root, state_scripts, tree
from .feed import Feed
from .module import Module, ModuleFailed
from .phases import CALL, ERROR, OK, QUESTION, SCRIPTS, SERVER, Progress
from .record import Record
from .state_scripts import Limits, Paused, ScriptFailed

_QUESTIONS = {
    "NeedsArtifactReboot": ("NeedsArtifactReboot", "No", "Yes", "Automatic"),
    "NeedsRollbackReboot": ("NeedsArtifactReboot", "No", "Yes", "Automatic"),
    "SupportsRollback": ("SupportsRollback", "No", "Yes"),
    "CanRollBack": ("SupportsRollback", "No", "Yes"),
}
_PAUSES = {
    "ArtifactInstall_Enter": "pause_before_installing",
    "ArtifactReboot_Enter": "pause_before_rebooting",
    "ArtifactCommit_Enter": "pause_before_committing",
}
"""The statuses that the server knows for a pause (OpenAPI, deployments)."""
_CALLS = {"IsNewSystem": "ArtifactVerifyReboot", "IsOldSystem": "ArtifactVerifyRollbackReboot"}
_SCRIPTS = {
    "ArtifactRollback_Failed": ("ArtifactRollback", "Leave"),
    "ArtifactCommit_Leave_Error": ("ArtifactCommit", "Error"),
}

log = logging.getLogger(__name__)


class Rejected(Exception):
    """The server has aborted the deployment, or the new system is not fit to be committed; a sentence."""


class Surroundings(Protocol):
    """What an installation needs of the device and the server."""

    def load(self, begin: "Begin", give: Receive, script: ReceiveScript) -> None:
        """Read and verify the artifact from its first byte to its last, in the order script, begin, give."""

    def drop_artifact(self) -> None:
        """Free the space of the artifact, which is not read again."""

    def report(self, status: str) -> None:
        """Report an intermediate status; raises `Rejected` if the server has aborted the deployment."""

    def report_pause(self, status: str) -> None:
        """Report that a state script asked for a pause; "" if the server has no status for it."""

    def confirm(self) -> None:
        """Log in again, report `installing` and run the health checks; raises `Rejected`."""

    def save_provides(self, done: Record) -> None:
        """Keep what the device provides now."""

    def finish(self, done: Record) -> None:
        """Queue the final status and remove what is left of the update."""


Begin = Callable[[Mapping[str, str], Header], None]
"""Called with the plain entries of the tree and the header of the artifact."""


class Places(NamedTuple):
    """Where an installation keeps its files: paths."""

    record: str
    reserve: str  # room for the record
    tree: str  # of the update module
    scripts: str  # the artifact's state scripts
    note: str  # which process of the module runs
    device_scripts: str  # the device's own state scripts
    checks: str  # the health checks before the commit


class Installation:
    """An installation under way."""

    def __init__(
        self,
        found: Record,
        command: tuple[str, ...],
        places: Places,
        surroundings: Surroundings,
        limits: Limits,
        module_seconds: float,
    ) -> None:
        self.record = found
        self._places = places
        self._around = surroundings
        self._limits = limits
        self._module = Module(
            found.payload_type, command, places.tree, limits.environment, module_seconds, places.note
        )
        self._feed: Feed | None = None

    def resume(self) -> None:
        """Take over from a process that ended: its phase was cut, unless it stopped on purpose."""
        process.end_what_is_left(self._places.note)
        progress = self.record.progress
        if progress.phase in _BEFORE_REBOOT and self._is_new_system():
            # The boot loader has started it already; at one more reboot it would go back.
            self.record = self.record._replace(
                progress=progress._replace(phase="ArtifactVerifyReboot"), pause=None
            )
            return
        if self.record.stopped:
            return
        if progress.phase == "Download":
            self._remove_files()  # they may have filled the disk, so that no phase can be noted
        if progress.phase in _REBOOTING and self.record.boot == boot_id():
            # Killed without a reboot: it is still to come.
            target = (
                "ArtifactReboot" if progress.phase.startswith("ArtifactReboot") else "ArtifactRollbackReboot"
            )
            progress = progress._replace(phase=target, cuts=progress.cuts + 1)
        else:
            progress = phases.advance(progress, phases.CUT)
        if progress.failed and not self.record.progress.failed:
            self._explain("The update was interrupted where it could not be resumed.")
        self.record = self.record._replace(progress=progress)

    def run(self, stop_before: str = "") -> Record:
        """Do phase after phase; return at the end, before a phase that is named, or where a person decides.

        Raises `Paused` if a state script asked to be run again later, and `errors.NoSpace` or
        `errors.DiskError` if the next phase cannot be noted: a phase that is not noted is not started.
        """
        while True:
            progress = self.record.progress
            if progress.phase in (stop_before, "Waiting"):
                self._note(stopped=True)
                return self.record
            self._note(stopped=False)
            if progress.phase == "ArtifactInstall_Enter":
                self._around.drop_artifact()
            if progress.phase == "Done":
                self._around.finish(self.record)
                return self.record
            try:
                outcome = self._outcome(progress)
            except Paused:
                self._note(stopped=True)
                self._around.report_pause(_PAUSES.get(progress.phase, ""))
                raise
            self.record = self.record._replace(progress=phases.advance(progress, outcome), pause=None)

    def _note(self, *, stopped: bool) -> None:
        if self.record.progress.phase == "ArtifactInstall":
            self.record = self.record._replace(old_root=root.mounted())
        if self.record.progress.phase == "ArtifactCommit":
            self.record = self.record._replace(new_root=root.mounted())
        self.record = self.record._replace(boot=boot_id(), at=time.time(), stopped=stopped)
        self._with_reserve(lambda: record.save(self._places.record, self.record))

    def _with_reserve(self, write: Callable[[], None]) -> None:
        """Write something, if necessary into the room that was reserved; raises like `write`."""
        try:
            write()
        except errors.NoSpace:
            if not record.release(self._places.reserve):
                raise
            write()

    def _outcome(self, progress: Progress) -> str:
        """Do the work of a phase and return what came of it."""
        log.info("%s", progress.phase)
        kind = phases.PHASES[progress.phase].kind
        if known := self._told_by_root(progress.phase):
            return known
        try:
            if progress.phase == "SupportsRollback" and self._is_stranded():
                self._return_to_old_system()
            if kind == QUESTION:
                return self._module.ask(*_QUESTIONS[progress.phase])
            if kind == SCRIPTS:
                return self._scripts(progress)
            if kind == SERVER:
                self._server(progress.phase)
            elif kind == CALL:
                self._call(progress)
            else:
                self._with_reserve(lambda: self._around.save_provides(self.record))
        except (ModuleFailed, ScriptFailed, Rejected, errors.ArtifactRejected) as error:
            self._explain(str(error))
            return ERROR
        except (errors.NoSpace, errors.DiskError, errors.SettingsError) as error:
            if kind == phases.NOTE:
                raise  # it is committed, so this is tried until it succeeds
            self._explain(str(error))
            return ERROR
        return OK

    def _told_by_root(self, phase: str) -> str:
        """Return which system runs after a cut in the commit, if the root file system tells; "" if not.

        A module may not know: after the commit, the `rootfs-image` of the Mender client answers as in the old
        system.
        """
        old, new, now = self.record.old_root, self.record.new_root, root.mounted()
        if old == new or now not in (old, new):
            return ""
        if phase == "IsNewSystem" and now == old:
            self._explain("Power failed before the commit was complete, and the old system has come back.")
            return ERROR
        if phase == "IsOldSystem":
            return OK if now == old else ERROR
        return ""

    def _is_stranded(self) -> bool:
        """Return whether the new system lacks the update module, so that only the boot loader can go back."""
        stranded = not self._module.command and self._is_new_system()
        return stranded and not self.record.returning and not self.record.by_hand

    def _is_new_system(self) -> bool:
        """Return whether another root file system is mounted than when the update was installed."""
        old, now = self.record.old_root, root.mounted()
        return bool(old) and now not in ("", old)

    def _return_to_old_system(self) -> None:
        """Reboot once: a boot loader that tries a system out goes back at the second boot.

        The phase stays as it is, so the module in the old system is asked. Raises `ModuleFailed` if the
        device does not reboot.
        """
        self.record = self.record._replace(returning=True)
        self._note(stopped=False)
        log.warning("Rebooting, so that the boot loader returns to the old system.")
        reboot.carry_out(lambda: reboot.call(self._limits.environment), certain=True)

    def _explain(self, sentence: str) -> None:
        log.error("%s", sentence)
        if not self.record.why:
            self.record = self.record._replace(why=sentence[:2000])

    def _server(self, phase: str) -> None:
        if phase == "Confirm":
            self._around.confirm()
        else:
            self._around.report("rebooting" if phase == "ReportRebooting" else "installing")

    def _call(self, progress: Progress) -> None:
        phase = progress.phase
        if phase == "Download":
            self._download()
        elif phase == "Cleanup":
            self._clean_up()
        elif phase in ("ArtifactReboot", "ArtifactRollbackReboot"):
            self._reboot(phase, progress.reboot)
        else:
            if phase == "ArtifactCommit":  # the scripts of a new system may be for another client
                state_scripts.check_version(self._places.device_scripts)
            self._module.call(_CALLS.get(phase, phase))

    def _scripts(self, progress: Progress) -> str:
        """Run the state scripts of a phase, from the one that paused it on."""
        if not self.record.payload_type and progress.phase == "Download_Leave":
            self._run_scripts(self._places.device_scripts, "Download", "Leave")
            return phases.EMPTY
        state, action = _SCRIPTS.get(progress.phase) or tuple(progress.phase.rsplit("_", 1))
        directory = (
            self._places.scripts if state in state_scripts.OF_ARTIFACT else self._places.device_scripts
        )
        self._run_scripts(directory, state, action)
        return OK

    def _run_scripts(self, directory: str, state: str, action: str) -> None:
        try:
            state_scripts.run(directory, state, action, self._limits, self.record.pause)
        except Paused as asked:
            self.record = self.record._replace(pause=asked.gate)
            raise

    def _download(self) -> None:
        """Give the payload to the module, from its beginning: whatever an earlier attempt left goes first."""
        scripts = self._places.scripts
        self._remove_files()
        record.reserve(self._places.reserve, self.record)
        try:
            os.makedirs(scripts, 0o700)
        except OSError as error:
            raise disk.failure(f"create {scripts}", error) from error
        try:
            self._around.load(
                self._begin, self._give, lambda name, pieces: state_scripts.store(scripts, name, pieces)
            )
            if self._feed:
                self._feed.finish()
        finally:
            if self._feed:
                self._feed.close()
                self._feed = None
        disk.write_whole(f"{scripts}/version", b"3\n", 0o600)

    def _begin(self, values: Mapping[str, str], header: Header) -> None:
        state_scripts.require_executable(self._places.scripts)
        if not self.record.payload_type:
            return
        tree.make(self._places.tree, values, header)
        sizes = self._module.ask("ProvidePayloadFileSizes", "No", "Yes") == "Yes"
        self._feed = Feed(self._module, with_sizes=sizes)

    def _give(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        if self._feed:
            self._feed.receive(name, size, pieces)

    def _reboot(self, phase: str, how: str) -> None:
        if how == "Automatic":
            reboot.carry_out(lambda: reboot.call(self._limits.environment), certain=True)
        else:
            reboot.carry_out(lambda: self._module.call(phase), certain=False)

    def _clean_up(self) -> None:
        """Let the module clean up, and remove the tree and the scripts; an error changes no result."""
        if os.path.isdir(self._places.tree):
            try:
                self._module.call("Cleanup")
            except ModuleFailed as error:
                log.warning("%s", error)
        self._remove_files()

    def _remove_files(self) -> None:
        tree.remove(self._places.tree)
        shutil.rmtree(self._places.scripts, ignore_errors=True)


_BEFORE_REBOOT = ("NeedsArtifactReboot", "ReportRebooting", "ArtifactReboot_Enter", "ArtifactReboot")
_REBOOTING = (
    "ArtifactReboot_Enter",
    "ArtifactReboot",
    "ArtifactRollbackReboot_Enter",
    "ArtifactRollbackReboot",
)
