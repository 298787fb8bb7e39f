"""Command lines that start this program again, on the same device with the same configuration."""

import os
import sys

from . import __name__ as package
from .settings import Settings

# The directory of the package: site-packages, that of make install, or a checkout.
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python(code: str) -> list[str]:
    """Return a command line that runs Python code, which can import this package."""
    # -I would ignore PYTHONPATH and the user's packages, where this process may have found its libraries.
    isolated = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolated, "-c", f"import sys; sys.path.append({_HOME!r}); {code}"]


def client(*arguments: str) -> list[str]:
    """Return the command line of the client."""
    return [*python(f"from {package}.__main__ import main; sys.exit(main())"), *arguments]


def command(settings: Settings, *arguments: str) -> list[str]:
    """Return the command line of one of our commands, with the places of these settings."""
    places = settings.places
    chosen = ["--config", places.config] if places.explicit else []
    return client(*chosen, "--fallback-config", places.fallback, "--data", places.datastore, *arguments)


def resume(settings: Settings) -> list[str]:
    """Return the command line that begins or resumes an installation for the server."""
    return command(settings, "resume")
