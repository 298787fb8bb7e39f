"""The tree of an update: texts in the payload, and notes in `tmp/` that outlive a power cut."""

import os

from .. import errors
from . import durable

_TEXT_MAX = 1 << 16


def text(tree: str, name: str) -> str:
    """Return the text of a payload file without the line breaks at its end, as a shell's `$(cat)` does.

    Raises `errors.Error` if the file is missing, empty, too long, or contains a NUL.
    """
    path = f"{tree}/files/{name}"
    try:
        with open(path, "rb") as file:
            content = file.read(_TEXT_MAX + 1).rstrip(b"\n")
    except FileNotFoundError:
        raise bad_payload(f"it has no file {name}") from None
    if not content:
        raise bad_payload(f"its file {name} is empty")
    if b"\0" in content or len(content) > _TEXT_MAX:
        raise bad_payload(f"its file {name} is not a short text")
    return os.fsdecode(content)


def absolute(tree: str, name: str) -> str:
    """Return the absolute path in a payload file; raises `errors.Error` for any other text."""
    path = text(tree, name)
    if not path.startswith("/"):
        raise bad_payload(f"its file {name} contains {path}, which is not an absolute path")
    return path


def bad_payload(why: str) -> errors.Error:
    """Return the error for a payload that this module cannot install."""
    return errors.Error(f"Cannot install the payload: {why}; build the artifact again.")


def note_path(tree: str, name: str) -> str:
    """Return the path of a note or a backup in `tmp/`."""
    return os.path.join(tree, "tmp", name)


def note(tree: str, name: str) -> str | None:
    """Return the text of a note in `tmp/`, None if it has not been written."""
    try:
        with open(note_path(tree, name), encoding="ascii", errors="replace") as file:
            return file.read(_TEXT_MAX).strip()
    except FileNotFoundError:
        return None


def write_note(tree: str, name: str, content: str) -> None:
    """Write a note that is complete after a power cut, or missing; raises `OSError`."""
    path = note_path(tree, name)
    durable.ensure_directory(os.path.dirname(path))
    durable.write(path, f"{content}\n".encode())
