"""Keys and tokens: checks a device's signature, signs JWTs, signs links. Knows no device and no state."""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from mender_oneshot.devserver.rules import Refusal

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def load_public_key(pem: Any) -> tuple[PublicKey, str]:
    """The key of an auth request and its PEM as the server writes it (device-api.md 1.1).

    Only a block of type PUBLIC KEY will do; how its lines are wrapped does not matter.
    """
    bad = Refusal(400, "invalid auth request: cannot decode public key")
    block = re.search(r"-----BEGIN ([^-]+)-----", pem) if isinstance(pem, str) else None
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
    """Refuse a body whose `X-MEN-Signature` was not made with `key` (device-api.md 1.3)."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(raw, body, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(raw, body, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(raw, body)
    except (InvalidSignature, binascii.Error, ValueError):
        raise Refusal(401, "signature verification failed") from None


class Signer:
    """The server's own key pair and secret, new for each run of the server."""

    def __init__(self) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        self._secret = secrets.token_bytes(32)

    def jwt(self, claims: dict[str, Any]) -> str:
        """A signed token, EdDSA as a server with an Ed25519 key makes it (device-api.md 1.5)."""
        parts = [_encode(json.dumps(part).encode()) for part in ({"alg": "EdDSA", "typ": "JWT"}, claims)]
        return ".".join([*parts, _encode(self._key.sign(".".join(parts).encode()))])

    def claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token this server signed, expired or not; None for anything else."""
        try:
            head, payload, signature = token.split(".")
            self._key.public_key().verify(_decode(signature), f"{head}.{payload}".encode())
            claims: dict[str, Any] = json.loads(_decode(payload))
        except (ValueError, InvalidSignature):
            return None
        return claims

    def mac(self, *parts: str) -> str:
        """The signature of a link, in hexadecimal."""
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()

    def mac_matches(self, signature: str, *parts: str) -> bool:
        """Tell whether `mac` made this signature of these parts."""
        return hmac.compare_digest(signature.encode(), self.mac(*parts).encode())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
