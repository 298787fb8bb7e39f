"""Generate, load and use the device key, and verify signatures of artifacts. The only user of `cryptography`.

Signature formats: device-api.md section 1.3 (authorization) and section 11 (artifacts).
"""

import logging

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import disk, errors, pem
from .settings import Settings

log = logging.getLogger(__name__)

RSA_BITS = 3072
SAFE_RSA_BITS = 2048
SAFE_EC_BITS = 224

DeviceKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
VerifyKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def make(settings: Settings) -> None:
    """Generate a device key and write it as PKCS#8 PEM with mode 0600, replacing an existing one atomically.

    Raises `errors.SettingsError` if Security.AuthPrivateKey is set, because the key of the user is never
    generated, or the key file is a dangling link; `errors.DiskError` or `errors.NoSpace` if it cannot be
    written.
    """
    if settings.auth_private_key:
        raise errors.SettingsError(
            f"Security.AuthPrivateKey {settings.auth_private_key} is never generated; install your key there."
        )
    key: DeviceKey
    if settings.key_type == "rsa":
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    disk.require_target(settings.key_file)
    disk.write_whole(settings.key_file, content)


def try_out() -> None:
    """Generate a key in memory and sign with it; raise what `cryptography` raises if it is broken."""
    sign(ed25519.Ed25519PrivateKey.generate(), b"")


def load(path: str) -> DeviceKey | None:
    """Return the device key, or None if the file does not exist.

    Raises `errors.SettingsError` for a key that is corrupt, encrypted, of another format or kind, or that
    another user owns or can write to; `errors.DiskError` if it cannot be read.
    """
    try:
        content = disk.read(path, 65536, private=True)
    except errors.UntrustedFile as error:
        raise errors.SettingsError(
            f"The device key {path} {error.reason}; if it is the right key, correct that: "
            f"chown root:root {path} && chmod 600 {path}"
        ) from error
    if content is None:
        return None
    block = pem.find(content, "PRIVATE KEY")
    if pem.is_encrypted(block):
        raise pem.encrypted("The device key", path)
    if block.startswith(b"-----BEGIN OPENSSH"):
        raise errors.SettingsError(
            f"The device key {path} is in OpenSSH format; convert it: ssh-keygen -p -m PEM -f {path}"
        )
    try:
        key = serialization.load_pem_private_key(block, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        # Never replaced automatically: with a new key the server has to accept the device again.
        why = "is corrupt or of an unknown kind" if block else pem.why_none(content, "PRIVATE KEY")
        raise errors.SettingsError(
            f"The device key {path} {why}; restore it, or create a new one: mender-oneshot bootstrap --force"
        ) from error
    if not isinstance(key, DeviceKey):
        raise errors.SettingsError(
            f"The device key {path} is neither RSA, ECDSA nor Ed25519; use one of these."
        )
    return key


def public_pem(key: DeviceKey) -> str:
    """Return the public key as PEM (SubjectPublicKeyInfo), the only format that the server accepts."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def sign(key: DeviceKey, body: bytes) -> bytes:
    """Return the raw signature of the exact bytes of an authorization request."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(body, ec.ECDSA(hashes.SHA256()))
    return key.sign(body)


def load_verify_keys(paths: tuple[str, ...]) -> list[VerifyKey]:
    """Return the keys that artifacts may be signed with; raise `errors.SettingsError` if one is unusable.

    Logs a warning for a weak key but accepts it: rejecting it would cut off fleets in the field.
    """
    keys = [load_verify_key(path) for path in paths]
    for path, key in zip(paths, keys, strict=True):
        if weakness(key):
            log.warning("%s", weak_key_message(path, weakness(key)))
    return keys


def load_verify_key(path: str) -> VerifyKey:
    """Return one key that artifacts may be signed with; raise `errors.SettingsError` if it is unusable."""
    name = f"The ArtifactVerifyKey {path}"
    content = pem.read("The ArtifactVerifyKey", path)
    block = pem.find(content, "PUBLIC KEY")
    if not block:
        held = [label for label, _ in pem.blocks(content)]
        remedy = "put a public key there, in PEM."
        if "CERTIFICATE" in held:
            remedy = f"extract its public key: openssl x509 -in {path} -noout -pubkey"
        elif any(label.endswith("PRIVATE KEY") for label in held):
            remedy = (
                f"keep that key off the device and extract its public half: openssl pkey -in {path} -pubout"
            )
        raise errors.SettingsError(f"{name} {pem.why_none(content, 'PUBLIC KEY')}; {remedy}")
    try:
        key = serialization.load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm, InternalError) as error:
        raise errors.SettingsError(
            f"{name} is corrupt or of an unknown kind; put an RSA or ECDSA public key there, in PEM."
        ) from error
    if not isinstance(key, VerifyKey):
        raise errors.SettingsError(
            f"{name} is neither RSA nor ECDSA, the only kinds that can sign artifacts; use one of these."
        )
    return key


def weakness(key: VerifyKey) -> str:
    """Return why the signatures of a key can be forged, such as "RSA with 1024 bits", or ""."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA with {key.key_size} bits" if key.key_size < SAFE_RSA_BITS else ""
    return f"ECDSA with {key.key_size} bits" if key.key_size < SAFE_EC_BITS else ""


def weak_key_message(path: str, weakness: str) -> str:
    """Return the message for a weak key that artifacts may be signed with."""
    return (
        f"The ArtifactVerifyKey {path} is too weak ({weakness}), so signatures can be forged; replace it by "
        f"RSA with {SAFE_RSA_BITS} bits or more, or by ECDSA P-256, and sign artifacts with that."
    )


def signed_by_one_of(keys: list[VerifyKey], manifest: bytes, signature: bytes) -> bool:
    """Return whether one of the keys signed the manifest of an artifact."""
    return any(_verifies(key, manifest, signature) for key in keys)


def _verifies(key: VerifyKey, manifest: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, manifest, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(_der(signature), manifest, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _der(signature: bytes) -> bytes:
    """Convert the 64 bytes R|S that mender-artifact writes to DER; return anything else unchanged."""
    if len(signature) != 64:
        return signature
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
