"""URLs of servers, artifacts and proxies, read by one strict rule: the host named is the host asked.

Without `urllib.parse`, which would import `re` in every run that finds nothing due.
"""

from typing import NamedTuple

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._~")
_ADDRESS = frozenset("abcdef0123456789:.")
_DEVIATING = "ßς\u200c\u200d"
"""Characters that the old IDNA, Python's, and the new one turn into different names."""

PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where a URL leads: the scheme and the host in small letters; the host of IPv6 without brackets."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin | None:
    """Return where an http(s) URL leads, or None if programs could read it differently.

    A backslash ends the host for some programs and belongs to the login for others.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in PORTS or not url.isascii() or not url.isprintable():
        return None
    if " " in url or "\\" in url:
        return None
    authority = _authority(rest)
    login, _, address = authority.rpartition("@")
    if "@" in login or "[" in login:
        return None
    found = _host_and_port(address)
    if found is None:
        return None
    host, port = found
    return Origin(scheme, host, int(port) if port else PORTS[scheme])


def host(url: str) -> str:
    """Return host and port for a message; never the login or the query, which can hold secrets."""
    return _authority(url.partition("://")[2]).rpartition("@")[2] or "the server"


def _authority(rest: str) -> str:
    for end in "/?#":
        rest = rest.partition(end)[0]
    return rest


def _host_and_port(address: str) -> tuple[str, str] | None:
    address = address.lower()
    if address.startswith("["):
        host, bracket, tail = address[1:].partition("]")
        plain, _, zone = host.partition("%")
        good = bool(bracket) and ":" in plain and set(plain) <= _ADDRESS and set(zone) <= _LETTERS
        if tail and not tail.startswith(":"):
            return None
        port = tail[1:]
    else:
        host, _, port = address.partition(":")
        labels = host.removesuffix(".").split(".")
        good = set(host) <= _LETTERS and all(0 < len(label) < 64 for label in labels)
    if not good or (port and not (port.isdigit() and len(port) < 6 and 0 < int(port) < 65536)):
        return None
    return host, port


def to_ascii(url: str) -> str:
    """Return a URL with the name of its host in the form of DNS (xn--); "" if that is not certain."""
    if url.isascii():
        return url
    scheme, separator, rest = url.partition("://")
    authority = _authority(rest)
    login, at, address = authority.rpartition("@")
    host, colon, port = address.partition(":")
    if any(letter in host for letter in _DEVIATING):
        return ""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    made = f"{scheme}{separator}{login}{at}{name}{colon}{port}{rest[len(authority) :]}"
    return made if made.isascii() else ""
