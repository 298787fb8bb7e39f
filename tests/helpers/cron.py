"""A system whose cron runs the client: its mail, and how long to wait for a tick."""

from pathlib import Path

TICK = 75.0
"""Seconds within which cron runs a job of every minute, on a busy machine too."""

SENDMAIL = """#!/bin/sh
cat >> /var/mail/all
"""


def read(path: Path) -> str:
    """Return the text of a file; "" if there is none yet."""
    return path.read_text("utf-8", "replace") if path.exists() else ""
