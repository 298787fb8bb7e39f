"""The update module `single-file`: replaces one file, and restores the old one after a rollback.

The payload holds the file itself and up to three texts: `dest_dir`, `filename`, and `permissions` in octal.
The old file is kept in `tmp/backup`; if there was none, a note in `tmp/` tells the rollback to remove the new
one.
"""

import os
import stat
import sys
from collections.abc import Sequence

from .. import errors
from . import durable, tree
from .call import failure, run

_ABSENT = "absent"
_BACKUP = "backup"


class _Paths:
    """Where the file comes from, goes to and is kept."""

    def __init__(self, update: str) -> None:
        name = tree.text(update, "filename")
        if "/" in name or name in (".", ".."):
            raise tree.bad_payload(f"its file filename contains {name}, which is not the name of a file")
        if name == durable.BESIDE:
            raise tree.bad_payload(f"the name {name} is reserved for unfinished files")
        self.directory = tree.absolute(update, "dest_dir")
        self.source = f"{update}/files/{name}"
        self.target = os.path.join(self.directory, name)
        self.backup = os.path.join(tree.note_path(update, _BACKUP), name)


def install(update: str) -> None:
    """Keep the old file, then replace it; raises `errors.Error`.

    A second call after a power cut keeps the first backup.
    """
    paths = _Paths(update)
    mode = _mode(update)
    if not os.path.isfile(paths.source) or os.path.islink(paths.source):
        raise tree.bad_payload(f"it has no file {os.path.basename(paths.source)}")
    try:
        durable.ensure_directory(paths.directory)
        if not os.path.lexists(paths.backup) and tree.note(update, _ABSENT) is None:
            _keep(update, paths)
    except OSError as error:
        raise failure(f"keep a copy of {paths.target}", error) from error
    try:
        durable.copy(paths.source, paths.target, mode)
    except OSError as error:
        raise failure(f"write {paths.target}", error) from error


def _keep(update: str, paths: _Paths) -> None:
    try:
        kind = os.lstat(paths.target).st_mode
    except FileNotFoundError:
        tree.write_note(update, _ABSENT, "There was no such file before this update.")
        return
    if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):
        raise errors.Error(f"Cannot replace {paths.target}: it is not a file; remove it, then deploy again.")
    durable.ensure_directory(os.path.dirname(paths.backup))
    durable.copy(paths.target, paths.backup)


def _mode(update: str) -> int | None:
    """Return the mode in `permissions`, None if the payload has no such file (older tools write none)."""
    if not os.path.exists(f"{update}/files/permissions"):
        return None
    mode = tree.text(update, "permissions").strip()
    if not mode or mode.strip("01234567") or int(mode, 8) > 0o7777:
        raise tree.bad_payload(f"its file permissions contains {mode}, which is not an octal number")
    return int(mode, 8)


def rollback(update: str) -> None:
    """Restore the old file, or remove the new one if there was none; raises `errors.Error`.

    Without a backup or a note the installation did not get as far as to change anything.
    """
    if not _has_begun(update):
        return
    paths = _Paths(update)
    try:
        durable.discard(os.path.join(paths.directory, durable.BESIDE))  # it may take the room that we need
        if os.path.lexists(paths.backup):
            if not _is_same(paths.backup, paths.target):
                durable.copy(paths.backup, paths.target)
        elif tree.note(update, _ABSENT) is not None:
            durable.discard(paths.target)
    except OSError as error:
        raise failure(f"restore {paths.target}", error) from error


def _has_begun(update: str) -> bool:
    return os.path.isdir(tree.note_path(update, _BACKUP)) or tree.note(update, _ABSENT) is not None


def _is_same(backup: str, target: str) -> bool:
    """Return whether the old file is still in place, so that a full disk cannot fail the rollback."""
    try:
        old, now = os.lstat(backup), os.lstat(target)
    except FileNotFoundError:
        return False
    if not all(stat.S_ISREG(found.st_mode) for found in (old, now)):
        return False
    alike = (old.st_mode, old.st_uid, old.st_gid, old.st_mtime_ns)
    return alike == (now.st_mode, now.st_uid, now.st_gid, now.st_mtime_ns) and durable.is_equal(
        backup, target
    )


def clean(update: str) -> None:
    """Remove an unfinished file that a power cut left beside the target; raises `errors.Error`."""
    if _has_begun(update):
        durable.discard(os.path.join(_Paths(update).directory, durable.BESIDE))


def main(argv: Sequence[str]) -> int:
    """Run one call of the protocol."""
    return run(
        argv,
        {"NeedsArtifactReboot": "No", "SupportsRollback": "Yes"},
        {"ArtifactInstall": install, "ArtifactRollback": rollback, "Cleanup": clean},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
