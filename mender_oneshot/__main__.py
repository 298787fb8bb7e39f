"""`mender-oneshot`, and `python -m mender_oneshot`."""

import os
import sys

from .quiet import nothing_due
from .request import quick

LIBRARIES = ("click", "cryptography", "urllib3")


def main() -> int:
    """Read the command line, do what it says, and return the exit code."""
    try:
        return _main()
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in LIBRARIES:
            raise
        sys.stderr.write(f"The library {library} is missing here; install python3-{library}.\n")
        return os.EX_CONFIG


def _main() -> int:
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_standard_files()
    request = quick(sys.argv[1:])
    # Somebody who looks on is told that nothing is due; a timer is not.
    if request and not sys.stdout.isatty() and nothing_due(request):
        return 0
    if sys.flags.no_site:  # the installed program begins without (-S); from here on there may be libraries
        import site

        site.main()
    if request is None:
        from . import words  # click is dear

        program = sys.argv[0].rpartition("/")[2]
        read = words.read(sys.argv[1:], "mender-oneshot" if program == "__main__.py" else program)
        if isinstance(read, int):
            return read
        request = read
    from . import cli  # so is logging

    return cli.execute(request)


def _open_standard_files() -> None:
    """Open what the caller has closed: else the next file gets its number, and what is said goes there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")


if __name__ == "__main__":
    sys.exit(main())
