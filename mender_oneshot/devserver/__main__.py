"""`mender-oneshot-devserver`: the development server as a program, and the commands for it."""

import os
import sys

import click

import mender_oneshot

from .commands import COMMANDS
from .management_client import Failed, Rejected
from .serve import serve

EPILOG = """\b
Without a command, the options are those of serve.
\b
A command finds the server by its directory: serve writes server.json into
it, which has the URL, the CA and the login. Give the directory of another
server with --directory or in MENDER_DEVSERVER_DIRECTORY.
\b
DEVICE is an id, the beginning of one, or a value of the identity (such as
the MAC address); DEPLOYMENT is an id or the beginning of one.
\b
Exit codes:
  0   success
  64  usage error, or more than one device or deployment matches
  65  rejected by the server (such as a corrupt artifact)
  66  no such device, deployment, artifact or file
  69  no server runs in the directory, or it does not answer
  70  deploy --wait: the update failed
  73  serve: the directory cannot be used
  77  the server rejects the login
  78  serve: the address cannot be used
"""


class _Commands(click.Group):
    """The commands, in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    commands=[serve, *COMMANDS],
    no_args_is_help=False,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.version_option(mender_oneshot.__version__)
def command() -> None:
    """Run a Mender server for development, and control it."""


def main() -> None:
    """Run the program; a usage error exits with 64, as everywhere in mender-oneshot."""
    words = sys.argv[1:]
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words = ["serve", *words]
    try:
        command(words, prog_name="mender-oneshot-devserver", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(os.EX_USAGE)
    except Failed as error:
        click.echo(str(error), err=True)
        sys.exit(error.code)
    except Rejected as error:
        click.echo(f"The server rejects the request: {error}.", err=True)
        sys.exit(os.EX_NOPERM if error.status == 401 else os.EX_DATAERR)


if __name__ == "__main__":
    main()
