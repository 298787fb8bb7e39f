"""Giving a payload to a module's `Download`: by streams if it reads them, else as files.

The order that cannot deadlock: update-modules.md section 2. A module that ends `Download` without having read
`stream-next` gets its files in `files/`.
"""

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterator

from .. import disk
from .module import Module, ModuleFailed, stop

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
        os.mkdir(self._streams, 0o755)
        os.mkfifo(self._next, 0o600)
        self._process = module.start(self._call)

    def close(self) -> None:
        """Stop what is left of the call."""
        if self._process.poll() is None:
            stop(self._process)

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
                os.unlink(stream)
                return
        self._write_file(name, pieces)

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
                return
        disk.sync_directory(self._files)
        disk.sync_directory(self._module.tree)

    def _open(self, path: str) -> int | None:
        """Open a FIFO for writing once the module reads it; None if the module has ended well instead."""
        while True:
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise disk.failure(f"open {path}", error) from error
            if self._process.poll() is not None:
                self._module.wait(self._process, self._call, self._end)  # raises unless it ended with 0
                if self._streaming:
                    raise self._ended_early()
                return None
            self._require_time()
            time.sleep(POLL_SECONDS)

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
                    self._require_time()
        except BrokenPipeError:
            raise self._ended_early() from None
        finally:
            os.close(descriptor)

    def _require_time(self) -> None:
        if time.monotonic() > self._end:
            self._module.wait(self._process, self._call, self._end)  # raises: it is over

    def _ended_early(self) -> ModuleFailed:
        return ModuleFailed(
            f"The update module {self._module.name} stopped reading in {self._call} before the payload was "
            "complete; its output is in the log."
        )

    def _begin_files(self) -> None:
        self._remove_streams()
        os.mkdir(self._files, 0o755)
        self._asked_for_files = True

    def _remove_streams(self) -> None:
        for entry in os.scandir(self._streams):
            os.unlink(entry.path)
        os.rmdir(self._streams)
        os.unlink(self._next)

    def _write_file(self, name: str, pieces: Iterator[bytes]) -> None:
        path = f"{self._files}/{name}"
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o644)  # whatever our umask is
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise disk.failure(f"write {path}", error) from error
