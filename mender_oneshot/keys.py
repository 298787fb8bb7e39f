"""The device key: create, load, sign; and the keys that artifacts are signed with. The only file that knows
`cryptography`.

Forms of signatures: device-api.md section 1.3 (authorization) and section 11 (artifacts).
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
    """Make a new device key and write it as PKCS#8 PEM, 0600 from its first byte.

    Raises `errors.SettingsError` where the user configured a key of their own: that one is never made here.
    """
    if settings.auth_private_key:
        raise errors.SettingsError(
            f"Security.AuthPrivateKey {settings.auth_private_key} is never made here; put your key there."
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
    """Make a key in memory and sign with it; raises what `cryptography` raises if it does not work here."""
    sign(ed25519.Ed25519PrivateKey.generate(), b"")


def load(path: str) -> DeviceKey | None:
    """Read the device key, or None if there is none.

    Raises `errors.SettingsError` for a damaged key, and for one that another user may have put there.
    """
    try:
        content = disk.read(path, 65536, private=True)
    except errors.UntrustedFile as error:
        raise errors.SettingsError(
            f"The device key {path} {error.reason}; if it is the right key, take it over: "
            f"chown root:root {path} && chmod 600 {path}"
        ) from error
    if content is None:
        return None
    block = pem.find(content, "PRIVATE KEY")
    if pem.is_encrypted(block):
        raise pem.encrypted("The device key", path)
    if block.startswith(b"-----BEGIN OPENSSH"):
        raise errors.SettingsError(
            f"The device key {path} is in the form of OpenSSH; convert it: ssh-keygen -p -m PEM -f {path}"
        )
    try:
        key = serialization.load_pem_private_key(block, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        # Never replaced automatically: with a new key the server takes this for a new device.
        why = "is damaged or of an unknown kind" if block else pem.why_none(content, "PRIVATE KEY")
        raise errors.SettingsError(
            f"The device key {path} {why}; restore it, or make a new one: mender-oneshot bootstrap --force"
        ) from error
    if not isinstance(key, DeviceKey):
        raise errors.SettingsError(
            f"The device key {path} is neither RSA, ECDSA nor Ed25519; use one of these."
        )
    return key


def public_pem(key: DeviceKey) -> str:
    """Return the public half as PEM, SubjectPublicKeyInfo: the only form that the server takes."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def sign(key: DeviceKey, body: bytes) -> bytes:
    """Sign the exact bytes of an authorization request."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(body, ec.ECDSA(hashes.SHA256()))
    return key.sign(body)


def load_verify_keys(paths: tuple[str, ...]) -> list[VerifyKey]:
    """Read the keys that artifacts may be signed with; raises `errors.SettingsError` when one is unusable.

    Warns of a weak one but takes it: rejecting it would cut off a fleet that is already out there.
    """
    keys = [load_verify_key(path) for path in paths]
    for path, key in zip(paths, keys, strict=True):
        if weakness(key):
            log.warning("%s", weak_key_sentence(path, weakness(key)))
    return keys


def load_verify_key(path: str) -> VerifyKey:
    """Read one key that artifacts may be signed with; raises `errors.SettingsError` when it is unusable."""
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
            f"{name} is damaged or of an unknown kind; put an RSA or ECDSA public key there, in PEM."
        ) from error
    if not isinstance(key, VerifyKey):
        raise errors.SettingsError(
            f"{name} is neither RSA nor ECDSA, and artifacts are signed with no other kind; use one of these."
        )
    return key


def weakness(key: VerifyKey) -> str:
    """Say what makes a key easy to forge signatures with, "" if nothing does."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA with {key.key_size} bits" if key.key_size < SAFE_RSA_BITS else ""
    return f"ECDSA with {key.key_size} bits" if key.key_size < SAFE_EC_BITS else ""


def weak_key_sentence(path: str, weakness: str) -> str:
    """Say that the signatures of a key can be forged, and what to do."""
    return (
        f"The ArtifactVerifyKey {path} is too weak ({weakness}), so signatures can be forged; sign with RSA "
        f"of {SAFE_RSA_BITS} bits or more, or with ECDSA P-256, and replace it."
    )


def signed_by_one_of(keys: list[VerifyKey], manifest: bytes, signature: bytes) -> bool:
    """Say whether one of the keys signed the manifest of an artifact."""
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
    """Turn the 64 bytes R|S that mender-artifact writes into DER; anything else is taken as DER already."""
    if len(signature) != 64:
        return signature
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
