"""Parse the command line with click.

`fast_path.parse` reads the most frequent command lines without it.
"""

import contextlib
import io
from typing import Any, NamedTuple

import click

from .command_group import EXIT_CODES as EXIT_CODES
from .command_group import LONGEST, command, limit
from .command_group import cli as cli
from .options import LEVELS as LEVELS
from .options import Options


@command(
    "run",
    click.option("--all", "every_step", is_flag=True, help="Run all due steps."),
    click.option(
        "--only",
        type=click.Choice(("update", "inventory")),
        help="Only run update or inventory steps.",
    ),
    click.option("--force", is_flag=True, help="Ignore local intervals (but honor Retry-After)."),
    click.option("--dry-run", is_flag=True, help="Print what would be done now, and change nothing."),
    limit,
)
def _run(every_step: bool, only: str | None, dry_run: bool) -> dict[str, Any]:
    """Run the next due step."""
    return {"every_step": every_step, "only": only or "", "dry_run": dry_run}


@command(
    "bootstrap",
    click.option(
        "-F", "--force", "--forcebootstrap", "force", is_flag=True, help="Replace the existing key."
    ),
    limit,
)
def _bootstrap() -> dict[str, Any]:
    """Create the device key."""
    return {}


@command(
    "auth",
    click.option("--fresh", is_flag=True, help="Get a new token even if the current one is valid."),
    limit,
)
def _auth(fresh: bool) -> dict[str, Any]:
    """Authorize with the server."""
    return {"fresh": fresh}


@command("send-inventory", limit)
def _send_inventory() -> dict[str, Any]:
    """Send the inventory."""
    return {}


@command(
    "check-update",
    click.option("--exit-code", is_flag=True, help="Exit with 16 if an update is available."),
    limit,
)
def _check_update(exit_code: bool) -> dict[str, Any]:
    """Check the server for an update."""
    return {"exit_code": exit_code}


@command("download", limit)
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


@command("install", click.argument("file", default=""), _stop_before, limit)
def _install(file: str, stop_before: str | None) -> dict[str, Any]:
    """Install the downloaded artifact, or a FILE or URL by hand."""
    return {"file": file, "stop_before": stop_before or ""}


@command("commit", _stop_before, limit)
def _commit(stop_before: str | None) -> dict[str, Any]:
    """Commit an artifact that was installed by hand."""
    return {"stop_before": stop_before or ""}


@command("rollback", _stop_before, limit)
def _rollback(stop_before: str | None) -> dict[str, Any]:
    """Roll back an artifact that was installed by hand."""
    return {"stop_before": stop_before or ""}


@command("resume", _stop_before, limit)
def _resume(stop_before: str | None) -> dict[str, Any]:
    """Resume an installation that was interrupted."""
    return {"stop_before": stop_before or ""}


@command("verify", click.argument("file"), limit)
def _verify(file: str) -> dict[str, Any]:
    """Check whether this device would accept an artifact."""
    return {"file": file}


@command("extract", click.argument("file"), click.argument("directory"), limit)
def _extract(file: str, directory: str) -> dict[str, Any]:
    """Verify an artifact and extract its files to a directory."""
    return {"file": file, "directory": directory}


@command(
    "report",
    click.option("--success", is_flag=True, help="The update is installed and works."),
    click.option("--failure", is_flag=True, help="The update failed; the logs are uploaded."),
    limit,
)
def _report(success: bool, failure: bool) -> dict[str, Any]:
    """Report the result of the update (used by sub-updaters)."""
    if not success and not failure:
        raise click.UsageError("Specify --success or --failure.")
    # Both given means success, as in mender-python-client (device-api.md section 10).
    return {"status": "success" if success else "failure"}


@command("announce", click.argument("status"), limit, hidden=True)
def _announce(status: str) -> dict[str, Any]:
    """Report an intermediate status (used by the built-in installer)."""
    return {"status": status}


@command(
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
    limit,
)
def _terminal(wait: int, max_sessions: int) -> dict[str, Any]:
    """Serve remote terminal sessions, then exit."""
    return {"wait": wait, "max_sessions": max_sessions}


@command("status")
def _status() -> dict[str, Any]:
    """Show the current state; makes no network requests."""
    return {}


@command("show-artifact")
def _show_artifact() -> dict[str, Any]:
    """Print the name of the installed artifact."""
    return {}


@command("show-provides")
def _show_provides() -> dict[str, Any]:
    """Print what the device provides, as key=value lines."""
    return {}


@command("history")
def _history() -> dict[str, Any]:
    """Show the last deployments and how they ended."""
    return {}


@command("log", click.argument("deployment", default=""))
def _log(deployment: str) -> dict[str, Any]:
    """Show the log of the last deployment, or of DEPLOYMENT."""
    return {"deployment": deployment}


@command(
    "doctor",
    click.option("--bundle", metavar="FILE", default="", help="Also write a report without secrets."),
    limit,
)
def _doctor(bundle: str) -> dict[str, Any]:
    """Diagnose the setup and suggest fixes; changes nothing."""
    return {"bundle": bundle}


_INTERVAL = click.IntRange(1, 2**31)


@command(
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
