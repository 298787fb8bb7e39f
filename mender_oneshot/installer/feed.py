"""Giving a payload to a module's `Download`: by streams if it reads them, else as files.

The order that cannot deadlock: update-modules.md section 2. A module that ends `Download` without having read
`stream-next` gets its files in `files/`.
"""

import contextlib
import errno
import os
import select
import shutil
import stat
import time
from collections.abc import Iterator

from .. import disk, errors
from . import output
from . import process as processes
from .module import Module, ModuleFailed

POLL_SECONDS = 0.02


class Feed:
    """One `Download` of one module: `receive` takes the files in turn, `finish` ends it.

    Starts the call. Raises `ModuleFailed`, `errors.NoSpace` or `errors.DiskError`. Close it, however it ends.
    """

    def __init__(self, module: Module, *, with_sizes: bool) -> None:
        self._module = module
        self._call = "DownloadWithFileSizes" if with_sizes else "Download"
        self._with_sizes = with_sizes
        self._next = f"{module.tree}/stream-next"
        self._streams = f"{module.tree}/streams"
        self._files = f"{module.tree}/files"
        self._end = time.monotonic() + module.seconds
        self._streaming = False
        self._asked_for_files = False
        self._complete = False
        with self._working(self._streams):
            os.mkdir(self._streams, 0o755)
            os.mkfifo(self._next, 0o600)
        self._process = module.start(self._call)

    def close(self) -> None:
        """Stop what is left of the call, and remove files that are not complete, which may fill the disk."""
        if self._complete:
            return
        if self._process.poll() is None:
            processes.stop(self._process)
        processes.kill_session(self._process.pid)
        shutil.rmtree(self._files, ignore_errors=True)

    def receive(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Give one file to the module; raises `ModuleFailed`, `errors.NoSpace` or `errors.DiskError`."""
        if "/" in name:
            raise ModuleFailed(
                f"The payload file {name!r} lies in a directory, which update modules cannot take; build the "
                "artifact with plain file names."
            )
        line = f"streams/{name} {size}\n" if self._with_sizes else f"streams/{name}\n"
        stream = f"{self._streams}/{name}"
        if not self._asked_for_files:
            with self._working(stream):
                os.mkfifo(stream, 0o600)
            announced = self._open(self._next)
            if announced is None:
                self._begin_files()
            else:
                self._write(announced, iter((line.encode(),)))
                opened = self._open(stream)
                if opened is None:
                    raise self._ended_early()
                self._write(opened, pieces)
                with contextlib.suppress(OSError):
                    os.unlink(stream)
                return
        self._write_file(name, size, pieces)

    def finish(self) -> None:
        """Tell the module that there are no more files, and wait for it; sync what it has not streamed."""
        if not self._asked_for_files:
            last = self._open(self._next)
            if last is None:
                self._begin_files()
            else:
                os.close(last)
                self._module.wait(self._process, self._call, self._end)
                self._remove_streams()
                self._complete = True
                return
        with self._working(self._files):
            disk.sync_directory(self._files)
            disk.sync_directory(self._module.tree)
        self._complete = True

    @contextlib.contextmanager
    def _working(self, path: str) -> Iterator[None]:
        """Explain what goes wrong in the tree, which the module can change as well."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
                raise ModuleFailed(
                    f"The update module {self._module.name} has removed or replaced {path} during "
                    f"{self._call}; correct the module."
                ) from error
            raise disk.failure(f"write {path}", error) from error

    def _open(self, path: str) -> int | None:
        """Open a FIFO for writing once the module reads it; None if the module has ended well instead."""
        while True:
            with self._working(path):
                try:
                    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                else:
                    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                        return descriptor
                    os.close(descriptor)
                    raise FileExistsError(errno.EEXIST, "", path)
            if self._has_ended():
                return None
            time.sleep(POLL_SECONDS)

    def _has_ended(self) -> bool:
        """Return whether the module has ended, and well, before it read a stream.

        Raises `ModuleFailed` if it has ended in any other way, or has had its time.
        """
        if self._process.poll() is None:
            output.shorten()
            if time.monotonic() > self._end:
                raise self._module.too_slow(self._process, self._call)
            return False
        self._module.wait(self._process, self._call, self._end)  # raises unless it ended with 0
        if self._streaming:
            raise self._ended_early()
        return True

    def _write(self, descriptor: int, pieces: Iterator[bytes]) -> None:
        self._streaming = True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    if poll.poll(1000):
                        with contextlib.suppress(BlockingIOError):
                            view = view[os.write(descriptor, view) :]
                    # A child of a module that has ended may keep the stream open.
                    self._has_ended()
        except BrokenPipeError:
            self._has_ended()
            raise self._ended_early() from None
        finally:
            os.close(descriptor)

    def _ended_early(self) -> ModuleFailed:
        return ModuleFailed(
            f"The update module {self._module.name} stopped reading in {self._call} before the payload was "
            f"complete{output.reason(self._process.printed_from)}"
        )

    def _begin_files(self) -> None:
        self._remove_streams()
        shutil.rmtree(self._files, ignore_errors=True)  # a module has no business there yet
        with self._working(self._files):
            os.mkdir(self._files, 0o755)
        self._asked_for_files = True

    def _remove_streams(self) -> None:
        shutil.rmtree(self._streams, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self._next)

    def _write_file(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        path = f"{self._files}/{name}"
        with self._working(self._files):
            free = disk.free(self._files)
        if free < size + disk.STATE_RESERVE:
            raise errors.NoSpace(
                f"Cannot write {path}: the payload needs {size} bytes, and only {free} are free; free some "
                "space, then deploy again."
            )
        with self._working(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb", buffering=0) as file:
            for piece in pieces:  # an error in reading the artifact has another sentence
                view = memoryview(piece)
                with self._working(path):
                    while view:
                        view = view[file.write(view) :]
            with self._working(path):
                os.fchmod(descriptor, 0o644)  # whatever our umask is
                os.fsync(descriptor)
