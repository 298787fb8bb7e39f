"""`mender-oneshot`, and `python -m mender_oneshot`."""

import gc
import os
import sys
import time

from . import idle, streams


def main() -> int:
    """Run the command line and return the exit code."""
    gc.disable()  # imports create many objects and hardly any garbage; `app` enables it for long runs
    try:
        code = _main()
    except KeyboardInterrupt:
        code = 130
    except SystemExit:
        raise
    except BaseException as problem:  # noqa: BLE001  # a panic of Rust code is not an Exception
        code = _report(problem)
    return streams.finish(code)


def _main() -> int:
    kind = idle.kind_of(sys.argv[1:])
    unwatched = not os.isatty(1)  # on a terminal, the whole invocation prints that there is nothing to do
    if unwatched and kind and idle.lasts(kind, time.time()):
        return 0
    if None in (sys.stdin, sys.stdout, sys.stderr):
        streams.open_missing()
    from . import fast_path  # only here, because it imports the configuration and the state

    options = fast_path.parse(sys.argv[1:])
    if unwatched and options and fast_path.nothing_due(options, kind):
        return 0
    if sys.flags.no_site:  # the installed program starts with -S; from here on it may need its libraries
        import site

        site.main()
    if options is None:
        from . import cli  # only here, because importing click takes longer than a run with nothing due

        program = sys.argv[0].rpartition("/")[2]
        read = cli.read(sys.argv[1:], "mender-oneshot" if program == "__main__.py" else program)
        if isinstance(read, cli.Reply):
            return _print_reply(read.code, read.text, read.sentence)
        options = read
    from . import app  # only here, because it imports logging

    code = app.execute(options)
    if unwatched and kind and not code:
        fast_path.nothing_due(options, kind)  # leaves the time for the next ticks
    return code


def _print_reply(code: int, text: str, sentence: str) -> int:
    """Print the help or the version to stdout, or a usage error to stderr or the syslog."""
    if not code:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            streams.discard(1)
        except OSError as error:
            from . import syslog

            streams.discard(1)
            syslog.complain([f"Cannot write to stdout: {error.strerror}."], sys.argv[1:])
            return os.EX_IOERR
        return 0
    from . import json_object, syslog

    json_object.print_early_failure(sys.argv[1:], "usage", sentence, code)
    syslog.complain([sentence] if syslog.wanted(sys.argv[1:]) else text.splitlines(), sys.argv[1:])
    return code


def _report(problem: BaseException) -> int:
    """Report what ended the program: a library that is missing or cannot be used, or else a bug."""
    from . import json_object, libraries, syslog

    error = libraries.unusable(problem)
    if error:
        json_object.print_early_failure(sys.argv[1:], error.word, str(error), error.exit_code)
        syslog.complain([str(error)], sys.argv[1:])
        return error.exit_code
    import traceback

    lines = [line for piece in traceback.format_exception(problem) for line in piece.splitlines()]
    places = [
        f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        for place in reversed(traceback.extract_tb(problem.__traceback__))
    ]
    json_object.print_early_failure(sys.argv[1:], "bug", lines[-1], 1)
    line = f"This is a bug, please report it: {lines[-1]} ({', '.join(places)})"
    if not syslog.wanted(sys.argv[1:]) or not syslog.send(syslog.ERROR, line):
        syslog.complain(lines, [])
    return 1


if __name__ == "__main__":
    sys.exit(main())
