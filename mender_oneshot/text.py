"""Make text from scripts, servers and artifacts safe to print, or check that it is."""

import re

SHOWN_MAX = 80
"""Characters that `shown` keeps."""

# A line break or an escape sequence could forge a line of a log, or of a file that lists names.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_clean(text: str) -> bool:
    """Return whether a text has no control characters and can be encoded as UTF-8."""
    return not _CONTROLS.search(text)


def shown(text: str) -> str:
    """Return the beginning of a text in printable characters, to be part of a message."""
    printable = "".join(char if char.isprintable() else "?" for char in text[:SHOWN_MAX])
    return printable if len(text) <= SHOWN_MAX else printable + "..."
