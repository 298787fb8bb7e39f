"""Durations and times as text for people."""

import time


def duration(seconds: int) -> str:
    """Return a number of seconds as text."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def when(at: float) -> str:
    """Return a time, in seconds since 1970, as text in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
