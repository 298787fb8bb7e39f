"""Whom we trust, and what goes wrong with it, in words: TLS, client certificates, the network.

What `transport` and the remote terminal share. Needs no library but Python's own.
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

SECURITY_LEVEL = 2
"""OpenSSL's: 112 bits, that is RSA and DH from 2048 bits and no SHA-1 in signatures."""

OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
WEAK = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")

NO_PROXY = "the proxy does not answer as a proxy does; correct http(s)_proxy"

_ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks for a client certificate; set HttpsClient",
    "UNKNOWN_CA": "it does not trust the certificate in HttpsClient.Certificate",
    "CERTIFICATE_EXPIRED": "the certificate in HttpsClient.Certificate has expired",
    "BAD_CERTIFICATE": "it rejects the certificate in HttpsClient.Certificate",
    "HANDSHAKE_FAILURE": "no cipher suits both, or its certificate is too weak and another one is needed",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "PROTOCOL_VERSION": "it has no TLS 1.2 or newer",
    "UNSUPPORTED_PROTOCOL": "it has no TLS 1.2 or newer",
}
"""What a failed handshake means, by the end of OpenSSL's name for it."""


def server_name(name: str) -> str:
    """Return a host as TLS compares it: no brackets, no zone of an address, no dot at the end."""
    return name.strip("[]").partition("%")[0].rstrip(".")


class Rejected(ssl.SSLCertVerificationError):
    """The certificate was rejected.

    `name` is whose certificate was expected, `chain` is what was sent, the leaf first, and `anchors` is what
    that was compared with.
    """

    name = ""
    chain: tuple[certificate.Details, ...] = ()
    anchors = Anchors()


class ProxyFailed(OSError):
    """The proxy is at fault; the text is for people."""


class Context(ssl.SSLContext):
    """A TLS configuration that records where its trusted certificates came from."""

    anchors = Anchors()


class _Socket(ssl.SSLSocket):
    """A socket that raises `Rejected`."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLCertVerificationError as error:
            raise _rejected(error, self) from error


class _Object(ssl.SSLObject):
    """The same for TLS in TLS."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise _rejected(error, self) from error


def _rejected(error: ssl.SSLCertVerificationError, connection: Any) -> Rejected:
    found = Rejected(*error.args)
    found.verify_code, found.verify_message = error.verify_code, error.verify_message
    found.name, found.anchors = connection.server_hostname or "", connection.context.anchors
    try:
        # Python has no public way before 3.13, and then one that gives bytes only.
        found.chain = tuple(one.get_info() for one in connection._sslobj.get_unverified_chain() or ())
    except (AttributeError, TypeError, ValueError, ssl.SSLError):
        log.debug("This Python does not show the certificates that were rejected.")
    return found


class ForHost:
    """A context that checks one name, whatever its caller passes.

    urllib3 1.26 hides IP addresses from the context, and then compares by rules of its own.
    """

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = server_name(name)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._context, attribute)

    def wrap_socket(self, stream: socket.socket, **options: Any) -> ssl.SSLSocket:
        """Do what `ssl.SSLContext.wrap_socket` does, for this name."""
        return self._context.wrap_socket(stream, **(options | {"server_hostname": self._name}))

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any) -> ssl.SSLObject:
        """Do what `ssl.SSLContext.wrap_bio` does, for this name."""
        return self._context.wrap_bio(incoming, outgoing, **(options | {"server_hostname": self._name}))


def tls_context(settings: Settings) -> Context:
    """Make the one TLS configuration: the system's CAs and the configured one, the client's certificate.

    The system's CAs are OpenSSL's, with SSL_CERT_FILE and SSL_CERT_DIR. Raises `errors.SettingsError`.
    """
    context = _policy()
    context.load_default_certs()
    context.anchors = Anchors(
        file=settings.server_certificate,
        problem=_load_server_certificate(context, settings.server_certificate),
        dangling=bool(disk.dangling_link(settings.server_certificate)),
        system=_has_certificates(),
        hosts=tuple(host(url) for url in settings.servers),
    )
    if context.anchors.problem:
        # As the reference clients: a leftover line must not cut off a device whose server needs no CA.
        log.warning("ServerCertificate %s %s", settings.server_certificate, context.anchors.problem)
    if settings.client_certificate:
        _load_client_certificate(context, settings)
    if os.environ.get("SSLKEYLOGFILE"):
        log.warning("SSLKEYLOGFILE is set and ignored: the keys of a connection are not written to a file.")
    if settings.skip_verify:
        log.warning("SkipVerify is set: anybody on the network can pose as the server.")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _policy() -> Context:
    """Make a configuration that trusts nobody yet.

    Whatever decides about a connection is set here and not left to Python's defaults, which change from
    version to version: an update to an image with a newer Python must not cut the device off.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class, context.sslobject_class = _Socket, _Object
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL's own rules, as curl and Go apply them. Python 3.13 and newer are strict about RFC 5280, which
    # rejects many a private CA. A certificate that the user names is trusted as it is.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    context.set_ciphers(f"DEFAULT@SECLEVEL={max(SECURITY_LEVEL, context.security_level)}")
    return context


def check(settings: Settings) -> None:
    """Raise `errors.SettingsError` for a configured certificate or key that is of no use."""
    context = _policy()
    problem = _load_server_certificate(context, settings.server_certificate)
    if problem:
        raise errors.SettingsError(f"ServerCertificate {settings.server_certificate} {problem}")
    if settings.client_certificate:
        _load_client_certificate(context, settings)


def _has_certificates() -> bool:
    """Say whether the system has any CA."""
    paths = ssl.get_default_verify_paths()
    try:
        file = bool(paths.cafile and os.path.getsize(paths.cafile))
        return file or bool(paths.capath and os.listdir(paths.capath))
    except OSError:
        return False


def _load_server_certificate(context: ssl.SSLContext, path: str) -> str:
    """Trust the certificates of a file; return what is wrong with it, as the rest of a sentence."""
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
        return "is damaged; put the CA there again, in PEM."
    return ""


def _load_client_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Use the client's certificate; raises `errors.SettingsError`, which names the file at fault."""
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

    def refuse() -> str:
        # Without this OpenSSL would ask at the terminal, and wait.
        raise pem.encrypted("HttpsClient.Key", key_path)

    try:
        context.load_cert_chain(path, key_path, refuse)
    except OSError as error:
        raise _unusable(path, key_path, getattr(error, "reason", None) or "") from error


def _unusable(path: str, key_path: str, reason: str) -> errors.SettingsError:
    """Say which of the two files OpenSSL rejects."""
    if reason in OTHER_KEY:
        return errors.SettingsError(
            f"HttpsClient.Key {key_path} does not belong to HttpsClient.Certificate {path}; configure "
            "two that were made together."
        )
    if reason in WEAK:
        return errors.SettingsError(
            f"HttpsClient.Certificate {path} is too weak; use RSA with 2048 bits or more, or ECDSA, signed "
            "with SHA-256 or better."
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return errors.SettingsError(f"HttpsClient.Certificate {path} is damaged; put it there again, in PEM.")
    return errors.SettingsError(f"HttpsClient.Key {key_path} is damaged; put it there again, in PEM.")


def why(error: BaseException) -> str:
    """Name the root of a failure; never its own text where that could hold a URL and the secret in it."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(error, TimeoutError):
        return "it is silent for too long"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the connection broke off"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown reason"
        known = next((words for end, words in _ALERTS.items() if reason.endswith(end)), None)
        return known or f"TLS fails ({reason})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, ProxyFailed):
        return str(error)
    if isinstance(error, OSError) and "Tunnel connection failed" in str(error):
        return _no_tunnel(str(error))
    return type(error).__name__


def _no_tunnel(text: str) -> str:
    """Put into words what a proxy answered to CONNECT: "Tunnel connection failed: 403 Forbidden"."""
    status = next((word for word in text.split() if word.isdigit()), "0")
    if status == "407":
        return "the proxy does not let us through without a login, or with this one; correct http(s)_proxy"
    if status == "0":
        return NO_PROXY
    return f"the proxy does not let us through (it answered {status})"


def no_answer(where: str, reason: str) -> errors.TemporaryError:
    """Say that nothing came from a host, and why."""
    return errors.TemporaryError(f"No answer from {where}: {reason}; the next run tries again.")


def certificate_error(where: str, error: ssl.SSLCertVerificationError) -> errors.Error:
    """Say why a certificate was rejected."""
    known = error if isinstance(error, Rejected) else Rejected()
    return certificate.rejected(
        where, error.verify_code, error.verify_message, known.chain, known.anchors, time.time()
    )
