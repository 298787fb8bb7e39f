"""The network between the board and one port of the server: it can be slow, and it can be cut."""

import contextlib
import socket
import threading
import time
from types import TracebackType

from .machine import TimedOut

_PIECE = 16384


class Link:
    """A relay on loopback to a port; `with Link(port, rate) as link:`.

    `rate` is the number of bytes per second towards the board. From `cut` to `restore`, all connections are
    closed, new ones too.
    """

    def __init__(self, target: int, rate: float) -> None:
        self._target = target
        self._rate = rate
        self._changed = threading.Condition()
        self._forwarded = 0
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]

    def __enter__(self) -> "Link":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    @property
    def forwarded(self) -> int:
        """The number of bytes that the board was sent."""
        with self._changed:
            return self._forwarded

    def wait(self, count: int, seconds: float) -> None:
        """Wait until the board was sent `count` bytes; raise TimedOut."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._forwarded >= count, seconds):
                raise TimedOut(f"{self._forwarded} of {count} bytes were sent in {seconds:.0f} s")

    def cut(self) -> None:
        """Close all connections, and all that are opened from now on."""
        with self._changed:
            self._is_cut = True
            for side in self._open:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        """Forward the connections that are opened from now on."""
        with self._changed:
            self._is_cut = False

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                board, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._relay, args=(board,)))
                self._threads[-1].start()

    def _relay(self, board: socket.socket) -> None:
        with (
            board,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            with self._changed:
                if self._is_cut:
                    return
                self._open |= {board, server}
            upward = threading.Thread(target=_copy, args=(board, server))
            upward.start()
            try:
                while piece := server.recv(_PIECE):
                    time.sleep(len(piece) / self._rate)
                    board.sendall(piece)
                    with self._changed:
                        self._forwarded += len(piece)
                        self._changed.notify_all()
            finally:
                with self._changed:
                    self._open -= {board, server}
                for side in (board, server):
                    with contextlib.suppress(OSError):
                        side.shutdown(socket.SHUT_RDWR)
                upward.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
