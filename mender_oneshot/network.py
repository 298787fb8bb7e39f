"""TLS contexts, client certificates, and messages for network errors.

Shared by `transport` and the remote terminal. Needs only the standard library.
"""

import logging
import os
import socket
import ssl
import time
from typing import Any

from . import certificate, disk, errors, pem
from .certificate import Anchors
from .settings import Settings
from .url import host as host

log = logging.getLogger(__name__)

CONNECTION_LOST = "the connection was lost"
TIMED_OUT = "the connection timed out"

SECURITY_LEVEL = 2
"""OpenSSL's level 2 is 112 bits: RSA and DH with 2048 bits or more, and no SHA-1 in signatures."""

OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
WEAK = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")

NO_PROXY = "the configured proxy is not an HTTP proxy; correct http(s)_proxy"

_ALERTS = {
    "CERTIFICATE_REQUIRED": "it requires a client certificate; set HttpsClient",
    "UNKNOWN_CA": "it does not trust the certificate in HttpsClient.Certificate",
    "CERTIFICATE_EXPIRED": "the certificate in HttpsClient.Certificate has expired",
    "BAD_CERTIFICATE": "it rejects the certificate in HttpsClient.Certificate",
    "HANDSHAKE_FAILURE": "there is no common cipher, or its certificate is too weak and must be replaced",
    "WRONG_VERSION_NUMBER": "it does not use TLS on this port",
    "PROTOCOL_VERSION": "it does not support TLS 1.2 or newer",
    "UNSUPPORTED_PROTOCOL": "it does not support TLS 1.2 or newer",
}
"""The cause of a failed handshake, by the last part of OpenSSL's name for the error."""


def server_name(name: str) -> str:
    """Return a host name as TLS compares it: without brackets, IPv6 zone and trailing dot."""
    return name.strip("[]").partition("%")[0].rstrip(".")


class Rejected(ssl.SSLCertVerificationError):
    """The certificate was rejected.

    `name` is the host whose certificate was expected, `chain` the certificates that it sent (leaf first), and
    `anchors` the trusted ones.
    """

    name = ""
    chain: tuple[certificate.Details, ...] = ()
    anchors = Anchors()


class ProxyFailed(OSError):
    """The proxy caused the failure; the text is part of a message."""


class Context(ssl.SSLContext):
    """A TLS configuration that records where its trusted certificates came from."""

    anchors = Anchors()
    has_rejected = False
    _is_complete = False

    def load_system_cas(self) -> None:
        """Trust the system's CAs: OpenSSL's, with SSL_CERT_FILE and SSL_CERT_DIR.

        Usually they are in a directory, where OpenSSL finds the one that it needs by its name, and also in
        one file. Reading that file takes longer than a whole request, and a few MiB of memory, so it is left
        to `reconsider` if there is such a directory.
        """
        directory = ssl.get_default_verify_paths().capath
        if directory and _is_hashed(directory):
            self.load_verify_locations(capath=directory)
        else:
            self._load_all_system_cas()

    def reconsider(self) -> bool:
        """After a rejected certificate, trust all of the system's CAs; return whether to connect again."""
        if self._is_complete or not self.has_rejected:
            return False
        self._load_all_system_cas()
        return True

    def _load_all_system_cas(self) -> None:
        self.load_default_certs()
        self._is_complete = True


def _is_hashed(directory: str) -> bool:
    """Return whether a directory has links that `openssl rehash` makes: 1a2b3c4d.0."""
    try:
        with os.scandir(directory) as entries:
            return any(entry.name.endswith(".0") and len(entry.name) == 10 for entry in entries)
    except OSError:
        return False


class _Socket(ssl.SSLSocket):
    """A socket that raises `Rejected`."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLCertVerificationError as error:
            raise _rejected(error, self) from error


class _Object(ssl.SSLObject):
    """`_Socket` for TLS in TLS."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise _rejected(error, self) from error


def _rejected(error: ssl.SSLCertVerificationError, connection: Any) -> Rejected:
    connection.context.has_rejected = True
    found = Rejected(*error.args)
    found.verify_code, found.verify_message = error.verify_code, error.verify_message
    found.name, found.anchors = connection.server_hostname or "", connection.context.anchors
    try:
        # The public method came with Python 3.13, and returns DER bytes only.
        found.chain = tuple(one.get_info() for one in connection._sslobj.get_unverified_chain() or ())
    except (AttributeError, TypeError, ValueError, ssl.SSLError):
        log.debug("This Python cannot list the certificates that were rejected.")
    return found


def start_tls(context: Context, stream: socket.socket, host: str) -> ssl.SSLSocket:
    """Return a socket whose `do_handshake` checks the certificate of a host; it replaces `stream`."""
    # As bytes: Python would encode a text, and import its tables of Unicode characters for that.
    name = server_name(host).encode()
    return context.wrap_socket(stream, server_hostname=name, do_handshake_on_connect=False)


def tls_context(settings: Settings) -> Context:
    """Return the TLS context: trust the system's CAs and ServerCertificate, and use the client certificate.

    An unusable ServerCertificate is a warning. Raises `errors.SettingsError` if the client certificate or its
    key cannot be used.
    """
    context = _policy()
    context.load_system_cas()
    context.anchors = Anchors(
        file=settings.server_certificate,
        problem=_load_server_certificate(context, settings.server_certificate),
        dangling=bool(disk.dangling_link(settings.server_certificate)),
        system=_has_certificates(),
        hosts=tuple(host(url) for url in settings.servers),
    )
    if context.anchors.problem:
        # As in the reference clients: a leftover setting must not cut off a device whose server has a
        # certificate of a public CA.
        log.warning("ServerCertificate %s %s", settings.server_certificate, context.anchors.problem)
    if settings.client_certificate:
        _load_client_certificate(context, settings)
    if os.environ.get("SSLKEYLOGFILE"):
        log.warning("SSLKEYLOGFILE is ignored: TLS session keys are never written to a file.")
    if settings.skip_verify:
        log.warning(
            "SkipVerify disables certificate checks: anyone on the network can impersonate the server."
        )
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _policy() -> Context:
    """Return a context without trusted certificates.

    Set every option that decides whether a connection is accepted: Python's defaults change between versions,
    and an update to an image with a newer Python must not cut the device off.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class, context.sslobject_class = _Socket, _Object
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL's own rules, like curl and Go. Python 3.13 and newer enforce RFC 5280, which rejects many
    # private CAs. A certificate that the user configures is trusted even if it is not a root.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    context.set_ciphers(f"DEFAULT@SECLEVEL={max(SECURITY_LEVEL, context.security_level)}")
    return context


def check(settings: Settings) -> None:
    """Raise `errors.SettingsError` if a configured certificate or key cannot be used."""
    context = _policy()
    problem = _load_server_certificate(context, settings.server_certificate)
    if problem:
        raise errors.SettingsError(f"ServerCertificate {settings.server_certificate} {problem}")
    if settings.client_certificate:
        _load_client_certificate(context, settings)


def _has_certificates() -> bool:
    """Return whether the system has any CA certificate."""
    paths = ssl.get_default_verify_paths()
    try:
        file = bool(paths.cafile and os.path.getsize(paths.cafile))
        return file or bool(paths.capath and os.listdir(paths.capath))
    except OSError:
        return False


def _load_server_certificate(context: ssl.SSLContext, path: str) -> str:
    """Trust the certificates in a file; return why it cannot be used, as the end of a message, or ""."""
    if not path:
        return ""
    problem = pem.unreadable(path)
    if problem:
        return problem
    try:
        content = pem.read("ServerCertificate", path)
        if not pem.find(content, "CERTIFICATE"):
            return f"{pem.why_none(content, 'CERTIFICATE')}; put the CA there, in PEM."
        context.load_verify_locations(path)
    except errors.SettingsError:
        return "cannot be read; put the CA there, in PEM."
    except OSError:
        return "is corrupt; put the CA there again, in PEM."
    return ""


def _load_client_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Use the client certificate; raise `errors.SettingsError`, naming the file, if that is impossible."""
    path, key_path = settings.client_certificate, settings.client_key
    content, key = pem.read("HttpsClient.Certificate", path), pem.read("HttpsClient.Key", key_path)
    if not pem.find(content, "CERTIFICATE"):
        reason = pem.why_none(content, "CERTIFICATE")
        raise errors.SettingsError(
            f"HttpsClient.Certificate {path} {reason}; put the certificate there, in PEM."
        )
    block = pem.find(key, "PRIVATE KEY")
    if not block:
        reason = pem.why_none(key, "PRIVATE KEY")
        raise errors.SettingsError(f"HttpsClient.Key {key_path} {reason}; put the private key there, in PEM.")
    if pem.is_encrypted(block):
        raise pem.encrypted("HttpsClient.Key", key_path)

    def no_passphrase() -> str:
        # Without this callback OpenSSL would prompt on the terminal and block.
        raise pem.encrypted("HttpsClient.Key", key_path)

    try:
        context.load_cert_chain(path, key_path, no_passphrase)
    except OSError as error:
        raise _unusable(path, key_path, getattr(error, "reason", None) or "") from error


def _unusable(path: str, key_path: str, reason: str) -> errors.SettingsError:
    """Return the error for the file that OpenSSL rejects, the certificate or the key."""
    if reason in OTHER_KEY:
        return errors.SettingsError(
            f"HttpsClient.Key {key_path} does not match HttpsClient.Certificate {path}; configure a matching "
            "pair."
        )
    if reason in WEAK:
        return errors.SettingsError(
            f"HttpsClient.Certificate {path} is too weak; use RSA with 2048 bits or more, or ECDSA, signed "
            "with SHA-256 or better."
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return errors.SettingsError(f"HttpsClient.Certificate {path} is corrupt; put it there again, in PEM.")
    return errors.SettingsError(f"HttpsClient.Key {key_path} is corrupt; put it there again, in PEM.")


def why(error: BaseException) -> str:
    """Return the cause of a network error, as part of a message.

    Never the text of an exception that could contain a URL, and with it a secret.
    """
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return CONNECTION_LOST
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown reason"
        known = next((cause for end, cause in _ALERTS.items() if reason.endswith(end)), None)
        return known or f"TLS error ({reason})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, ProxyFailed):
        return str(error)
    return CONNECTION_LOST if isinstance(error, ConnectionError) else type(error).__name__


def no_tunnel(status: int) -> ProxyFailed:
    """Return the error for a proxy that has rejected CONNECT; status 0 if its response is not HTTP."""
    if status == 407:
        return ProxyFailed(
            "the proxy rejected the connection (407): it needs a valid login; correct http(s)_proxy"
        )
    return ProxyFailed(f"the proxy rejected the connection ({status})" if status else NO_PROXY)


def no_answer(where: str, reason: str) -> errors.NetworkError:
    """Return the error for a host that did not answer."""
    return errors.NetworkError(f"No answer from {where}: {reason}; the next run will retry.")


def certificate_error(where: str, error: ssl.SSLCertVerificationError) -> errors.Error:
    """Return the error for a certificate that was rejected."""
    known = error if isinstance(error, Rejected) else Rejected()
    return certificate.rejected(
        where, error.verify_code, error.verify_message, known.chain, known.anchors, time.time()
    )
