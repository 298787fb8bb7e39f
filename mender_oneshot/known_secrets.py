"""Collect the secrets of this device, so that they can be removed from text."""

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from . import disk, errors, paths
from .settings import Settings

_IN_JSON = re.compile(rb'"(?:TenantToken|jwt)"\s*:\s*"((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_LINKS_IN_JSON = re.compile(rb'"uri"\s*:\s*"((?:[^"\\]|\\.)*)"')
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{16,}")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_LONG_ENOUGH = 8
"""Characters of a value in the query of a link; shorter ones are numbers and names."""


def collect(settings: Settings) -> Iterator[str]:
    """Yield tokens, the lines of private keys, and the logins and queries of URLs; files may be corrupt."""
    places = settings.places
    yield settings.tenant_token
    state = places.data(paths.STATE)
    states = (state, f"{state}{paths.UNREADABLE}", places.data(paths.STATE_OF_OTHER_DEVICE))
    for path in (places.config, places.fallback, *states):
        content = _read(path)
        for found in _IN_JSON.findall(content):
            yield found.decode("utf-8", "replace")
        for found in _LINKS_IN_JSON.findall(content):
            yield from of_url(found.decode("utf-8", "replace"))
    for path in (settings.key_file, settings.client_key):
        if path:
            yield from _BASE64.findall(_read(path).decode("latin-1"))
    environment = os.environ
    proxies = [environment.get(spelt, "") for name in _PROXIES for spelt in (name, name.upper())]
    for url in (*settings.servers, *proxies):
        yield from of_url(url)


def of_url(url: str) -> Iterator[str]:
    """Yield the password of a URL, and the query and its longer values, as they are and decoded."""
    try:
        parts = urlsplit(url)
        password = parts.password or ""
    except ValueError:
        return
    yield from (password, unquote(password), parts.query)
    for pair in parts.query.split("&"):
        value = pair.partition("=")[2]
        if len(value) >= _LONG_ENOUGH:
            yield from (value, unquote(value))


def _read(path: str) -> bytes:
    try:
        return disk.read(path, 1 << 20) or b""
    except errors.Error:
        return b""
