"""Artifacts that mender-artifact and GNU tar write."""

import hashlib
import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from helpers import corpus
from helpers.corpus import Artifact
from helpers.verifying import rejected_or_same, rejection, verify

from mender_oneshot.artifact.verify import PayloadFile, Verified


class Workshop:
    """A directory where mender-artifact works."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers = itertools.count()
        (path / "app").write_bytes(random.Random(1).randbytes(100_000) + bytes(100_000))
        (path / "app.conf").write_bytes(b"colour=blue\n")
        (path / "empty").write_bytes(b"")
        (path / ("n" * 150)).write_bytes(b"a name of 150 characters")
        (path / "meta.json").write_text('{"a":[1,2,{"b":null}]}')
        (path / "ArtifactInstall_Enter_00").write_text("#!/bin/sh\n")
        (path / "ArtifactCommit_Leave_10").write_text("#!/bin/sh\n:\n")
        private: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
            "rsa": rsa.generate_private_key(65537, 3072),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.keys = {name: key.public_key() for name, key in private.items()}
        for name, key in private.items():
            # 3.9.0 reads no PKCS#8.
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
            (path / f"{name}.pem").write_bytes(pem)

    def write(self, words: str) -> bytes:
        made = self.path / f"{next(self.numbers)}.mender"
        program = shutil.which("mender-artifact")
        assert program
        run = subprocess.run(
            [program, "write", *words.split(), "-o", str(made)], cwd=self.path, capture_output=True, text=True
        )
        assert made.exists(), run.stderr + run.stdout
        return made.read_bytes()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if not shutil.which("mender-artifact"):
        pytest.skip("mender-artifact is not installed")
    return Workshop(tmp_path_factory.mktemp("workshop"))


MODULE = "module-image -n release-1 -t board -T app"

ROOTFS = "rootfs-image -n release-1 -t board -f app"

BOOTSTRAP = "bootstrap-artifact -n release-1 -t board"


@pytest.mark.real
@pytest.mark.parametrize("compression", ["none", "gzip", "lzma"])
@pytest.mark.parametrize(
    "words",
    [
        MODULE,
        f"{MODULE} -f app",
        f"{MODULE} -f empty",
        f"{MODULE} -m meta.json",
        f"{MODULE} -f app -f app.conf -s ArtifactInstall_Enter_00 -s ArtifactCommit_Leave_10 -m meta.json",
        f"{MODULE} -f {'n' * 150}",
        f"{MODULE} -f app -k rsa.pem",
        f"{MODULE} -f app -k ec.pem",
        ROOTFS,
        f"{ROOTFS} -s ArtifactInstall_Enter_00 -k rsa.pem",
        BOOTSTRAP,
        f"{BOOTSTRAP} -t another-board -k ec.pem",
    ],
)
def test_what_mender_artifact_writes_is_accepted(workshop: Workshop, words: str, compression: str) -> None:
    verified = verify(workshop.write(f"{words} --compression {compression}"))
    assert verified.name == "release-1"
    assert "board" in verified.device_types
    kinds = {"module": "app", "rootfs": "rootfs-image", "bootstrap": None}
    assert verified.payload_type == kinds[words.partition("-")[0]]
    assert not verified.signed


@pytest.mark.real
def test_all_members_of_a_real_artifact_are_read(workshop: Workshop) -> None:
    written = workshop.write(
        f"{MODULE} -f app -t second -g stable -N old-1 -N old-2 -G g1 -G g2 -p colour:blue -d shape:round "
        "--clears-provides colour.*"
    )
    provides = {"artifact_name": "old-2", "artifact_group": "g1", "shape": "round"}
    content = (workshop.path / "app").read_bytes()
    assert verify(written, provides=provides) == Verified(
        name="release-1",
        group="stable",
        device_types=("board", "second"),
        payload_type="app",
        provides={"colour": "blue", "rootfs-image.app.version": "release-1"},
        clears_provides=("colour.*", "rootfs-image.app.*"),
        depends={"artifact_name": ("old-1", "old-2"), "artifact_group": ("g1", "g2"), "shape": ("round",)},
        signed=False,
        files=(PayloadFile("app", len(content), corpus.sha256(content)),),
    )
    assert "needs shape to be round, but this device has none" in rejection(
        written, provides=provides | {"shape": "none"}
    )


@pytest.mark.real
def test_the_rootfs_image_has_its_checksum_among_the_provides(workshop: Workshop) -> None:
    sum_ = hashlib.sha256((workshop.path / "app").read_bytes()).hexdigest()
    assert verify(workshop.write(ROOTFS)).provides["rootfs-image.checksum"] == sum_


@pytest.mark.real
@pytest.mark.parametrize(("key", "length"), [("rsa", 384), ("ec", 64)])
def test_the_check_gets_the_manifest_as_it_is_and_the_signature_decoded(
    workshop: Workshop, key: str, length: int
) -> None:
    public = workshop.keys[key]
    seen: list[bytes] = []

    def check(manifest: bytes, signature: bytes) -> bool:
        seen.append(signature)
        try:
            if isinstance(public, rsa.RSAPublicKey):
                public.verify(signature, manifest, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return len(signature) == length

    assert verify(workshop.write(f"{MODULE} -f app -k {key}.pem"), check_signature=check).signed
    assert len(seen) == 1
    assert "not signed" in rejection(workshop.write(f"{MODULE} -f app"), check_signature=check)


@pytest.mark.real
def test_augmented_artifacts_are_rejected_as_unsupported(workshop: Workshop) -> None:
    written = workshop.write(f"{MODULE} -f app.conf --augment-file app --augment-type app")
    assert "manifest-augment), which is not supported" in rejection(written)


@pytest.mark.real
@pytest.mark.parametrize("compression", ["none", "gzip", "lzma"])
def test_a_real_artifact_truncated_anywhere_is_rejected(workshop: Workshop, compression: str) -> None:
    written = workshop.write(f"{MODULE} -f app.conf -s ArtifactInstall_Enter_00 --compression {compression}")
    cuts = {*range(0, len(written), 512), *random.Random(2).sample(range(len(written)), 300)}
    for cut in sorted(cuts | {len(written) - 1}):
        rejection(written[:cut])


@pytest.mark.real
@pytest.mark.parametrize("compression", ["none", "gzip", "lzma"])
def test_a_real_artifact_with_a_byte_changed_is_rejected_or_has_the_same_members(
    workshop: Workshop, compression: str
) -> None:
    written = workshop.write(f"{MODULE} -f app.conf --compression {compression}")
    whole = verify(written)
    chance = random.Random(3)
    for at in range(len(written)):
        bent = bytearray(written)
        bent[at] ^= chance.randrange(1, 256)
        rejected_or_same(bytes(bent), whole)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["gnu", "ustar", "pax", "posix"])
def test_payload_archives_of_gnu_tar_are_read(tmp_path: Path, kind: str) -> None:
    program = shutil.which("tar")
    if not program:
        pytest.skip("tar is not installed")
    files = {"app": b"content", "e" * (90 if kind == "ustar" else 150): b"long", "bjørn": b"not ASCII"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    made = subprocess.run(
        [program, "-c", f"--format={kind}", *files], cwd=tmp_path, capture_output=True, check=True
    )
    verify(Artifact(files=files, payload_tar=made.stdout).bytes())
