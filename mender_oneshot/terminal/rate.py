"""Limit the bytes per minute of file transfers."""

import math


class Rate:
    """A decaying average: bytes of a minute ago count for 1/e of their number."""

    def __init__(self, limit: int) -> None:
        """Start at 0; `limit` is in bytes per minute, 0 for none."""
        self._limit = limit
        self._sum = 0.0
        self._at = 0.0

    def exceeded(self, now: float, more: int = 0) -> bool:
        """Count `more` bytes, and return whether the limit is exceeded."""
        self._sum = self._sum * math.exp(min(0.0, self._at - now) / 60) + more
        self._at = now
        return 0 < self._limit < self._sum
