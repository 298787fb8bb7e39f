"""The device key: create, load, sign; and the keys that artifacts are signed with. The only file that knows
`cryptography`.

Forms of signatures: device-api.md section 1.3 (authorization) and section 11 (artifacts).
"""

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import disk, errors
from .settings import Settings

RSA_BITS = 3072

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
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    disk.require_target(settings.key_file)
    disk.write_whole(settings.key_file, pem)


def try_out() -> None:
    """Make a key in memory and sign with it; raises what `cryptography` raises if it does not work here."""
    sign(ed25519.Ed25519PrivateKey.generate(), b"")


def load(path: str) -> DeviceKey | None:
    """Read the device key, or None if there is none.

    Raises `errors.SettingsError` for a damaged key, and for one that another user may have put there.
    """
    try:
        pem = disk.read(path, 65536, private=True)
    except errors.NotOurs as error:
        raise errors.SettingsError(
            f"The device key {path} {error.reason}; if it is the right key, take it over: "
            f"chown root:root {path} && chmod 600 {path}"
        ) from error
    if pem is None:
        return None
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        # Never replaced by itself: a new key makes this a new device for the server.
        why = "has a passphrase" if isinstance(error, TypeError) else "is damaged or of an unknown kind"
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
    """Read the keys that artifacts may be signed with; raises `errors.SettingsError` when one is unusable."""
    keys = []
    for path in paths:
        try:
            pem = disk.read(path, 65536)
            key = serialization.load_pem_public_key(pem or b"")
        except (errors.Error, ValueError, UnsupportedAlgorithm, InternalError) as error:
            raise errors.SettingsError(
                f"The ArtifactVerifyKey {path} cannot be read; put a PEM there."
            ) from error
        if not isinstance(key, VerifyKey):
            raise errors.SettingsError(
                f"The ArtifactVerifyKey {path} is neither RSA nor ECDSA; use one of these."
            )
        keys.append(key)
    return keys


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
