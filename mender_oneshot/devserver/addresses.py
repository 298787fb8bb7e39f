"""The addresses and names under which other machines reach this one."""

import contextlib
import ipaddress
import re
import socket
from pathlib import Path

_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
_ROUTES = Path("/proc/net/fib_trie")
# Reserved for documentation: an address that is routed like any other on the Internet.
_ELSEWHERE = ("192.0.2.1", 9)


def addresses() -> list[str]:
    """Return the IPv4 addresses of this machine, without loopback; that of the default route is first."""
    with contextlib.suppress(OSError):
        found = dict.fromkeys([*_of_default_route(), *_LOCAL.findall(_ROUTES.read_text())])
        return [address for address in found if not ipaddress.ip_address(address).is_loopback]
    return _of_default_route()


def host_names() -> list[str]:
    """Return the name of this machine, and its name in multicast DNS."""
    name = socket.gethostname()
    if not re.fullmatch(r"[A-Za-z0-9.-]+", name) or name == "localhost":
        return []
    return [name] if "." in name else [name, f"{name}.local"]


def _of_default_route() -> list[str]:
    """Return the address from which this machine sends to another network; a UDP connect sends no packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(_ELSEWHERE)
        return [str(probe.getsockname()[0])]
    return []
