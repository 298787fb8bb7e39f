"""Create a directory of files that appears under its name only when it is complete."""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from types import TracebackType

from . import disk, errors
from .oserrors import failure

SUFFIX = ".extracting"
"""The suffix of the directory's name while it is incomplete."""


class NewDirectory:
    """A directory (mode 0700, its files 0600) that is written next to its final path, then renamed.

    The final path must not exist, or be an empty directory. Leaving the `with` block before `publish` removes
    everything; what a killed process left is removed by the next one with the same name. Raises
    `errors.NoSpace`, `errors.DiskError` or `errors.Busy`.
    """

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        if os.path.basename(self.path) in ("", ".", ".."):
            raise errors.UsageError(
                f"{path or 'An empty name'} is not the name of a new directory; give one."
            )
        self._part = self.path + SUFFIX
        self._directory = -1
        self._made: dict[str, None] = {}  # its subdirectories, in the order of their creation
        self._published = False

    def __enter__(self) -> "NewDirectory":
        try:
            self._check_path()
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._part, 0o700)
            self._directory = os.open(self._part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._lock_and_empty()
        except BaseException:
            os.close(self._directory)
            raise
        return self

    def _check_path(self) -> None:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode) or os.listdir(self.path):
            raise errors.NoSpace(
                f"Cannot extract to {self.path}: it exists and is not an empty directory; remove it or name "
                "another one."
            )

    def _lock_and_empty(self) -> None:
        """Lock the temporary directory and remove its content; raise an error if it is not ours."""
        try:
            found = os.fstat(self._directory)
            if found.st_uid != os.geteuid():
                raise errors.NoSpace(
                    f"Cannot extract to {self.path}: {self._part} belongs to another user; remove it or name "
                    "another directory."
                )
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._busy() from None
            if not os.path.samestat(os.lstat(self._part), found):
                raise self._busy()
            os.fchmod(self._directory, 0o700)
            for entry in os.scandir(self._directory):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.name, dir_fd=self._directory)
                else:
                    os.unlink(entry.name, dir_fd=self._directory)
        except FileNotFoundError:
            raise self._busy() from None
        except OSError as error:
            raise self._failure(error) from error

    def write(self, name: str, _size: int, pieces: Iterator[bytes]) -> None:
        """Write one file; `name` is a relative path without `.` and `..`."""
        try:
            self._make_parents(name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=self._directory)
        except FileExistsError as error:
            raise errors.NoSpace(
                f"Cannot extract {name} to {self.path}: its file system does not distinguish this name from "
                "another one; name a directory on another file system."
            ) from error
        except OSError as error:
            raise self._failure(error) from error
        try:
            for piece in pieces:
                self._write_all(descriptor, piece)
            self._sync(descriptor)
        finally:
            os.close(descriptor)

    def _make_parents(self, name: str) -> None:
        at = name.find("/")
        while at >= 0:
            parent = name[:at]
            if parent not in self._made:
                os.mkdir(parent, 0o700, dir_fd=self._directory)
                self._made[parent] = None
            at = name.find("/", at + 1)

    def _write_all(self, descriptor: int, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise self._failure(error) from error

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise self._failure(error) from error

    def publish(self) -> None:
        """Sync everything to disk, then rename the directory to its final path atomically."""
        try:
            for name in self._made:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=self._directory)
                try:
                    disk.sync_descriptor(descriptor)
                finally:
                    os.close(descriptor)
            disk.sync_descriptor(self._directory)
            os.rename(self._part, self.path)
            self._published = True
            disk.sync_directory(os.path.dirname(self.path))
        except OSError as error:
            self._check_path()
            raise self._failure(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._published:
            shutil.rmtree(self._part, ignore_errors=True)
        os.close(self._directory)

    def _busy(self) -> errors.Busy:
        return errors.Busy(
            f"Another invocation is extracting to {self.path}; try again when it has finished."
        )

    def _failure(self, error: OSError) -> errors.Error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            return errors.NoSpace(
                f"Cannot extract to {self.path}: {error.strerror}; name a directory that can be created."
            )
        return failure(f"extract to {self.path}", error)
