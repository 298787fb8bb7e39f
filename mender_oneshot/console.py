"""The last line on a person's terminal: what the program waits for, or how far a download is.

It is on stderr. If stderr is not a terminal, nothing here has an effect, and no thread is started.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

PATIENCE = 1.0
"""Seconds of a wait before it is named."""
ECHO = 2
"""The characters that a terminal adds when Ctrl-C is pressed."""

_guard: Any = contextlib.nullcontext()
_enabled = False
_shown = 0  # characters of the line; 0: there is none
_stays = False  # the line is kept when another one follows


def begin() -> None:
    """Use stderr, if it is a terminal."""
    global _enabled, _guard
    if sys.stderr.isatty():
        import threading  # only for a person

        _enabled, _guard = True, threading.RLock()


def is_enabled() -> bool:
    """Return whether a person reads stderr."""
    return _enabled


def width() -> int:
    """Return the number of characters that fit into a line without wrapping it."""
    with contextlib.suppress(OSError):
        if columns := os.get_terminal_size(2).columns:
            return max(columns - 1, 1)
    return 79


def draw(text: str, *, stays: bool = False) -> None:
    """Show a text in place of the line before; it may be overwritten, or if it `stays`, is kept later."""
    global _shown, _stays
    if not _enabled:
        return
    text = text[: width()]
    with _guard, contextlib.suppress(OSError):
        _write("\r" + text + " " * min(_shown - len(text), width() - len(text)))
        _shown, _stays = len(text), stays


def clear() -> None:
    """Remove the line, or end it if it stays, before other output."""
    global _shown
    if not _shown:
        return
    with _guard, contextlib.suppress(OSError):
        blank = " " * min(_shown + ECHO, width())
        _write("\n" if _stays else f"\r{blank}\r")
        _shown = 0


def _write(text: str) -> None:
    # Not through sys.stderr, whose buffer a signal handler must not use while it is in use.
    os.write(2, text.encode(sys.stderr.encoding, "backslashreplace"))


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what the block waits for, if it takes longer than `PATIENCE`; remove it afterwards."""
    if not _enabled or _shown:
        yield
        return
    import threading

    over = False

    def show() -> None:
        with _guard:
            if not over:
                draw(what)

    timer = threading.Timer(PATIENCE, show)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread can be started
        timer.start()
    try:
        yield
    finally:
        with _guard:
            over = True
            clear()
        timer.cancel()
