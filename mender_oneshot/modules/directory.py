"""The update module `directory`: replaces a whole directory, and restores the old one after a rollback.

The payload holds `update.tar` and the text `dest_dir`. The new directory is unpacked and synced beside the
old one; two renames then exchange them, so that no file of one is ever in the other. The old one stays there
until the cleanup.
"""

import errno
import os
import sys
from collections.abc import Sequence

from .. import disk, errors
from . import durable, programs, tree
from .call import explain, failure, run

_NOTE = "directory"
"""Written before anything changes: whether the directory was `present` or `absent`."""


class _Paths:
    """Where the directory is, and the names beside it of the old one and of the unfinished new one."""

    def __init__(self, update: str) -> None:
        path = tree.absolute(update, "dest_dir").rstrip("/")
        if os.path.basename(path) in ("", ".", ".."):
            path = os.path.realpath(path or "/")
        if os.path.realpath(path) == "/":
            raise errors.Error(
                "Cannot replace the directory /: all that runs is in it; choose another dest_dir."
            )
        self.update = os.path.realpath(update)
        self.target = path
        self.parent, name = os.path.split(path)
        self.old = f"{self.parent}/.{name}.mender-oneshot.old"
        self.new = f"{self.parent}/.{name}.mender-oneshot.new"
        self.copy = f"{self.parent}/.{name}.mender-oneshot.copy"


def install(update: str) -> None:
    """Replace the directory; raises `errors.Error`."""
    programs.extend_path()
    paths = _Paths(update)
    archive = f"{update}/files/update.tar"
    if not os.path.isfile(archive):
        raise tree.bad_payload("it has no file update.tar")
    try:
        durable.ensure_directory(paths.parent or "/")
        _restore(update, paths)  # what an earlier update, or this one before a power cut, has left
        _check(paths)
        present = os.path.lexists(paths.target)
        tree.write_note(update, _NOTE, "present" if present else "absent")
        os.mkdir(paths.new)
        programs.run([programs.require("tar"), "-xf", archive, "-C", paths.new])
        os.sync()
        if present:
            _move_away(paths)
        durable.rename(paths.new, paths.target)
    except OSError as error:
        raise failure(f"replace {paths.target}", error) from error


def _check(paths: _Paths) -> None:
    """Raise `errors.Error` for a directory that cannot be exchanged by a rename."""
    if os.path.lexists(paths.target) and not os.path.isdir(paths.target):
        raise errors.Error(
            f"Cannot replace {paths.target}: it is not a directory; remove it, then deploy again."
        )
    if os.path.islink(paths.target):
        return  # the link is replaced, not what it leads to
    if _is_in(paths.update, paths.target):
        raise errors.Error(
            f"Cannot replace {paths.target}: the update itself is in it; choose another dest_dir."
        )
    for point in _mount_points():
        if _is_in(point, os.path.realpath(paths.target)):
            raise errors.Error(
                f"Cannot replace {paths.target}: {point} is a mount point; "
                "unmount it or choose another dest_dir."
            )


def _is_in(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{os.path.realpath(directory)}/")


def _mount_points() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ", 5)[4] for line in file]
    # The kernel writes blanks, tabs, line breaks and backslashes as three octal digits.
    return [
        point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        for point in points
    ]


def _move_away(paths: _Paths) -> None:
    """Give the old directory its other name.

    An overlay file system cannot rename a directory of its lower layer: there it is copied, then removed.
    """
    try:
        durable.rename(paths.target, paths.old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        programs.run([programs.require("cp"), "-a", paths.target, paths.copy])
        os.sync()
        durable.rename(paths.copy, paths.old)
        durable.remove_tree(paths.target)


def rollback(update: str) -> None:
    """Restore the old directory, or remove the new one if there was none; raises `errors.Error`.

    Without a note the installation did not get as far as to change anything.
    """
    note = tree.note(update, _NOTE)
    if note is None:
        return
    programs.extend_path()
    paths = _Paths(update)
    try:
        _restore(update, paths)
    except OSError as error:
        raise failure(f"restore {paths.target}", error) from error


def _restore(update: str, paths: _Paths) -> None:
    """Put the old directory, or none, back in place, and remove all others."""
    durable.remove_tree(paths.new)
    durable.remove_tree(paths.copy)
    note = tree.note(update, _NOTE)
    if os.path.lexists(paths.old):
        if note is None and os.path.lexists(paths.target):
            durable.remove_tree(paths.old)  # an earlier update that was complete but for its cleanup
            return
        _remove_target(paths)
        durable.rename(paths.old, paths.target)
        explain(f"The old {paths.target} is in place again.")
        durable.remove_tree(paths.new)
    elif note == "absent" and os.path.lexists(paths.target):
        _remove_target(paths)
        durable.remove_tree(paths.new)


def _remove_target(paths: _Paths) -> None:
    """Remove the new directory in one step, as far as the file system can rename it."""
    try:
        durable.rename(paths.target, paths.new)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        durable.remove_tree(paths.target)


def clean(update: str) -> None:
    """Remove the old directory; raises `errors.Error`. Without a new one in its place it is restored."""
    if tree.note(update, _NOTE) is None:
        return
    paths = _Paths(update)
    try:
        if not os.path.lexists(paths.target):
            _restore(update, paths)
        durable.remove_tree(paths.old)
        durable.remove_tree(paths.new)
        durable.remove_tree(paths.copy)
        disk.sync_directory(paths.parent)
    except OSError as error:
        raise failure(f"remove what was in {paths.target}", error) from error


def main(argv: Sequence[str]) -> int:
    """Run one call of the protocol."""
    return run(
        argv,
        {"NeedsArtifactReboot": "No", "SupportsRollback": "Yes"},
        {"ArtifactInstall": install, "ArtifactRollback": rollback, "Cleanup": clean},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
