"""The command lines that start this program again, on the same device with the same configuration."""

import os
import sys

from . import __name__ as package
from .settings import Settings

# Wherever we are: beside the libraries, in a directory of our own (make install), or in a checkout.
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python(code: str) -> list[str]:
    """Return a command line that runs Python code with this package at hand."""
    # -I would hide from it what we found in PYTHONPATH or in the user's own packages.
    isolated = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolated, "-c", f"import sys; sys.path.append({_HOME!r}); {code}"]


def command(settings: Settings, *words: str) -> list[str]:
    """Return the command line of one of our commands."""
    places = settings.places
    chosen = ["--config", places.config] if places.explicit else []
    start = python(f"from {package}.__main__ import main; sys.exit(main())")
    return [*start, *chosen, "--fallback-config", places.fallback, "--data", places.datastore, *words]


def resume(settings: Settings) -> list[str]:
    """Return the command line that begins or resumes an installation for the server."""
    return command(settings, "resume")
