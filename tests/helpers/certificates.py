"""Certificates of every kind, valid and invalid, and a TLS server that presents them."""

import contextlib
import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC))
LONG_AGO = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC))
SOME_DAY = (datetime(2990, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC))
LOOPBACK = ("127.0.0.1",)

NOT_ACCEPTED = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 42\r\n"
    b'Connection: close\r\n\r\n{"error":"dev auth pend","request_id":"1"}'
)


class Issued(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, PKCS#8."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    ca: bool = False,
    names: Sequence[str] = (),
    key: PrivateKey | None = None,
    valid: tuple[datetime, datetime] = ALWAYS,
    usage: bool = True,
    identifiers: bool = True,
    purpose: x509.ObjectIdentifier | None = None,
) -> Issued:
    """Issue a certificate, self-signed without an issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    by = issuer or Issued(None, key)  # type: ignore[arg-type]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if usage:
        signs = {"key_cert_sign": ca, "crl_sign": ca, "digital_signature": not ca}
        others = (
            "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
            "decipher_only",
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(**signs, **dict.fromkeys(others, False)), critical=True)
    if identifiers:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
        builder = builder.add_extension(own, critical=False).add_extension(theirs, critical=False)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(n) for n in names]), critical=False
        )
    if purpose:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return Issued(builder.sign(by.key, hashes.SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def weak_key(bits: int) -> rsa.RSAPrivateKey:
    """Return an RSA key that is too short for the library to generate."""
    done = subprocess.run(["openssl", "genrsa", str(bits)], capture_output=True, check=True)
    key = serialization.load_pem_private_key(done.stdout, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


class Shown:
    """A server on loopback that presents a chain and answers every request with the same bytes."""

    def __init__(self, directory: Path, chain: Sequence[Issued], answer: bytes, address: str) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The server presents anything; the client has to reject it.
        self.context.set_ciphers("ALL:@SECLEVEL=0")
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "shown.pem"
        file.write_bytes(chain[0].key_pem + b"".join(issued.pem for issued in chain))
        self.context.load_cert_chain(file)
        self._listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Shown":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                stream = self._listener.accept()[0]
            except OSError:
                return
            stream.settimeout(30)
            with (
                contextlib.suppress(OSError),
                self.context.wrap_socket(stream, server_side=True, do_handshake_on_connect=False) as secure,
            ):
                try:
                    secure.do_handshake()
                except ssl.SSLError:
                    # Unread bytes would reset the connection, and the alert would be lost.
                    while socket.socket.recv(secure, 65536):
                        pass
                    continue
                self.requests.append(_request(secure))
                secure.sendall(self._answer)


def _request(stream: socket.socket) -> bytes:
    """Return a whole request: unread bytes would reset the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += stream.recv(65536) or b"\r\n\r\n"
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((line.split()[1] for line in head.lower().splitlines() if b"content-length" in line), b"0")
    while len(body) < int(length) and (piece := stream.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def showing(
    directory: Path, *chain: Issued, answer: bytes = NOT_ACCEPTED, address: str = "127.0.0.1"
) -> Iterator[Shown]:
    """Run a server that presents a chain."""
    with Shown(directory, chain, answer, address) as server:
        yield server
