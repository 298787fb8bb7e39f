"""The update module `rootfs-image`: writes an image to the inactive slot, and has it booted as a trial.

The boot loader environment names the slot to boot (`mender_boot_part`) and whether that is a trial
(`upgrade_available`): unless the new system commits, the boot loader returns to the old slot. The note
`tmp/orig-part`, the number of the old slot, is written when the image is complete. It tells later calls
whether the old or the new system runs.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .. import errors
from . import block_device, boot_environment, durable, programs, tree
from .boot_environment import Environment
from .call import explain, failure, run
from .slots import Board, NotConfigured, Slot, configured, mounted, require_writable, ubi_size

_ORIGINAL = "orig-part"


class System(NamedTuple):
    """What runs, and what the boot loader will boot."""

    environment: Environment
    running: Slot
    other: Slot

    @property
    def is_next(self) -> bool:
        """Whether the boot loader boots the slot that runs."""
        return self.environment.active == self.running.number


def survey(board: Board) -> System:
    """Compare the boot loader environment with what is mounted; raises `errors.Error` if they do not fit."""
    slots = configured(board)
    environment = boot_environment.load()
    if environment.active not in [slot.number for slot in slots]:
        raise errors.Error(
            f"The boot loader environment has mender_boot_part={environment.active}, which is the number of "
            f"neither {slots[0].path} nor {slots[1].path}; correct RootfsPartA and RootfsPartB in "
            "mender.conf, or the variable."
        )
    running = mounted(board, slots)
    if running is None:
        raise errors.Error(
            f"The root file system is on neither {slots[0].path} nor {slots[1].path}; "
            "correct RootfsPartA and RootfsPartB in mender.conf."
        )
    return System(environment, running, slots[1] if running == slots[0] else slots[0])


def require_active(system: System) -> None:
    """Raise `errors.Error` if the boot loader boots another slot than the one that runs."""
    if not system.is_next:
        raise errors.Error(
            f"The boot loader environment names the other slot, {system.other.path}, but "
            f"{system.running.path} is mounted as root; reboot, then deploy again."
        )


class _Module:
    """The calls; each raises `errors.Error`, and can be repeated after a power cut."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def download(self, update: str) -> None:
        """Reject the call of old clients, which gives no size."""
        raise errors.Error("Cannot install an image without its size; call DownloadWithFileSizes.")

    def download_with_sizes(self, update: str) -> None:
        """Write the image to the other slot; the boot loader environment stays as it is."""
        system = survey(self.board)
        require_active(system)
        if system.environment.upgrade_available:
            _end_stale_trial(update)
        name, length = _next_file(update)
        slot = system.other
        require_writable(self.board, slot)
        room = ubi_size(self.board, slot) if slot.is_ubi else block_device.size(slot.path)
        if room is not None and length > room:
            raise errors.Error(
                f"The image has {length} bytes, but {slot.path} holds {room}; "
                "build a smaller image or enlarge the partition."
            )
        durable.discard(tree.note_path(update, _ORIGINAL))
        written = _write_image(slot, f"{update}/{name}", length)
        if _read_line(update):
            raise errors.Error("The payload has more than one file, not one image; build the artifact again.")
        explain(f"Wrote {written} of {length} bytes to {slot.path}; the others were there already.")
        tree.write_note(update, _ORIGINAL, str(system.running.number))

    def install(self, update: str) -> None:
        """Have the other slot booted as a trial."""
        system = survey(self.board)
        original = _original(update)
        if original is None:
            raise errors.Error("The image has not been written completely; deploy it again.")
        if original != system.running.number:
            raise errors.Error(
                f"The image was written while slot {original} ran, and now slot {system.running.number} "
                "runs; deploy it again."
            )
        if system.environment == Environment(system.other.number, True):
            return  # before a power cut
        require_active(system)
        if system.environment.upgrade_available:
            raise errors.Error(
                "The boot loader environment has upgrade_available=1, so another update is under way; "
                "commit it or roll it back, then deploy again."
            )
        boot_environment.store(system.other.number, upgrade_available=True)

    def verify_reboot(self, update: str) -> None:
        """Raise `errors.Error` unless the new system runs and is not committed."""
        system = survey(self.board)
        if _original(update) == system.running.number:
            if system.environment.upgrade_available:
                raise errors.Error(
                    f"The old slot {system.running.path} runs, and the boot loader has not tried "
                    f"{system.other.path}: there was no reboot, or the boot loader does not read its "
                    "environment."
                )
            raise errors.Error(
                f"The old slot {system.running.path} runs: the boot loader tried {system.other.path}, and "
                "returned because that system did not start, or was reset before its commit."
            )
        if not system.environment.upgrade_available:
            raise errors.Error(
                "The boot loader environment has upgrade_available=0: the boot loader has ended the trial, "
                "or it was committed."
            )
        require_active(system)

    def verify_rollback_reboot(self, update: str) -> None:
        """Raise `errors.Error` unless the old system runs and no trial is under way."""
        system = survey(self.board)
        if _original(update) not in (None, system.running.number):
            raise errors.Error(f"The new slot {system.running.path} still runs; reboot.")
        if system.environment.upgrade_available:
            raise errors.Error(
                "The boot loader environment has upgrade_available=1, so the update has not been rolled "
                "back; roll it back again."
            )
        require_active(system)

    def commit(self, update: str) -> None:
        """Make the trial permanent."""
        system = survey(self.board)
        original = _original(update)
        if original == system.running.number:
            raise errors.Error(
                f"Cannot commit the update: the old slot {system.running.path} runs, so the new system did "
                "not start; deploy it again."
            )
        require_active(system)
        if system.environment.upgrade_available:
            boot_environment.store(None, upgrade_available=False, bootcount=False)
        elif original is None:
            raise errors.Error(
                "Cannot commit the update: the boot loader has ended its trial and returned to the old "
                "system; deploy it again."
            )

    def rollback(self, update: str) -> None:
        """Boot the old slot again, permanently."""
        original = _original(update)
        if original is None:
            self._rollback_unnoted()
            return
        environment = None
        try:
            environment = boot_environment.load()
            if environment != Environment(original, False):
                boot_environment.store(original, upgrade_available=False)
        except errors.Error as error:
            # A new system may lack what the environment needs; it is a trial, so the next boot ends it.
            if (environment and not environment.upgrade_available) or self._runs(original):
                raise
            explain(f"{error} The boot loader ends the trial at the next boot.")

    def _rollback_unnoted(self) -> None:
        """Undo a change of slot that no note tells of, if the old system still runs."""
        try:
            system = survey(self.board)
        except NotConfigured as error:
            explain(f"{error} The boot loader ends the trial at the next boot.")
            return
        if system.environment.upgrade_available and not system.is_next:
            boot_environment.store(system.running.number, upgrade_available=False)

    def _runs(self, number: int) -> bool:
        """Return whether this slot runs, or may run; without a configuration that is unknown."""
        try:
            running = mounted(self.board, configured(self.board))
        except NotConfigured:
            return False
        return running is None or running.number == number

    def clean(self, update: str) -> None:
        """Remove a trial from the environment that the running system, the old one, did not start."""
        original = _original(update)
        if original is None:
            return
        try:
            system = survey(self.board)
            if system.environment.upgrade_available and system.running.number == original:
                boot_environment.store(original, upgrade_available=False)
        except errors.Error as error:
            explain(str(error))  # what the update came to is decided


def _original(update: str) -> int | None:
    """Return the number of the slot that ran before the update, None if the image is not complete."""
    note = tree.note(update, _ORIGINAL)
    return int(note) if note and note.isascii() and note.isdigit() else None


def _end_stale_trial(update: str) -> None:
    """Clear what a lost update has left in the environment; raises `errors.Error` if it may be this one."""
    if _original(update) is not None:
        raise errors.Error(
            "The boot loader environment has upgrade_available=1, so this update is under way already; "
            "commit it or roll it back."
        )
    boot_environment.store(None, upgrade_available=False)
    explain("Set upgrade_available=0 in the boot loader environment: an earlier update had left it at 1.")


def _read_line(update: str) -> str:
    """Return the next line of `stream-next`, "" after the last."""
    with open(f"{update}/stream-next", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def _next_file(update: str) -> tuple[str, int]:
    """Return the path of the stream, relative to the tree, and its length; raises `errors.Error`."""
    line = _read_line(update)
    name, _, length = line.rpartition(" ")
    if not line:
        raise errors.Error("The payload has no image; build the artifact again.")
    if not name or not (length.isascii() and length.isdigit()):
        raise errors.Error(f"Cannot read the image: {line} is not the name of a stream and its size.")
    return name, int(length)


def _write_image(slot: Slot, stream: str, length: int) -> int:
    """Write the stream to the slot, and return the bytes written."""
    if slot.is_ubi:
        program = programs.require("ubiupdatevol")
        words = [program, slot.path, f"--size={length}", stream]
        code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
        if code:
            raise programs.failed(program, code)
        os.sync()
        return length
    try:
        image = open(stream, "rb")  # noqa: SIM115 - an error in opening it has a sentence of its own
    except OSError as error:
        raise failure(f"read {stream}", error) from error
    with image:
        return block_device.update(slot.path, image, length)


def main(argv: Sequence[str], board: Board | None = None) -> int:
    """Run one call of the protocol; `board` is the system that it is for, this one by default."""
    programs.extend_path()
    module = _Module(board or Board())
    return run(
        argv,
        {"ProvidePayloadFileSizes": "Yes", "NeedsArtifactReboot": "Automatic", "SupportsRollback": "Yes"},
        {
            "Download": module.download,
            "DownloadWithFileSizes": module.download_with_sizes,
            "ArtifactInstall": module.install,
            "ArtifactVerifyReboot": module.verify_reboot,
            "ArtifactVerifyRollbackReboot": module.verify_rollback_reboot,
            "ArtifactCommit": module.commit,
            "ArtifactRollback": module.rollback,
            "Cleanup": module.clean,
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
