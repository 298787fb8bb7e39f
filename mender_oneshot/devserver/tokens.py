"""Keys and tokens: verifies a device's signature, signs JWTs and links; independent of devices and state."""

import base64
import binascii
import functools
import hashlib
import hmac
import json
import re
import secrets
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from .validation import HTTPError

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def load_public_key(pem: str) -> tuple[PublicKey, str]:
    """Return the key of a PEM text, and its PEM as the server writes it.

    Only a block of type PUBLIC KEY is accepted; its line lengths do not matter. Raise HTTPError 400.
    """
    bad = HTTPError(400, "cannot decode public key")
    block = re.search(r"-----BEGIN ([^-]+)-----", pem)
    if not block or block[1] != "PUBLIC KEY":
        raise bad
    try:
        key = serialization.load_pem_public_key(pem[block.start() :].encode())
    except (ValueError, UnsupportedAlgorithm):
        raise bad from None
    if not isinstance(key, PublicKey):
        raise bad
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, text.decode()


def check_signature(key: PublicKey, signature: str, body: bytes) -> None:
    """Raise HTTPError 401 unless `X-MEN-Signature` was made with `key` (device-api.md 1.3)."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(raw, body, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(raw, body, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(raw, body)
    except (InvalidSignature, binascii.Error, ValueError):
        raise HTTPError(401, "signature verification failed") from None


@functools.cache
def _signing_key() -> rsa.RSAPrivateKey:
    """Return the key pair of this process; generating one takes too long to do it for every server."""
    return rsa.generate_private_key(65537, 2048)


class Signer:
    """The server's key pair and secret."""

    def __init__(self) -> None:
        self._key = _signing_key()
        self._secret = secrets.token_bytes(32)

    def jwt(self, claims: dict[str, Any]) -> str:
        """Return a signed token, RS256 as from a server with an RSA key."""
        parts = [_encode(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
        signed = self._key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join([*parts, _encode(signed)])

    def claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token that this server signed, expired or not; None for anything else."""
        try:
            head, payload, signature = token.split(".")
            signed = f"{head}.{payload}".encode()
            self._key.public_key().verify(_decode(signature), signed, padding.PKCS1v15(), hashes.SHA256())
            claims: dict[str, Any] = json.loads(_decode(payload))
        except (ValueError, InvalidSignature):
            return None
        return claims

    def mac(self, *parts: str) -> str:
        """Return the signature of a link, in hexadecimal."""
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()

    def mac_matches(self, signature: str, *parts: str) -> bool:
        """Return whether `mac` returns this signature for these parts."""
        return hmac.compare_digest(signature.encode(), self.mac(*parts).encode())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
