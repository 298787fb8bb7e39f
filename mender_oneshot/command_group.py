"""The program as click sees it: its help, the options before the command, and how a command is added."""

from collections.abc import Callable
from typing import Any

import click

from . import __version__
from .options import LEVELS, Options

EXIT_CODES = """\b
Exit codes:
  0   success, or nothing to do
  1   bug: traceback on stderr
  2   report, install, download, commit, rollback, resume: no update in progress
  4   install FILE, resume: installed so far, reboot and then commit
  16  check-update --exit-code: an update is available
  64  usage error
  65  artifact rejected (corrupt, unsigned or for another device)
  69  permanent failure: rejected by the server, or TLS verification failed
  70  the installation failed; the message has the reason, and whether it was undone
  73  no space left, or a file cannot be created
  74  input/output error
  75  temporary failure, try again later: network, server busy, lock held, time limit
  76  protocol error: unexpected response from the server
  77  device not accepted (yet)
  78  configuration error
"""

LONGEST = 10**8
"""The longest time limit: three years in seconds, which the kernel's timers still accept."""


class _Commands(click.Group):
    """The commands; the error for `daemon` names its replacement."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "daemon":
            ctx.fail(
                "this client has no daemon; call 'run' from a timer or cron (see cron/ and systemd-timers/)."
            )
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    epilog=EXIT_CODES,
    no_args_is_help=False,  # a missing command is a usage error with any version of click
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-c", "--config", metavar="FILE", default="", help="Configuration file.")
@click.option("-b", "--fallback-config", metavar="FILE", default="", help="Fallback configuration file.")
@click.option("-d", "--data", metavar="DIR", default="", help="Data directory.")
@click.option(
    "-l", "--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="Log level for stderr."
)
@click.option("-L", "--log-file", metavar="FILE", default="", help="Also append the log to a file.")
@click.option(
    "--syslog",
    is_flag=True,
    help="Log to syslog instead of the terminal (for cron).",
)
@click.option("--no-syslog", is_flag=True, help="Ignored; accepted for compatibility.")
@click.option("-F", "--forcebootstrap", is_flag=True, hidden=True)
@click.option(
    "--max-runtime", type=click.IntRange(0, LONGEST), metavar="SECONDS", help="Time limit for the command."
)
@click.option("--json", is_flag=True, help="Print one JSON object on stdout.")
@click.version_option(__version__, "-v", "--version", message="mender-oneshot %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    config: str,
    fallback_config: str,
    data: str,
    log_level: str | None,
    log_file: str,
    syslog: bool,
    no_syslog: bool,
    forcebootstrap: bool,
    max_runtime: int | None,
    json: bool,
) -> None:
    """Daemonless Mender device client: each call performs one step and exits."""
    ctx.obj = {
        "config": config,
        "fallback_config": fallback_config,
        "data": data,
        "log_level": (log_level or "").lower(),
        "log_file": log_file,
        "syslog": syslog,
        "force": forcebootstrap,
        "max_runtime": max_runtime,
        "json": json,
    }


_LIMITS = {"setup": 0, "terminal": 0, "commit": 0, "rollback": 0, "resume": 0}
"""Commands without a time limit of their own: an update module may take hours, and has one."""


def command(name: str, *options: Any, hidden: bool = False) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function, which returns the fields of `Options` that it sets.

    The docstring of the function is the command's help.
    """

    def make(function: Callable[..., Any]) -> click.Command:
        def callback(**values: Any) -> Options:
            inherited = click.get_current_context().find_object(dict) or {}
            seconds = values.pop("max_runtime", None)
            seconds = inherited.get("max_runtime") if seconds is None else seconds
            fields = {**inherited, "max_runtime": _LIMITS.get(name, 900) if seconds is None else seconds}
            fields["json"] = values.pop("json", False) or fields.get("json", False)
            fields["force"] = values.pop("force", False) or (name == "bootstrap" and fields["force"])
            options = Options(name, **fields)._replace(**function(**values))
            if name == "install" and options.file and seconds is None:
                return options._replace(max_runtime=0)  # a module may take hours, and has its own time limit
            return options

        made: Any = click.option("--json", is_flag=True, help="Print one JSON object on stdout.")(callback)
        for option in reversed(options):
            made = option(made)
        return cli.command(name, help=function.__doc__, hidden=hidden)(made)

    return make


limit = click.option(
    "--max-runtime",
    type=click.IntRange(0, LONGEST),
    metavar="SECONDS",
    help="Time limit in seconds (0 = none; default 900; terminal, commit, rollback, resume: 0).",
)
