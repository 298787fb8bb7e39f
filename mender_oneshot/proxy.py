"""Proxies: which one the environment names for a URL, and how it is addressed."""

import os
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from . import errors


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for a URL, "" for none.

    `no_proxy` may be separated by blanks, as in the C++ client, or by commas.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    import urllib.request  # dear, and hardly any device has a proxy

    proxies: dict[str, str] = urllib.request.getproxies_environment()
    proxies["no"] = ",".join(proxies.get("no", "").replace(",", " ").split())
    parts = urlsplit(url)
    # typeshed does not know this one; the documentation does not either, but every Unix has it.
    if urllib.request.proxy_bypass_environment(parts.netloc.rpartition("@")[2], proxies):  # type: ignore[attr-defined]
        return ""
    return proxies.get(parts.scheme) or proxies.get("all") or ""


class Proxy(NamedTuple):
    """A proxy: its scheme, its address as host:port, and the login for it, "user:password" or ""."""

    scheme: str
    address: str
    login: str


def read_proxy(proxy: str) -> Proxy:
    """Take the address of a proxy apart; raises `errors.SettingsError`, which does not repeat it."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        login, _, address = parts.netloc.rpartition("@")
        if not parts.hostname:
            raise ValueError("no host")
        return Proxy(parts.scheme, address, unquote(login))
    except ValueError as error:
        raise not_a_proxy() from error


def not_a_proxy() -> errors.SettingsError:
    """Say that the proxy in the environment makes no sense."""
    return errors.SettingsError("The proxy in the environment is not a URL; mend http(s)_proxy.")
