"""Parse the URLs of servers, artifacts and proxies strictly, so that every library connects to the same host.

Does not use `urllib.parse`, which would import `re` in every run that finds nothing due.
"""

from typing import NamedTuple

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._~")
_ADDRESS = frozenset("abcdef0123456789:.")
_DEVIATING = "ßς\u200c\u200d"
"""Characters that IDNA 2003 (Python's) and IDNA 2008 encode differently."""

PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """The scheme, host and port of a URL: scheme and host in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """Host and port as in a Host header: without the default port, an IPv6 zone or a trailing dot."""
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return self.bracketed + port

    @property
    def bracketed(self) -> str:
        """The host as in a Host header, an IPv6 address in brackets."""
        return f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host.rstrip(".")


def origin(url: str) -> Origin | None:
    """Return the origin of an http(s) URL, or None if it is not one or parsers could disagree about its host.

    For example, a backslash ends the host in some parsers and is part of the login in others.
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
    """Return host and port for a message; never the login or the query, which can contain secrets."""
    return _authority(url.partition("://")[2]).rpartition("@")[2] or "the server"


def target(url: str) -> str:
    """Return path and query of a URL, as in a request line."""
    rest = url.partition("://")[2].partition("#")[0]
    rest = rest[len(_authority(rest)) :]
    return rest if rest.startswith("/") else f"/{rest}"


def without_login(url: str) -> str:
    """Return a URL for a message, without the login, also if the URL is not valid."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def is_url(text: str) -> bool:
    """Return whether an argument is a URL and not a path."""
    return text.lower().startswith(("http://", "https://"))


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
    """Return a URL with its host name in ASCII (xn--), or "" if the conversion is ambiguous or impossible."""
    if url.isascii():
        return url
    scheme, separator, rest = url.partition("://")
    authority = _authority(rest)
    login, at, address = authority.rpartition("@")
    host, colon, port = address.partition(":")
    if any(character in host for character in _DEVIATING):
        return ""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    ascii_url = f"{scheme}{separator}{login}{at}{name}{colon}{port}{rest[len(authority) :]}"
    return ascii_url if ascii_url.isascii() else ""
