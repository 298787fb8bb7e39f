"""Parse the command line with click.

`fast_path.parse` reads the most frequent command lines without it.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from . import __version__
from .options import LEVELS as LEVELS
from .options import Options

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


def _command(name: str, *options: Any, hidden: bool = False) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function, which returns the fields of `Options` that it sets.

    The docstring of the function is the command's help.
    """

    def make(function: Callable[..., Any]) -> click.Command:
        def callback(**values: Any) -> Options:
            inherited = click.get_current_context().find_object(dict) or {}
            limit = values.pop("max_runtime", None)
            limit = inherited.get("max_runtime") if limit is None else limit
            fields = {**inherited, "max_runtime": _LIMITS.get(name, 900) if limit is None else limit}
            fields["json"] = values.pop("json", False) or fields.get("json", False)
            fields["force"] = values.pop("force", False) or (name == "bootstrap" and fields["force"])
            options = Options(name, **fields)._replace(**function(**values))
            if name == "install" and options.file and limit is None:
                return options._replace(max_runtime=0)  # a module may take hours, and has its own time limit
            return options

        command: Any = click.option("--json", is_flag=True, help="Print one JSON object on stdout.")(callback)
        for option in reversed(options):
            command = option(command)
        return cli.command(name, help=function.__doc__, hidden=hidden)(command)

    return make


_limit = click.option(
    "--max-runtime",
    type=click.IntRange(0, LONGEST),
    metavar="SECONDS",
    help="Time limit in seconds (0 = none; default 900; terminal, commit, rollback, resume: 0).",
)


@_command(
    "run",
    click.option("--all", "every_step", is_flag=True, help="Run all due steps."),
    click.option(
        "--only",
        type=click.Choice(("update", "inventory")),
        help="Only run update or inventory steps.",
    ),
    click.option("--force", is_flag=True, help="Ignore local intervals (but honor Retry-After)."),
    click.option("--dry-run", is_flag=True, help="Print what would be done now, and change nothing."),
    _limit,
)
def _run(every_step: bool, only: str | None, dry_run: bool) -> dict[str, Any]:
    """Run the next due step."""
    return {"every_step": every_step, "only": only or "", "dry_run": dry_run}


@_command(
    "bootstrap",
    click.option(
        "-F", "--force", "--forcebootstrap", "force", is_flag=True, help="Replace the existing key."
    ),
    _limit,
)
def _bootstrap() -> dict[str, Any]:
    """Create the device key."""
    return {}


@_command(
    "auth",
    click.option("--fresh", is_flag=True, help="Get a new token even if the current one is valid."),
    _limit,
)
def _auth(fresh: bool) -> dict[str, Any]:
    """Authorize with the server."""
    return {"fresh": fresh}


@_command("send-inventory", _limit)
def _send_inventory() -> dict[str, Any]:
    """Send the inventory."""
    return {}


@_command(
    "check-update",
    click.option("--exit-code", is_flag=True, help="Exit with 16 if an update is available."),
    _limit,
)
def _check_update(exit_code: bool) -> dict[str, Any]:
    """Check the server for an update."""
    return {"exit_code": exit_code}


@_command("download", _limit)
def _download() -> dict[str, Any]:
    """Download the artifact, or resume its download."""
    return {}


_STOPS = (
    *("ArtifactInstall_Enter", "ArtifactCommit_Enter", "ArtifactCommit_Leave", "ArtifactRollback_Enter"),
    *("ArtifactFailure_Enter", "Cleanup"),
)
_stop_before = click.option(
    "--stop-before",
    type=click.Choice(_STOPS),
    metavar="STATE",
    help="Stop before this state.",
)


@_command("install", click.argument("file", default=""), _stop_before, _limit)
def _install(file: str, stop_before: str | None) -> dict[str, Any]:
    """Install the downloaded artifact, or a FILE or URL by hand."""
    return {"file": file, "stop_before": stop_before or ""}


@_command("commit", _stop_before, _limit)
def _commit(stop_before: str | None) -> dict[str, Any]:
    """Commit an artifact that was installed by hand."""
    return {"stop_before": stop_before or ""}


@_command("rollback", _stop_before, _limit)
def _rollback(stop_before: str | None) -> dict[str, Any]:
    """Roll back an artifact that was installed by hand."""
    return {"stop_before": stop_before or ""}


@_command("resume", _stop_before, _limit)
def _resume(stop_before: str | None) -> dict[str, Any]:
    """Resume an installation that was interrupted."""
    return {"stop_before": stop_before or ""}


@_command("verify", click.argument("file"), _limit)
def _verify(file: str) -> dict[str, Any]:
    """Check whether this device would accept an artifact."""
    return {"file": file}


@_command("extract", click.argument("file"), click.argument("directory"), _limit)
def _extract(file: str, directory: str) -> dict[str, Any]:
    """Verify an artifact and extract its files to a directory."""
    return {"file": file, "directory": directory}


@_command(
    "report",
    click.option("--success", is_flag=True, help="The update is installed and works."),
    click.option("--failure", is_flag=True, help="The update failed; the logs are uploaded."),
    _limit,
)
def _report(success: bool, failure: bool) -> dict[str, Any]:
    """Report the result of the update (used by sub-updaters)."""
    if not success and not failure:
        raise click.UsageError("Specify --success or --failure.")
    # Both given means success, as in mender-python-client (device-api.md section 10).
    return {"status": "success" if success else "failure"}


@_command("announce", click.argument("status"), _limit, hidden=True)
def _announce(status: str) -> dict[str, Any]:
    """Report an intermediate status (used by the built-in installer)."""
    return {"status": status}


@_command(
    "terminal",
    click.option(
        "--wait",
        type=click.IntRange(0, LONGEST),
        metavar="SECONDS",
        default=300,
        help="Wait this many seconds for a session (0 = forever). Default: 300.",
    ),
    click.option(
        "--max-sessions",
        type=click.IntRange(0, LONGEST),
        metavar="NUMBER",
        default=0,
        help="Exit after this many sessions (0 = no limit). Default: 0.",
    ),
    _limit,
)
def _terminal(wait: int, max_sessions: int) -> dict[str, Any]:
    """Serve remote terminal sessions, then exit."""
    return {"wait": wait, "max_sessions": max_sessions}


@_command("status")
def _status() -> dict[str, Any]:
    """Show the current state; makes no network requests."""
    return {}


@_command("show-artifact")
def _show_artifact() -> dict[str, Any]:
    """Print the name of the installed artifact."""
    return {}


@_command("show-provides")
def _show_provides() -> dict[str, Any]:
    """Print what the device provides, as key=value lines."""
    return {}


@_command("history")
def _history() -> dict[str, Any]:
    """Show the last deployments and how they ended."""
    return {}


@_command("log", click.argument("deployment", default=""))
def _log(deployment: str) -> dict[str, Any]:
    """Show the log of the last deployment, or of DEPLOYMENT."""
    return {"deployment": deployment}


@_command(
    "doctor",
    click.option("--bundle", metavar="FILE", default="", help="Also write a report without secrets."),
    _limit,
)
def _doctor(bundle: str) -> dict[str, Any]:
    """Diagnose the setup and suggest fixes; changes nothing."""
    return {"bundle": bundle}


_INTERVAL = click.IntRange(1, 2**31)


@_command(
    "setup",
    click.option("--device-type", metavar="TYPE", default="", help="The device type."),
    click.option("--hosted-mender", is_flag=True, help="Use hosted Mender in the US."),
    click.option("--hosted-mender-eu", is_flag=True, help="Use hosted Mender in the EU."),
    click.option(
        "--server-url", "--url", metavar="URL", default="", help="The https URL of your own server."
    ),
    click.option(
        "-E", "--server-cert", metavar="FILE", default="", help="The CA certificate of the server, in PEM."
    ),
    click.option(
        "--tenant-token", metavar="TOKEN", default="", help="The tenant token; other users can see it in ps."
    ),
    click.option(
        "--tenant-token-file",
        metavar="FILE",
        default="",
        help="Read the tenant token from a file (- is stdin).",
    ),
    click.option("--artifact-name", metavar="NAME", default="", help="The name of the installed release."),
    click.option("--update-poll", type=_INTERVAL, metavar="SECONDS", help="Interval of update checks."),
    click.option("--inventory-poll", type=_INTERVAL, metavar="SECONDS", help="Interval of the inventory."),
    click.option("--retry-poll", type=_INTERVAL, metavar="SECONDS", help="Longest interval between retries."),
    click.option("--demo-polling", is_flag=True, help="Poll as often as possible, to try it out."),
    click.option("--no-scripts", is_flag=True, help="Install no identity and inventory scripts."),
    click.option("--schedule", is_flag=True, help="Enable the systemd timers, or else the line for cron."),
    click.option("--offline", is_flag=True, help="Only write the files; do not connect to the server."),
    click.option("--force", is_flag=True, help="Replace existing files; copies are kept."),
    click.option("--quiet", is_flag=True, help="Print only problems and the result."),
)
def _setup(**given: Any) -> dict[str, Any]:
    """Write the configuration of a new device, and try it."""
    return {"setup": given}


class Reply(NamedTuple):
    """The reply to `--help` and `--version`, on stdout, or the usage error, on stderr."""

    code: int
    text: str
    sentence: str = ""  # the error alone, for a log


def read(arguments: list[str], program: str) -> Options | Reply:
    """Parse a command line; return a `Reply` for `--help`, `--version` and a usage error."""
    printed = io.StringIO()
    try:
        # If click printed to a full disk, the program would end with a traceback.
        with contextlib.redirect_stdout(printed):
            options: Options | int | None = cli.main(arguments, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        error.show(printed)
        return Reply(64, printed.getvalue(), f"Wrong usage: {error.format_message()}")
    except click.Abort:
        return Reply(130, "")
    return options if isinstance(options, Options) else Reply(options or 0, printed.getvalue())
