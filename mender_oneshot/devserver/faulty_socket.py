"""A socket that counts the bytes that pass and, as its fault demands, stalls, slows down or is cut."""

import contextlib
import socket
import struct
from collections.abc import Callable

from .faults import Fault, Faults

UNLIMITED = 1 << 30
SLICES_PER_SECOND = 20
"""How finely a slow connection is divided."""


class FaultySocket:
    """One connection and its fault; without a fault, it sends and receives as the socket does.

    Bytes are counted in both directions. `buffered` was read from the connection before and is received
    first. `on_cut` replaces the cut at `cut_after`. With `ignore_input`, input does not end a stall. No more
    thread-safe than the socket, but `abort` may be called from any thread.
    """

    def __init__(
        self,
        connection: socket.socket,
        fault: Fault | None,
        faults: Faults,
        *,
        buffered: bytes = b"",
        on_cut: Callable[[], None] | None = None,
        ignore_input: bool = False,
    ) -> None:
        self.fault = fault or Fault()
        self.passed = 0
        """Bytes counted so far."""
        self.aborted = False
        self._connection = connection
        self._faults = faults
        self._buffered = buffered
        self._on_cut = on_cut
        self._ignore_input = ignore_input
        self._cut_at, self._stall_at = self.fault.cut_after, self.fault.stall_after
        self._retry_size = 0
        self._reset = False

    def fileno(self) -> int:
        """Return the file descriptor, for `poll`."""
        return self._connection.fileno()

    def room(self) -> int:
        """Return how many bytes may pass before something happens; 0 if that is due now."""
        ahead = [point - self.passed for point in (self._cut_at, self._stall_at) if point is not None]
        if self.fault.slow:
            ahead.append(max(1, int(self.fault.slow / SLICES_PER_SECOND)))
        return max(0, min(ahead, default=UNLIMITED))

    def is_cut_within(self, size: int) -> bool:
        """Return whether the connection will be cut before or after the next `size` bytes."""
        return self._cut_at is not None and self.passed + size >= self._cut_at

    def act(self) -> None:
        """Stall or cut the connection if enough bytes have passed; block while it stalls."""
        if self._stall_at is not None and self.passed >= self._stall_at:
            self._stall_at = None
            if not self._faults.stall(self._connection, ignore_input=self._ignore_input):
                self.abort()
        if self._cut_at is not None and self.passed >= self._cut_at:
            self._cut_at = None
            if self._on_cut:
                self._on_cut()
            else:
                self.abort(reset=self.fault.reset)

    def act_or_raise(self) -> None:
        """Do as `act` does; raise ConnectionAbortedError if the connection was aborted."""
        self.act()
        self._raise_if_aborted()

    def recv(self, size: int) -> bytes:
        """Receive at most `size` bytes, none beyond the next point; raise what `socket.recv` raises."""
        size = min(size, self.room())
        if self._buffered:
            data, self._buffered = self._buffered[:size], self._buffered[size:]
        else:
            data = self._connection.recv(size)
        self._count(len(data))
        return data

    def send(self, data: memoryview) -> int:
        """Send some bytes, none beyond the next point; raise what `socket.send` raises.

        After an error that demands a retry, pass the same data again: TLS requires that.
        """
        # The size stays the same as well, although bytes received in the meantime may have reduced the room.
        self._retry_size = self._retry_size or min(len(data), self.room())
        sent = self._connection.send(data[: self._retry_size])
        self._retry_size = 0
        self._count(sent)
        return sent

    def sendall(self, data: bytes, counted: int) -> None:
        """Send all of the data, of which `counted` bytes count: those of a body, without its framing.

        Raise OSError if the client has disconnected, and ConnectionAbortedError if the connection was
        aborted, which may be after all of the data was sent.
        """
        self._connection.sendall(data)
        if counted:
            self._count(counted)
        self._raise_if_aborted()

    def shut_down_output(self) -> None:
        """End this half of the connection; the peer may still send."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_WR)

    def abort(self, *, reset: bool = False) -> None:
        """End the connection abruptly, from any thread: without close_notify of TLS, with `reset` by RST.

        The owner of the socket has to close it afterwards.
        """
        self.aborted = True
        self._reset = reset = reset or self._reset
        with contextlib.suppress(OSError):
            if reset:
                # The close by the owner then sends the RST; a FIN must not precede it.
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Not SSLSocket.shutdown, which removes the TLS state that another thread may be using.
            socket.socket.shutdown(self._connection, socket.SHUT_RD if reset else socket.SHUT_RDWR)

    def _raise_if_aborted(self) -> None:
        if self.aborted:
            raise ConnectionAbortedError("the connection was aborted")

    def _count(self, size: int) -> None:
        self.passed += size
        if self.fault.slow and not self._faults.pause(size / self.fault.slow):
            self.abort()
        self.act()
