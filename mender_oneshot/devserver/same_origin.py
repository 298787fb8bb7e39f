"""Rejects requests that a web page of another site has a browser make."""

import ipaddress
from collections.abc import Collection

from .routing import Request
from .validation import HTTPError


def check(request: Request, names: Collection[str], *, tls: bool) -> None:
    """Raise HTTPError 403 for a request under an unknown name, or by a page of another origin.

    A site whose name resolves to this server's address (DNS rebinding) is of the same origin for a browser;
    only the Host header shows its name. An address cannot be rebound, so every address passes. Programs other
    than browsers send no Origin.
    """
    if request.host.lower() not in names and not _is_address(request.host):
        raise HTTPError(403, "unknown host name; start the server with --name to add it", request_id=False)
    origin = request.headers.get("Origin")
    own = f"{'https' if tls else 'http'}://{request.headers.get('Host', '')}"
    if origin is not None and origin.lower() != own.lower():
        raise HTTPError(403, "the request was made by a page of another origin", request_id=False)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
