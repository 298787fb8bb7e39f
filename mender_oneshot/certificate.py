"""Messages for a rejected server certificate: why it was rejected, and what to do now.

Pure functions. The numbers are OpenSSL's X509_V_ERR_* (openssl/x509_vfy.h), which Python passes on as
`SSLCertVerificationError.verify_code`.
"""

import ssl
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import errors

NO_ISSUER = (2, 19, 20, 21)
SELF_SIGNED = 18
NOT_YET_VALID = 9
EXPIRED = 10
OTHER_NAME = (62, 64)
TOO_WEAK = (66, 67, 68)
WRONG_PURPOSE = 26
NOT_A_CA = (24, 32, 79)

SHOWN = 64
"""Maximum number of characters of a name in a message: the content of a certificate is not trusted."""
NAMES = 5
NAMES_OF_HOSTS = ("DNS", "IP Address")

Details = dict[str, Any]
"""A certificate as `ssl.SSLSocket.getpeercert` describes it."""


class Anchors(NamedTuple):
    """Where the trusted certificates of a connection came from."""

    file: str = ""  # ServerCertificate
    problem: str = ""  # why that file cannot be used, "" if it was loaded
    dangling: bool = False  # it is a dangling link
    system: bool = True  # the system has CA certificates
    hosts: tuple[str, ...] = ()  # the hosts, with ports, that ServerURL and Servers name


def rejected(
    host: str, code: int, message: str, chain: Sequence[Details], anchors: Anchors, now: float
) -> errors.Error:
    """Return the error for a certificate of a connection to `host`.

    `code` and `message` are OpenSSL's, `chain` is what the host sent (leaf first), `now` is in seconds since
    1970.
    """
    certificate = f"The certificate of {host}"
    address = "correct ServerURL" if host in anchors.hosts else "correct the address in the server's answer"
    if code in OTHER_NAME:
        return errors.UntrustedServer(f"{certificate} {_other_name(host, chain)}, or {address}.")
    if code in (NOT_YET_VALID, EXPIRED):
        return _out_of_date(host, code, chain, now)
    if code in NO_ISSUER or code == SELF_SIGNED:
        return _unknown_issuer(host, code, chain, anchors, address)
    if code in TOO_WEAK:
        return errors.UntrustedServer(
            f"{certificate} or its issuer is too weak ({message}); issue one with RSA (2048 bits or more) or "
            "ECDSA, signed with SHA-256 or better."
        )
    if code == WRONG_PURPOSE:
        return errors.UntrustedServer(
            f"{certificate} is not a server certificate ({message}); issue one with the extended key usage "
            "serverAuth."
        )
    if code in NOT_A_CA:
        return errors.UntrustedServer(
            f"{certificate} was issued by {_issuer(chain)}, which is not a CA ({message}); issue one with a "
            "valid CA."
        )
    return errors.UntrustedServer(
        f"{certificate} is not valid ({_visible(message, 120)}); issue another one, or {address}."
    )


def _other_name(host: str, chain: Sequence[Details]) -> str:
    """Return which names the certificate is valid for, and what to do, as the end of a message."""
    if not chain:
        return "is for another name; issue one for this name"
    named = chain[0].get("subjectAltName", ())
    names = [_visible(str(value)) for kind, value in named if kind in NAMES_OF_HOSTS]
    if not names:
        return (
            f"has no subjectAltName, and its common name {_subject(chain[0])} is ignored; issue one with a "
            "subjectAltName"
        )
    bare = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    is_address = ":" in bare or not bare.strip("0123456789.")
    if is_address and bare in [str(value).rstrip(".") for kind, value in named if kind == "DNS"]:
        return (
            f"has the address {bare} as a DNS name, which is ignored; issue one that has it as an IP address "
            "in its subjectAltName"
        )
    shown = ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")
    label, _, domain = host.partition(":")[0].partition(".")
    if "_" in label and f"*.{domain}" in names:
        return (
            f"is for {shown}, and a wildcard does not cover a name with an underscore; issue one for the "
            "exact name"
        )
    return f"is for {shown}; issue one for this name"


def _out_of_date(host: str, code: int, chain: Sequence[Details], now: float) -> errors.Error:
    clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    early = code == NOT_YET_VALID
    at_fault = [_is_out_of_date(details, now, early=early) for details in chain]
    if not chain or at_fault[0]:
        certificate = f"The certificate of {host}"
    else:
        name = _subject(chain[at_fault.index(True)]) if True in at_fault else "at its root"
        certificate = f"The CA certificate {name}, which the certificate of {host} depends on,"
    if early:
        return errors.TemporaryError(
            f"{certificate} is not valid yet by this device's clock ({clock}); set the clock."
        )
    return errors.UntrustedServer(
        f"{certificate} has expired by this device's clock ({clock}); renew it, or set the clock."
    )


def _is_out_of_date(details: Details, now: float, *, early: bool) -> bool:
    try:
        limit = ssl.cert_time_to_seconds(details["notBefore" if early else "notAfter"])
    except (KeyError, ValueError):
        return False
    return now < limit if early else now > limit


def _unknown_issuer(
    host: str, code: int, chain: Sequence[Details], anchors: Anchors, address: str
) -> errors.Error:
    what = f"The certificate of {host} is not trusted"
    if code == SELF_SIGNED:
        what += ": it is self-signed"
        wanted = "it"
    else:
        what += f": its issuer {_issuer(chain)} is unknown" if chain else ": its issuer is unknown"
        wanted = "its CA"
    if anchors.problem:
        kind = errors.SettingsError if anchors.dangling else errors.UntrustedServer
        return kind(f"{what}, and ServerCertificate {anchors.file} {anchors.problem}")
    if anchors.file:
        return errors.UntrustedServer(
            f"{what}, and ServerCertificate {anchors.file} does not contain it; add {wanted} to that "
            f"file, or {address}."
        )
    if not anchors.system:
        return errors.UntrustedServer(
            f"{what}, and this system has no CA certificates; install ca-certificates, or put {wanted} into "
            "ServerCertificate."
        )
    return errors.UntrustedServer(f"{what}; put {wanted} into ServerCertificate, or {address}.")


def _issuer(chain: Sequence[Details]) -> str:
    return _common_name(chain[-1].get("issuer", ())) if chain else "a CA"


def _subject(details: Details) -> str:
    return _common_name(details.get("subject", ()))


def _common_name(name: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Return the most specific name in a distinguished name, quoted."""
    members = {kind: value for part in name for kind, value in part}
    for kind in ("commonName", "organizationalUnitName", "organizationName"):
        if kind in members:
            return f'"{_visible(members[kind])}"'
    return "without a name"


def _visible(text: str, limit: int = SHOWN) -> str:
    text = "".join(character if character.isprintable() else "?" for character in text.strip())
    return text if len(text) <= limit else text[:limit] + "..."
