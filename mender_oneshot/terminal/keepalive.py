"""Decide when to ping the server, and when its connection counts as lost."""

PING_SECONDS = 54.0
TIMEOUT_SECONDS = 60.0
"""How long the server may send or read nothing; it sends a ping every 30 s."""


class Keepalive:
    """The times of one connection, on the clock of the loop."""

    def __init__(self, now: float) -> None:
        self.last_received = self._last_ping = self._last_progress = now
        self._sent = 0

    def problem(self, now: float, *, pending: int, sent: int, paused: bool) -> str:
        """Return why the connection counts as lost, "" if it does not.

        `pending` and `sent` are the bytes in the queue and those sent in all. While reading is `paused`
        nothing can be received, and only the queue counts.
        """
        if paused:
            self.last_received = now
        if not pending or sent != self._sent:
            self._sent, self._last_progress = sent, now
        if now - self.last_received >= TIMEOUT_SECONDS:
            return "the server does not respond"
        if now - self._last_progress >= TIMEOUT_SECONDS:
            return "the server does not read"
        return ""

    def ping_due(self, now: float) -> bool:
        """Return whether to send a ping now; if so, the next one is due `PING_SECONDS` later."""
        if now - self._last_ping < PING_SECONDS:
            return False
        self._last_ping = now
        return True
