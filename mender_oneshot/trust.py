"""Whom we trust, by which way we go, and what goes wrong with it, in words: TLS, proxies, the network.

What `transport` and the remote terminal share. Knows no library but Python's own.
"""

import logging
import os
import socket
import ssl
import time
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from . import errors
from .settings import Settings

log = logging.getLogger(__name__)


def host(url: str) -> str:
    """The host of a URL, for a sentence; never the query, which can hold a signature."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the server"
    except ValueError:
        return "the server"


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Make the one TLS configuration: the system's CAs and the configured one, the client's certificate."""
    context = ssl.create_default_context()
    if settings.server_certificate:
        try:
            context.load_verify_locations(settings.server_certificate)
        except OSError as error:
            # As the reference clients: a leftover line must not cut off a device whose server needs no CA.
            log.warning("ServerCertificate %s cannot be used: %s.", settings.server_certificate, error)
    if settings.client_certificate:
        try:
            context.load_cert_chain(settings.client_certificate, settings.client_key)
        except OSError as error:
            path = settings.client_certificate
            raise errors.SettingsError(
                f"HttpsClient.Certificate {path} or its Key cannot be used: {error}; mend it."
            ) from error
    if settings.skip_verify:
        log.warning("SkipVerify is set: anybody on the network can pose as the server.")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


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


def why(error: BaseException) -> str:
    """Name the root of a failure; never its own text where that could hold a URL and the secret in it."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(error, TimeoutError):
        return "it is silent for too long"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason or error.strerror})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and "Tunnel connection failed" in str(error):
        return "the proxy does not let us through" + (" without a login" if " 407 " in str(error) else "")
    return type(error).__name__


def no_answer(where: str, reason: str) -> errors.TryLater:
    """Say that nothing came from a host, and why."""
    return errors.TryLater(f"No answer from {where}: {reason}; the next run tries again.")


def certificate_error(where: str, error: ssl.SSLCertVerificationError) -> errors.Error:
    """Say why a certificate was refused; OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID is 9, _HAS_EXPIRED 10."""
    clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if error.verify_code == 9:
        return errors.TryLater(
            f"The certificate of {where} is not valid yet by this device's clock ({clock}); set the clock."
        )
    if error.verify_code == 10:
        return errors.Untrusted(
            f"The certificate of {where} has expired by this device's clock ({clock}); "
            "renew it, or set the clock."
        )
    return errors.Untrusted(
        f"The certificate of {where} is not trusted ({error.verify_message}); "
        "put its CA into ServerCertificate, or correct ServerURL."
    )
