"""`mender-oneshot-devserver`: the development server as a program."""

import errno
import os
import signal
import sys
import threading
from pathlib import Path

import click

import mender_oneshot

from .request_log import Seen
from .server import DevServer

EPILOG = """\b
Artifacts and certificates are stored in the directory; devices, deployments
and tokens are lost when the server ends.
\b
Without --user, any e-mail address can log in with any password:
  mender-cli --server URL login --username me@example.com --password any
Inject faults from this machine (fields: mender_oneshot/devserver/faults.py):
  curl --cacert CA URL/devserver/faults -H 'Content-Type: application/json' \\
       -d '{"match": "GET /storage/*", "cut_after": 4096}'
\b
Exit codes: 0 ended by a signal, 64 usage error, 73 the directory cannot be
used, 78 the address cannot be used.
"""


@click.command(epilog=EPILOG, context_settings={"max_content_width": 100})
@click.option("--directory", type=click.Path(path_type=Path), default="devserver", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--storage-port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 = any free one."
)
@click.option("--name", "names", multiple=True, help="Additional name or address for the certificate.")
@click.option("--http", "plain", is_flag=True, help="Disable TLS.")
@click.option("--accept-all", is_flag=True, help="Accept every device.")
@click.option("--user", metavar="NAME:PASSWORD", help="The only user who can log in.")
@click.option(
    "--link-lifetime", default=86400.0, show_default=True, help="Seconds until an artifact link expires."
)
@click.option(
    "--jwt-lifetime", default=604800.0, show_default=True, help="Seconds until a device's token expires."
)
@click.option("--quiet", is_flag=True, help="Do not print a line for each request.")
@click.version_option(mender_oneshot.__version__)
def command(
    directory: Path,
    host: str,
    port: int,
    storage_port: int,
    names: tuple[str, ...],
    plain: bool,
    accept_all: bool,
    user: str | None,
    link_lifetime: float,
    jwt_lifetime: float,
    quiet: bool,
) -> None:
    """Run a Mender server for development: the device API, parts of the management API, and faults."""
    try:
        server = DevServer(
            directory.resolve(),
            tls=not plain,
            host=host,
            port=port,
            storage_port=storage_port,
            accept_all=accept_all,
            user=_user(user),
            names=names,
            link_lifetime=link_lifetime,
            jwt_lifetime=jwt_lifetime,
            on_seen=None if quiet else _print_request,
        )
    except OSError as error:
        _exit_with(error, directory, host, port)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with server:
        click.echo(_start_message(server))
        sys.stdout.flush()
        ended.wait()


def _user(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, colon, password = text.partition(":")
    if not name or not colon:
        raise click.BadParameter("must be NAME:PASSWORD", param_hint="--user")
    return name, password


def _start_message(server: DevServer) -> str:
    tls = server.url.startswith("https")
    lines = [
        f"Serving {server.url}, artifacts from {server.storage_url}.",
        f"The certificate authority is {server.ca}.",
        "In mender.conf:",
        f'  "ServerURL": "{server.url}"' + ("," if tls else ""),
    ]
    return "\n".join(lines + ([f'  "ServerCertificate": "{server.ca}"'] if tls else []))


def _print_request(seen: Seen) -> None:
    """Print one line for one request; only the path, because a query may contain a signature."""
    click.echo(f"{seen.method} {seen.path} {seen.status or 'no answer'} {seen.sent}", err=True)


def _exit_with(error: OSError, directory: Path, host: str, port: int) -> None:
    if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES) and error.filename is None:
        text = (
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose others with --host and --port."
        )
        code = os.EX_CONFIG
    else:
        text = f"Cannot use the directory {directory}: {error.strerror}. Choose another with --directory."
        code = os.EX_CANTCREAT
    click.echo(text, err=True)
    sys.exit(code)


def main() -> None:
    """Run the program; a usage error exits with 64, as everywhere in mender-oneshot."""
    try:
        command(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(0)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(os.EX_USAGE)


if __name__ == "__main__":
    main()
