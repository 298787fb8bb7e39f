"""Keys made elsewhere or here: they load, they sign, and what they sign others can verify."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from helpers.certificates import issue
from helpers.device import Device
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot import keys
from mender_oneshot.errors import DiskError, SettingsError
from mender_oneshot.keys import DeviceKey
from mender_oneshot.paths import Places
from mender_oneshot.settings import Settings

BODY = b'{"id_data":"{\\"mac\\":\\"a\\"}"}'
PEM = serialization.Encoding.PEM
PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()

PRIVATE: dict[str, tuple[DeviceKey, bytes]] = {
    "RSA PKCS#1": (RSA, RSA.private_bytes(PEM, TRADITIONAL, PLAIN)),
    "RSA PKCS#8": (RSA, RSA.private_bytes(PEM, PKCS8, PLAIN)),
    "EC SEC1": (P256, P256.private_bytes(PEM, TRADITIONAL, PLAIN)),
    "EC PKCS#8": (P256, P256.private_bytes(PEM, PKCS8, PLAIN)),
    "Ed25519 PKCS#8": (ED25519, ED25519.private_bytes(PEM, PKCS8, PLAIN)),
}


def sealed(key: DeviceKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(PEM, form, serialization.BestAvailableEncryption(b"secret"))


def public(key: DeviceKey | ed448.Ed448PrivateKey) -> bytes:
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def settings(directory: Path, **changes: str) -> Settings:
    return Settings(Places("", "", False, "", "", str(directory)))._replace(**changes)  # type: ignore[arg-type]


def loaded(path: Path) -> DeviceKey:
    key = keys.load(str(path))
    assert key is not None
    return key


def verify(pem: bytes, signature: bytes, body: bytes) -> None:
    """What the server does (device-api.md section 1.3)."""
    key = serialization.load_pem_public_key(pem)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, body, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    else:
        assert isinstance(key, ed25519.Ed25519PublicKey)
        key.verify(signature, body)


# The device key.


@pytest.mark.parametrize(("key", "pem"), PRIVATE.values(), ids=PRIVATE.keys())
def test_keys_made_elsewhere_load_and_sign(tmp_path: Path, key: DeviceKey, pem: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    found = loaded(path)
    public_half = keys.public_pem(found)
    assert public_half.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert public_half.encode() == public(key)
    signature = keys.sign(found, BODY)
    verify(public_half.encode(), signature, BODY)
    with pytest.raises(InvalidSignature):
        verify(public_half.encode(), signature, BODY + b" ")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=["P-384", "P-521"])
def test_other_curves_sign_too(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(ec.generate_private_key(curve).private_bytes(PEM, PKCS8, PLAIN))
    key = loaded(path)
    verify(keys.public_pem(key).encode(), keys.sign(key, BODY), BODY)


@pytest.mark.parametrize(
    "change", [lambda pem: pem.replace(b"\n", b"\r\n"), lambda pem: b"# a comment\n" + pem + b"\n\n"]
)
@pytest.mark.parametrize(("key", "pem"), PRIVATE.values(), ids=PRIVATE.keys())
def test_what_editors_do_to_a_key_does_no_harm(
    tmp_path: Path, key: DeviceKey, pem: bytes, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(change(pem))
    assert keys.public_pem(loaded(path)).encode() == public(key)


def test_no_key_is_none(tmp_path: Path) -> None:
    assert keys.load(str(tmp_path / "none")) is None


X25519 = x25519.X25519PrivateKey.generate().private_bytes(PEM, PKCS8, PLAIN)
ED448 = ed448.Ed448PrivateKey.generate()
DSA = dsa.generate_private_key(1024)
RSA_PEM = PRIVATE["RSA PKCS#1"][1]

BAD: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n",
    "NULs": bytes(1704),
    "text": b"hello\n",
    "frame alone": b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    "RSA cut short": RSA_PEM[:800],
    "RSA without an end": RSA_PEM.rpartition(b"-----END")[0],
    "RSA, a line lost": RSA_PEM.replace(RSA_PEM.splitlines(keepends=True)[5], b""),
    "RSA, NULs over the end": RSA_PEM[:1024] + bytes(680),
    "EC cut short": PRIVATE["EC SEC1"][1][:100],
    "Ed25519 cut short": PRIVATE["Ed25519 PKCS#8"][1][:60],
    "DER, not PEM": RSA.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN),
    "public half": public(RSA),
    "X25519": X25519,
    "Ed448": ED448.private_bytes(PEM, PKCS8, PLAIN),
    "DSA": DSA.private_bytes(PEM, PKCS8, PLAIN),
    "RSA PKCS#8 sealed": sealed(RSA, PKCS8),
    "EC PKCS#8 sealed": sealed(P256, PKCS8),
    "Ed25519 PKCS#8 sealed": sealed(ED25519, PKCS8),
    "RSA PKCS#1 sealed": sealed(RSA, TRADITIONAL),
    "EC SEC1 sealed": sealed(P256, TRADITIONAL),
}


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        keys.load(str(path))
    said = str(caught.value)
    assert caught.value.exit_code == 78
    assert said.startswith(f"The device key {path} ")
    assert said.isprintable()
    assert "PRIVATE" not in said
    return said


@pytest.mark.parametrize("pem", BAD.values(), ids=BAD.keys())
def test_a_bad_key_is_a_sentence_and_stays(tmp_path: Path, pem: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    refusal(path)
    assert path.read_bytes() == pem


@pytest.mark.parametrize("name", [name for name in BAD if name.endswith("sealed")])
def test_a_sealed_key_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(BAD[name])
    assert "passphrase" in refusal(path)


@pytest.mark.parametrize("letter", [b"v", b"x"], ids=["X448", "Ed448"])
def test_one_bit_that_makes_a_key_one_of_another_kind(tmp_path: Path, letter: bytes) -> None:
    whole = PRIVATE["Ed25519 PKCS#8"][1]
    assert whole[43:44] == b"w"  # in the object identifier
    path = tmp_path / "key.pem"
    path.write_bytes(whole[:43] + letter + whole[44:])
    refusal(path)


@pytest.mark.parametrize("name", [name for name in BAD if name.endswith("sealed")])
def test_a_sealed_key_is_kept_and_unsealed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(BAD[name])
    said = refusal(path)
    assert "--force" not in said  # a new key would make a new device
    # The command of the sentence, with the passphrase that it asks for.
    command = said.partition("remove it: ")[2].replace("openssl pkey", "openssl pkey -passin pass:secret")
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)
    assert keys.public_pem(loaded(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


CERTIFICATE = issue("board", key=P256)

WORDS = {
    "empty": "is empty",
    "text": "is not PEM",
    "NULs": "is not PEM",
    "DER, not PEM": "is DER, not PEM",
    "public half": "contains no private key (found: PUBLIC KEY)",
    "RSA without an end": "is corrupt",
    "RSA, a line lost": "is corrupt",
    "X25519": "neither RSA, ECDSA nor Ed25519",
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_wrong_with_a_key(tmp_path: Path, name: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(BAD[name])
    assert WORDS[name] in refusal(path)


def test_a_certificate_in_place_of_a_key_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(CERTIFICATE.pem)
    assert "found: CERTIFICATE" in refusal(path)


def test_a_key_of_openssh_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(P256.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN))
    path.chmod(0o600)
    command = refusal(path).partition("convert it: ")[2].split()
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    subprocess.run([*command, "-N", "", "-P", ""], check=True, capture_output=True)
    assert keys.public_pem(loaded(path)).encode() == public(P256)


PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize(
    "content",
    [
        PARAMETERS + PRIVATE["EC SEC1"][1],
        CERTIFICATE.pem + PRIVATE["EC PKCS#8"][1],
        PRIVATE["EC PKCS#8"][1] + CERTIFICATE.pem,
        b"\xef\xbb\xbf" + PRIVATE["EC PKCS#8"][1],
        b"\xef\xbb\xbf" + PRIVATE["EC SEC1"][1].replace(b"\n", b"\r\n"),
        b"Bag Attributes: gr\xe4\n" + PRIVATE["EC PKCS#8"][1],
    ],
    ids=["parameters", "certificate before", "certificate after", "BOM", "BOM and CRLF", "comment"],
)
def test_a_key_among_other_things(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    assert keys.public_pem(loaded(path)).encode() == public(P256)


def test_a_damaged_key_has_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"")
    assert "bootstrap --force" in refusal(path)


@given(st.sampled_from(sorted(PRIVATE)), st.integers(0, 2000), st.integers(1, 255))
@examples(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_byte_makes_a_key_a_key_or_a_sentence(tmp_path: Path, name: str, place: int, change: int) -> None:
    pem = bytearray(PRIVATE[name][1])
    pem[place % len(pem)] ^= change
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    try:
        key = loaded(path)
    except SettingsError:
        return
    assert keys.public_pem(key)


def test_a_key_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DiskError):
        keys.load(str(tmp_path / "fifo"))
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    with pytest.raises(DiskError):
        keys.load(str(tmp_path / "large"))


# Keys made here.


@pytest.mark.parametrize(
    ("kind", "expected"), [("ed25519", ed25519.Ed25519PrivateKey), ("rsa", rsa.RSAPrivateKey)]
)
def test_a_key_made_here(tmp_path: Path, kind: str, expected: type[DeviceKey]) -> None:
    path = tmp_path / "mender-agent.pem"
    before = os.umask(0)
    try:
        keys.make(settings(tmp_path, key_type=kind))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert os.listdir(tmp_path) == [path.name]
    key = loaded(path)
    assert isinstance(key, expected)
    if isinstance(key, rsa.RSAPrivateKey):
        assert key.key_size == 3072
    verify(keys.public_pem(key).encode(), keys.sign(key, BODY), BODY)


def test_a_new_key_is_new(tmp_path: Path) -> None:
    made = set()
    for _ in range(3):
        keys.make(settings(tmp_path))
        made.add((tmp_path / "mender-agent.pem").read_bytes())
    assert len(made) == 3


@pytest.mark.parametrize("there", [True, False])
def test_a_configured_key_is_never_made(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "mine.pem"
    if there:
        path.write_bytes(RSA_PEM)
    with pytest.raises(SettingsError, match="AuthPrivateKey"):
        keys.make(settings(tmp_path, auth_private_key=str(path)))
    assert os.listdir(tmp_path) == ([path.name] if there else [])
    assert not there or path.read_bytes() == RSA_PEM


def test_a_key_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        keys.make(settings(tmp_path / "nowhere"))


# Artifacts.

MANIFEST = b"0" * 64 + b"  version\n"
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_P256 = ec.generate_private_key(ec.SECP256R1())


def rsa_signature(manifest: bytes = MANIFEST, key: rsa.RSAPrivateKey = RSA) -> bytes:
    return key.sign(manifest, padding.PKCS1v15(), hashes.SHA256())


def der(manifest: bytes = MANIFEST, key: ec.EllipticCurvePrivateKey = P256) -> bytes:
    return key.sign(manifest, ec.ECDSA(hashes.SHA256()))


def raw(signature: bytes) -> bytes:
    """The 64 bytes that mender-artifact writes."""
    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))


def one_with_a_short_number() -> bytes:
    """A signature one of whose numbers begins with a zero byte."""
    while True:
        signature = raw(der())
        if not signature[0] or not signature[32]:
            return signature


def verify_keys(directory: Path, *pems: bytes) -> list[keys.VerifyKey]:
    paths = []
    for number, pem in enumerate(pems):
        path = directory / f"verify-{number}.pem"
        path.write_bytes(pem)
        paths.append(str(path))
    return keys.load_verify_keys(tuple(paths))


@pytest.mark.parametrize(
    "signature",
    [rsa_signature(), der(), raw(der()), one_with_a_short_number()],
    ids=["RSA", "ECDSA DER", "ECDSA 64 bytes", "ECDSA 64 bytes, padded"],
)
def test_an_artifact_signed_by_one_of_several_keys(tmp_path: Path, signature: bytes) -> None:
    found = verify_keys(tmp_path, public(OTHER_P256), public(RSA), public(OTHER_RSA), public(P256))
    assert keys.signed_by_one_of(found, MANIFEST, signature)
    assert not keys.signed_by_one_of(found, MANIFEST + b"\n", signature)
    assert not keys.signed_by_one_of(found[::2], MANIFEST, signature)
    assert not keys.signed_by_one_of([], MANIFEST, signature)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\0",
        bytes(64),
        b"\xff" * 64,
        bytes(256),
        b"\xff" * 256,
        b"0\x06\x02\x01\x00\x02\x01\x00",
        raw(der())[:63],
        raw(der()) + b"\0",
        raw(der())[32:] + raw(der())[:32],
        der()[:-1],
        der() + b"\0",
        rsa_signature()[:-1],
        rsa_signature(key=OTHER_RSA),
        der(key=OTHER_P256),
        raw(der(key=OTHER_P256)),
    ],
    ids=range(16),
)
def test_what_is_no_signature(tmp_path: Path, signature: bytes) -> None:
    found = verify_keys(tmp_path, public(RSA), public(P256))
    assert not keys.signed_by_one_of(found, MANIFEST, signature)


@given(st.binary(max_size=80) | st.binary(min_size=64, max_size=64) | st.binary(min_size=256, max_size=256))
@examples(deadline=None)
def test_no_bytes_break_the_test_of_a_signature(signature: bytes) -> None:
    found = [key.public_key() for key in (RSA, P256)]
    assert not keys.signed_by_one_of(found, MANIFEST, signature)


BAD_FOR_ARTIFACTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "is not PEM"),
    "DER": (P256.public_key().public_bytes(serialization.Encoding.DER, SPKI), "is DER, not PEM"),
    "private half": (RSA_PEM, "keep that key off the device"),
    "certificate": (CERTIFICATE.pem, "openssl x509 -in"),
    "cut short": (public(RSA)[:200], "is corrupt"),
    "a line lost": (public(RSA).replace(public(RSA).splitlines(keepends=True)[2], b""), "is corrupt"),
    "Ed25519": (public(ED25519), "neither RSA nor ECDSA"),
    "Ed448": (public(ED448), "neither RSA nor ECDSA"),
}


@pytest.mark.parametrize("name", BAD_FOR_ARTIFACTS)
def test_a_bad_key_for_artifacts_is_a_sentence(tmp_path: Path, name: str) -> None:
    pem, words = BAD_FOR_ARTIFACTS[name]
    with pytest.raises(SettingsError, match="ArtifactVerifyKey .*verify-1.pem") as caught:
        verify_keys(tmp_path, public(RSA), pem)
    assert str(caught.value).isprintable()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("made", "weakness"),
    [
        ("genrsa 512", "RSA with 512 bits"),
        ("genrsa 1024", "RSA with 1024 bits"),
        ("genrsa 2047", "RSA with 2047 bits"),
        ("genrsa 2048", ""),
        ("ecparam -genkey -noout -name prime192v1", "ECDSA with 192 bits"),
        ("ecparam -genkey -noout -name secp224r1", ""),
        ("ecparam -genkey -noout -name prime256v1", ""),
        ("ecparam -genkey -noout -name secp384r1", ""),
    ],
)
def test_a_weak_key_for_artifacts_is_taken_with_a_warning(
    accepted: Device, tmp_path: Path, release: Callable[..., str], made: str, weakness: str
) -> None:
    path = tmp_path / "verify.pem"
    private = subprocess.run(["openssl", *made.split()], check=True, capture_output=True).stdout
    path.write_bytes(
        subprocess.run(["openssl", "pkey", "-pubout"], input=private, check=True, capture_output=True).stdout
    )
    accepted.configure(ArtifactVerifyKey=str(path))
    accepted.sub_updater()
    release()
    done = accepted.run("run", "--all")
    assert done.code == 65, done  # it is not signed
    assert done.err.count("signatures can be forged") == (1 if weakness else 0)
    assert weakness in done.err
    wrong = [check for check in accepted.run("doctor", "--json").json["checks"] if not check["ok"]]
    assert [check["message"] for check in wrong if check["name"] == "verify keys"] == (
        [keys.weak_key_message(str(path), weakness)] if weakness else []
    )


@pytest.mark.parametrize(
    "change", [lambda pem: b"\xef\xbb\xbf" + pem, lambda pem: pem.replace(b"\n", b"\r\n")]
)
def test_what_editors_do_to_a_key_for_artifacts(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    found = verify_keys(tmp_path, change(public(RSA)))
    assert keys.signed_by_one_of(found, MANIFEST, rsa_signature())


def test_a_missing_key_for_artifacts_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none.pem"):
        keys.load_verify_keys((str(tmp_path / "none.pem"),))


@pytest.mark.parametrize("setting", ["ArtifactVerifyKey", "Security"])
@pytest.mark.parametrize("place", ["key.pem", "secrets/key.pem"])
def test_a_key_behind_a_dangling_link(accepted: Device, tmp_path: Path, setting: str, place: str) -> None:
    (tmp_path / place.partition("/")[0]).symlink_to("/data/secrets")
    path = str(tmp_path / place)
    accepted.configure(**{setting: {"AuthPrivateKey": path} if setting == "Security" else path})
    done = accepted.run("doctor", "--json")
    assert done.code == 78, done
    found = [check["message"] for check in done.json["checks"] if not check["ok"]]
    assert [message for message in found if "a link to /data/secrets, which does not exist; mount" in message]
    if setting == "Security":
        done = accepted.run("auth", "--fresh")
        assert done.code == 78, done
        assert "mount its partition" in done.err


def test_a_directory_in_place_of_a_key_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        keys.load(str(tmp_path))
    with pytest.raises(SettingsError):
        keys.load_verify_keys((str(tmp_path),))


def test_without_a_configured_key_there_are_no_verify_keys() -> None:
    assert keys.load_verify_keys(()) == []
