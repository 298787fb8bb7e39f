"""Select the proxy for a URL from the environment, parse its address, and ask it for a tunnel."""

import base64
import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

from . import errors, url


class Proxy(NamedTuple):
    """A proxy: its origin, its address as it was written, and the login for it, "user:password" or ""."""

    origin: url.Origin
    address: str
    login: str


def proxy_for(target: str) -> str:
    """Return the proxy that the process's environment sets for a URL, or ""."""
    return choose(target, os.environ)


def choose(target: str, environment: Mapping[str, str]) -> str:
    """Return the proxy that an environment sets for a URL, or "".

    Lower-case names override upper-case ones, as in curl. HTTP_PROXY is ignored in a CGI program
    (REQUEST_METHOD is set), because there a client's `Proxy` header could set it.
    """
    where = url.origin(target)
    if where is None or not any(name.lower().endswith("_proxy") for name in environment):
        return ""
    named = ""
    for kind in (where.scheme, "all"):
        capitals = f"{kind}_proxy".upper()
        if kind == "http" and "REQUEST_METHOD" in environment:
            capitals = ""
        named = named or environment.get(f"{kind}_proxy", environment.get(capitals, "")).strip()
    listed = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    return "" if is_direct(where.host, where.port, listed) else named


def is_direct(host: str, port: int, listed: str) -> bool:
    """Return whether a list in the format of `no_proxy` covers a host; commas or spaces separate entries.

    As in curl and Go: a name, with or without a leading dot, covers itself and its subdomains; an address or
    a network (10.0.0.0/8, fd00::/8) covers addresses; each may have a port; * covers everything.
    """
    host = host.partition("%")[0].rstrip(".").lower()
    return any(_covers(entry.lower(), host, port) for entry in listed.replace(",", " ").split())


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    entry, wanted = _without_port(entry)
    if wanted and wanted != str(port):
        return False
    from ipaddress import ip_address, ip_network  # only if there is a proxy

    try:
        address = ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ip_network(entry.partition("%")[0], strict=False)
    except ValueError:
        return False


def _without_port(entry: str) -> tuple[str, str]:
    """Return an entry and its port, or ""; an IPv6 address with a port is in brackets."""
    if entry.startswith("["):
        inside, _, rest = entry[1:].partition("]")
        return inside + (rest if rest.startswith("/") else ""), rest[1:] if rest.startswith(":") else ""
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, ""


def read_proxy(proxy: str) -> Proxy:
    """Parse the address of a proxy.

    Raises `errors.SettingsError` if it is not an http or https URL; the message does not contain it, because
    of the password.
    """
    scheme, _, rest = proxy.partition("://") if "://" in proxy else ("http", "", proxy)
    # A password may contain any character, escaped or not.
    login, _, address = rest.rpartition("@")
    address = address.partition("/")[0]
    if scheme.lower() not in url.PORTS:
        raise errors.SettingsError(
            "The proxy in the environment is neither http:// nor https://; correct http(s)_proxy."
        )
    origin = url.origin(f"{scheme}://{address}")
    if origin is None:
        raise errors.SettingsError("The proxy in the environment is not a URL; correct http(s)_proxy.")
    return Proxy(origin, address, unquote(login))


def authorization(proxy: Proxy) -> dict[str, str]:
    """Return the header that carries the login for a proxy, none if it needs no login."""
    if not proxy.login:
        return {}
    login = base64.b64encode(proxy.login.encode("utf-8", "surrogateescape")).decode()
    return {"Proxy-Authorization": f"Basic {login}"}


def connect_request(proxy: Proxy, origin: url.Origin) -> bytes:
    """Return the request for a tunnel to a host (CONNECT, RFC 9110 section 9.3.6)."""
    target = f"{origin.bracketed}:{origin.port}"
    headers = {"Host": target, **authorization(proxy)}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
