"""`mender-oneshot-devserver serve`: run the server until a signal ends it."""

import errno
import ipaddress
import os
import secrets
import signal
import sys
import threading
from pathlib import Path

import click

from . import addresses, running_server
from .common_options import directory_option
from .management_client import Failed
from .request_log import Seen
from .server import DevServer

BOARD_CA = "/etc/mender/devserver.pem"
EPILOG = """\b
Artifacts and certificates are stored in the directory; devices, deployments
and tokens are lost when the server ends.
\b
Without --user, any e-mail address can log in with any password, unless the
server listens on more than loopback: then it prints a password.
  mender-cli --server URL login --username me@example.com --password any
Inject faults from this machine (fields: mender_oneshot/devserver/faults.py):
  curl --cacert CA URL/devserver/faults -H 'Content-Type: application/json' \\
       -d '{"match": "GET /storage/*", "cut_after": 4096}'
\b
Exit codes: 0 ended by a signal, 64 usage error, 73 the directory cannot be
used, 78 the address cannot be used.
"""


@click.command(epilog=EPILOG)
@directory_option
@click.option("--board", is_flag=True, help="Serve a board on the network, and print how to set it up.")
@click.option("--host", show_default="127.0.0.1; with --board: all", help="Address to listen on.")
@click.option(
    "--port", default=8443, show_default=True, type=click.IntRange(0, 65535), help="Port of the server."
)
@click.option(
    "--storage-port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the artifact links; 0 = any free one.",
)
@click.option("--name", "names", multiple=True, help="Additional name or address of the server.")
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
def serve(
    directory: Path,
    board: bool,
    host: str | None,
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
    """Run the server until a signal ends it.

    It has the device API, parts of the management API, and faults that can be injected.
    """
    host = host or ("0.0.0.0" if board else "127.0.0.1")  # noqa: S104  # a board connects from elsewhere
    login = _user(user)
    generated = login is None and not _is_loopback(host)
    if generated:
        login = (running_server.ANY_USER[0], secrets.token_urlsafe(9))
    reached_as = _reached_as(host, names, board)
    try:
        with running_server.claimed(directory) as claim:
            server = DevServer(
                directory,
                tls=not plain,
                host=host,
                port=port,
                storage_port=storage_port,
                accept_all=accept_all,
                user=login,
                names=(*names, *reached_as),
                link_lifetime=link_lifetime,
                jwt_lifetime=jwt_lifetime,
                on_seen=None if quiet else _print_request,
            )
            ended = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: ended.set())
            with server:
                ca = "" if plain else str(server.ca)
                claim.publish(running_server.Endpoint(server.url, ca, *(login or running_server.ANY_USER)))
                urls = [_renamed(server.url, name) for name in reached_as] or [server.url]
                lines = _board_lines(server, urls) if board else _lines(server, urls)
                page = _page_lines(urls[0], login if generated else None)
                click.echo("\n".join([lines[0], *page, *lines[1:]]))
                sys.stdout.flush()
                ended.wait()
    except running_server.DirectoryInUse:
        text = f"Another server runs in {directory}; stop it, or choose another directory with --directory."
        raise Failed(text, os.EX_CANTCREAT) from None
    except OSError as error:
        raise _failed(error, directory, host, port) from None


def _user(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, colon, password = text.partition(":")
    if not name or not colon:
        raise click.BadParameter("must be NAME:PASSWORD", param_hint="--user")
    return name, password


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached_as(host: str, names: tuple[str, ...], board: bool) -> list[str]:
    """Return the names and addresses under which a board can reach the server, the best one first."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        return [host] if board else []
    if not board:
        return list(names)
    found = addresses.addresses()
    if not names and not found:
        raise Failed(
            "This machine has no address that a board can reach; connect it to the network of the board, or "
            "give the address with --name.",
            os.EX_CONFIG,
        )
    return list(dict.fromkeys([*names, *found, *addresses.host_names()]))


def _renamed(url: str, name: str) -> str:
    """Return a URL with another host."""
    scheme, port = url.partition("://")[0], url.rpartition(":")[2]
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def _lines(server: DevServer, urls: list[str]) -> list[str]:
    return [
        f"Serving {urls[0]}, artifacts from {server.storage_url}.",
        f"The certificate authority is {server.ca}.",
        *_settings(urls[0], str(server.ca)),
    ]


def _settings(url: str, ca: str) -> list[str]:
    tls = url.startswith("https")
    lines = ["In mender.conf:", f'  "ServerURL": "{url}"' + ("," if tls else "")]
    return lines + ([f'  "ServerCertificate": "{ca}"'] if tls else [])


def _page_lines(url: str, login: tuple[str, str] | None) -> list[str]:
    """Return where the web page is, and the login if the server has made it."""
    lines = [f"The web page is {url}/."]
    return [*lines, f"Log in as {login[0]} with the password {login[1]}."] if login else lines


def _board_lines(server: DevServer, urls: list[str]) -> list[str]:
    """Return what to type on the board: the CA as a command that can be pasted into any console."""
    tls = server.url.startswith("https")
    ports = " and ".join(url.rpartition(":")[2] for url in (server.url, server.storage_url))
    lines = [f"Serving {urls[0]}.", f"A firewall must let through the TCP ports {ports}."]
    if len(urls) > 1:
        lines.append(f"If the board cannot reach this address: {', '.join(urls[1:])}.")
    if tls:
        lines += ["", "Copy the CA certificate to the board: paste this into a root shell on the board.", ""]
        lines += ["mkdir -p /etc/mender", f"cat >{BOARD_CA} <<'END'"]
        lines += [server.ca.read_text().strip(), "END"]
    return [*lines, "", *_settings(urls[0], BOARD_CA)]


def _print_request(seen: Seen) -> None:
    """Print one line for one request; only the path, because a query may contain a signature."""
    click.echo(f"{seen.method} {seen.path} {seen.status or 'no answer'} {seen.sent}", err=True)


def _failed(error: OSError, directory: Path, host: str, port: int) -> Failed:
    if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES) and error.filename is None:
        text = (
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose others with --host and --port."
        )
        code = os.EX_CONFIG
    else:
        text = f"Cannot use the directory {directory}: {error.strerror}. Choose another with --directory."
        code = os.EX_CANTCREAT
    return Failed(text, code)
