"""Wait for a descriptor with poll(2); select(2) rejects numbers above 1023, which a test run can reach."""

import select


def readable(descriptor: int, seconds: float) -> bool:
    """Return whether reading from a descriptor would not block, after waiting at most so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
