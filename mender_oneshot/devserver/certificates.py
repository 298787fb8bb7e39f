"""Creates a certificate authority and a server certificate, so that no device needs `SkipVerify`."""

import ipaddress
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Long enough for any clock that a test sets, including a board without a battery (1970 at boot).
ALWAYS = (datetime(1969, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC))
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def make(
    directory: Path, names: Iterable[str] = (), validity: tuple[datetime, datetime] = ALWAYS
) -> tuple[Path, Path]:
    """Issue a server certificate from the CA in `directory`; return the paths of two PEM files.

    The first is the CA certificate, the second the server's key and certificate. The CA is created once
    (`ca.pem`, `ca-key.pem`), because devices are configured to trust it; the server certificate is new each
    time. Raise ValueError if the CA key is not an elliptic-curve key.
    """
    ca_file, ca_key_file, server_file = (directory / f"{n}.pem" for n in ("ca", "ca-key", "server"))
    if ca_file.exists() and ca_key_file.exists():
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
        ca_key = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            raise ValueError(
                f"{ca_key_file} is not an elliptic-curve key; delete it and ca.pem to create a new CA"
            )
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _certificate("mender-oneshot development CA", ca_key, None, ca_key, (), ALWAYS)
        _write_private(ca_key_file, _key_pem(ca_key))
        ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("mender-oneshot-devserver", key, ca, ca_key, (*LOCAL_NAMES, *names), validity)
    _write_private(server_file, _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
    return ca_file, server_file


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: Iterable[str],
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    is_ca = issuer is None
    # Python 3.13 verifies strictly and requires both key identifiers, key usage and path length.
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not is_ca:
        alternatives = [_general_name(text) for text in dict.fromkeys(names)]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
